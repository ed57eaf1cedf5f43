//! The other nodes, as calls need them: where they are, and whether one that runs a call is gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use membership::{Membership, Roster};
use model::NodeId;
use parking_lot::{Mutex, RwLock};
use scheduler::{Resources, Standing};
use tokio_util::sync::CancellationToken;
use transport::Resolve;

use super::metrics;

/// Reports that a node could have made by the time that what was assumed of it is forgotten.
const ASSUMED_REPORTS: u32 = 4;

/// Follows the roster, so that no call has to.
pub(super) struct Neighbours {
    membership: Membership,
    /// The token of each node's tenure, and what is cancelled when that is over.
    tenures: RwLock<BTreeMap<NodeId, (u64, CancellationToken)>>,
    /// Whether this node takes new calls.
    is_open: AtomicBool,
    /// Whether it is about to stop.
    is_closing: AtomicBool,
    /// Nodes that calls were sent to, and since when.
    assumed: Mutex<BTreeMap<NodeId, Instant>>,
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
            is_closing: AtomicBool::new(false),
            assumed: Mutex::default(),
        }
    }

    /// Whether this node takes new calls, by its own word and by what operators want.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed) && !self.is_closing.load(Ordering::Relaxed)
    }

    /// Takes no new calls from now on.
    pub fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    /// Is cancelled once the node's present tenure is over; none if it has none.
    pub fn gone(&self, node: &NodeId) -> Option<CancellationToken> {
        let tenures = self.tenures.read();
        tenures.get(node).map(|(_, gone)| gone.clone())
    }

    /// Counts a call that is sent to a node in what is known of it, until the node's next word:
    /// without it, all calls between two words would go to whoever was best at the first.
    pub fn assume(&self, node: &NodeId, needs: Resources) {
        let assume = |roster: &mut Roster| roster.view_mut().assume(node, needs);
        if self.membership.look_mut(assume) {
            let mut assumed = self.assumed.lock();
            assumed.entry(node.clone()).or_insert_with(Instant::now);
        }
    }

    /// Goes back to a node's own words where what was assumed is older than `age`: a node that is
    /// as it was before says nothing, and such calls would be counted for ever.
    fn forget_assumed(&self, age: Duration) {
        let now = Instant::now();
        let mut old = Vec::new();
        self.assumed.lock().retain(|node, since| {
            let keep = now.duration_since(*since) < age;
            if !keep {
                old.push(node.clone());
            }
            keep
        });
        for node in old {
            self.membership.look_mut(|roster| {
                if let Some(load) = roster.report(&node).map(|report| report.load.clone()) {
                    let standing = roster.standing(&node);
                    if standing != Standing::Lost {
                        roster.view_mut().put(&node, standing, &load);
                    }
                }
            });
        }
    }

    /// Follows the roster until `stop`; `report_every` is the least time between two words of a
    /// node.
    pub async fn follow(self: Arc<Self>, report_every: Duration, stop: CancellationToken) {
        let mut changes = self.membership.changes();
        let age = report_every * ASSUMED_REPORTS;
        let mut ticks = tokio::time::interval(age);
        loop {
            changes.borrow_and_update();
            self.look();
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.forget_assumed(age),
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
    async fn what_is_assumed_of_a_node_that_says_nothing_is_forgotten() {
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
        neighbours.assume(there.id(), ONE);
        assert!(!has_room(&here));
        neighbours.forget_assumed(Duration::from_secs(3600));
        assert!(!has_room(&here));
        neighbours.forget_assumed(Duration::ZERO);
        assert!(has_room(&here));
        let gone = neighbours.gone(there.id());
        assert!(gone.is_none(), "nobody follows yet");
        neighbours.look();
        let gone = neighbours.gone(there.id()).unwrap();
        assert!(!gone.is_cancelled());
    }
}
