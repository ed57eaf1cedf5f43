//! The Linux personality: a static Linux executable runs as it is, and its system calls are ours.
//!
//! ```text
//!  Machine ── Stop::Syscall ─▶ Process ─▶ the thread goes on, waits, or ends
//!     ▲         Stop::Fault      │ maps, threads, signals, descriptors, files
//!     └──── next thread ─────────┘      └─▶ World: reply, log, random, network
//! ```
//!
//! There is no kernel in the guest. A process is a value: each call is a step of it, and only
//! [`run`] knows a clock, a processor and what lies outside.
//!
//! Invariants:
//! - No address of the guest's is used but through its own mappings and protections.
//! - Everything that a process can have more of is counted, and there is a most of it.
//! - A call that is not offered is answered with `ENOSYS`, counted, and told in the log.
//! - Nothing that a guest does makes the host wait past the call's deadline.

pub(crate) mod base;
mod call;
mod calls;
pub(crate) mod command;
mod descriptor;
mod egress;
mod epoll;
mod errno;
mod form;
mod frame;
mod futex;
mod kept;
pub(crate) mod lambda;
mod maps;
mod memory;
mod names;
mod noted;
mod numbers;
mod party;
mod pipe;
mod poll;
mod process;
mod program;
mod pseudo;
mod request_loop;
mod run;
mod saved;
mod seat;
mod served;
mod signal;
mod sockets;
mod spans;
mod stack;
mod start;
mod table;
mod thread;
mod world;

pub use egress::Egress;
pub use errno::Errno;
pub use lambda::RuntimeApi;
pub use process::{Clocks, Exit};
pub use program::Program;
pub use request_loop::{Awaits, NotFrozen};
pub use saved::{Saved, SavedError};
pub use start::{End, Ended, Resume, Start, freeze, resume, run};
pub use table::{Row, TABLE};
pub use world::{Link, Network, NoNetwork, World};

#[cfg(test)]
mod tests;
