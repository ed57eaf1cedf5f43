//! Execution graphs: which invocation called which.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{StartKind, UsageView};

/// How an invocation of a graph ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GraphEnd {
    /// A status as outcomes have it; `refused` if it was not run, `lost` if its node was lost.
    pub status: String,
    /// The same as a sentence; empty if it is `ok`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// How its sandbox came to be; absent if it was not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartKind>,
    /// From its call to its end, in microseconds: a wait in a queue is part of it.
    pub wall_us: u64,
    /// What it used.
    pub usage: UsageView,
    /// What that costs by the node's price list.
    pub cost: f64,
}

/// One invocation of a graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GraphNode {
    /// Its id.
    pub id: String,
    /// The id of the invocation that called it; absent of the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// App.
    pub app: String,
    /// Function.
    pub function: String,
    /// Digest of the version that it ran on.
    pub version: String,
    /// The node that it ran on.
    pub node: String,
    /// Whether it goes on when its parent ends.
    pub detached: bool,
    /// When it was called, in microseconds since 1970.
    pub begun_unix_us: u64,
    /// How it ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<GraphEnd>,
}

/// The calls that one invocation led to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Graph {
    /// The id of the first invocation.
    pub root: String,
    /// The invocations in the order of their calls; the root is the first.
    pub nodes: Vec<GraphNode>,
    /// Invocations that are not among them, as there were too many.
    pub left_out: u64,
    /// The sum of the costs of those that have ended.
    pub cost: f64,
    /// The currency of costs.
    pub currency: String,
}
