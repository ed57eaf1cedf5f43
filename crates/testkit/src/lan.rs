//! Hosts of our own on this machine: network namespaces with an address each, joined by a bridge
//! that stands in a namespace of its own, so that nothing of the machine's network is touched.
//!
//! ```text
//!   client 10.77.0.1 ──veth──┐
//!   n1     10.77.0.2 ──veth──┼── bridge          cut(n1, n2): n2 hears nothing of n1 any more
//!   n2     10.77.0.3 ──veth──┘                   slow(n1): what n1 says and hears goes slowly
//! ```
//!
//! Whoever makes one is root, and has iproute2 and nftables; [`Lan::possible`] says what is
//! missing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What the names of all our namespaces begin with; the process id of their maker follows.
const PREFIX: &str = "dunlin-lan-";

/// The bridge, in the namespace that has only it.
const BRIDGE: &str = "bridge";

/// A host's only interface beside loopback.
const INTERFACE: &str = "eth0";

/// Hosts that one network holds: their addresses are 10.77.0.1 and on.
const HOSTS_MAX: usize = 254;

/// What a slow link holds before it drops: enough that TCP finds its pace, and no more than that.
const SLOW_QUEUE_BYTES: u32 = 64 << 10;

/// What a slow link lets through at once: more than one packet, or it would pass none.
const SLOW_BURST_BYTES: u32 = 4 << 10;

/// All of a thousand packets.
const ALL: u32 = 1_000;

/// A network of hosts. Dropped, its namespaces are removed and what still runs in them is killed.
#[derive(Debug)]
pub struct Lan {
    name: String,
    hosts: Mutex<Vec<Host>>,
    /// How many of a thousand packets get lost: by who hears, and then by who speaks.
    losses: Mutex<BTreeMap<Ipv4Addr, BTreeMap<Ipv4Addr, u32>>>,
}

/// One host of a [`Lan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    space: String,
    switch: String,
    /// The bridge's end of the cable.
    port: String,
    address: Ipv4Addr,
}

impl Lan {
    /// Whether networks can be made here; or else what is missing.
    pub fn possible() -> Result<(), String> {
        let lan = Self::new()?;
        let (one, two) = (lan.host()?, lan.host()?);
        lan.lose(&one, &two, ALL)?;
        one.slow(1_000)
    }

    /// A network without hosts. What earlier processes left that are gone is removed.
    pub fn new() -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        clear_leftovers()?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let lan = Self {
            name: format!("{PREFIX}{}-{number}", std::process::id()),
            hosts: Mutex::default(),
            losses: Mutex::default(),
        };
        ip(&["netns", "add", &lan.name])?;
        let add = ["link", "add", BRIDGE, "type", "bridge"];
        in_space(&lan.name, &add)?;
        in_space(&lan.name, &["link", "set", BRIDGE, "up"])?;
        Ok(lan)
    }

    /// One more host, with the next address.
    pub fn host(&self) -> Result<Host, String> {
        let mut hosts = self.hosts.lock();
        let number = hosts.len() + 1;
        if number > HOSTS_MAX {
            return Err(format!("a network holds {HOSTS_MAX} hosts"));
        }
        let last = u8::try_from(number).map_err(|error| error.to_string())?;
        let host = Host {
            space: format!("{}-{number}", self.name),
            switch: self.name.clone(),
            port: format!("port{number}"),
            address: Ipv4Addr::new(10, 77, 0, last),
        };
        ip(&["netns", "add", &host.space])?;
        hosts.push(host.clone());
        let add = ["link", "add", &host.port, "type", "veth", "peer", "name"];
        let there = [INTERFACE, "netns", &host.space];
        in_space(&self.name, &[&add[..], &there].concat())?;
        let join = ["link", "set", &host.port, "master", BRIDGE, "up"];
        in_space(&self.name, &join)?;
        let address = format!("{}/24", host.address);
        in_space(&host.space, &["address", "add", &address, "dev", INTERFACE])?;
        in_space(&host.space, &["link", "set", "lo", "up"])?;
        in_space(&host.space, &["link", "set", INTERFACE, "up"])?;
        Ok(host)
    }

    /// From now on `to` hears nothing that `from` says, and neither learns of that.
    pub fn cut(&self, from: &Host, to: &Host) {
        self.must_lose(from, to, ALL);
    }

    /// Cuts both ways between `one` and each of `others`.
    pub fn part(&self, one: &Host, others: &[&Host]) {
        for other in others {
            self.cut(one, other);
            self.cut(other, one);
        }
    }

    /// The opposite of [`Lan::part`]: nothing more gets lost between them.
    pub fn heal(&self, one: &Host, others: &[&Host]) {
        for other in others {
            self.must_lose(one, other, 0);
            self.must_lose(other, one, 0);
        }
    }

    /// Of a thousand packets that `from` sends to `to`, `lost` get lost, by chance.
    pub fn lossy(&self, from: &Host, to: &Host, lost: u32) {
        self.must_lose(from, to, lost);
    }

    fn must_lose(&self, from: &Host, to: &Host, lost: u32) {
        let done = self.lose(from, to, lost);
        done.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The one who hears drops them: so the one who speaks is not told, as on a real cable.
    fn lose(&self, from: &Host, to: &Host, lost: u32) -> Result<(), String> {
        let mut losses = self.losses.lock();
        let heard = losses.entry(to.address).or_default();
        heard.insert(from.address, lost);
        let rules = heard.iter().filter(|(_, lost)| **lost > 0);
        let rules: Vec<_> = rules
            .map(|(from, lost)| {
                let chance = format!("numgen random mod {ALL} < {lost}");
                let chance = if *lost >= ALL { "" } else { &chance };
                format!("ip saddr {from} {chance} counter drop")
            })
            .collect();
        let chain = "type filter hook input priority 0; policy accept;";
        let rules = rules.join("\n");
        let table = format!("table inet lan {{\nchain heard {{\n{chain}\n{rules}\n}}\n}}");
        // One transaction: at no time are there no rules.
        let script = format!("add table inet lan\ndelete table inet lan\n{table}\n");
        let mut nft = to.command("nft");
        finish(nft.args(["-f", "-"]), &script).map(|_| ())
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in self.hosts.lock().drain(..) {
            remove(&host.space);
        }
        remove(&self.name);
    }
}

impl Host {
    /// Where the others find it.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A program that will run on this host; its process id is the one that is known once it is
    /// started.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space]).arg(program);
        command
    }

    /// Puts this thread on the host, with all threads and processes that it starts from now on.
    pub fn enter(&self) -> Result<(), String> {
        let file = Path::new("/run/netns").join(&self.space);
        let said = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let space = File::open(&file).map_err(|error| said(&error))?;
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(space.as_fd(), kind).map_err(|error| said(&error))
    }

    /// From now on no more than this comes through to it and from it.
    pub fn slow(&self, rate_kbit: u32) -> Result<(), String> {
        let (rate, burst) = (format!("{rate_kbit}kbit"), SLOW_BURST_BYTES.to_string());
        let limit = SLOW_QUEUE_BYTES.to_string();
        let shape = ["tbf", "rate", &rate, "burst", &burst, "limit", &limit];
        self.shape(&[&["replace"][..], &["root"], &shape].concat())
    }

    /// From now on every packet takes this much longer to it and from it. Kernels without netem
    /// cannot do that, which is an error.
    pub fn delay(&self, delay_ms: u32) -> Result<(), String> {
        let delay = format!("{delay_ms}ms");
        self.shape(&["replace", "root", "netem", "delay", &delay])
    }

    /// The opposite of [`Host::slow`] and [`Host::delay`].
    pub fn quick(&self) -> Result<(), String> {
        self.shape(&["delete", "root"])
    }

    /// Both ends of the cable: what leaves the host, and what the bridge sends to it.
    fn shape(&self, words: &[&str]) -> Result<(), String> {
        for (space, device) in [(&*self.space, INTERFACE), (&self.switch, &self.port)] {
            let (verb, rest) = words.split_at(1);
            let mut tc = Command::new("tc");
            tc.args(["-n", space, "qdisc"]).args(verb);
            finish(tc.args(["dev", device]).args(rest), "")?;
        }
        Ok(())
    }
}

/// Removes the namespaces of makers that are gone.
fn clear_leftovers() -> Result<(), String> {
    for line in ip(&["netns", "list"])?.lines() {
        let space = line.split(' ').next().unwrap_or_default();
        let maker = space
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        let is_left = |maker: &str| !Path::new("/proc").join(maker).exists();
        if maker.is_some_and(is_left) {
            remove(space);
        }
    }
    Ok(())
}

/// Removes a namespace and what runs in it, other than this process. Two processes may remove one
/// leftover at the same time, so that it is gone is no failure.
fn remove(space: &str) {
    let own = std::process::id().to_string();
    let inside = ip(&["netns", "pids", space]).unwrap_or_default();
    let inside: Vec<_> = inside.lines().filter(|pid| **pid != own).collect();
    if !inside.is_empty() {
        let mut kill = Command::new("kill");
        // One that has ended meanwhile is what is wanted.
        finish(kill.args(["-s", "KILL"]).args(inside), "").ok();
    }
    let removed = ip(&["netns", "delete", space]);
    if let Err(error) = removed
        && Path::new("/run/netns").join(space).exists()
    {
        eprintln!("{error}");
    }
}

fn ip(words: &[&str]) -> Result<String, String> {
    finish(Command::new("ip").args(words), "")
}

fn in_space(space: &str, words: &[&str]) -> Result<String, String> {
    ip(&[&["-n", space], words].concat())
}

/// Runs a command to its end; what it printed, or what it complained of.
fn finish(command: &mut Command, input: &str) -> Result<String, String> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let words = words.join(" ");
    let failed = |error: &dyn std::fmt::Display| format!("{words}: {error}");
    let command = command.stdin(Stdio::piped());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading closes it; its status says why.
        stdin.write_all(input.as_bytes()).ok();
    }
    let output = child.wait_with_output().map_err(|error| failed(&error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(&said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
