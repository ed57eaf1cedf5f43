//! What tests and benches of several crates need: a back-end whose guests are scripts, artifacts
//! in memory, logs that are kept; real etcd members and an S3 server that end with the test; hosts
//! with addresses of their own.
//! Nothing here is part of the product.
//!
//! ```text
//!  Guest ──artifact()──▶ bytes ──prepare, load──▶ MockBackend ──▶ a sandbox that does as scripted
//!                                                     └─ gate(name): hold guests, let them go
//! ```

mod artifacts;
mod etcd;
mod gate;
mod guest;
mod lan;
mod log;
mod mock;
mod mock_sandbox;
mod modules;
mod pki;
mod program;
mod s3;

pub use artifacts::MemoryArtifacts;
pub use etcd::EtcdCluster;
pub use gate::Gate;
pub use guest::Guest;
pub use lan::{Host, Lan};
pub use log::{KeptLog, NoLog};
pub use mock::{MockBackend, MockCounts};
pub use modules::{modules, reactors};
pub use s3::S3Server;
