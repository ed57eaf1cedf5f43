//! Which nodes are there, which of them owns what, and how a node knows that it no longer may.
//!
//! ```text
//!            ┌────────── Service: one task ───────────┐
//!  Store ◀───│ grant, join, keep, revoke ◀── Session  │──▶ Tenure: a token, and until when
//!    │       │ put a report ◀─────────────── Pace     │
//!    └─watch─│ events ─────────────────────▶ Roster   │──▶ scheduler::View, owners
//!            └────────────────────────────────────────┘
//!  Membership (cheap clone): tenure, view, claim, report, cordon
//! ```
//!
//! A node's record is in the store under a lease. What it owns is put under the same lease, so that
//! the store takes all of it away at once, and only then may others have it. The node counts the
//! lease's time itself, from when it *sent* its last word to the store that was answered, by its
//! own monotonic clock, and less a margin: its time is over before the store's is.
//!
//! A **token** is the revision of the store at which something was put, so that tokens only grow:
//! that of a node's record names its tenure, that of a claim names the ownership. Writes that
//! depend on owning carry the claim's token as a compare ([`Ownership::guard`]), which holds even
//! where a clock lies.
//!
//! Invariants, as absences:
//! - No node is a member, by its own account, once another may take over what it owns, as long as
//!   its clock loses less than the margin in one lease's time.
//! - No two nodes own a resource at one token, and no two memberships have one token.
//! - No request of a node waits for the store to know whether it still owns something.
//! - No node asks others for their load: each pushes its own, at a bounded rate.

mod config;
mod error;
mod handle;
mod keys;
mod pace;
mod record;
mod rendezvous;
mod requests;
mod roster;
mod service;
mod session;
#[cfg(test)]
mod session_tests;
mod txns;

pub use config::Config;
pub use error::MembershipError;
pub use handle::{Claim, Membership, Ownership, Tenure};
pub use keys::{ROOT, Resource, ResourceError, record_key};
pub use record::{Owner, Record, Report};
pub use rendezvous::owner;
pub use roster::{Peer, Roster};
pub use service::Service;
pub use session::{Action, Event, Moment, Session, Standpoint, Terms};
