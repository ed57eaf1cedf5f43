//! What a node's other parts hold: whether it is a member, who else is, and what it owns.

use std::sync::Arc;

use model::NodeId;
use parking_lot::RwLock;
use scheduler::Standing;
use storage::{LeaseId, Revision, StorageError, Store, Txn, TxnOutcome};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{Config, MembershipError, Owner, Record, Report, Resource, Roster, Service};
use crate::{keys, record};

/// How often a claim is made that finds the resource neither free nor owned.
const CLAIM_TRIES_MAX: usize = 3;

/// One stretch of time in which the node is a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Names it among all tenures of all nodes; later ones have greater tokens.
    pub token: u64,
    /// What goes with the tenure is put under this lease.
    pub lease: LeaseId,
    /// When it ends, unless it is prolonged.
    pub until: Instant,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub id: NodeId,
    pub record: Record,
    pub store: Arc<dyn Store>,
    pub config: Config,
    pub tenure: watch::Sender<Option<Tenure>>,
    pub reports: watch::Sender<Option<Report>>,
    pub roster: RwLock<Roster>,
    /// Counts the changes of the roster.
    pub changes: watch::Sender<u64>,
}

impl Shared {
    fn tenure(&self) -> Option<Tenure> {
        // The task may be late; the clock decides.
        let is_now = |tenure: &Tenure| Instant::now() < tenure.until;
        self.tenure.borrow().filter(is_now)
    }
}

/// A node's handle of its membership; cheap to clone.
#[derive(Clone, Debug)]
pub struct Membership {
    shared: Arc<Shared>,
}

/// What a claim found.
#[derive(Debug)]
pub enum Claim {
    /// This node owns it.
    Mine(Ownership),
    /// Another node, or an earlier tenure of this one, owns it.
    Theirs(Owner),
}

/// A resource that this node owns, for as long as its tenure lasts and it does not release it.
#[derive(Debug)]
pub struct Ownership {
    shared: Arc<Shared>,
    resource: Resource,
    owner: Owner,
    token: u64,
}

impl Membership {
    /// The membership of node `id`, and the task that keeps it up once it is run.
    pub fn new(
        id: NodeId,
        record: Record,
        store: Arc<dyn Store>,
        config: Config,
    ) -> (Self, Service) {
        let shared = Arc::new(Shared {
            id,
            record,
            store,
            config,
            tenure: watch::Sender::new(None),
            reports: watch::Sender::new(None),
            roster: RwLock::default(),
            changes: watch::Sender::new(0),
        });
        let service = Service::new(shared.clone());
        (Self { shared }, service)
    }

    /// This node.
    pub fn id(&self) -> &NodeId {
        &self.shared.id
    }

    /// The tenure, if there is one at this moment. Costs a look at the clock.
    pub fn tenure(&self) -> Option<Tenure> {
        self.shared.tenure()
    }

    /// Tenures as the task sees them, each prolongation too; one that is over by the clock may
    /// still stand there for a moment.
    pub fn tenures(&self) -> watch::Receiver<Option<Tenure>> {
        self.shared.tenure.subscribe()
    }

    /// Waits until the node is a member.
    pub async fn joined(&self) -> Tenure {
        let mut tenure = self.shared.tenure.subscribe();
        loop {
            if let Some(tenure) = self.tenure() {
                return tenure;
            }
            // The handle keeps the sender alive, so that a change is all there can be.
            let _changed = tenure.changed().await;
        }
    }

    /// Waits until a tenure is over: what goes with it must have ended by then.
    pub async fn over(&self, token: u64) {
        let mut changes = self.shared.tenure.subscribe();
        while let Some(tenure) = self.tenure().filter(|tenure| tenure.token == token) {
            tokio::select! {
                biased;
                _changed = changes.changed() => (),
                () = tokio::time::sleep_until(tenure.until) => (),
            }
        }
    }

    /// Looks at all nodes. Others wait meanwhile, so look and go.
    pub fn look<R>(&self, look: impl FnOnce(&Roster) -> R) -> R {
        look(&self.shared.roster.read())
    }

    /// The same, to count in the scheduler's view what was sent off.
    pub fn look_mut<R>(&self, look: impl FnOnce(&mut Roster) -> R) -> R {
        look(&mut self.shared.roster.write())
    }

    /// Counts the changes of what [`Membership::look`] shows.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Says what this node has and does. Only the newest report goes out, at a bounded rate.
    pub fn report(&self, report: Report) {
        self.shared.reports.send_replace(Some(report));
    }

    /// Says what operators want of a node, or that they want nothing any more. It holds until it
    /// is changed, whether the node lives or not.
    pub async fn wish(
        &self,
        node: &NodeId,
        standing: Option<Standing>,
    ) -> Result<(), MembershipError> {
        let key = keys::wish(node);
        let txn = match standing {
            Some(standing) => Txn::new().put(key, record::encode_wish(standing)),
            None => Txn::new().delete(key),
        };
        let outcome = self.shared.store.transact(txn).await;
        let outcome = outcome.map_err(MembershipError::of_store("changing a node's standing"))?;
        // Without a compare there is no conflict.
        debug_assert!(outcome.is_committed());
        Ok(())
    }

    /// Makes this node the owner of a resource, unless another one is.
    pub async fn claim(&self, resource: &Resource) -> Result<Claim, MembershipError> {
        for _ in 0..CLAIM_TRIES_MAX {
            if let Some(claim) = self.claim_once(resource).await? {
                return Ok(claim);
            }
        }
        Err(MembershipError::Contended {
            resource: resource.clone(),
            tries: CLAIM_TRIES_MAX,
        })
    }

    /// None when the resource was owned a moment ago and is no more.
    async fn claim_once(&self, resource: &Resource) -> Result<Option<Claim>, MembershipError> {
        let Tenure { token, lease, .. } = self.tenure().ok_or(MembershipError::NotMember)?;
        let owner = Owner {
            node: self.shared.id.clone(),
            token,
        };
        let key = resource.key();
        let txn = owner.claim(resource, lease);
        let made = match self.shared.store.transact(txn).await {
            Ok(TxnOutcome::Committed { revision }) => Some(revision),
            Ok(TxnOutcome::Conflict) => None,
            Err(StorageError::LeaseNotFound(_)) => return Err(MembershipError::NotMember),
            // It is open whether it was made: what is there tells.
            Err(StorageError::Unanswered { .. }) => None,
            Err(source) => {
                let doing = "claiming a resource";
                return Err(MembershipError::Storage { doing, source });
            }
        };
        let (found, revision) = match made {
            Some(revision) => (owner.clone(), revision),
            None => match self.found(&key).await? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        if found != owner {
            return Ok(Some(Claim::Theirs(found)));
        }
        let ownership = Ownership {
            shared: self.shared.clone(),
            resource: resource.clone(),
            owner,
            token: revision.0,
        };
        ownership.check()?;
        Ok(Some(Claim::Mine(ownership)))
    }

    async fn found(&self, key: &str) -> Result<Option<(Owner, Revision)>, MembershipError> {
        let found = self.shared.store.get(key.as_bytes()).await;
        let found = found.map_err(MembershipError::of_store("reading a resource's owner"))?;
        let Some(found) = found else {
            return Ok(None);
        };
        let owner = record::decode(&found.value).map_err(|why| MembershipError::Unreadable {
            key: key.to_owned(),
            why,
        })?;
        Ok(Some((owner, found.revision)))
    }
}

impl Ownership {
    /// What is owned.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The fencing token: greater than that of every earlier owner.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Whether the node may still act as the owner, by its own clock. Asked before each act, it
    /// costs a look at the clock.
    pub fn check(&self) -> Result<(), MembershipError> {
        let tenure = self.shared.tenure();
        let is_same = tenure.is_some_and(|tenure| tenure.token == self.owner.token);
        is_same.then_some(()).ok_or(MembershipError::NotMember)
    }

    /// A transaction that takes effect only while this node owns the resource, whatever its clock
    /// says: where that is over it is a conflict.
    pub fn guard(&self, txn: Txn) -> Txn {
        self.resource.guard(txn, self.token)
    }

    /// Gives the resource up, so that another node may have it at once: what depends on owning it
    /// must have ended.
    pub async fn release(&self) -> Result<(), MembershipError> {
        let txn = self.resource.release(self.token);
        let outcome = self.shared.store.transact(txn).await;
        match outcome.map_err(MembershipError::of_store("releasing a resource"))? {
            TxnOutcome::Committed { .. } => Ok(()),
            // It was lost before: others may have it already.
            TxnOutcome::Conflict => Ok(()),
        }
    }
}
