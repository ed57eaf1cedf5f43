//! The transactions of membership: values, so that a service and a simulation make the same.

use model::NodeId;
use storage::{LeaseId, Revision, Txn};

use crate::record::{Owner, Record, Report, encode};
use crate::{Resource, keys};

impl Record {
    /// Makes the node a member under `lease`, unless there is one by its name. The revision that
    /// it commits at is the tenure's token.
    pub fn join(&self, id: &NodeId, lease: LeaseId) -> Txn {
        let key = keys::record_key(id);
        let txn = Txn::new().if_absent(key.clone());
        txn.put_leased(key, encode(self), lease)
    }
}

impl Report {
    /// Says it, under the tenure's lease.
    pub fn put(&self, id: &NodeId, lease: LeaseId) -> Txn {
        Txn::new().put_leased(keys::report(id), self.encode(), lease)
    }
}

impl Owner {
    /// Makes this the owner, unless there is one, under its tenure's lease. The revision that it
    /// commits at is the fencing token.
    pub fn claim(&self, resource: &Resource, lease: LeaseId) -> Txn {
        let txn = Txn::new().if_absent(resource.key());
        txn.put_leased(resource.key(), encode(self), lease)
    }
}

impl Resource {
    /// Lets `txn` take effect only while the resource is owned by the claim with this token.
    pub fn guard(&self, txn: Txn, token: u64) -> Txn {
        txn.if_revision(self.key(), Revision(token))
    }

    /// Gives the resource up, if that claim still holds.
    pub fn release(&self, token: u64) -> Txn {
        self.guard(Txn::new().delete(self.key()), token)
    }
}
