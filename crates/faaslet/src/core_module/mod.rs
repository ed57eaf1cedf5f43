//! Core modules: preview-1 commands and reactors, on an engine whose memories are ours.
//!
//! ```text
//!  artifact ─survey─▶ what it asks for ─rewrite─▶ module ─compile─▶ .cwasm
//!                                                    │
//!                       data segments + initialise ──┴─freeze─▶ image + globals
//!
//!  Program ──▶ Faaslet: Store + Instance over a memory::Range
//!                invoke: enter the watchdog, call, leave
//!                reset:  Range::reset, globals back, or a new instance if that is not enough
//! ```
//!
//! Deadlines cost guests a load, not a check: the rewrite reads a *poll page* at loop heads and in
//! functions that call, and the [`interrupt`] watchdog takes the page's access away when a guest is
//! over its time, so that its next poll traps. A check with a slow path would make the compiler
//! spill registers around every small loop; a load does not.

mod asks;
mod creator;
mod engine;
mod faaslet;
mod host;
mod inside;
mod interrupt;
mod pages;
mod prepare;
mod preview1;
mod program;
mod rewrite;
mod survey;

pub(crate) use creator::{ENGINE_RESERVATION_BYTES, GuestMemory, GuestStacks};
pub(crate) use engine::CoreEngine;
pub(crate) use faaslet::discard;
pub use inside::{InsideCompiler, Reservations};
