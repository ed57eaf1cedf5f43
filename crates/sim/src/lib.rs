//! A cluster in one thread, out of one number: the real scheduler, sessions, rosters, claims and
//! ledgers, over a network and machines that fail as the seed says.
//!
//! ```text
//!  Plan (seed) ──▶ World: steps in the order of their time
//!                   ├─ Node × n   Session, Roster, decide; a queue's shards that it owns; places
//!                   ├─ Store      transactions, leases, a log that nodes read late
//!                   └─ faults     messages late, lost and out of order; cuts and splits; crashes;
//!                                 clocks too fast and too slow
//! ```
//!
//! What is checked at every step at which it could break:
//! - No two nodes own a shard at one moment, and none owns it without the store saying so.
//! - Tokens of a shard's owners only grow, and none is used twice.
//! - No invocation has two outcomes, and reservations exceed no node's capacity.
//!
//! And at the end, when all has been calm for a while: every accepted invocation has its outcome,
//! and nothing is left in the queue.
//!
//! A seed repeats: [`Summary::trace`] is a hash over every step, in its order.

mod dice;
mod node;
mod plan;
mod store;
mod world;

pub use plan::{Plan, Summary};
pub use world::run;
