//! Sockets: within the process by pipes, past it by [`super::world::Network`].
//!
//! ```text
//!  Fresh ── bind ──▶ Fresh (with an address) ── listen ──▶ Listening ── accept ─▶ Connected
//!    └── connect ──▶ Connected (two pipes, where the process itself listens)
//!    └── connect ──▶ Linked (out into the world)
//!    └── connect ──▶ Served (by the host, on the process's loopback)
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::errno::Errno;
use super::lambda::Connection;
use super::pipe::PipeId;
use super::poll::{ERR, HUP, IN, OUT, RDHUP, Ready};
use super::process::Process;
use super::world::Link;

/// Most connections that wait to be accepted.
const BACKLOG_MAX: usize = 64;
/// Most sockets of a process.
const SOCKETS_MAX: usize = 1024;
/// Ports that are given to sockets that ask for none.
const PORTS: std::ops::Range<u16> = 32_768..60_999;

/// The number of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SocketId(u32);

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// Names within the process.
    Unix,
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

/// A kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Bytes in order.
    Stream,
    /// Messages, each for itself.
    Datagram,
    /// Messages in order.
    Sequenced,
}

/// Where a socket is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Address {
    /// A name within the process; empty for none.
    Unix(Vec<u8>),
    /// An address and port.
    Inet(SocketAddr),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum State {
    Fresh,
    Listening {
        waiting: VecDeque<SocketId>,
        most: usize,
    },
    Connected {
        receives: PipeId,
        sends: PipeId,
    },
    Linked(Link),
    Served(Connection),
}

/// A socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Socket {
    /// Its family.
    pub family: Family,
    /// Its kind.
    pub kind: Kind,
    /// The address at this end.
    pub local: Option<Address>,
    /// The address at the other.
    pub peer: Option<Address>,
    state: State,
    /// Whether nothing more is sent, or received.
    shut: (bool, bool),
    /// Counts what has happened.
    changes: u64,
}

/// The sockets of a process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sockets {
    all: BTreeMap<SocketId, Socket>,
    next: u32,
}

impl Sockets {
    fn add(&mut self, socket: Socket) -> Result<SocketId, Errno> {
        if self.all.len() >= SOCKETS_MAX {
            return Err(Errno::ENFILE);
        }
        let id = SocketId(self.next);
        self.next = self.next.wrapping_add(1);
        self.all.insert(id, socket);
        Ok(id)
    }

    /// A new one.
    pub fn make(&mut self, family: Family, kind: Kind) -> Result<SocketId, Errno> {
        self.add(Socket {
            family,
            kind,
            local: None,
            peer: None,
            state: State::Fresh,
            shut: (false, false),
            changes: 0,
        })
    }

    /// A socket.
    pub fn find(&self, id: SocketId) -> Result<&Socket, Errno> {
        self.all.get(&id).ok_or(Errno::EBADF)
    }

    fn find_mut(&mut self, id: SocketId) -> Result<&mut Socket, Errno> {
        self.all.get_mut(&id).ok_or(Errno::EBADF)
    }

    /// Whether there are any that lead out of the process.
    pub fn links(&self) -> Vec<Link> {
        let linked = self.all.values().filter_map(|socket| match socket.state {
            State::Linked(link) => Some(link),
            _ => None,
        });
        linked.collect()
    }

    /// Whether it takes connections.
    pub fn is_listening(&self, id: SocketId) -> bool {
        let socket = self.all.get(&id);
        socket.is_some_and(|socket| matches!(socket.state, State::Listening { .. }))
    }

    fn is_taken(&self, address: &Address) -> bool {
        self.all
            .values()
            .any(|socket| match (&socket.local, address) {
                (Some(Address::Inet(taken)), Address::Inet(asked)) => {
                    taken.port() == asked.port() && socket.peer.is_none()
                }
                (taken, asked) => taken.as_ref() == Some(asked),
            })
    }

    /// A port that nobody has.
    pub fn vacant_port(&self) -> Result<u16, Errno> {
        let any = |port| Address::Inet(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
        let mut ports = PORTS;
        ports
            .find(|port| !self.is_taken(&any(*port)))
            .ok_or(Errno::EADDRINUSE)
    }

    /// Connects a socket to what the host serves at `to`.
    pub fn serve(
        &mut self,
        id: SocketId,
        connection: Connection,
        own: Address,
        to: Address,
    ) -> Result<(), Errno> {
        let socket = self.find_mut(id)?;
        socket.state = State::Served(connection);
        socket.local.get_or_insert(own);
        socket.peer = Some(to);
        socket.changes += 1;
        Ok(())
    }

    /// Gives a socket its address.
    pub fn bind(&mut self, id: SocketId, address: Address) -> Result<(), Errno> {
        if self.find(id)?.local.is_some() {
            return Err(Errno::EINVAL);
        }
        let address = match address {
            Address::Inet(inet) => {
                if !inet.ip().is_loopback() && !inet.ip().is_unspecified() {
                    return Err(Errno::EADDRNOTAVAIL);
                }
                let port = match inet.port() {
                    0 => self.vacant_port()?,
                    port => port,
                };
                Address::Inet(SocketAddr::new(inet.ip(), port))
            }
            name => name,
        };
        if self.is_taken(&address) {
            return Err(Errno::EADDRINUSE);
        }
        self.find_mut(id)?.local = Some(address);
        Ok(())
    }

    /// Lets a socket take connections.
    pub fn listen(&mut self, id: SocketId, backlog: i32) -> Result<(), Errno> {
        let socket = self.find(id)?;
        if socket.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        if socket.local.is_none() {
            if socket.family == Family::Unix {
                return Err(Errno::EDESTADDRREQ);
            }
            self.bind(id, unspecified(socket.family))?;
        }
        let most = usize::try_from(backlog).unwrap_or(BACKLOG_MAX);
        let most = most.clamp(1, BACKLOG_MAX);
        let socket = self.find_mut(id)?;
        match &mut socket.state {
            State::Fresh => {
                let waiting = VecDeque::new();
                socket.state = State::Listening { waiting, most };
                Ok(())
            }
            State::Listening { most: now, .. } => {
                *now = most;
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Who listens at an address.
    fn listener(&self, address: &Address) -> Option<SocketId> {
        let serves = |local: &Address| match (local, address) {
            (Address::Inet(local), Address::Inet(asked)) => {
                asked.ip().is_loopback() && local.port() == asked.port()
            }
            (local, asked) => local == asked,
        };
        let listens = |socket: &Socket| {
            matches!(socket.state, State::Listening { .. })
                && socket.local.as_ref().is_some_and(serves)
        };
        self.all
            .iter()
            .find(|(_, socket)| listens(socket))
            .map(|(id, _)| *id)
    }
}

fn unspecified(family: Family) -> Address {
    let ip = match family {
        Family::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Family::Unix | Family::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    Address::Inet(SocketAddr::new(ip, 0))
}

impl Process {
    /// Two sockets that are connected to each other.
    pub fn socket_pair(&mut self, kind: Kind) -> Result<(SocketId, SocketId), Errno> {
        let first = self.sockets.make(Family::Unix, kind)?;
        let second = match self.sockets.make(Family::Unix, kind) {
            Ok(second) => second,
            Err(errno) => {
                self.close_socket(first);
                return Err(errno);
            }
        };
        if let Err(errno) = self.join(first, second) {
            self.close_socket(first);
            self.close_socket(second);
            return Err(errno);
        }
        Ok((first, second))
    }

    /// Connects two fresh sockets by pipes.
    fn join(&mut self, first: SocketId, second: SocketId) -> Result<(), Errno> {
        let messages = self.sockets.find(first)?.kind != Kind::Stream;
        let there = self.pipes.make(messages)?;
        let back = match self.pipes.make(messages) {
            Ok(back) => back,
            Err(errno) => {
                self.pipes.close_reader(there);
                self.pipes.close_writer(there);
                return Err(errno);
            }
        };
        for (id, receives, sends) in [(first, back, there), (second, there, back)] {
            let socket = self.sockets.find_mut(id)?;
            socket.state = State::Connected { receives, sends };
            socket.changes += 1;
        }
        Ok(())
    }

    /// Connects a socket. [`Errno::EINPROGRESS`] says that it has begun, or goes on.
    pub fn connect_socket(&mut self, id: SocketId, to: Address) -> Result<(), Errno> {
        let socket = self.sockets.find(id)?;
        match socket.state {
            State::Fresh => {}
            State::Linked(link) if socket.kind == Kind::Stream => {
                return match self.world.network().connected(link) {
                    Err(Errno::EAGAIN) => Err(Errno::EALREADY),
                    Err(errno) => Err(errno),
                    Ok(_) => Err(Errno::EISCONN),
                };
            }
            State::Linked(link) => {
                self.world.network().end(link, false);
                self.sockets.find_mut(id)?.state = State::Fresh;
            }
            State::Connected { .. } | State::Served(_) => return Err(Errno::EISCONN),
            State::Listening { .. } => return Err(Errno::EINVAL),
        }
        let stream = self.sockets.find(id)?.kind != Kind::Datagram;
        let listener = self.sockets.listener(&to).filter(|_| stream);
        match (listener, &to) {
            (Some(listener), _) => self.connect_within(id, listener, to),
            (None, Address::Unix(_)) => Err(Errno::ECONNREFUSED),
            (None, Address::Inet(address)) if stream && self.is_served(*address) => {
                self.connect_served(id, to)
            }
            (None, Address::Inet(address)) => {
                if !self.may_go_out() {
                    return Err(Errno::EACCES);
                }
                let link = self.world.network().connect(stream, *address)?;
                let socket = self.sockets.find_mut(id)?;
                socket.state = State::Linked(link);
                socket.peer = Some(to);
                socket.changes += 1;
                if stream {
                    Err(Errno::EINPROGRESS)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn connect_within(
        &mut self,
        id: SocketId,
        listener: SocketId,
        to: Address,
    ) -> Result<(), Errno> {
        let serving = self.sockets.find(listener)?;
        let (family, kind, most) = (
            serving.family,
            serving.kind,
            match &serving.state {
                State::Listening { waiting, most } if waiting.len() < *most => *most,
                _ => return Err(Errno::EAGAIN),
            },
        );
        debug_assert!(most > 0);
        let own = match &to {
            Address::Inet(address) => {
                let port = self.sockets.vacant_port()?;
                Address::Inet(SocketAddr::new(address.ip(), port))
            }
            Address::Unix(_) => Address::Unix(Vec::new()),
        };
        let accepted = self.sockets.make(family, kind)?;
        if let Err(errno) = self.join(id, accepted) {
            self.close_socket(accepted);
            return Err(errno);
        }
        let there = self.sockets.find_mut(accepted)?;
        (there.local, there.peer) = (Some(to.clone()), Some(own.clone()));
        let here = self.sockets.find_mut(id)?;
        here.peer = Some(to);
        here.local.get_or_insert(own);
        let serving = self.sockets.find_mut(listener)?;
        serving.changes += 1;
        if let State::Listening { waiting, .. } = &mut serving.state {
            waiting.push_back(accepted);
        }
        self.stir();
        Ok(())
    }

    /// Takes a connection that waits.
    pub fn accept_socket(&mut self, id: SocketId) -> Result<SocketId, Errno> {
        let socket = self.sockets.find_mut(id)?;
        socket.changes += 1;
        match &mut socket.state {
            State::Listening { waiting, .. } => waiting.pop_front().ok_or(Errno::EAGAIN),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Whether a connection is made, as SO_ERROR tells: none while it is being made.
    pub fn socket_error(&mut self, id: SocketId) -> Result<Option<Errno>, Errno> {
        match self.sockets.find(id)?.state {
            State::Linked(link) => match self.world.network().connected(link) {
                Ok(_) | Err(Errno::EAGAIN) => Ok(None),
                Err(errno) => Ok(Some(errno)),
            },
            _ => Ok(None),
        }
    }

    /// How a connection that is being made has come out; [`Errno::EAGAIN`] before that.
    pub fn socket_connected(&mut self, id: SocketId) -> Result<(), Errno> {
        match self.sockets.find(id)?.state {
            State::Linked(link) => self.world.network().connected(link).map(|_| ()),
            State::Connected { .. } | State::Served(_) => Ok(()),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// Receives up to `most` bytes.
    pub fn receive(&mut self, id: SocketId, most: usize, peek: bool) -> Result<Vec<u8>, Errno> {
        let socket = self.sockets.find_mut(id)?;
        socket.changes += 1;
        if socket.shut.1 {
            return Ok(Vec::new());
        }
        match socket.state {
            State::Connected { receives, .. } => {
                let taken = self.pipes.find_mut(receives)?.read(most, peek);
                self.stir();
                taken
            }
            State::Served(connection) => self.receive_served(connection, most, peek),
            State::Linked(_) if peek => Err(Errno::EOPNOTSUPP),
            State::Linked(link) => {
                let mut taken = vec![0; most];
                let count = self.world.network().receive(link, &mut taken)?;
                taken.truncate(count);
                Ok(taken)
            }
            State::Fresh | State::Listening { .. } => Err(Errno::ENOTCONN),
        }
    }

    /// Sends bytes; how many.
    pub fn send(&mut self, id: SocketId, data: &[u8]) -> Result<usize, Errno> {
        let socket = self.sockets.find_mut(id)?;
        socket.changes += 1;
        if socket.shut.0 {
            return Err(Errno::EPIPE);
        }
        match socket.state {
            State::Connected { sends, .. } => {
                let taken = self.pipes.find_mut(sends)?.write(data);
                self.stir();
                taken
            }
            State::Linked(link) => self.world.network().send(link, data),
            State::Served(connection) => self.send_served(connection, data),
            State::Fresh if socket.kind == Kind::Datagram => Err(Errno::EDESTADDRREQ),
            State::Fresh | State::Listening { .. } => Err(Errno::ENOTCONN),
        }
    }

    /// Sends, or receives, nothing more.
    pub fn shut_socket(&mut self, id: SocketId, send: bool, receive: bool) -> Result<(), Errno> {
        let socket = self.sockets.find_mut(id)?;
        socket.shut.0 |= send;
        socket.shut.1 |= receive;
        socket.changes += 1;
        match socket.state {
            State::Connected { sends, .. } if send => self.pipes.close_writer(sends),
            State::Linked(link) if send => self.world.network().end(link, true),
            State::Served(connection) if send => self.end_served(connection, true),
            State::Connected { .. } | State::Linked(_) | State::Served(_) => {}
            State::Fresh | State::Listening { .. } => return Err(Errno::ENOTCONN),
        }
        self.stir();
        Ok(())
    }

    /// What can be done with a socket.
    pub fn socket_ready(&mut self, id: SocketId) -> Ready {
        let Ok(socket) = self.sockets.find(id) else {
            return Ready::default();
        };
        let (shut, mut changes) = (socket.shut, socket.changes);
        let mut events = match &socket.state {
            State::Fresh if socket.kind == Kind::Datagram => OUT,
            State::Fresh => OUT | HUP,
            State::Listening { waiting, .. } => {
                if waiting.is_empty() {
                    0
                } else {
                    IN
                }
            }
            State::Linked(link) => {
                let link = *link;
                self.world.network().ready(link)
            }
            State::Served(connection) => self.served_ready(*connection),
            State::Connected { receives, sends } => {
                let (receives, sends) = (self.pipes.find(*receives), self.pipes.find(*sends));
                let pipes = [receives, sends].into_iter().flatten();
                changes += pipes.map(|pipe| pipe.changes).sum::<u64>();
                let data = receives.is_some_and(|pipe| pipe.has_data());
                let ended = !receives.is_some_and(|pipe| pipe.has_writers());
                let broken = !sends.is_some_and(|pipe| pipe.has_readers());
                let room = sends.is_some_and(|pipe| pipe.has_room());
                let readable = if data || ended { IN } else { 0 };
                let writable = if room || broken { OUT } else { 0 };
                let closing = if ended { RDHUP } else { 0 };
                let closed = if ended && (broken || shut.0) { HUP } else { 0 };
                readable | writable | closing | closed
            }
        };
        if shut.1 {
            events |= IN | RDHUP;
        }
        if events & ERR != 0 {
            events |= IN | OUT;
        }
        Ready {
            events,
            changes,
            awaits: false,
        }
    }

    /// Bytes that can be received now.
    pub fn receivable(&self, id: SocketId) -> usize {
        match self.sockets.find(id).map(|socket| &socket.state) {
            Ok(State::Connected { receives, .. }) => {
                self.pipes.find(*receives).map_or(0, |pipe| pipe.len())
            }
            Ok(State::Served(connection)) => {
                let api = self.lambda.as_ref();
                api.map_or(0, |api| api.bytes(*connection))
            }
            _ => 0,
        }
    }

    /// The address at this end of a socket.
    pub fn local_address(&mut self, id: SocketId) -> Result<Address, Errno> {
        let socket = self.sockets.find(id)?;
        if let State::Linked(link) = socket.state
            && let Ok(address) = self.world.network().connected(link)
        {
            return Ok(Address::Inet(address));
        }
        let socket = self.sockets.find(id)?;
        let none = match socket.family {
            Family::Unix => Address::Unix(Vec::new()),
            family => unspecified(family),
        };
        Ok(socket.local.clone().unwrap_or(none))
    }

    /// Ends a socket.
    pub fn close_socket(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.all.remove(&id) else {
            return;
        };
        match socket.state {
            State::Fresh => {}
            State::Listening { waiting, .. } => {
                for id in waiting {
                    self.close_socket(id);
                }
            }
            State::Connected { receives, sends } => {
                self.pipes.close_reader(receives);
                if !socket.shut.0 {
                    self.pipes.close_writer(sends);
                }
            }
            State::Linked(link) => self.world.network().end(link, false),
            State::Served(connection) => self.end_served(connection, false),
        }
        self.stir();
    }
}
