//! The nodes of a cluster and what each of them owns, as the membership has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use membership::{Membership, Ownership, Resource};
use model::NodeId;
use scheduler::Standing;
use storage::Txn;

use super::{Claim, ClusterError, Member, Slot};

/// What a [`super::Cluster`] answers without asking another node.
#[derive(Clone, Debug)]
pub struct Claims {
    membership: Membership,
    /// By the slots' numbers.
    resources: Arc<[Resource]>,
}

impl Claims {
    /// Those of a node and its neighbours.
    pub fn new(membership: Membership) -> Self {
        let names = Slot::all().map(|slot| slot.to_string().parse::<Resource>());
        Self {
            membership,
            // A slot's name is never too long, nor empty.
            resources: names.flatten().collect(),
        }
    }

    fn resource(&self, slot: Slot) -> &Resource {
        &self.resources[slot.number()]
    }

    /// See [`super::Cluster::me`].
    pub fn me(&self) -> Option<Member> {
        let tenure = self.membership.tenure()?;
        Some(Member {
            node: self.membership.id().clone(),
            token: tenure.token,
        })
    }

    /// See [`super::Cluster::members`].
    pub fn members(&self) -> Vec<Member> {
        self.membership.look(|roster| {
            let member = |(node, peer): (&NodeId, &membership::Peer)| Member {
                node: node.clone(),
                token: peer.token,
            };
            roster.peers().iter().map(member).collect()
        })
    }

    /// See [`super::Cluster::owner`].
    pub fn owner(&self, slot: Slot) -> Option<Member> {
        self.membership.look(|roster| {
            let (owner, token) = roster.owner(self.resource(slot))?;
            let node = owner.node.clone();
            Some(Member { node, token })
        })
    }

    /// See [`super::Cluster::should_own`].
    pub fn should_own(&self, slot: Slot) -> bool {
        let name = self.resource(slot).as_str().as_bytes();
        let here = self.membership.id();
        self.membership
            .look(|roster| roster.preferred(name) == Some(here))
    }

    /// See [`super::Cluster::keepers`].
    pub fn keepers(&self, slot: Slot, count: usize) -> Vec<Member> {
        let (name, here) = (
            self.resource(slot).as_str().as_bytes(),
            self.membership.id(),
        );
        self.membership.look(|roster| {
            let peers = roster.peers().iter();
            let mut others: BTreeMap<_, _> = peers
                .filter(|(node, _)| *node != here && roster.standing(node) < Standing::Draining)
                .collect();
            let mut keepers = Vec::new();
            while keepers.len() < count
                && let Some(node) = membership::owner(name, others.keys().copied())
                && let Some(peer) = others.remove(node)
            {
                keepers.push(Member {
                    node: node.clone(),
                    token: peer.token,
                });
            }
            keepers
        })
    }

    /// See [`super::Cluster::claim`].
    pub async fn claim(&self, slot: Slot) -> Result<Option<Arc<dyn Claim>>, ClusterError> {
        let claimed = self.membership.claim(self.resource(slot)).await;
        match claimed.map_err(|error| ClusterError::Claim(error.into()))? {
            membership::Claim::Mine(ownership) => Ok(Some(Arc::new(Owned(ownership)))),
            membership::Claim::Theirs(_) => Ok(None),
        }
    }
}

/// A slot that this node owns.
#[derive(Debug)]
struct Owned(Ownership);

#[async_trait]
impl Claim for Owned {
    fn token(&self) -> u64 {
        self.0.token()
    }

    fn holds(&self) -> bool {
        self.0.check().is_ok()
    }

    fn guard(&self, txn: Txn) -> Txn {
        self.0.guard(txn)
    }

    async fn release(&self) -> Result<(), ClusterError> {
        let released = self.0.release().await;
        released.map_err(|error| ClusterError::Claim(error.into()))
    }
}
