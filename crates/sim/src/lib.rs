//! A cluster in one thread, out of one number: the real scheduler, membership, queues and state,
//! over a store, a network and machines that fail as the seed says.
//!
//! ```text
//!  Plan (seed) ──▶ play ──▶ clients ─▶ Host × n: Membership, Invoker, State, decide, decide_group
//!                   │                    │ Link: a Store, and a way to the other nodes
//!                   │                    ▼
//!                   │                  Post: all that is on its way, in the order of its time
//!                   │                    │ Weather: late, lost, cut; outages, slow and full disks
//!                   │                    ▼
//!                   └──▶ Witness ◀──── Shelf, Watchers: what the store holds, and who is told
//! ```
//!
//! What a host runs is the code of `membership`, `scheduler`, `invoker` and `state`, with their own
//! tasks, on tokio's paused clock. Of the platform only what stands around them is simulated: the
//! store (which passes the conformance suite of `storage`), the network, processes, places for
//! calls.
//!
//! What the witness holds, at each change of the store and each act of a node:
//! - No invocation has two outcomes, or none in the end; none is run by two nodes that are members.
//! - No acknowledged write is lost, and no value is older than what was acknowledged: see
//!   `values.rs`.
//! - No two nodes own a resource at one token or at one moment, none writes after the next owner,
//!   and no node is a member by its own account once the store says no.
//! - No wake-up is lost: who waits for an end that is there hears of it.
//! - No reservations exceed a node's capacity, and none vanishes before it is given back.
//!
//! A seed repeats, see [`Summary::trace`]. What chance decides depends on what it is for, not on
//! what came before, and what arrives at one moment does so in the order of its content: for the
//! order in which a runtime wakes those who wait for one thing is not given.

mod client;
mod crowd;
mod dice;
mod host;
mod link;
mod neighbours;
mod place;
mod plan;
mod play;
mod post;
mod rooms;
mod seats;
mod shelf;
mod values;
mod watchers;
mod ways;
mod weather;
mod witness;
mod world;

pub use crowd::{Crowd, Figures};
pub use link::conforming;
pub use plan::{Fault, Plan, Summary, Troubles, Violation};
pub use play::play;
