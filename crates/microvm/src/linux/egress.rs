//! The way out of a process: connections to where its function's grants lead, and nowhere else.
//!
//! Sockets of the host that never block. A name is looked up by the host: for grants by name, and
//! for the process, which asks the name server that it finds at its own loopback ([`names`]).

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use metrics::counter;
use model::Grants;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::errno::Errno;
use super::names;
use super::poll::{IN, OUT};
use super::world::{Link, Network};

/// Connections and sockets of one process.
const LINKS_MAX: usize = 64;
/// Longest time in which a name is looked up.
const LOOK_UP_TIME_MAX: Duration = Duration::from_secs(10);
/// Answers of names that wait to be received.
const ANSWERS_MAX: usize = 16;
/// Outgoing connections of guests, as other walls count them.
const EGRESS: &str = "dunlin_egress_connections_total";

enum Kind {
    Stream {
        stream: TcpStream,
        /// How connecting has come out; none while it has not.
        made: Option<Result<(), Errno>>,
    },
    Datagram(UdpSocket),
    /// The name server: answers to what was asked.
    Names(VecDeque<Vec<u8>>),
}

struct Open {
    kind: Kind,
    /// What could not be done when it was tried last.
    wanted: u32,
}

impl Open {
    /// What to wait for; none if nothing is, or the host has no room to.
    fn watched(&self) -> Option<(AsyncFd<OwnedFd>, Interest)> {
        let interest = match (self.wanted & IN != 0, self.wanted & OUT != 0) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => return None,
        };
        let owned = match &self.kind {
            Kind::Stream { stream, .. } => stream.as_fd().try_clone_to_owned(),
            Kind::Datagram(socket) => socket.as_fd().try_clone_to_owned(),
            Kind::Names(_) => return None,
        };
        // SAFETY: an `OwnedFd` names one open descriptor for as long as it lives, which is as long
        // as the registration, its owner.
        let watched = unsafe { AsyncFd::register_with_interest(owned.ok()?, interest) };
        Some((watched.ok()?, interest))
    }

    fn descriptor(&self) -> Option<RawFd> {
        match &self.kind {
            Kind::Stream { stream, .. } => Some(stream.as_raw_fd()),
            Kind::Datagram(socket) => Some(socket.as_raw_fd()),
            Kind::Names(_) => None,
        }
    }
}

/// The way out of one call.
pub struct Egress {
    grants: Grants,
    /// When the call ends at the latest.
    deadline: Instant,
    links: BTreeMap<Link, Open>,
    next: u32,
    /// Where names lead, in this call.
    known: BTreeMap<String, Vec<IpAddr>>,
}

impl Egress {
    /// The way out of a call of a function with these grants.
    pub fn new(grants: Grants, deadline: Instant) -> Self {
        Self {
            grants,
            deadline,
            links: BTreeMap::new(),
            next: 0,
            known: BTreeMap::new(),
        }
    }

    /// Whether a grant covers an address: itself, or by a name that leads to it.
    fn leads_to(&mut self, to: SocketAddr) -> bool {
        if self.grants.may_connect(None, to) {
            return true;
        }
        let names = self.grants.egress.iter();
        let names: Vec<_> = names
            .filter_map(|grant| grant.name_at(to.port()))
            .filter(|name| self.grants.may_connect(Some(name), to))
            .map(str::to_owned)
            .collect();
        names
            .iter()
            .any(|name| self.where_is(name).contains(&to.ip()))
    }

    /// The addresses of a name, looked up once in a call; none if that failed.
    fn where_is(&mut self, name: &str) -> Vec<IpAddr> {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        let found = names::look_up(name, left.min(LOOK_UP_TIME_MAX));
        self.known.insert(name.to_owned(), found.clone());
        found
    }

    fn open(&mut self, stream: bool, to: SocketAddr) -> Result<Kind, Errno> {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let allowed = self.leads_to(to);
        if !allowed && !stream && names::is_server(to) && !self.grants.egress.is_empty() {
            return Ok(Kind::Names(VecDeque::new()));
        }
        let result = if allowed { "allowed" } else { "denied" };
        counter!(EGRESS, "way" => "socket", "result" => result).increment(1);
        if !allowed {
            tracing::debug!(%to, "a socket was denied");
            let nobody = to.ip().is_loopback();
            return Err(if nobody {
                Errno::ECONNREFUSED
            } else {
                Errno::EACCES
            });
        }
        let opened = match stream {
            true => begin(to).map(|stream| Kind::Stream { stream, made: None }),
            false => datagrams(to).map(Kind::Datagram),
        };
        opened.map_err(|error| errno(&error))
    }

    fn find(&mut self, link: Link) -> Result<&mut Open, Errno> {
        self.links.get_mut(&link).ok_or(Errno::ENOTCONN)
    }
}

fn errno(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(number) => Errno(number),
        None if error.kind() == io::ErrorKind::WouldBlock => Errno::EAGAIN,
        None => Errno::EIO,
    }
}

/// Begins to connect.
fn begin(to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes numbers and gives a new descriptor.
    let descriptor = unsafe { libc::socket(family, kind, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let connected = match to {
        SocketAddr::V4(to) => {
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: to.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(to.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            connect(&socket, &address)
        }
        SocketAddr::V6(to) => {
            let address = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: to.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: to.ip().octets(),
                },
                sin6_scope_id: 0,
            };
            connect(&socket, &address)
        }
    };
    match connected {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from(socket)),
    }
}

/// `T` is one of the kernel's structures of addresses.
fn connect<T>(socket: &OwnedFd, address: &T) -> io::Result<()> {
    let start = std::ptr::from_ref(address).cast();
    let bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads as many bytes as the structure has.
    let failed = unsafe { libc::connect(socket.as_raw_fd(), start, bytes) };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn datagrams(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    Ok(socket)
}

/// What can be done with descriptors, waiting for it as long as this.
fn poll(asked: &mut [libc::pollfd], wait: Duration) -> usize {
    let time = libc::timespec {
        tv_sec: wait.as_secs() as libc::time_t,
        tv_nsec: wait.subsec_nanos().into(),
    };
    let count = asked.len() as libc::nfds_t;
    // SAFETY: the kernel reads and writes as many structures as there are; no signal is unblocked.
    let ready = unsafe { libc::ppoll(asked.as_mut_ptr(), count, &time, std::ptr::null()) };
    usize::try_from(ready).unwrap_or(0)
}

fn asked(descriptor: RawFd, events: u32) -> libc::pollfd {
    libc::pollfd {
        fd: descriptor,
        events: events as libc::c_short,
        revents: 0,
    }
}

impl Network for Egress {
    fn leads_out(&self) -> bool {
        !self.grants.egress.is_empty()
    }

    fn connect(&mut self, stream: bool, to: SocketAddr) -> Result<Link, Errno> {
        if self.links.len() >= LINKS_MAX {
            return Err(Errno::ENFILE);
        }
        let kind = self.open(stream, to)?;
        let link = Link(self.next);
        self.next = self.next.wrapping_add(1);
        self.links.insert(link, Open { kind, wanted: 0 });
        Ok(link)
    }

    fn connected(&mut self, link: Link) -> Result<SocketAddr, Errno> {
        let open = self.find(link)?;
        match &mut open.kind {
            Kind::Stream { stream, made } => {
                if made.is_none() {
                    let mut one = [asked(stream.as_raw_fd(), OUT)];
                    if poll(&mut one, Duration::ZERO) == 0 {
                        open.wanted |= OUT;
                        return Err(Errno::EAGAIN);
                    }
                    let failed = stream.take_error().unwrap_or_else(Some);
                    *made = Some(failed.map_or(Ok(()), |error| Err(errno(&error))));
                }
                made.unwrap_or(Ok(()))?;
                stream.local_addr().map_err(|error| errno(&error))
            }
            Kind::Datagram(socket) => socket.local_addr().map_err(|error| errno(&error)),
            Kind::Names(_) => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), names::PORT)),
        }
    }

    fn send(&mut self, link: Link, data: &[u8]) -> Result<usize, Errno> {
        let open = self.find(link)?;
        let sent = match &mut open.kind {
            Kind::Stream { stream, .. } => stream.write(data),
            Kind::Datagram(socket) => socket.send(data),
            Kind::Names(answers) if answers.len() >= ANSWERS_MAX => Ok(data.len()),
            Kind::Names(_) => {
                let answer = names::answer(data, |name| self.where_is(name));
                if let (Some(answer), Ok(open)) = (answer, self.find(link))
                    && let Kind::Names(answers) = &mut open.kind
                {
                    answers.push_back(answer);
                }
                return Ok(data.len());
            }
        };
        sent.map_err(|error| match errno(&error) {
            Errno::EAGAIN => {
                open.wanted |= OUT;
                Errno::EAGAIN
            }
            errno => errno,
        })
    }

    fn receive(&mut self, link: Link, out: &mut [u8]) -> Result<usize, Errno> {
        let open = self.find(link)?;
        let received = match &mut open.kind {
            Kind::Stream { stream, .. } => stream.read(out),
            Kind::Datagram(socket) => socket.recv(out),
            Kind::Names(answers) => {
                let answer = answers.pop_front().ok_or(Errno::EAGAIN)?;
                let count = answer.len().min(out.len());
                out[..count].copy_from_slice(&answer[..count]);
                return Ok(count);
            }
        };
        received.map_err(|error| match errno(&error) {
            Errno::EAGAIN => {
                open.wanted |= IN;
                Errno::EAGAIN
            }
            errno => errno,
        })
    }

    fn ready(&mut self, link: Link) -> u32 {
        let Ok(open) = self.find(link) else {
            return 0;
        };
        let Some(descriptor) = open.descriptor() else {
            let answered = matches!(&open.kind, Kind::Names(answers) if !answers.is_empty());
            return if answered { IN | OUT } else { OUT };
        };
        let mut one = [asked(descriptor, IN | OUT | super::poll::RDHUP)];
        poll(&mut one, Duration::ZERO);
        let ready = u32::from(one[0].revents as u16);
        open.wanted |= (IN | OUT) & !ready;
        ready
    }

    fn end(&mut self, link: Link, sending_only: bool) {
        if !sending_only {
            self.links.remove(&link);
        } else if let Ok(Open {
            kind: Kind::Stream { stream, .. },
            ..
        }) = self.find(link)
        {
            // One that is not connected has nothing to end.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    fn look(&mut self) -> bool {
        let wanted = self.links.values_mut().filter(|open| open.wanted != 0);
        let (mut opens, mut polled) = (Vec::new(), Vec::new());
        for open in wanted {
            if let Some(descriptor) = open.descriptor() {
                polled.push(asked(descriptor, open.wanted));
                opens.push(open);
            }
        }
        let any = poll(&mut polled, Duration::ZERO) > 0;
        for (open, one) in opens.into_iter().zip(polled) {
            if one.revents != 0 {
                open.wanted = 0;
            }
        }
        any
    }

    fn wait(&mut self, until: Instant) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let watched: Vec<_> = self.links.values().filter_map(Open::watched).collect();
            if watched.is_empty() {
                tokio::time::sleep_until(until.into()).await;
                return false;
            }
            let ready = watched
                .iter()
                .map(|(one, interest)| Box::pin(one.ready(*interest)));
            let any = futures::future::select_all(ready);
            // Whether it came or the time is over: who looks sees it.
            let _ = tokio::time::timeout_at(until.into(), any).await;
            drop(watched);
            self.look()
        })
    }
}
