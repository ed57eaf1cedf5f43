//! What state must know of the cluster, and how it asks other nodes. Who composes a node provides
//! it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use memory::Part;
use model::NodeId;
use storage::Txn;
use tokio::sync::watch;

use super::Slot;

/// A node, in one stretch of its membership or of its owning something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Names the stretch: of two of them, the later one's is greater.
    pub token: u64,
}

/// A request that could not be made, or was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The node was not reached: nothing was done.
    #[error("{node} was not reached")]
    Unreached {
        /// The node.
        node: NodeId,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer did not come: whether the request was carried out is not known.
    #[error("{node} did not answer")]
    Unanswered {
        /// The node.
        node: NodeId,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A slot could not be claimed.
    #[error("claiming a part of the state")]
    Claim(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Bytes of an answer that gives bytes of a value, before these.
pub const ANSWER_HEAD_BYTES: usize = 36;

/// Where an answer is to go.
#[derive(Debug, Default)]
pub struct Room {
    /// About how many bytes it has, if they may be many; else 0.
    pub bytes: usize,
    /// Where all goes that comes after its first [`ANSWER_HEAD_BYTES`], if there is such a place.
    pub part: Option<Part>,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Came {
    /// All of it, but what went to where there was room for it.
    pub bytes: Bytes,
    /// That part, and how many bytes of it.
    pub rest: Option<(Part, usize)>,
}

/// The other nodes, and which of them owns what.
#[async_trait]
pub trait Cluster: Send + Sync + fmt::Debug {
    /// This node and its membership; none while it is no member.
    fn me(&self) -> Option<Member>;

    /// All nodes that are members, as far as is known here, this one among them.
    fn members(&self) -> Vec<Member>;

    /// Who owns a slot, with the token of its claim, as far as is known here.
    fn owner(&self, slot: Slot) -> Option<Member>;

    /// Whether this node should own a slot, of all that are there.
    fn should_own(&self, slot: Slot) -> bool;

    /// The nodes that should keep copies of a slot's values, `count` of those that stay besides
    /// this one, or as many as there are: first the one that should own it next.
    fn keepers(&self, slot: Slot, count: usize) -> Vec<Member>;

    /// Changes whenever what the others tell may have changed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Makes this node the owner of a slot; none if another one is.
    async fn claim(&self, slot: Slot) -> Result<Option<Arc<dyn Claim>>, ClusterError>;

    /// Has [`crate::Serve::answer`] of another node answer a request, which is `head` and then
    /// `data`, within `timeout`. Its answer goes where there is room for it. A future that is
    /// dropped has given that back.
    async fn ask(
        &self,
        node: &NodeId,
        head: Bytes,
        data: &[u8],
        room: Room,
        timeout: Duration,
    ) -> Result<Came, ClusterError>;
}

/// That this node owns a slot.
#[async_trait]
pub trait Claim: Send + Sync + fmt::Debug {
    /// The fencing token: greater than that of every earlier owner of the slot.
    fn token(&self) -> u64;

    /// Whether the node may act as the owner at this moment, by its own clock. Asked before each
    /// act, so it must be cheap.
    fn holds(&self) -> bool;

    /// A transaction that takes effect only while the claim holds, whatever clocks say.
    fn guard(&self, txn: Txn) -> Txn;

    /// Gives the slot up, so that another node may have it at once.
    async fn release(&self) -> Result<(), ClusterError>;
}
