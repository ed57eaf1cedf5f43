//! What guests may ask of the platform: one table, and what each of its calls means.
//!
//! ```text
//!  guest ─▶ back-end ─▶ Session ─┬─ grants: may this function do that? ── no ─▶ denied, counted
//!           (checked              ├─ state_… ─▶ state
//!            bytes)               └─ chain_… ─▶ Chain (a trait: the node runs functions)
//! ```
//!
//! Invariants:
//! - A call that was not granted has no effect and learns nothing but that.
//! - No guest pointer comes here: a back-end has checked and turned it into bytes.
//! - What a call holds (locks, calls in flight) ends with it, unless it was detached.

mod chain;
mod chain_calls;
mod config;
mod host;
mod metrics;
mod session;
mod state_calls;
mod table;

pub use chain::{Caller, Chain, PayloadRoom, Refused, Reply, Request, Spawned};
pub use config::Config;
pub use host::Hostcalls;
pub use table::{PAYLOAD, TABLE};
