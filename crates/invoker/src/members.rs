//! Whose queue is whose in a cluster: the membership, as the invoker asks for it.

use std::sync::Arc;

use membership::Membership;
use model::NodeId;
use scheduler::Standing;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::nodes::{Nodes, Peer, Tenure};

/// The nodes of a cluster, whose queues are in one store.
#[derive(Debug)]
pub struct Members {
    membership: Membership,
    changes: watch::Sender<u64>,
}

impl Members {
    /// Those that `membership` knows of; [`Self::follow`] is to run beside.
    pub fn new(membership: Membership) -> Self {
        Self {
            membership,
            changes: watch::Sender::new(0),
        }
    }

    /// Counts the changes of the roster and of the node's own tenure until `stop`: its end by the
    /// clock is one, though nobody tells of it.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
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
                () = stop.cancelled() => return,
                Ok(()) = roster.changed() => (),
                Ok(()) = tenures.changed() => (),
                () = over => (),
            }
            self.changes.send_modify(|count| *count += 1);
        }
    }
}

impl Nodes for Members {
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
