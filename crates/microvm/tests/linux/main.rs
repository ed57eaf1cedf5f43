//! Real programs, built by the compilers of this machine, run as they are on KVM.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod ahead;
mod at_once;
mod layers;
mod processors;
mod programs;
mod request_loop;
mod support;
