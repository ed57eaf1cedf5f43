//! The name server of a process's own loopback: questions of DNS, answered by the host's resolver
//! (RFC 1035, 4.1).

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::time::Duration;

/// Its port.
pub const PORT: u16 = 53;
/// Addresses that are told of one name.
const ADDRESSES_MAX: usize = 8;
const HEADER: usize = 12;
const NAME_BYTES_MAX: usize = 253;
const A: u16 = 1;
const AAAA: u16 = 28;
const NOT_FOUND: u8 = 3;

/// Whether a process that sends there means the name server.
pub fn is_server(to: SocketAddr) -> bool {
    to.port() == PORT && to.ip().is_loopback()
}

/// Where a name leads, as the host's resolver says within this time.
pub fn look_up(name: &str, time: Duration) -> Vec<IpAddr> {
    let (sender, receiver) = mpsc::channel();
    let asked = name.to_owned();
    // The resolver knows no time: a thread that is too late finds nobody to tell.
    let thread = std::thread::Builder::new().name("vm-names".into());
    let spawned = thread.spawn(move || {
        let found = (asked.as_str(), 0).to_socket_addrs();
        let found = found.map(|all| all.map(|to| to.ip().to_canonical()).collect());
        let _ = sender.send(found);
    });
    if spawned.is_err() {
        return Vec::new();
    }
    match receiver.recv_timeout(time) {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a name was not found");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// The answer to `query`; none if that is no question.
pub fn answer(query: &[u8], find: impl FnOnce(&str) -> Vec<IpAddr>) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let found = find(&name);
    let wanted = |ip: &&IpAddr| match kind {
        A => ip.is_ipv4(),
        AAAA => ip.is_ipv6(),
        _ => false,
    };
    let told: Vec<_> = found.iter().filter(wanted).take(ADDRESSES_MAX).collect();
    let mut answer = query[..2].to_vec();
    // An answer, with recursion as it was asked for and offered.
    answer.push(0x80 | query[2] & 1);
    answer.push(0x80 | if found.is_empty() { NOT_FOUND } else { 0 });
    answer.extend([0, 1, 0, told.len() as u8, 0, 0, 0, 0]);
    answer.extend(query.get(HEADER..end + 4)?);
    for ip in told {
        const TIME_TO_LIVE_S: u32 = 30;
        // The name is the question's.
        answer.extend([0xc0, HEADER as u8]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(TIME_TO_LIVE_S.to_be_bytes());
        match ip {
            IpAddr::V4(ip) => answer.extend([&[0, 4][..], &ip.octets()].concat()),
            IpAddr::V6(ip) => answer.extend([&[0, 16][..], &ip.octets()].concat()),
        }
    }
    Some(answer)
}

/// The name of the first question, and where it ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let counted = query.get(4..6)? == [0, 1];
    let asks = query[2] & 0xf8 == 0;
    if !counted || !asks {
        return None;
    }
    let (mut at, mut name) = (HEADER, String::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = query.get(at..at + length)?;
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        if length > 63 || !label.iter().all(plain) || name.len() + length > NAME_BYTES_MAX {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(
            label
                .iter()
                .map(|byte| char::from(byte.to_ascii_lowercase())),
        );
        at += length;
    }
    (!name.is_empty()).then_some((name, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
                           \x03Api\x07example\x03com\x00\x00\x01\x00\x01";

    #[test]
    fn a_question_is_answered_with_the_addresses_of_its_kind() {
        let found = vec!["192.0.2.7".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let told = answer(QUERY, |name| {
            assert_eq!(name, "api.example.com");
            found
        });
        let told = told.unwrap();
        assert_eq!(told[..8], *b"\x12\x34\x81\x80\x00\x01\x00\x01");
        assert_eq!(told[told.len() - 4..], [192, 0, 2, 7]);
        let none = answer(QUERY, |_| Vec::new()).unwrap();
        assert_eq!((none[3] & 0xf, none.len()), (NOT_FOUND, QUERY.len()));
    }

    proptest! {
        #[test]
        fn whatever_is_asked_is_answered_or_not(query in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = answer(&query, |_| Vec::new());
        }

        #[test]
        fn a_question_with_an_error_is_answered_or_not(at in 0..QUERY.len(), byte: u8) {
            let mut query = QUERY.to_vec();
            query[at] = byte;
            let _ = answer(&query, |_| Vec::new());
        }
    }
}
