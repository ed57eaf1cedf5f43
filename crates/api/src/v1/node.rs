//! The node itself: its pools, its tokens, what it is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeInfo {
    /// Version of Dunlin.
    pub version: String,
    /// Address of the data listener.
    pub data_addr: String,
    /// Address of the admin listener.
    pub admin_addr: String,
    /// The base of host names, as in `FUNCTION.APP.HOST`.
    pub host: String,
    /// When it started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Whether tokens are required.
    pub token_required: bool,
    /// Processor cores that it may use.
    pub cores: usize,
}

/// Whether the node takes work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    /// `ready` or `draining`.
    pub status: String,
}

/// How many sandboxes began in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StartCounts {
    /// The program had to be loaded first.
    pub cold: u64,
    /// Restored from an image.
    pub restored: u64,
    /// Reused as it was.
    pub reused: u64,
}

/// The sandboxes of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// App.
    pub app: String,
    /// Function.
    pub function: String,
    /// Digest of the version.
    pub version: String,
    /// Sandboxes that wait.
    pub idle: u64,
    /// Sandboxes that run.
    pub running: u64,
    /// Invocations that wait for a place.
    pub queued: u64,
    /// How the invocations of this version began.
    pub starts: StartCounts,
    /// Largest linear memory that an invocation had, in bytes.
    pub memory_peak_bytes: u64,
}

/// All pools of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pools {
    /// The pools, by function.
    pub pools: Vec<Pool>,
    /// Resident bytes of the node's process.
    pub resident_bytes: u64,
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its id, the part before the secret.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
}

/// All tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// The tokens, the oldest first.
    pub tokens: Vec<Token>,
}

/// A token to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// What it is for: 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
}

/// A token that was made. The node keeps only a digest of it: this is the one time it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What clients send after `Authorization: Bearer`.
    pub token: String,
}
