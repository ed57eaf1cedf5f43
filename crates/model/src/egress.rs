//! Where a function may connect to: names and networks, and the addresses that no name leads to.
//!
//! A name says who is meant, and others say where that is. So a name leads to public addresses
//! alone: what is private to the node, its machine or its network is reached only through a grant
//! of that network itself (`10.1.0.0/16:5432`), and a name in it by both grants together. The one
//! exception is `localhost:PORT`, which means the machine's own loopback and nothing else.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Grants;

/// Longest name of a host, in bytes.
const NAME_BYTES_MAX: usize = 253;
/// Longest part of a name between dots, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// The name that always means the machine itself.
const LOCALHOST: &str = "localhost";

/// Blocks of addresses that are not the public internet's, after IANA's registries of special
/// purpose addresses; in version 6, all but 2000::/3, in the parts that its registry names.
const SPECIAL: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/8",
    "100::/8",
    "200::/7",
    "400::/6",
    "800::/5",
    "1000::/4",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "4000::/2",
    "8000::/2",
    "c000::/3",
    "e000::/4",
    "f000::/5",
    "f800::/6",
    "fc00::/7",
    "fe00::/9",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    // Where clouds tell a machine its secrets: within larger blocks, and granted only by name.
    "169.254.169.254/32",
    "169.254.170.2/32",
    "100.100.100.200/32",
    "192.0.0.192/32",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
];

/// Hosts that a function may connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct EgressGrant {
    host: Hosts,
    /// None for every port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Hosts {
    /// Every public host.
    All,
    /// This one.
    Name(String),
    /// Those whose names end with a dot and this.
    Under(String),
    /// Those with an address in it.
    Net(IpNet),
}

/// A text that grants no way out.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` names no hosts: {reason}")]
pub struct EgressGrantError {
    text: String,
    reason: &'static str,
}

const FORMS: &str = "write HOST[:PORT], *.HOST[:PORT], *[:PORT], ADDRESS:PORT, NETWORK/BITS:PORT \
                     or [V6]:PORT";

impl EgressGrant {
    /// Whether it is for hosts of this name, which is in lower case, at this port. Addresses are
    /// no names.
    pub fn covers_name(&self, name: &str, port: u16) -> bool {
        let host = match &self.host {
            // Only its own name leads into the machine.
            Hosts::All => name != LOCALHOST,
            Hosts::Name(granted) => granted == name,
            Hosts::Under(parent) => name
                .strip_suffix(parent.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            Hosts::Net(_) => false,
        };
        host && self.covers_port(port)
    }

    /// Whether it is for this address itself, however special.
    fn covers_address(&self, ip: IpAddr, port: u16) -> bool {
        let Hosts::Net(net) = &self.host else {
            return false;
        };
        net.contains(&ip) && self.covers_port(port) && special(ip).all(|block| block.contains(net))
    }

    /// The one name that it is for, if it covers the port.
    pub fn name_at(&self, port: u16) -> Option<&str> {
        match &self.host {
            Hosts::Name(name) if self.covers_port(port) => Some(name),
            _ => None,
        }
    }

    fn covers_port(&self, port: u16) -> bool {
        self.port.is_none_or(|granted| granted == port)
    }
}

impl Grants {
    /// Whether hosts of this name, which is in lower case, may be looked up to connect to them.
    pub fn may_look_up(&self, name: &str, port: u16) -> bool {
        let mut grants = self.egress.iter();
        grants.any(|grant| grant.covers_name(name, port))
    }

    /// Whether a connection may go to this address, which was asked for by this name, in lower
    /// case, or by itself.
    pub fn may_connect(&self, name: Option<&str>, to: SocketAddr) -> bool {
        let (ip, port) = (to.ip().to_canonical(), to.port());
        let any = |test: &dyn Fn(&EgressGrant) -> bool| self.egress.iter().any(test);
        let listed = || any(&|grant| grant.covers_address(ip, port));
        match name {
            None => {
                let all = |grant: &EgressGrant| grant.host == Hosts::All && grant.covers_port(port);
                listed() || (is_public(ip) && any(&all))
            }
            Some(name) if !self.may_look_up(name, port) => false,
            Some(LOCALHOST) => ip.is_loopback(),
            Some(_) => is_public(ip) || listed(),
        }
    }
}

/// Whether an address is one of the public internet's.
fn is_public(ip: IpAddr) -> bool {
    special(ip).next().is_none()
}

/// The blocks of [`SPECIAL`] that an address lies in.
fn special(ip: IpAddr) -> impl Iterator<Item = &'static IpNet> {
    static BLOCKS: std::sync::LazyLock<Vec<IpNet>> = std::sync::LazyLock::new(|| {
        let blocks = SPECIAL.iter().map(|block| block.parse());
        // A test parses each.
        blocks.filter_map(Result::ok).collect()
    });
    BLOCKS.iter().filter(move |block| block.contains(&ip))
}

impl FromStr for EgressGrant {
    type Err = EgressGrantError;

    fn from_str(text: &str) -> Result<Self, EgressGrantError> {
        parse(text).map_err(|reason| EgressGrantError {
            text: text.chars().take(64).collect(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<EgressGrant, &'static str> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(FORMS)?;
        let host = hosts_of_net(host)?.ok_or(FORMS)?;
        (host, Some(port.strip_prefix(':').ok_or(FORMS)?))
    } else {
        let (host, port) = match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("write an address of version 6 as [ADDRESS]:PORT");
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        match hosts_of_net(host)? {
            Some(net) => (net, port),
            None => (hosts_of_name(host)?, port),
        }
    };
    let explicit =
        matches!(&host, Hosts::Net(_)) || matches!(&host, Hosts::Name(name) if name == LOCALHOST);
    let port = match port {
        None if explicit => return Err("add a port, or :* for every port"),
        None | Some("*") => None,
        Some(port) => Some(port_of(port)?),
    };
    Ok(EgressGrant { host, port })
}

fn port_of(text: &str) -> Result<u16, &'static str> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if port > 0 && digits => Ok(port),
        _ => Err("a port is a number from 1 to 65535, or *"),
    }
}

/// An address or a network; none for what might be a name.
fn hosts_of_net(text: &str) -> Result<Option<Hosts>, &'static str> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Some(Hosts::Net(ip.to_canonical().into())));
    }
    if !text.contains('/') {
        return Ok(None);
    }
    let net: IpNet = text
        .parse()
        .map_err(|_| "a network is an address and its bits, such as 10.0.0.0/8")?;
    if net.trunc() != net {
        return Err("the network's address has bits set after its prefix");
    }
    if matches!(net.addr(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()) {
        return Err("write it as a network of version 4");
    }
    Ok(Some(Hosts::Net(net)))
}

fn hosts_of_name(text: &str) -> Result<Hosts, &'static str> {
    if text == "*" {
        return Ok(Hosts::All);
    }
    let (name, under) = match text.strip_prefix("*.") {
        Some(parent) => (parent, true),
        None => (text, false),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    check_name(&name)?;
    Ok(match under {
        true => Hosts::Under(name),
        false => Hosts::Name(name),
    })
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= LABEL_BYTES_MAX && label.bytes().all(known)
    };
    if !name.is_ascii() {
        return Err("write an international name in its ASCII form, xn--…");
    }
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(label) {
        return Err(FORMS);
    }
    // Resolvers take `127.1` and `0x7f000001` for addresses.
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("the last part of a name begins with a letter");
    }
    Ok(())
}

impl TryFrom<String> for EgressGrant {
    type Error = EgressGrantError;

    fn try_from(text: String) -> Result<Self, EgressGrantError> {
        text.parse()
    }
}

impl fmt::Display for EgressGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let explicit = match &self.host {
            Hosts::All => return self.with_port(f, "*", false),
            Hosts::Under(parent) => return self.with_port(f, &format!("*.{parent}"), false),
            Hosts::Name(name) => return self.with_port(f, name, name == LOCALHOST),
            Hosts::Net(net) => *net,
        };
        let host = match explicit.prefix_len() == explicit.max_prefix_len() {
            true => explicit.addr().to_string(),
            false => explicit.to_string(),
        };
        let host = match explicit {
            IpNet::V4(_) => host,
            IpNet::V6(_) => format!("[{host}]"),
        };
        self.with_port(f, &host, true)
    }
}

impl EgressGrant {
    fn with_port(&self, f: &mut fmt::Formatter<'_>, host: &str, always: bool) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{host}:{port}"),
            None if always => write!(f, "{host}:*"),
            None => f.write_str(host),
        }
    }
}

impl From<EgressGrant> for String {
    fn from(grant: EgressGrant) -> String {
        grant.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(texts: &[&str]) -> Grants {
        let egress = texts.iter().map(|text| text.parse().expect(text));
        Grants {
            egress: egress.collect(),
            ..Grants::default()
        }
    }

    fn check(grants_of: &[&str], name: Option<&str>, to: &str, expected: bool) {
        let to = to.parse().expect(to);
        let found = grants(grants_of).may_connect(name, to);
        assert_eq!(found, expected, "{grants_of:?} {name:?} {to}");
    }

    #[test]
    fn a_grant_is_written_as_it_is_read() {
        for (text, shown) in [
            ("api.example.com:443", "api.example.com:443"),
            ("API.Example.com.", "api.example.com"),
            ("api.example.com:*", "api.example.com"),
            ("*.example.com:443", "*.example.com:443"),
            ("*", "*"),
            ("*:80", "*:80"),
            ("localhost:8080", "localhost:8080"),
            ("localhost:*", "localhost:*"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("10.0.0.0/8:*", "10.0.0.0/8:*"),
            ("[fd00::]:1", "[fd00::]:1"),
            ("[fd00::/8]:1", "[fd00::/8]:1"),
            ("[::ffff:10.0.0.1]:1", "10.0.0.1:1"),
        ] {
            let grant: EgressGrant = text.parse().expect(text);
            assert_eq!(grant.to_string(), shown);
            assert_eq!(shown.parse(), Ok(grant), "{text}");
        }
    }

    #[test]
    fn what_names_no_hosts_is_refused() {
        for text in [
            "",
            ":80",
            "a b",
            "http://example.com",
            "example.com/path",
            "user@example.com",
            "example..com",
            ".example.com",
            "*.",
            "a.*.com",
            "*example.com",
            "example.com:",
            "example.com:0",
            "example.com:+1",
            "example.com:65536",
            "example.com:80:80",
            "10.0.0.0/8",
            "10.0.0.1",
            "10.0.0.1/8:80",
            "10.0.0.0/33:80",
            "127.1:80",
            "2130706433:80",
            "0x7f000001:80",
            "0177.0.0.1:80",
            "localhost",
            "::1",
            "fd00::1:80",
            "[::1]",
            "[example.com]:80",
            "[::ffff:10.0.0.0/104]:80",
            "bücher.example:443",
        ] {
            assert!(text.parse::<EgressGrant>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_covered_by_itself_and_by_what_is_above_it() {
        let check = |grant: &str, name: &str, port, expected| {
            let covers = grants(&[grant]).may_look_up(name, port);
            assert_eq!(covers, expected, "{grant} {name}:{port}");
        };
        check("api.example.com:443", "api.example.com", 443, true);
        check("api.example.com:443", "api.example.com", 80, false);
        check("api.example.com", "api.example.com", 80, true);
        check("api.example.com", "example.com", 443, false);
        check("api.example.com", "x.api.example.com", 443, false);
        check("*.example.com:443", "a.b.example.com", 443, true);
        check("*.example.com:443", "example.com", 443, false);
        check("*.example.com:443", ".example.com", 443, false);
        check("*.example.com:443", "badexample.com", 443, false);
        check("*", "example.com", 1, true);
        check("*", "localhost", 1, false);
        check("10.0.0.0/8:80", "10.0.0.1", 80, false);
    }

    #[test]
    fn nothing_is_reached_without_a_grant() {
        check(&[], None, "1.1.1.1:443", false);
        check(&[], Some("example.com"), "1.1.1.1:443", false);
    }

    #[test]
    fn a_name_leads_to_public_addresses_alone() {
        let all: &[&str] = &["example.com", "*"];
        for public in [
            "1.1.1.1:443",
            "[2606:4700::1111]:443",
            "[::ffff:1.1.1.1]:443",
        ] {
            check(all, Some("example.com"), public, true);
            check(&["*:443"], None, public, true);
            check(&["*:80"], None, public, false);
            check(&["example.com"], None, public, false);
        }
        for special in [
            "0.0.0.0:80",
            "10.1.2.3:80",
            "100.64.0.1:80",
            "100.100.100.200:80",
            "127.0.0.1:80",
            "127.8.8.8:80",
            "169.254.169.254:80",
            "172.31.255.255:80",
            "192.168.0.1:80",
            "198.18.0.1:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "[::]:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:10.0.0.1]:80",
            "[::ffff:169.254.169.254]:80",
            "[::10.0.0.1]:80",
            "[64:ff9b::a00:1]:80",
            "[2002:a00:1::]:80",
            "[2001:0:a00:1::]:80",
            "[fd00::1]:80",
            "[fd00:ec2::254]:80",
            "[fe80::1]:80",
            "[fec0::1]:80",
            "[ff02::1]:80",
        ] {
            check(all, Some("example.com"), special, false);
            check(all, Some("localhost"), special, false);
            check(all, None, special, false);
            check(&["0.0.0.0/0:80", "[::/0]:80"], None, special, false);
        }
    }

    #[test]
    fn a_special_network_is_reached_by_a_grant_of_itself() {
        check(&["10.0.0.0/8:80"], None, "10.1.2.3:80", true);
        check(&["10.0.0.0/8:80"], None, "[::ffff:10.1.2.3]:80", true);
        check(&["10.0.0.0/8:80"], None, "10.1.2.3:81", false);
        check(&["10.0.0.0/8:80"], None, "11.1.2.3:80", false);
        check(&["8.0.0.0/6:80"], None, "10.1.2.3:80", false);
        check(&["8.0.0.0/6:80"], None, "8.8.8.8:80", true);
        check(&["127.0.0.1:80"], None, "127.0.0.1:80", true);
        check(&["127.0.0.1:80"], None, "127.0.0.2:80", false);
        check(&["[::1]:80"], None, "[::1]:80", true);
        check(&["[fd00::/8]:80"], None, "[fd00::1]:80", true);
    }

    #[test]
    fn what_tells_secrets_is_granted_only_by_its_own_address() {
        for (network, address) in [
            ("169.254.0.0/16:80", "169.254.169.254"),
            ("[fd00::/8]:80", "[fd00:ec2::254]"),
        ] {
            let to = format!("{address}:80");
            check(&[network], None, &to, false);
            check(&[to.as_str()], None, &to, true);
        }
    }

    #[test]
    fn a_name_in_a_special_network_needs_both_grants() {
        let (name, net) = ("db.internal:5432", "10.0.0.0/8:5432");
        let to = "10.1.2.3:5432";
        check(&[name], Some("db.internal"), to, false);
        check(&[net], Some("db.internal"), to, false);
        check(&[name, net], Some("db.internal"), to, true);
        check(&[name, net], Some("db.internal"), "127.0.0.1:5432", false);
    }

    #[test]
    fn localhost_is_the_loopback_and_nothing_else() {
        let own: &[&str] = &["localhost:8080"];
        check(own, Some("localhost"), "127.0.0.1:8080", true);
        check(own, Some("localhost"), "[::1]:8080", true);
        check(own, Some("localhost"), "127.0.0.1:8081", false);
        check(own, Some("localhost"), "10.0.0.1:8080", false);
        check(own, Some("localhost"), "1.1.1.1:8080", false);
        check(own, None, "127.0.0.1:8080", false);
    }

    #[test]
    fn every_special_block_is_a_network() {
        for block in SPECIAL {
            let net: IpNet = block.parse().expect(block);
            assert_eq!(net.trunc(), net, "{block}");
        }
    }
}
