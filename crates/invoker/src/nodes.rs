//! What the invoker needs to know of the nodes that share its store; the node wires it to its
//! membership.

use std::fmt;

use model::{InvocationId, NodeId};
use serde::{Deserialize, Serialize};
use storage::{Store, Txn};
use tokio::sync::watch;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::InvokerError;

/// One stretch of time in which a node is a member of its cluster: what owns a queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tenure {
    /// The node.
    pub node: NodeId,
    /// The store's revision of the node's record; a later tenure has a greater one. 0 is that of
    /// a node alone, which never ends.
    pub token: u64,
}

/// A node that is a member, as far as is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its tenure.
    pub tenure: Tenure,
    /// Whether it takes over what others leave: one that is about to stop does not.
    pub takes_over: bool,
}

/// Which nodes there are. All but [`Nodes::own`] may be late; the store has the last word.
///
/// A node wires it to its `membership::Membership`:
///
/// - `own`: `membership.tenure()`, with `membership.id()` for the name. It must look at the clock
///   each time, as that does.
/// - `peers`: of `membership.look`, every node of `Roster::peers` with its token; it takes over
///   while its standing is below `Draining`.
/// - `record_key`: `membership::record_key(node)`.
/// - `changes`: a counter of its own, which a task raises when `membership.changes()` or
///   `membership.tenures()` changes, and when a tenure's `until` has come
///   (`membership.over(token)`). Changes of the load may raise it too: they cost nothing here.
///
/// [`crate::Alone`] is for a node that shares its store with nobody.
pub trait Nodes: Send + Sync + fmt::Debug + 'static {
    /// The tenure in which this node is; none once it is over by the node's own clock.
    fn own(&self) -> Option<Tenure>;

    /// Every member that is known, this node too.
    fn peers(&self) -> Vec<Peer>;

    /// The key in the store of a node's record, which is there for as long as a tenure lasts and
    /// whose revision is the tenure's token. None for a node alone.
    fn record_key(&self, node: &NodeId) -> Option<String>;

    /// Counts the changes of what `own` and `peers` say.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// A node that shares its store with nobody: it owns whatever there is.
#[derive(Debug)]
pub struct Alone {
    tenure: Tenure,
    changes: watch::Sender<u64>,
}

impl Default for Alone {
    fn default() -> Self {
        let Ok(node) = "alone".parse() else {
            unreachable!("`alone` is a DNS label");
        };
        Self {
            tenure: Tenure { node, token: 0 },
            changes: watch::Sender::new(0),
        }
    }
}

impl Nodes for Alone {
    fn own(&self) -> Option<Tenure> {
        Some(self.tenure.clone())
    }

    fn peers(&self) -> Vec<Peer> {
        vec![Peer {
            tenure: self.tenure.clone(),
            takes_over: true,
        }]
    }

    fn record_key(&self, _node: &NodeId) -> Option<String> {
        None
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Tenure {
    /// Whether it is that of a node alone.
    pub(crate) fn is_alone(&self) -> bool {
        self.token == 0
    }
}

/// A transaction that takes effect only while `tenure` lasts, whatever clocks say.
pub(crate) fn guard(nodes: &dyn Nodes, tenure: &Tenure, txn: Txn) -> Txn {
    match nodes.record_key(&tenure.node) {
        Some(key) => txn.if_revision(key, storage::Revision(tenure.token)),
        None => txn,
    }
}

/// Whether a tenure is over for good, by the store. It must have begun: then what is found can
/// only be its own record, or what came after it.
pub(crate) async fn is_over(
    nodes: &dyn Nodes,
    store: &dyn Store,
    tenure: &Tenure,
) -> Result<bool, InvokerError> {
    let Some(key) = nodes.record_key(&tenure.node) else {
        // A node alone: all others are gone, and it itself never is.
        return Ok(nodes.own().as_ref() != Some(tenure));
    };
    let record = store.get(key.as_bytes()).await?;
    Ok(record.is_none_or(|record| record.revision.0 != tenure.token))
}

/// Which part of what belongs to all nodes is a node's: each invocation falls to the one that
/// scores highest with it (rendezvous hashing: Thaler and Ravishankar, 1998), so that nodes which
/// know the same peers share it without a word.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    own: u64,
    others: Vec<u64>,
}

impl Share {
    /// The share of `own` beside those of `peers` that take over; none where it does not itself.
    pub fn of(own: &Tenure, peers: &[Peer]) -> Option<Self> {
        let seed = |tenure: &Tenure| xxh3_64(tenure.node.as_str().as_bytes());
        let is_own = |peer: &&Peer| peer.tenure.node == own.node;
        if peers.iter().any(|peer| is_own(&peer) && !peer.takes_over) {
            return None;
        }
        let others = peers.iter().filter(|peer| peer.takes_over && !is_own(peer));
        Some(Self {
            own: seed(own),
            others: others.map(|peer| seed(&peer.tenure)).collect(),
        })
    }

    pub fn has(&self, id: InvocationId) -> bool {
        let id = id.as_u128().to_le_bytes();
        let score = |seed: u64| (xxh3_64_with_seed(&id, seed), seed);
        let own = score(self.own);
        self.others.iter().all(|other| score(*other) < own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(n: usize, takes_over: bool) -> Peer {
        let node = format!("n{n}").parse().expect("a label");
        let token = n as u64 + 1;
        Peer {
            tenure: Tenure { node, token },
            takes_over,
        }
    }

    proptest! {
        /// Of nodes that know the same peers, exactly one has each invocation, and none that is
        /// about to stop.
        #[test]
        fn each_invocation_is_in_one_share(
            takes in prop::collection::vec(any::<bool>(), 1..8),
            ids in prop::collection::vec(any::<u64>(), 1..50),
        ) {
            let peers: Vec<_> = takes.iter().enumerate().map(|(n, takes)| peer(n, *takes)).collect();
            let shares: Vec<_> = peers
                .iter()
                .map(|peer| Share::of(&peer.tenure, &peers))
                .collect();
            for id in ids {
                let id = InvocationId::new(id >> 16);
                let has = |share: &&Option<Share>| share.as_ref().is_some_and(|s| s.has(id));
                let count = shares.iter().filter(has).count();
                prop_assert_eq!(count, usize::from(takes.contains(&true)));
            }
        }
    }

    #[test]
    fn shares_are_even_and_a_node_that_is_not_known_yet_has_one() {
        const IDS: u64 = 3000;
        let peers: Vec<_> = (0..3).map(|n| peer(n, true)).collect();
        let ids: Vec<_> = (0..IDS).map(InvocationId::new).collect();
        for known in [&peers[..], &peers[1..]] {
            let share = Share::of(&peers[0].tenure, known).expect("it takes over");
            let count = ids.iter().filter(|id| share.has(**id)).count();
            assert!((800..1200).contains(&count), "{count} of {IDS}");
        }
    }
}
