//! What a command does to the tables, inside one transaction of the engine.
//!
//! Each command of a batch sees what the ones before it did. An outer error is the disk's and
//! fails the batch; a refusal concerns its own command and leaves the tables as they were.

use std::time::Duration;

use bytes::Bytes;
use redb::{ReadableTable, Table, WriteTransaction};

use super::disk::Disk;
use super::lease::Leases;
use super::record::{KV, LEASE_KEYS, LEASES, META, META_LEASE, META_REVISION, Record};
use crate::{Change, Compare, Event, LeaseId, Op, Revision, StorageError, Txn, TxnOutcome};

/// What a command gave; each reads the field that it is about.
#[derive(Clone, Copy)]
pub struct Applied {
    pub outcome: TxnOutcome,
    pub lease: LeaseId,
}

impl Default for Applied {
    fn default() -> Self {
        Self {
            outcome: TxnOutcome::Conflict,
            lease: LeaseId(0),
        }
    }
}

/// The open tables of a batch.
pub struct Apply<'t> {
    disk: &'t Disk,
    kv: Table<'t, &'static [u8], &'static [u8]>,
    leases: Table<'t, u64, u64>,
    lease_keys: Table<'t, (u64, &'static [u8]), ()>,
    meta: Table<'t, &'static str, u64>,
    revision: Revision,
    events: Vec<Event>,
    dirty: bool,
}

const DOING: &str = "writing a transaction";

impl<'t> Apply<'t> {
    pub fn new(disk: &'t Disk, write: &'t WriteTransaction) -> Result<Self, StorageError> {
        let fail = |error| disk.failed(DOING, error);
        let meta = write.open_table(META).map_err(fail)?;
        let revision = meta.get(META_REVISION).map_err(|e| disk.failed(DOING, e))?;
        let revision = Revision(revision.map_or(0, |revision| revision.value()));
        Ok(Self {
            disk,
            kv: write.open_table(KV).map_err(fail)?,
            leases: write.open_table(LEASES).map_err(fail)?,
            lease_keys: write.open_table(LEASE_KEYS).map_err(fail)?,
            meta,
            revision,
            events: Vec::new(),
            dirty: false,
        })
    }

    /// Closes the tables; gives the events, the revision, and whether there is anything to commit.
    pub fn finish(mut self) -> Result<(Vec<Event>, Revision, bool), StorageError> {
        if !self.events.is_empty() {
            let put = self.meta.insert(META_REVISION, self.revision.0);
            put.map_err(|e| self.disk.failed(DOING, e))?;
        }
        Ok((self.events, self.revision, self.dirty))
    }

    pub fn transact(
        &mut self,
        txn: &Txn,
        alive: &Leases,
    ) -> Result<Result<Applied, StorageError>, StorageError> {
        for compare in &txn.compares {
            if !self.holds(compare)? {
                return Ok(Ok(Applied::default()));
            }
        }
        for op in &txn.ops {
            if let Op::Put {
                lease: Some(lease), ..
            } = op
                && !self.lease_lives(*lease, alive)?
            {
                return Ok(Err(StorageError::LeaseNotFound(*lease)));
            }
        }
        let revision = Revision(self.revision.0 + 1);
        let mut changed = false;
        for op in &txn.ops {
            changed |= self.change(op, revision)?;
        }
        if changed {
            self.revision = revision;
        }
        let outcome = TxnOutcome::Committed {
            revision: self.revision,
        };
        Ok(Ok(Applied {
            outcome,
            ..Applied::default()
        }))
    }

    pub fn grant(&mut self, ttl: Duration) -> Result<Applied, StorageError> {
        let last = self
            .meta
            .get(META_LEASE)
            .map_err(|e| self.disk.failed(DOING, e))?;
        let id = last.map_or(0, |last| last.value()) + 1;
        let put = self.meta.insert(META_LEASE, id);
        put.map_err(|e| self.disk.failed(DOING, e))?;
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let put = self.leases.insert(id, ttl_ms);
        put.map_err(|e| self.disk.failed(DOING, e))?;
        self.dirty = true;
        Ok(Applied {
            lease: LeaseId(id),
            ..Applied::default()
        })
    }

    /// Deletes the lease and its keys; false when there is no such lease.
    pub fn end_lease(&mut self, lease: LeaseId) -> Result<bool, StorageError> {
        let removed = self.leases.remove(lease.0);
        if removed.map_err(|e| self.disk.failed(DOING, e))?.is_none() {
            return Ok(false);
        }
        self.dirty = true;
        let keys = self
            .keys_of(lease)
            .map_err(|e| self.disk.failed(DOING, e))?;
        let revision = Revision(self.revision.0 + 1);
        let mut changed = false;
        for key in keys {
            changed |= self.change(&Op::Delete { key }, revision)?;
        }
        if changed {
            self.revision = revision;
        }
        Ok(true)
    }

    fn keys_of(&self, lease: LeaseId) -> Result<Vec<Bytes>, redb::Error> {
        let mut keys = Vec::new();
        for row in self
            .lease_keys
            .range((lease.0, &[][..])..(lease.0 + 1, &[][..]))?
        {
            let (key, ()) = (row?.0, ());
            keys.push(Bytes::copy_from_slice(key.value().1));
        }
        Ok(keys)
    }

    /// A lease granted earlier in this batch is only in the table, not yet among the deadlines.
    fn lease_lives(&self, lease: LeaseId, alive: &Leases) -> Result<bool, StorageError> {
        let stored = self
            .leases
            .get(lease.0)
            .map_err(|e| self.disk.failed(DOING, e))?;
        Ok(stored.is_some() && alive.contains(lease))
    }

    fn holds(&self, compare: &Compare) -> Result<bool, StorageError> {
        let found = self
            .kv
            .get(&compare.key()[..])
            .map_err(|e| self.disk.failed(DOING, e))?;
        let found = found
            .as_ref()
            .map(|found| self.disk.decode(found.value()))
            .transpose()?;
        Ok(match (compare, found) {
            (Compare::Absent(_), found) => found.is_none(),
            (Compare::Revision(_, revision), Some(found)) => found.revision == *revision,
            (Compare::Value(_, value), Some(found)) => found.value == &value[..],
            (Compare::Revision(..) | Compare::Value(..), None) => false,
        })
    }

    /// Makes one change; false when there was nothing to delete.
    fn change(&mut self, op: &Op, revision: Revision) -> Result<bool, StorageError> {
        let key = op.key();
        let (old, change) = match op {
            Op::Put { value, lease, .. } => {
                let record = Record {
                    revision,
                    lease: *lease,
                    value,
                }
                .encode();
                let old = self.kv.insert(&key[..], record.as_slice());
                (
                    old.map_err(|e| self.disk.failed(DOING, e))?,
                    Change::Put(value.clone()),
                )
            }
            Op::Delete { .. } => {
                let old = self
                    .kv
                    .remove(&key[..])
                    .map_err(|e| self.disk.failed(DOING, e))?;
                if old.is_none() {
                    return Ok(false);
                }
                (old, Change::Delete)
            }
        };
        let old_lease = match &old {
            Some(old) => self.disk.decode(old.value())?.lease,
            None => None,
        };
        drop(old);
        if let Some(lease) = old_lease {
            let removed = self.lease_keys.remove((lease.0, &key[..]));
            removed.map_err(|e| self.disk.failed(DOING, e))?;
        }
        if let Op::Put {
            lease: Some(lease), ..
        } = op
        {
            let put = self.lease_keys.insert((lease.0, &key[..]), ());
            put.map_err(|e| self.disk.failed(DOING, e))?;
        }
        self.events.push(Event {
            key: key.clone(),
            change,
            revision,
        });
        self.dirty = true;
        Ok(true)
    }
}
