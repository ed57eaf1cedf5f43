//! Whose queue is whose: the membership, as the invoker asks for it, wired as a node wires it.

use std::sync::Arc;

use invoker::{Nodes, Peer, Tenure};
use membership::Membership;
use model::NodeId;
use scheduler::Standing;
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct Queues {
    membership: Membership,
    changes: watch::Sender<u64>,
}

impl Queues {
    pub fn new(membership: Membership) -> Self {
        Self {
            membership,
            changes: watch::Sender::new(0),
        }
    }

    /// Counts the changes of the roster and of the node's own tenure, for ever.
    pub async fn follow(self: Arc<Self>) {
        let (mut roster, mut tenures) = (self.membership.changes(), self.membership.tenures());
        loop {
            let tenure = self.membership.tenure();
            let over = async {
                match tenure {
                    Some(tenure) => self.membership.over(tenure.token).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Ok(()) = roster.changed() => (),
                Ok(()) = tenures.changed() => (),
                () = over => (),
            }
            self.changes.send_modify(|count| *count += 1);
        }
    }
}

impl Nodes for Queues {
    fn own(&self) -> Option<Tenure> {
        let tenure = self.membership.tenure()?;
        let (node, token) = (self.membership.id().clone(), tenure.token);
        Some(Tenure { node, token })
    }

    fn peers(&self) -> Vec<Peer> {
        self.membership.look(|roster| {
            let peers = roster.peers().iter().map(|(node, peer)| Peer {
                tenure: Tenure {
                    node: node.clone(),
                    token: peer.token,
                },
                takes_over: roster.standing(node) < Standing::Draining,
            });
            peers.collect()
        })
    }

    fn record_key(&self, node: &NodeId) -> Option<String> {
        Some(membership::record_key(node))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
