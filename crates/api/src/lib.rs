//! The versioned words of the API: what travels between a node and those who use it.
//!
//! ```text
//!  client ──Deploy, Rollback, AliasSet──▶ gateway (admin /v1)
//!         ◀──Version, Invocation, Problem──
//! ```
//!
//! Invariants:
//! - A field is added, never renamed or given another meaning, while the path says `/v1`.
//! - Every error is a [`Problem`] with a [`Code`], and every code has a page in `docs/errors/`.
//! - No I/O: this crate is words only.

mod code;
mod problem;

pub mod manifest;
pub mod v1;

pub use code::{Code, CodeError};
pub use problem::{PROBLEM_JSON, Problem};
