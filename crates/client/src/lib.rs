//! A typed client of a node's admin API.
//!
//! ```text
//!  caller ──Client──▶ transport (HTTP/1.1, pooled) ──▶ node's admin listener
//!         ◀─ api::v1 types, streams of bytes and log lines, ClientError ─
//! ```
//!
//! Invariants:
//! - Every answer that is not a success is a [`ClientError`]; a problem keeps its code and words.
//! - Every wait has a limit, named in [`Config`].
//! - What a node sends is bounded in memory: documents by a cap, streams by a line.

mod admin;
mod error;
mod events;
mod invoke;
mod state;
mod transport;

pub use admin::{InvocationFilter, LogFilter};
pub use error::ClientError;
pub use events::LogStream;
pub use invoke::{Invoke, Reply};
pub use state::{ByteRange, Expected, StateBytes, StateEvent, StateFilter, StatePut, StateWatch};
pub use transport::{Client, Config};
