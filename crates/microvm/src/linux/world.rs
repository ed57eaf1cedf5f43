//! What a process asks of the world outside of it.

use std::net::SocketAddr;
use std::time::Instant;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::errno::Errno;

/// The world of one process.
pub trait World: Send {
    /// Fills `out` with random bytes.
    fn random(&mut self, out: &mut [u8]);

    /// Takes part of the reply; false if that is more than it may be.
    fn reply(&mut self, data: &[u8]) -> bool;

    /// Takes what the process says of its work; false if the call is to end here, to be made again
    /// where more can be taken.
    fn log(&mut self, data: &[u8]) -> bool;

    /// What lies past the process's own loopback.
    fn network(&mut self) -> &mut dyn Network;
}

/// The number of a link: a socket's way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link(pub u32);

/// Ways out of a process. Nothing here blocks: what cannot be done now fails with
/// [`Errno::EAGAIN`].
pub trait Network: Send {
    /// Whether anything at all lies past the loopback.
    fn leads_out(&self) -> bool;

    /// Begins to connect a stream, or sets where datagrams go.
    fn connect(&mut self, stream: bool, to: SocketAddr) -> Result<Link, Errno>;

    /// How far a connection is: the address at this end, its failure, or [`Errno::EAGAIN`] while it
    /// is being made.
    fn connected(&mut self, link: Link) -> Result<SocketAddr, Errno>;

    /// Sends bytes; how many.
    fn send(&mut self, link: Link, data: &[u8]) -> Result<usize, Errno>;

    /// Receives into `out`; how many, and 0 at a stream's end.
    fn receive(&mut self, link: Link, out: &mut [u8]) -> Result<usize, Errno>;

    /// What can be done now, as [`super::poll`]'s bits.
    fn ready(&mut self, link: Link) -> u32;

    /// Ends a link, or only its sending side.
    fn end(&mut self, link: Link, sending_only: bool);

    /// Whether something can be done with a link that could not be done when it was tried last.
    fn look(&mut self) -> bool;

    /// Waits for that, until then at the longest.
    fn wait(&mut self, until: Instant) -> BoxFuture<'_, bool>;
}

/// A network that leads nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNetwork;

impl Network for NoNetwork {
    fn leads_out(&self) -> bool {
        false
    }

    fn connect(&mut self, _: bool, to: SocketAddr) -> Result<Link, Errno> {
        Err(match to.ip().is_loopback() {
            true => Errno::ECONNREFUSED,
            false => Errno::EACCES,
        })
    }

    fn connected(&mut self, _: Link) -> Result<SocketAddr, Errno> {
        Err(Errno::ENOTCONN)
    }

    fn send(&mut self, _: Link, _: &[u8]) -> Result<usize, Errno> {
        Err(Errno::ENOTCONN)
    }

    fn receive(&mut self, _: Link, _: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::ENOTCONN)
    }

    fn ready(&mut self, _: Link) -> u32 {
        0
    }

    fn end(&mut self, _: Link, _: bool) {}

    fn look(&mut self) -> bool {
        false
    }

    fn wait(&mut self, until: Instant) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            tokio::time::sleep_until(until.into()).await;
            false
        })
    }
}
