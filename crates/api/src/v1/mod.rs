//! Wire types of the admin API, version 1.

mod cluster;
mod function;
mod graph;
mod invocation;
mod log;
mod node;
mod settings;
mod state;
mod usage;

pub use cluster::{ClusterNode, ClusterNodes, Decision, NodeStanding, NodeWish};
pub use function::{
    Alias, AliasSet, App, Apps, Artifact, Deploy, Deployed, FilesAsked, FilesMissing, Function,
    Functions, Kind, Rollback, Target, Version, Versions,
};
pub use graph::{Graph, GraphEnd, GraphNode};
pub use invocation::{
    Accepted, Invocation, InvocationState, Invocations, OutcomeView, Redrive, Redriven, StartKind,
    UsageView,
};
pub use log::{LogLine, LogStream, Logs};
pub use node::{
    NodeInfo, Pool, Pools, Ready, StartCounts, Token, TokenCreate, TokenCreated, Tokens,
};
pub use settings::{Grants, Limits, Settings, SettingsError, StateGrant};
pub use state::{StateChange, StateMissed, StateValue, StateValues};
pub use usage::{Price, UsageReport, UsageRow};
