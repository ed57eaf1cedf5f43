//! Node to node: calls and streams over few connections, each of them TCP with mutual TLS 1.3.
//!
//! ```text
//!  Peers ─dials─▶ Connection ─commands─▶ ┌────────────┐            ┌────────────┐
//!    ▲              │ call, stream       │ task: TLS, │ ◀─frames─▶ │ task: TLS, │ ─▶ Handler
//!  Resolve          ▼                    │ Machine    │            │ Machine    │     │
//!              Reply, Body ◀──bytes───── └────────────┘            └────────────┘ ◀─ Responder
//! ```
//!
//! Invariants:
//! - A call ends exactly once, on both sides: with its reply, by a deadline that both keep, by
//!   being dropped (the peer's handler is stopped), or with the connection.
//! - No peer makes a node hold more than its calls, their first frames and the credit that it was
//!   given; credit beyond the first window is earned by reading.
//! - What is small does not wait for what is large: bulk bytes go in chunks, in turns, behind
//!   others, and never without a share.
//! - What a peer sends cannot panic: frames are decoded by a pure function, decided on by a
//!   state machine without clock or socket, and answered by closing when they are wrong.
//! - A peer is the node that was dialled, by its certificate, and stays connected no longer than
//!   that certificate is valid and trusted. New handshakes use new certificates at once.

mod authority;
mod backoff;
mod body;
mod call;
mod code;
mod config;
mod dial;
mod driver;
mod error;
mod frame;
mod handle;
mod hello;
mod identity;
mod machine;
mod peers;
mod server;
mod wire;

pub mod metrics;

#[cfg(test)]
mod frame_tests;

pub use authority::{Authority, AuthorityCertificate, NodeCertificate, authorities};
pub use body::{Body, Leaving, Sender};
pub use call::Landing;
pub use code::{GoAway, Open, Priority, Reset, Status};
pub use config::Config;
pub use dial::connect;
pub use error::{CallError, Close, DialError, IdentityError};
pub use frame::{Decoder, Frame, FrameError, HEADER_BYTES};
pub use handle::{Answer, Connection, Reply, Request};
pub use hello::{Features, Hello, HelloError, Versions};
pub use identity::Identity;
pub use machine::Breach;
pub use peers::{PeerError, Peers, Resolve};
pub use server::{Handler, Incoming, Responder, Server};
pub use wire::Security;
