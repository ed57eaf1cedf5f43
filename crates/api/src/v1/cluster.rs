//! The nodes of a cluster, and why a call ran where it did.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether a node takes new calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeStanding {
    /// It does.
    Serving,
    /// It was told not to; what it owns and what runs there stays.
    Cordoned,
    /// It finishes what runs, and gives up what it owns.
    Draining,
    /// Its lease is over.
    Lost,
}

impl NodeStanding {
    /// The word that it is written as.
    pub const fn as_str(self) -> &'static str {
        match self {
            NodeStanding::Serving => "serving",
            NodeStanding::Cordoned => "cordoned",
            NodeStanding::Draining => "draining",
            NodeStanding::Lost => "lost",
        }
    }
}

/// A node that is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterNode {
    /// Its name.
    pub name: String,
    /// Where other nodes reach it.
    pub address: String,
    /// Whether it takes new calls.
    pub standing: NodeStanding,
    /// The release that it runs.
    pub version: String,
    /// Names its tenure: greater than that of every node that joined earlier.
    pub token: u64,
    /// Whether it is the node that answers.
    pub here: bool,
    /// Invocations that run there, as it last said.
    pub running: u32,
    /// Invocations that may run there at once.
    pub running_max: u32,
    /// Invocations that wait there.
    pub queued: u32,
    /// Bytes of its machine's memory that are in use.
    pub memory_used_bytes: u64,
    /// Bytes of its machine's memory.
    pub memory_bytes: u64,
    /// Versions of which it has idle sandboxes.
    pub warm_versions: u64,
}

/// The nodes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterNodes {
    /// The nodes, by name.
    pub nodes: Vec<ClusterNode>,
}

/// What operators want of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeWish {
    /// `serving`, `cordoned` or `draining`.
    pub standing: NodeStanding,
}

/// Why an invocation ran where it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// The invocation.
    pub invocation: String,
    /// The decision and every node that was weighed, in lines of text.
    pub text: String,
}
