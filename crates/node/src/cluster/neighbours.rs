//! The other nodes, as calls need them: where they are, and whether one that runs a call is gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use membership::{Membership, Roster};
use model::NodeId;
use parking_lot::RwLock;
use scheduler::{Assumed, Brief, Resources, Standing};
use tokio_util::sync::CancellationToken;
use transport::Resolve;

use super::metrics;

/// Follows the roster, so that no call has to.
pub(super) struct Neighbours {
    membership: Membership,
    /// The token of each node's tenure, and what is cancelled when that is over.
    tenures: RwLock<BTreeMap<NodeId, (u64, CancellationToken)>>,
    /// Whether this node takes new calls.
    is_open: AtomicBool,
    /// Cancelled when it is about to stop.
    closing: CancellationToken,
    /// Whether nobody is told anything more.
    is_silent: AtomicBool,
}

/// A call that is sent to a node: counted in what is known of that node until this is dropped.
pub(super) struct Sent {
    membership: Membership,
    assumed: Assumed,
    /// Cancelled once the node is no member any more.
    pub gone: CancellationToken,
}

impl Sent {
    /// Takes what the node said of itself with its answer.
    pub fn hear(&self, brief: Option<Brief>) {
        if let Some(brief) = brief {
            let node = self.assumed.node();
            let hear = |roster: &mut Roster| roster.view_mut().hear(node, brief);
            self.membership.look_mut(hear);
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let release = |roster: &mut Roster| roster.view_mut().release(&self.assumed);
        self.membership.look_mut(release);
    }
}

/// No tenure of the node is known.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not in the cluster now")]
struct NotThere(NodeId);

impl Neighbours {
    pub fn new(membership: Membership) -> Self {
        Self {
            membership,
            tenures: RwLock::default(),
            is_open: AtomicBool::new(true),
            closing: CancellationToken::new(),
            is_silent: AtomicBool::new(false),
        }
    }

    /// Whether this node takes new calls, by its own word and by what operators want.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed) && !self.closing.is_cancelled()
    }

    /// Takes no new calls from now on.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Whoever waits for this node's word has lost it from now on.
    pub fn fall_silent(&self) {
        self.is_silent.store(true, Ordering::Release);
    }

    pub fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Acquire)
    }

    /// Is cancelled when this node is about to stop.
    pub fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Is cancelled once the node's present tenure is over; none if it has none.
    pub fn gone(&self, node: &NodeId) -> Option<CancellationToken> {
        let tenures = self.tenures.read();
        tenures.get(node).map(|(_, gone)| gone.clone())
    }

    /// Sends a call to a node; none if no tenure of it is known.
    pub fn send(&self, node: &NodeId, needs: Resources) -> Option<Sent> {
        let gone = self.gone(node)?;
        let assume = |roster: &mut Roster| roster.view_mut().assume(node, needs);
        Some(Sent {
            assumed: self.membership.look_mut(assume)?,
            membership: self.membership.clone(),
            gone,
        })
    }

    /// Follows the roster until `stop`.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut changes = self.membership.changes();
        loop {
            changes.borrow_and_update();
            self.look();
            tokio::select! {
                () = stop.cancelled() => return,
                // The membership that is held here keeps the sender alive.
                _ = changes.changed() => (),
            }
        }
    }

    fn look(&self) {
        let here = self.membership.id();
        let (standing, tokens) = self.membership.look(|roster| {
            let peers = roster.peers().iter();
            let tokens: Vec<_> = peers
                .map(|(node, peer)| (node.clone(), peer.token))
                .collect();
            // A node without a tenure is lost to others; whom it can serve, it serves.
            (roster.wish(here).unwrap_or_default(), tokens)
        });
        self.is_open
            .store(standing == Standing::Serving, Ordering::Relaxed);
        ::metrics::gauge!(metrics::NODES).set(tokens.len() as f64);
        let mut tenures = self.tenures.write();
        let is_over = |node: &NodeId, token: u64| {
            let same = |(name, now): &(NodeId, u64)| name == node && *now == token;
            !tokens.iter().any(same)
        };
        tenures.retain(|node, (token, gone)| {
            let over = is_over(node, *token);
            if over {
                gone.cancel();
            }
            !over
        });
        for (node, token) in tokens {
            tenures
                .entry(node)
                .or_insert_with(|| (token, CancellationToken::new()));
        }
    }
}

#[async_trait]
impl Resolve for Neighbours {
    async fn resolve(
        &self,
        node: &NodeId,
    ) -> Result<SocketAddr, Box<dyn std::error::Error + Send + Sync>> {
        let address = self.membership.look(|roster| {
            let peer = roster.peers().get(node);
            peer.map(|peer| peer.record.address.clone())
        });
        let address = address.ok_or_else(|| NotThere(node.clone()))?;
        Ok(address.parse()?)
    }
}

#[cfg(test)]
mod tests {
    use membership::{Config, Record, Report};
    use scheduler::{Demand, Load, Policy, Tag, Weights, decide};
    use storage::{RedbStore, Store};

    use super::*;

    const ONE: Resources = Resources {
        places: 1,
        memory_bytes: 0,
    };

    fn member(name: &str, store: &Arc<dyn Store>) -> Membership {
        let record = Record {
            address: "127.0.0.1:1".into(),
            software: "1".into(),
        };
        let (id, store) = (name.parse().unwrap(), store.clone());
        let (membership, service) = Membership::new(id, record, store, Config::default());
        tokio::spawn(service.run(CancellationToken::new()));
        membership
    }

    fn has_room(membership: &Membership) -> bool {
        let demand = Demand {
            here: membership.id().clone(),
            version: Tag(1),
            image_bytes: 0,
            needs: ONE,
            input_bytes: 0,
            data: Vec::new(),
            run_us: 1,
            avoid: Vec::new(),
            policy: Policy::default(),
            seed: 0,
        };
        let weights = Weights::default();
        membership.look(|roster| decide(roster.view(), &demand, &weights).outcome.is_ok())
    }

    #[tokio::test]
    async fn a_call_counts_at_the_node_that_it_was_sent_to_until_it_is_over() {
        let store = RedbStore::in_memory(storage::Config::default()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let (here, there) = (member("n1", &store), member("n2", &store));
        there.report(Report {
            standing: Standing::Serving,
            load: Load {
                capacity: ONE,
                ..Load::default()
            },
        });
        let mut changes = here.changes();
        while !has_room(&here) {
            changes.changed().await.unwrap();
        }
        let neighbours = Neighbours::new(here.clone());
        let sent = neighbours.send(there.id(), ONE);
        assert!(sent.is_none(), "nobody follows yet");
        neighbours.look();
        let sent = neighbours.send(there.id(), ONE).unwrap();
        assert!(!sent.gone.is_cancelled());
        assert!(!has_room(&here));
        drop(sent);
        assert!(has_room(&here));
    }
}
