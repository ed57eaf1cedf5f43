//! Calls about sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smallvec::smallvec;

use super::super::descriptor::{O_CLOEXEC, O_NONBLOCK, O_RDWR, Object};
use super::super::errno::Errno;
use super::super::process::{Answer, Call, Halt, IO_BYTES_MAX};
use super::super::signal::{Info, SI_USER, SIGPIPE};
use super::super::sockets::{Address, Family, Kind, SocketId};
use super::events::pair;
use super::io::{Parts, finish, gather, parts, scatter};

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const MSG_PEEK: u32 = 2;
const MSG_DONTWAIT: u32 = 0x40;
const MSG_NOSIGNAL: u32 = 0x4000;
/// Most bytes of an address.
const ADDRESS_BYTES_MAX: u64 = 128;

fn family(number: i32) -> Result<Family, Errno> {
    match u16::try_from(number) {
        Ok(AF_UNIX) => Ok(Family::Unix),
        Ok(AF_INET) => Ok(Family::Inet),
        Ok(AF_INET6) => Ok(Family::Inet6),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

fn kind(word: u32) -> Result<(Kind, u32), Errno> {
    let flags = word & (O_NONBLOCK | O_CLOEXEC);
    match word & !flags {
        1 => Ok((Kind::Stream, flags)),
        2 => Ok((Kind::Datagram, flags)),
        5 => Ok((Kind::Sequenced, flags)),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

fn socket_of(call: &Call<'_>) -> Result<(SocketId, bool), Errno> {
    let open = call.process.descriptors.find(call.int(0))?;
    match open.object {
        Object::Socket(socket) => Ok((socket, open.nonblocking())),
        _ => Err(Errno::ENOTSOCK),
    }
}

/// `socket`.
pub fn socket(call: &mut Call<'_>) -> Answer {
    let family = family(call.int(0))?;
    let (kind, flags) = kind(call.uint(1))?;
    if kind == Kind::Sequenced && family != Family::Unix {
        return Err(Errno::ESOCKTNOSUPPORT.into());
    }
    call.process.descriptors.check_room()?;
    let socket = call.process.sockets.make(family, kind)?;
    Ok(call
        .process
        .add_descriptor(Object::Socket(socket), flags | O_RDWR)?)
}

/// `socketpair`.
pub fn socketpair(call: &mut Call<'_>) -> Answer {
    if family(call.int(0))? != Family::Unix {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let (kind, flags) = kind(call.uint(1))?;
    let (first, second) = call.process.socket_pair(kind)?;
    let flags = flags | O_RDWR;
    let first = match call.process.add_descriptor(Object::Socket(first), flags) {
        Ok(first) => first,
        Err(errno) => {
            call.process.close_socket(second);
            return Err(errno.into());
        }
    };
    let second = call.process.add_descriptor(Object::Socket(second), flags);
    pair(call, call.arg(3), first, second)
}

/// The `struct sockaddr` at `at`.
fn address(call: &mut Call<'_>, at: u64, bytes: u64) -> Result<Address, Errno> {
    if !(2..=ADDRESS_BYTES_MAX).contains(&bytes) {
        return Err(Errno::EINVAL);
    }
    let raw = call.copy(at, bytes)?;
    let family = u16::from_le_bytes([raw[0], raw[1]]);
    let port = |raw: &[u8]| u16::from_be_bytes([raw[2], raw[3]]);
    match family {
        AF_UNIX => {
            let name = &raw[2..];
            // A name that begins with a zero is all of it; a path ends with its zero.
            let end = match name.first() {
                Some(0) | None => name.len(),
                Some(_) => name
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap_or(name.len()),
            };
            Ok(Address::Unix(name[..end].to_vec()))
        }
        AF_INET if raw.len() >= 8 => {
            let ip = Ipv4Addr::new(raw[4], raw[5], raw[6], raw[7]);
            Ok(Address::Inet(SocketAddr::new(ip.into(), port(&raw))))
        }
        AF_INET6 if raw.len() >= 24 => {
            let mut ip = [0; 16];
            ip.copy_from_slice(&raw[8..24]);
            let ip = IpAddr::V6(Ipv6Addr::from(ip)).to_canonical();
            Ok(Address::Inet(SocketAddr::new(ip, port(&raw))))
        }
        AF_INET | AF_INET6 => Err(Errno::EINVAL),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// An address as `struct sockaddr`, as a socket of this family has it.
fn raw(address: &Address, family: Family) -> Vec<u8> {
    match address {
        Address::Unix(name) => [&AF_UNIX.to_le_bytes()[..], name].concat(),
        Address::Inet(inet) => {
            let port = inet.port().to_be_bytes();
            match (inet.ip(), family) {
                (IpAddr::V4(ip), Family::Inet | Family::Unix) => {
                    [&AF_INET.to_le_bytes()[..], &port, &ip.octets(), &[0; 8]].concat()
                }
                (ip, _) => {
                    let ip = match ip {
                        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                        IpAddr::V6(ip) => ip,
                    };
                    let head = AF_INET6.to_le_bytes();
                    [&head[..], &port, &[0; 4], &ip.octets(), &[0; 4]].concat()
                }
            }
        }
    }
}

/// Writes an address where the program wants it: cut to the length that it gives, which becomes the
/// address's own.
fn write_address(
    call: &mut Call<'_>,
    address: &Address,
    family: Family,
    at: u64,
    length_at: u64,
) -> Result<(), Errno> {
    if at == 0 {
        return Ok(());
    }
    let raw = raw(address, family);
    let room = call.read_u32(length_at)? as usize;
    call.write(at, &raw[..raw.len().min(room)])?;
    call.write_u32(length_at, raw.len() as u32)
}

/// `bind`.
pub fn bind(call: &mut Call<'_>) -> Answer {
    let (socket, _) = socket_of(call)?;
    let address = address(call, call.arg(1), call.arg(2))?;
    call.process.sockets.bind(socket, address)?;
    Ok(0)
}

/// `listen`.
pub fn listen(call: &mut Call<'_>) -> Answer {
    let (socket, _) = socket_of(call)?;
    call.process
        .sockets
        .listen(socket, call.request.args[1] as i32)?;
    Ok(0)
}

/// `accept`, `accept4`.
pub fn accept(call: &mut Call<'_>) -> Answer {
    const ACCEPT4: u64 = 288;
    let flags = if call.request.number == ACCEPT4 {
        call.uint(3)
    } else {
        0
    };
    if flags & !(O_NONBLOCK | O_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (socket, nonblocking) = socket_of(call)?;
    call.process.descriptors.check_room()?;
    let accepted = call.process.accept_socket(socket);
    let accepted = finish(call, nonblocking, accepted)?;
    let found = call.process.sockets.find(accepted)?;
    let (peer, family) = (found.peer.clone(), found.family);
    let descriptor = call
        .process
        .add_descriptor(Object::Socket(accepted), flags | O_RDWR)?;
    if let Some(peer) = peer {
        write_address(call, &peer, family, call.arg(1), call.arg(2))?;
    }
    Ok(descriptor)
}

/// `connect`.
pub fn connect(call: &mut Call<'_>) -> Answer {
    let (socket, nonblocking) = socket_of(call)?;
    if call.retried.is_some() {
        let connected = call.process.socket_connected(socket);
        return finish(call, nonblocking, connected).map(|()| 0);
    }
    let address = address(call, call.arg(1), call.arg(2))?;
    match call.process.connect_socket(socket, address) {
        Ok(()) => Ok(0),
        Err(Errno::EINPROGRESS) if !nonblocking => {
            let connected = call.process.socket_connected(socket);
            finish(call, nonblocking, connected).map(|()| 0)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// `getsockname`.
pub fn getsockname(call: &mut Call<'_>) -> Answer {
    let (socket, _) = socket_of(call)?;
    let address = call.process.local_address(socket)?;
    let family = call.process.sockets.find(socket)?.family;
    write_address(call, &address, family, call.arg(1), call.arg(2))?;
    Ok(0)
}

/// `getpeername`.
pub fn getpeername(call: &mut Call<'_>) -> Answer {
    let (socket, _) = socket_of(call)?;
    let found = call.process.sockets.find(socket)?;
    let (peer, family) = (found.peer.clone(), found.family);
    let peer = peer.ok_or(Errno::ENOTCONN)?;
    write_address(call, &peer, family, call.arg(1), call.arg(2))?;
    Ok(0)
}

/// `shutdown`.
pub fn shutdown(call: &mut Call<'_>) -> Answer {
    let (socket, _) = socket_of(call)?;
    let (send, receive) = match call.int(1) {
        0 => (false, true),
        1 => (true, false),
        2 => (true, true),
        _ => return Err(Errno::EINVAL.into()),
    };
    call.process.shut_socket(socket, send, receive)?;
    Ok(0)
}

/// `setsockopt`: options that change nothing here are taken; none that would is.
pub fn setsockopt(call: &mut Call<'_>) -> Answer {
    socket_of(call)?;
    const SOL_SOCKET: i32 = 1;
    const IPPROTO_TCP: i32 = 6;
    const IPPROTO_IP: i32 = 0;
    const IPPROTO_IPV6: i32 = 41;
    const SO_ATTACH_FILTER: i32 = 26;
    match (call.int(1), call.int(2)) {
        (SOL_SOCKET, SO_ATTACH_FILTER) => Err(Errno::ENOPROTOOPT.into()),
        (SOL_SOCKET | IPPROTO_TCP | IPPROTO_IP | IPPROTO_IPV6, _) => Ok(0),
        _ => Err(Errno::ENOPROTOOPT.into()),
    }
}

/// `getsockopt`.
pub fn getsockopt(call: &mut Call<'_>) -> Answer {
    const SOL_SOCKET: i32 = 1;
    let (socket, _) = socket_of(call)?;
    let found = call.process.sockets.find(socket)?;
    let value = match (call.int(1), call.int(2)) {
        (SOL_SOCKET, 3) => match found.kind {
            Kind::Stream => 1,
            Kind::Datagram => 2,
            Kind::Sequenced => 5,
        },
        (SOL_SOCKET, 4) => {
            let error = call.process.socket_error(socket)?;
            error.map_or(0, |errno| errno.0 as u32)
        }
        (SOL_SOCKET, 7 | 8) => super::super::pipe::PIPE_BYTES as u32,
        (SOL_SOCKET, 30) => u32::from(call.process.sockets.is_listening(socket)),
        (SOL_SOCKET, 38) => 0,
        (SOL_SOCKET, 39) => match found.family {
            Family::Unix => AF_UNIX.into(),
            Family::Inet => AF_INET.into(),
            Family::Inet6 => AF_INET6.into(),
        },
        (SOL_SOCKET | 0 | 6 | 41, _) => 0,
        _ => return Err(Errno::ENOPROTOOPT.into()),
    };
    let room = call.read_u32(call.arg(4))?.min(4);
    call.write(call.arg(3), &value.to_le_bytes()[..room as usize])?;
    call.write_u32(call.arg(4), room)?;
    Ok(0)
}

/// `sendto`.
pub fn sendto(call: &mut Call<'_>) -> Answer {
    let parts = smallvec![(call.arg(1), call.arg(2).min(IO_BYTES_MAX as u64))];
    let to = (call.arg(4), call.arg(5));
    send(call, &parts, call.uint(3), to)
}

/// `sendmsg`.
pub fn sendmsg(call: &mut Call<'_>) -> Answer {
    send_message(call, call.arg(1), call.uint(2))
}

/// `sendmmsg`.
pub fn sendmmsg(call: &mut Call<'_>) -> Answer {
    /// Bytes of a message and of how much of it was sent.
    const BYTES: u64 = 64;
    const MESSAGES_MAX: u64 = 64;
    let (at, count) = (call.arg(1), u64::from(call.uint(2)).min(MESSAGES_MAX));
    let mut sent = 0;
    while sent < count {
        let message = at.wrapping_add(sent * BYTES);
        match send_message(call, message, call.uint(3)) {
            Ok(bytes) => call.write_u32(message.wrapping_add(56), bytes as u32)?,
            Err(_) if sent > 0 => break,
            Err(halt) => return Err(halt),
        }
        sent += 1;
    }
    Ok(sent)
}

fn send_message(call: &mut Call<'_>, message: u64, flags: u32) -> Answer {
    let [name, name_bytes, at, count, _, control_bytes, _] = call.read_words(message)?;
    // Descriptors are not passed.
    if control_bytes != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let parts = parts(call, at, count)?;
    send(call, &parts, flags, (name, name_bytes & 0xffff_ffff))
}

fn send(call: &mut Call<'_>, parts: &Parts, flags: u32, (name, name_bytes): (u64, u64)) -> Answer {
    let (socket, nonblocking) = socket_of(call)?;
    let found = call.process.sockets.find(socket)?;
    if name != 0 && found.kind == Kind::Datagram && found.peer.is_none() {
        let to = address(call, name, name_bytes)?;
        call.process.connect_socket(socket, to)?;
    }
    let total: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let data = gather(call, parts, 0, total.min(IO_BYTES_MAX as u64))?;
    let sent = call.process.send(socket, &data);
    if sent == Err(Errno::EPIPE) && flags & MSG_NOSIGNAL == 0 {
        call.process
            .send_signal(Some(call.tid), Info::sent(SIGPIPE, SI_USER));
    }
    let nonblocking = nonblocking || flags & MSG_DONTWAIT != 0;
    finish(call, nonblocking, sent).map(|count| count as u64)
}

/// `recvfrom`.
pub fn recvfrom(call: &mut Call<'_>) -> Answer {
    let parts = smallvec![(call.arg(1), call.arg(2).min(IO_BYTES_MAX as u64))];
    let count = receive(call, &parts, call.uint(3))?;
    let (socket, _) = socket_of(call)?;
    if call.arg(4) != 0 {
        write_peer(call, socket, call.arg(4), call.arg(5))?;
    }
    Ok(count)
}

fn write_peer(call: &mut Call<'_>, socket: SocketId, at: u64, length: u64) -> Result<(), Errno> {
    let found = call.process.sockets.find(socket)?;
    let (peer, family, stream) = (found.peer.clone(), found.family, found.kind == Kind::Stream);
    match peer {
        Some(peer) if !stream => write_address(call, &peer, family, at, length),
        _ => call.write_u32(length, 0),
    }
}

/// `recvmsg`.
pub fn recvmsg(call: &mut Call<'_>) -> Answer {
    let message = call.arg(1);
    let [name, _, at, count, ..] = call.read_words::<7>(message)?;
    let parts = parts(call, at, count)?;
    let received = receive(call, &parts, call.uint(2))?;
    let (socket, _) = socket_of(call)?;
    if name != 0 {
        write_peer(call, socket, name, message.wrapping_add(8))?;
    }
    // No control messages, and no flags.
    call.write_u64(message.wrapping_add(40), 0)?;
    call.write_u32(message.wrapping_add(48), 0)?;
    Ok(received)
}

fn receive(call: &mut Call<'_>, parts: &Parts, flags: u32) -> Result<u64, Halt> {
    let (socket, nonblocking) = socket_of(call)?;
    let total: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let most = total.min(IO_BYTES_MAX as u64) as usize;
    for (start, bytes) in parts {
        let bytes = (*bytes).min(IO_BYTES_MAX as u64);
        let needed = crate::space::Protection::READ_WRITE;
        call.process.touch(call.guest, *start, bytes, needed)?;
    }
    let data = call.process.receive(socket, most, flags & MSG_PEEK != 0);
    let nonblocking = nonblocking || flags & MSG_DONTWAIT != 0;
    let data = finish(call, nonblocking, data)?;
    scatter(call, parts, 0, &data)?;
    Ok(data.len() as u64)
}
