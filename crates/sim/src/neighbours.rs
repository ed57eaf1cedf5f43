//! The other nodes, as calls need them: whether one that runs a call is gone, and what was sent to
//! whom.

use std::collections::BTreeMap;

use membership::{Membership, Roster};
use model::NodeId;
use parking_lot::Mutex;
use scheduler::{Assumed, Brief, Resources};
use tokio_util::sync::CancellationToken;

pub(crate) struct Neighbours {
    membership: Membership,
    /// The token of each node's tenure, and what is cancelled when that is over.
    tenures: Mutex<BTreeMap<NodeId, (u64, CancellationToken)>>,
    /// The roster's turnover when it was last looked at.
    turnover: Mutex<u64>,
}

/// A call that is sent to a node: counted in what is known of that node until this is dropped.
pub(crate) struct Sent {
    membership: Membership,
    assumed: Assumed,
    /// Cancelled once the node is no member any more.
    pub gone: CancellationToken,
}

impl Sent {
    /// Takes what the node said of itself with its answer.
    pub fn hear(&self, brief: Brief) {
        let node = self.assumed.node();
        self.membership
            .look_mut(|roster| roster.view_mut().hear(node, brief));
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let release = |roster: &mut Roster| roster.view_mut().release(&self.assumed);
        self.membership.look_mut(release);
    }
}

impl Neighbours {
    pub fn new(membership: Membership) -> Self {
        Self {
            membership,
            tenures: Mutex::default(),
            turnover: Mutex::default(),
        }
    }

    /// Sends a call to a node; none if no tenure of it is known.
    pub fn send(&self, node: &NodeId, needs: Resources) -> Option<Sent> {
        let gone = self.tenures.lock().get(node)?.1.clone();
        let assume = |roster: &mut Roster| roster.view_mut().assume(node, needs);
        Some(Sent {
            assumed: self.membership.look_mut(assume)?,
            membership: self.membership.clone(),
            gone,
        })
    }

    /// What is cancelled once a node is no member any more; none if no tenure of it is known.
    pub fn gone(&self, node: &NodeId) -> Option<CancellationToken> {
        Some(self.tenures.lock().get(node)?.1.clone())
    }

    /// Follows the roster, for ever.
    pub async fn follow(&self) {
        let mut changes = self.membership.changes();
        loop {
            changes.borrow_and_update();
            self.look();
            // The membership that is held here keeps the sender alive.
            let _changed = changes.changed().await;
        }
    }

    fn look(&self) {
        let mut tenures = self.tenures.lock();
        let mut turnover = self.turnover.lock();
        self.membership.look(|roster| {
            // Most changes are reports.
            if std::mem::replace(&mut *turnover, roster.turnover()) == roster.turnover() {
                return;
            }
            let peers = roster.peers();
            tenures.retain(|node, (token, gone)| {
                let is_there = peers.get(node).is_some_and(|peer| peer.token == *token);
                if !is_there {
                    gone.cancel();
                }
                is_there
            });
            for (node, peer) in peers {
                let fresh = || (peer.token, CancellationToken::new());
                tenures.entry(node.clone()).or_insert_with(fresh);
            }
        });
    }
}
