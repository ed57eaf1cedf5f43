//! Where an invocation, or a group of them, should run: `(view, demand) -> placement`, and why.
//!
//! ```text
//!  pushed loads ──▶ View ──┐
//!  ledgers, by CAS ────────┤
//!                          ├─▶ decide ───────▶ Decision: a node, or Refused; how it was weighed
//!  Demand, Weights ────────┼─▶ decide_group ─▶ shares and Reservations, all or none
//!                          └─▶ explain ──────▶ every node, its cost in parts, or why not
//! ```
//!
//! A node's cost is an estimate of the time until the call is done there, in microseconds: the hop,
//! the start, what must travel, the wait, the crowd. One unit makes the parts comparable, and a
//! decision readable. A policy is a plain function that ranks nodes by it.
//!
//! Invariants, as absences:
//! - No I/O, clock, lock or randomness: the same view, demand and seed give the same decision.
//! - No placement asks more of a node than the view says it has free, and none joins a full queue.
//! - No node that is cordoned, draining or lost, or that the demand avoids, is chosen.
//! - No group is placed in part.
//! - No decision differs from what its explanation says.

mod amount;
mod cost;
mod demand;
mod explain;
mod group;
mod place;
mod policy;
mod refused;
mod reserve;
#[cfg(test)]
mod tests;
mod view;

pub use amount::Resources;
pub use cost::{Cost, Weights};
pub use demand::{Demand, Holding, habit};
pub use explain::{Candidate, Explanation, explain};
pub use group::{GroupDecision, Share, decide_group};
pub use place::{Decision, Placement, Tally, Via, decide};
pub use policy::{Facts, Policy, Rank, locality, pack, spread};
pub use refused::{Refused, Why};
pub use reserve::{Holder, Ledger, Reservation, ReserveError};
pub use view::{Assumed, Brief, Load, Standing, Tag, View};
