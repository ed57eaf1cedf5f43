//! The node: gateway, invoker, executor, engines and store in one process. The composition root.
//!
//! ```text
//!  Config ─▶ data directory ─▶ store, blobs ─▶ registry, invoker ─┐
//!         └▶ engines (faaslet) ─▶ executor ◀── runner ────────────┤
//!                       metering ◀── outcomes                     └▶ gateway
//! ```
//!
//! Invariants, as absences:
//! - No two nodes share a data directory.
//! - No listener is open to other machines without a token.
//! - No accepted invocation is lost, however the process ends.
//! - No crate but this one names a back-end.

mod arrival;
mod artifacts;
mod chain;
mod cluster;
mod config;
mod confined;
mod data_dir;
mod error;
mod guests;
mod node;
mod runner;
mod telemetry;
mod travel;
mod up;
mod walls;

pub use cluster::{CarryConfig, CertificateError, ClusterConfig, init_cluster, issue_certificate};
pub use config::Config;
pub use confined::not_confined;
pub use error::NodeError;
pub use faaslet::run::{RunError, RunOptions, run};
pub use node::{Node, start};
pub use telemetry::{LogConfig, LogFormat, Telemetry};
pub use up::{offline, up};
pub use walls::micro_vms_missing;
