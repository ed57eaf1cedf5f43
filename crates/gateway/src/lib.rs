//! The gateway: the two listeners of a node, and all that knows HTTP.
//!
//! ```text
//!  clients ──▶ data listener ──▶ address ─▶ registry (memory) ─▶ executor ─▶ guest
//!                  │ Prefer: respond-async └▶ invoker (disk) ─▶ 202
//!  operators ─▶ admin listener ─▶ /v1 … /metrics /openapi.json
//! ```
//!
//! Invariants, as absences:
//! - No disk, no spawn and no timer on the way of a synchronous call whose body is there already.
//! - No wait for a client without a limit: heads, bodies, pauses and unread replies all have one.
//! - No error that is not a problem with a stable code.
//! - No token in clear in the store, in a log, or handed to a guest.

mod accept;
mod address;
mod admin;
mod body;
mod call;
mod cgi;
mod cluster;
mod config;
mod data;
mod failure;
mod gateway;
mod lambda;
mod listen;
mod reply;
mod shared;
mod span;
mod tokens;
mod trace;
mod watch;

pub mod metrics;

pub use admin::{graph_view, log_line, log_line_of, openapi_json};
pub use cgi::own_variables;
pub use cluster::{Call, Cluster, LogsElsewhere, LogsWanted, NodesError, NotRun, Ran};
pub use config::{Config, ListenerConfig};
pub use gateway::Gateway;
pub use lambda::lambda_variables;
pub use shared::Services;
pub use span::{INVOCATION_TARGET, InvocationSpan};
pub use tokens::{TokenError, TokenInfo, Tokens};
pub use trace::trace_header;
