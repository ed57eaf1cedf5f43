//! The invoker owns an invocation's life: which version it runs, when it is tried again, and that
//! it ends exactly once.
//!
//! ```text
//!  deploy, alias, rollback ─▶ Registry ──resolve (memory)──▶ Target      (synchronous calls)
//!                                             │
//!  submit ─▶ Invoker ──durable──▶ queue ─▶ Service ─▶ Runner ─▶ one final record
//!                                   ▲ retries   │                  │ pushed
//!                                   └───────────┘      wait, changes ◀┘
//! ```
//!
//! Invariants, as absences:
//! - No synchronous call of a known function touches the disk: [`Registry::resolve`] reads memory.
//! - No id is given out before its invocation is durable, and none is lost: what was accepted
//!   reaches a final state, through crashes and full disks.
//! - No invocation has two final records; each change compares the revision of the last one.
//! - No invocation changes its version: it is chosen when it is accepted.
//! - No invocation is in two queues, and no queue has two owners: each belongs to one tenure of
//!   one node, and every change of it compares that the tenure lasts.
//! - No node that is gone keeps what it had: those that live take it over, each a share.
//! - No waiter polls, no queue is unbounded, no retry is endless.
//!
//! # In use
//!
//! The node opens a [`Registry`] and an [`Invoker`] on one [`storage::Store`], gives the invoker
//! a [`storage::Blobs`] of its own (not the one of the artifacts: it removes what it does not
//! know), and lets [`Service::run`] run with the [`Runner`] that leads to the executor.
//!
//! - **Functions.** [`Registry::deploy`] (the artifact must be stored before) makes a version and
//!   moves `live`; [`Registry::roll_back`] moves it back; [`Registry::set_alias`] and
//!   [`Registry::delete_alias`] manage weighted [`Alias`]es; [`Registry::delete`],
//!   [`Registry::list`], [`Registry::function`]. [`Registry::resolve`] with a [`Select`] (`live`,
//!   an alias, a version; it parses from text) gives the [`Target`] of a call; [`Registry::find`]
//!   too, and asks the store for what another node may have deployed an instant ago.
//! - **Asynchronous calls.** [`Invoker::submit`] takes a [`Submission`] and gives a [`Receipt`];
//!   [`Invoker::invocation`] shows where it is, [`Invoker::wait`] waits for its end at most so
//!   long, [`Invoker::changes`] streams its states up to the final one, [`Invoker::reply`] reads
//!   what the function replied, [`Invoker::list`] lists the newest or the dead letters of a
//!   function, [`Invoker::redrive`] submits a dead or failed one again as a new invocation.
//!
//! - **Many nodes** on one store: [`Invoker::open_among`] takes the [`Nodes`] that the node knows
//!   of. Each accepts, runs and counts what is in its own queue; waiting, looking, keys and
//!   redrives work at any of them. A node that is no member accepts and runs nothing.
//!
//! An attempt that ends with any status but `Ok` failed, and is tried again after a random delay
//! up to base × 2^(n−1), until the version's `attempts_max` is reached; the invocation is then
//! `dead`. A refusal for want of room, a cancellation and the node's own death do not count as
//! failures, and are bounded by [`Config::age_max`] and [`Config::interruptions_max`]. Since an
//! attempt that a crash cut short runs again, a function may run more than once.

mod attempt;
mod changes;
mod clock;
mod config;
mod dispatch;
mod draft;
mod error;
mod function;
mod handle;
mod known;
mod life;
mod members;
mod metrics;
mod nodes;
mod record;
mod registry;
mod routes;
mod runner;
mod service;
mod shared;
mod sweep;
mod takeover;
mod waiters;

pub use clock::{Machine, Surroundings};
pub use config::Config;
pub use error::InvokerError;
pub use function::{Alias, AliasName, Function, Pointers, Select, Target, Version, Weighted};
pub use handle::{Invocation, Invoker, Listing, Receipt, Submission};
pub use life::InvocationState;
pub use members::Members;
pub use nodes::{Alone, Nodes, Peer, Tenure};
pub use registry::{Deployed, Registry};
pub use runner::{Attempt, Ran, Reply, ReplyHead, Request, RequestHead, Runner};
pub use service::Service;
