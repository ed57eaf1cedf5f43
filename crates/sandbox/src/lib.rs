//! The sandbox: one guest behind a wall, whatever the wall is made of.
//!
//! ```text
//!  Backend ──prepare──▶ cache (code + image, by digest)
//!     └────load───────▶ Program ──sandbox──▶ Sandbox
//!
//!            invoke            (ends)           reset
//!   Fresh ──────────▶ Running ───────▶ Spent ──────────▶ Fresh
//!                        └── dropped ──▶ Spent   └─ fails ─▶ Retired
//!                                        └─ keep ─▶ Kept ─ invoke ─▶ Running
//! ```
//!
//! Invariants:
//! - A call runs in a fresh sandbox only, unless its version asks for what the last has left: what
//!   one invocation wrote, the next cannot read.
//! - A guest's fault ends its own call, with one [`Completion`]; it never unwinds into the host.
//! - After `reset` fails the sandbox is retired: it is dropped, never called again.

mod backend;
mod body;
mod branch;
mod cache;
mod call;
mod error;
mod log;
mod portable;
mod reply;
mod state;

pub mod conformance;
pub mod host;

pub use backend::{Artifacts, Backend, Prepared, Program, Sandbox};
pub use body::{Body, BodyError, body_of, empty_body};
pub use branch::{Branch, BranchError, CALLS_LENT_MAX, Graft, Lender, TreeLimits, Trunk};
pub use cache::{CACHE_BYTES_MAX, Cache, CacheError, Entry, EntryKind, Staged, Staging};
pub use call::{Asks, Call, Completion, End, HttpCall, Payload};
pub use error::{LoadError, PrepareError, SandboxError};
pub use log::{CallLog, LogSink, LogStream};
pub use memory::Presence;
pub use portable::{Portable, all_there};
pub use reply::{HeldLog, Reply, ReplyTooLong};
pub use state::{State, StateError};
