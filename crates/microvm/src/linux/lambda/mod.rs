//! The Lambda Runtime API, served to a program on its own loopback.
//!
//! ```text
//!  program ── GET  …/invocation/next ────────▶ RuntimeApi ◀── the call's event
//!          ◀──── the event, its headers ────┘
//!          ── POST …/invocation/ID/response ─▶ the call's reply: it ends
//!          ── POST …/invocation/ID/error ────▶ its report: it ends
//!          ── POST …/init/error ─────────────▶ there will be no call
//! ```
//!
//! Nothing of it is a socket of the host's: it is part of the process, whose sockets that are
//! connected to [`ADDRESS`] lead to [`api`], which answers them by bytes, without a clock or a
//! wait.

mod answer;
mod api;
mod call;
mod environment;
mod http;
mod report;

pub(super) use api::{Connection, Received};
pub use api::{Ended, Invocation, RuntimeApi};
pub(crate) use call::{call, freeze, resume};

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// Where the program finds it.
pub(super) const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9001));
