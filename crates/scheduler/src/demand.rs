//! What is to be placed.

use model::NodeId;
use xxhash_rust::xxh3::xxh3_64;

use crate::{Policy, Resources, Tag};

/// Bytes that a call will use and that lie on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Where they lie.
    pub node: NodeId,
    /// How many.
    pub bytes: u64,
}

/// A call that wants a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The node that has the call now, and decides.
    pub here: NodeId,
    /// The version whose sandboxes serve it.
    pub version: Tag,
    /// Bytes of the version's image, which must travel where it is not.
    pub image_bytes: u64,
    /// What one sandbox takes.
    pub needs: Resources,
    /// Bytes of the call itself, which travel when it is sent on.
    pub input_bytes: u64,
    /// State that the call will use.
    pub data: Vec<Holding>,
    /// What a call of this version usually takes.
    pub run_us: u64,
    /// Nodes not to be used: those where it has just failed, and where it has come from.
    pub avoid: Vec<NodeId>,
    /// How to choose.
    pub policy: Policy,
    /// Decides between nodes that are equal, and that have as many calls of the deciding one.
    pub seed: u64,
}

/// The seed for calls of a version: while they come one by one, they go from the deciding node to
/// the same other one, where all that they touch is warm. Others that decide have other favourites.
pub fn habit(here: &NodeId, version: Tag) -> u64 {
    xxh3_64(here.as_str().as_bytes()) ^ version.0
}
