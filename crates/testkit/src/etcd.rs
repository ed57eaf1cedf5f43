//! An etcd cluster on this machine, of real members.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;

use tempfile::TempDir;

use crate::Host;
use crate::pki::Pki;
use crate::program::{Program, own_address};

/// Ports are `PORT + 20 * cluster + 2 * member`, and one more for the member's peers.
const PORT: u16 = 20_000;

/// Milliseconds of heartbeats and of elections on one machine: a busy one is no reason to elect
/// another leader.
const PATIENT: (u32, u32) = (200, 2_000);

/// The same among hosts of their own, where leaders are lost: as etcd has them by default.
const QUICK: (u32, u32) = (100, 1_000);

/// Members of one cluster, each with a folder of its own. They are killed when it is dropped.
#[derive(Debug)]
pub struct EtcdCluster {
    members: Vec<Member>,
    /// Where clients must use TLS.
    pki: Option<Pki>,
    _folder: TempDir,
}

#[derive(Debug)]
struct Member {
    host: Option<Host>,
    arguments: Vec<String>,
    address: String,
    running: Option<Program>,
}

/// Where a member is to be.
struct Place {
    host: Option<Host>,
    address: Ipv4Addr,
    port: u16,
}

impl EtcdCluster {
    /// Starts `count` members on this machine and blocks until all of them serve.
    pub fn start(count: u16) -> Self {
        Self::start_here(count, false)
    }

    /// The same with members that serve by TLS, and ask clients for certificates.
    pub fn start_secure(count: u16) -> Self {
        Self::start_here(count, true)
    }

    /// Starts a member on each of some hosts of ours, and blocks until all of them serve.
    pub fn start_on(hosts: &[Host]) -> Self {
        let places = hosts.iter().map(|host| Place {
            host: Some(host.clone()),
            address: host.address(),
            port: PORT,
        });
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_at(folder, &places.collect::<Vec<_>>(), None, QUICK)
    }

    fn start_here(count: u16, is_secure: bool) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (address, cluster) = own_address();
        let pki = is_secure.then(|| Pki::new(folder.path(), &address.to_string()));
        let places = (0..count).map(|member| Place {
            host: None,
            address,
            port: PORT + 20 * cluster + 2 * member,
        });
        Self::start_at(folder, &places.collect::<Vec<_>>(), pki, PATIENT)
    }

    fn start_at(folder: TempDir, places: &[Place], pki: Option<Pki>, times: (u32, u32)) -> Self {
        let scheme = if pki.is_some() { "https" } else { "http" };
        let peer = |place: &Place| format!("http://{}:{}", place.address, place.port + 1);
        let all = places.iter().enumerate();
        let all: Vec<_> = all
            .map(|(member, place)| format!("m{member}={}", peer(place)))
            .collect();
        let members = places.iter().enumerate().map(|(member, place)| {
            let address = format!("{}:{}", place.address, place.port);
            let client = format!("{scheme}://{address}");
            let data = folder.path().join(format!("m{member}"));
            let mut arguments = arguments(member, &data, &client, &peer(place), &all);
            let (heartbeat, election) = times;
            arguments.push(format!("--heartbeat-interval={heartbeat}"));
            arguments.push(format!("--election-timeout={election}"));
            arguments.extend(pki.iter().flat_map(secure));
            Member {
                host: place.host.clone(),
                arguments,
                address,
                running: None,
            }
        });
        let mut cluster = Self {
            members: members.collect(),
            pki,
            _folder: folder,
        };
        (0..cluster.members.len()).for_each(|member| cluster.restart(member));
        (0..cluster.members.len()).for_each(|member| cluster.wait_ready(member));
        cluster
    }

    /// `etcd://host:port,host:port/prefix`, or `etcds://…` with the authority and the client's
    /// certificate and key.
    pub fn address(&self, prefix: &str) -> String {
        let hosts: Vec<_> = self.members.iter().map(|m| m.address.as_str()).collect();
        let hosts = hosts.join(",");
        let Some(Pki { ca, client, .. }) = &self.pki else {
            return format!("etcd://{hosts}/{prefix}");
        };
        let (ca, cert, key) = (ca.display(), client.0.display(), client.1.display());
        format!("etcds://{hosts}/{prefix}?ca={ca}&cert={cert}&key={key}")
    }

    /// `host:port` of one member.
    pub fn host(&self, member: usize) -> &str {
        &self.members[member].address
    }

    /// `kill -9`.
    pub fn kill(&mut self, member: usize) {
        self.members[member].running = None;
    }

    /// Starts a member that was killed, over what it left. It serves once a majority does.
    pub fn restart(&mut self, member: usize) {
        let member = &mut self.members[member];
        assert!(member.running.is_none(), "it runs");
        member.running = Some(Program::start(
            member.host.as_ref(),
            Path::new("etcd"),
            &member.arguments,
            "serving client traffic",
            "install Debian's etcd-server, as ./x does",
        ));
    }

    /// Blocks until the member serves.
    pub fn wait_ready(&self, member: usize) {
        let running = self.members[member].running.as_ref();
        running.expect("it runs").wait_ready();
    }

    /// Asks the first member's JSON gateway and gives its answer; panics when it refuses.
    pub fn call(&self, path: &str, json: &str) -> String {
        self.ask(0, path, json)
    }

    /// Which member leads the others; all of them must serve, and be reached from this thread.
    pub fn leader(&self) -> usize {
        let leads = |member: &usize| {
            let status = self.ask(*member, "/v3/maintenance/status", "{}");
            let named = |name: &str| {
                let (_, rest) = status.split_once(&format!("\"{name}\":\""))?;
                rest.split('"').next().map(str::to_owned)
            };
            named("leader").is_some_and(|leader| named("member_id") == Some(leader))
        };
        let leader = (0..self.members.len()).find(leads);
        leader.expect("a majority of members has a leader")
    }

    fn ask(&self, member: usize, path: &str, json: &str) -> String {
        let host = self.host(member);
        let mut stream = std::net::TcpStream::connect(host).expect("the member serves");
        let head = format!("POST {path} HTTP/1.0\r\nHost: {host}\r\n");
        let length = json.len();
        let request = format!("{head}Content-Length: {length}\r\n\r\n{json}");
        stream.write_all(request.as_bytes()).expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.contains(" 200 OK"), "{path}: {answer}");
        answer
    }

    /// Makes the cluster forget what was before `revision`.
    pub fn compact(&self, revision: u64) {
        let json = format!(r#"{{"revision":"{revision}","physical":true}}"#);
        self.call("/v3/kv/compaction", &json);
    }

    /// Stops a member where it stands (`kill -STOP`): it holds its connections and says nothing.
    pub fn pause(&self, member: usize) {
        let running = self.members[member].running.as_ref();
        running.expect("it runs").signal("STOP");
    }
}

/// What a member is told about TLS.
fn secure(pki: &Pki) -> Vec<String> {
    let file = |name: &str, file: &Path| [name.to_owned(), file.display().to_string()];
    let files = [
        file("--cert-file", &pki.server.0),
        file("--key-file", &pki.server.1),
        file("--trusted-ca-file", &pki.ca),
    ];
    let asks = std::iter::once("--client-cert-auth".to_owned());
    files.into_iter().flatten().chain(asks).collect()
}

fn arguments(member: usize, data: &Path, client: &str, peer: &str, all: &[String]) -> Vec<String> {
    let (data, all) = (data.display().to_string(), all.join(","));
    let named = [
        ("--name", format!("m{member}")),
        ("--data-dir", data),
        ("--listen-client-urls", client.to_owned()),
        ("--advertise-client-urls", client.to_owned()),
        ("--listen-peer-urls", peer.to_owned()),
        ("--initial-advertise-peer-urls", peer.to_owned()),
        ("--initial-cluster", all),
        ("--initial-cluster-state", "new".to_owned()),
        ("--logger", "zap".to_owned()),
    ];
    let pairs = named.into_iter();
    pairs
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
}
