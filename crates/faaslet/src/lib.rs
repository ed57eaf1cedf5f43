//! Faaslets: functions behind WebAssembly's wall, on wasmtime.
//!
//! Two engines: [`core_module`] for preview-1 commands and reactors, over memory of our own, and
//! [`component`] for `wasi:http` and `wasi:cli` components, over wasmtime's pool.
//!
//! Invariants: a guest starts from its image and nothing else; no import is offered that does not
//! work; code is mapped only from the cache that this crate wrote and checked.

mod backend;
mod component;
mod config;
mod core_module;
mod layer;
mod lost;
mod metrics;
pub mod run;
mod status;
mod stdio;

pub use backend::{Faaslets, FaasletsError};
pub use component::{ComponentConfig, Components, ComponentsError};
pub use config::Config;
pub use core_module::{InsideCompiler, Reservations};
pub use metrics::EGRESS;
