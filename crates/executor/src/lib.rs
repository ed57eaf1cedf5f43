//! The executor: runs invocations in pooled sandboxes, within their limits, each to one outcome.
//!
//! ```text
//!  invoke ─▶ admission ──────▶ pool of the version ─▶ lane ──────────▶ sandbox ─▶ outcome
//!            places, queues    idle sandbox, or a     inline, or the   metered    reported once;
//!            429 when full     restored one, or load  guest runtime    polls      then reset
//! ```
//!
//! Invariants:
//! - An admitted job that is not rejected has exactly one outcome, also when its caller goes away.
//! - No more runs than the function, its app and the node permit; no queue is without a bound.
//!   What a parent waits for runs in its stead and counts with it: such calls are nested no deeper
//!   than their tree permits.
//! - A guest's fault ends its own invocation; a sandbox that cannot be reset is never used again.
//! - On the hot path (idle sandbox, inline) nothing waits, nothing is spawned but the reset, and
//!   no timer is armed.
//!
//! Fairness between guests on few cores: cooperative guests yield at every epoch tick; the others
//! run inline only while they are quick, and else on the guest runtime, where the kernel shares the
//! cores between its threads. So no fuel is counted: its cost on every loop buys nothing more.

mod admission;
mod admitted;
mod config;
mod error;
mod executor;
mod gate;
mod http;
mod keep_alive;
mod lane;
mod leftover;
mod meter;
mod nested;
mod pool;
mod reaper;
mod running;
mod stead;
mod view;

pub mod metrics;

#[cfg(test)]
mod tests;

pub use admitted::{Admitted, Expected};
pub use config::{Config, OnOutcome};
pub use error::{Rejected, Scope};
pub use executor::{Executor, Finished, Job, WeakExecutor};
pub use http::{Done, HttpReply};
pub use lane::Lane;
pub use leftover::Leftover;
pub use nested::Enqueued;
pub use stead::{Heir, HeirId, Lent, Stead};
pub use view::{PoolView, StartCounts};
