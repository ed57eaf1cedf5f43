//! Sockets that lead to what the host serves on a process's own loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::errno::Errno;
use super::lambda::{self, Connection, Received};
use super::poll::{IN, OUT, RDHUP};
use super::process::{Exit, Process};
use super::sockets::{Address, SocketId};

impl Process {
    /// Whether the host serves there.
    pub fn is_served(&self, to: SocketAddr) -> bool {
        let canonical = SocketAddr::new(to.ip().to_canonical(), to.port());
        self.lambda.is_some() && canonical == lambda::ADDRESS
    }

    /// Connects a socket to it.
    pub fn connect_served(&mut self, id: SocketId, to: Address) -> Result<(), Errno> {
        let api = self.lambda.as_mut().ok_or(Errno::ECONNREFUSED)?;
        let connection = api.connect().ok_or(Errno::ECONNREFUSED)?;
        let port = self.sockets.vacant_port()?;
        let own = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        self.sockets.serve(id, connection, Address::Inet(own), to)?;
        self.stir();
        Ok(())
    }

    /// Receives up to `most` bytes.
    pub fn receive_served(
        &mut self,
        connection: Connection,
        most: usize,
        peek: bool,
    ) -> Result<Vec<u8>, Errno> {
        let api = self.lambda.as_mut().ok_or(Errno::ENOTCONN)?;
        match api.receive(connection, most, peek) {
            Received::Bytes(bytes) => {
                // What it does not take while answers are left unread, it may take now.
                self.stir();
                Ok(bytes)
            }
            Received::End => Ok(Vec::new()),
            Received::Nothing => Err(Errno::EAGAIN),
        }
    }

    /// Sends bytes; how many. The process ends when they end its invocation.
    pub fn send_served(&mut self, connection: Connection, data: &[u8]) -> Result<usize, Errno> {
        let api = self.lambda.as_mut().ok_or(Errno::ENOTCONN)?;
        if !api.takes(connection) {
            return Err(Errno::EAGAIN);
        }
        api.send(connection, data);
        if api.is_over() {
            self.exit.get_or_insert(Exit::Code(0));
        }
        self.stir();
        Ok(data.len())
    }

    /// Ends a connection, or only its sending side.
    pub fn end_served(&mut self, connection: Connection, sending_only: bool) {
        if let Some(api) = &mut self.lambda {
            match sending_only {
                true => api.ends(connection),
                false => api.close(connection),
            }
        }
    }

    /// What can be done with a connection, as bits.
    pub fn served_ready(&self, connection: Connection) -> u32 {
        let Some(api) = &self.lambda else {
            return 0;
        };
        let ended = api.has_ended(connection);
        let readable = if ended || api.bytes(connection) > 0 {
            IN
        } else {
            0
        };
        let writable = if api.takes(connection) { OUT } else { 0 };
        readable | writable | if ended { RDHUP } else { 0 }
    }
}
