//! An etcd cluster on this machine, of real members.

use std::io::{Read as _, Write as _};
use std::path::Path;

use tempfile::TempDir;

use crate::pki::Pki;
use crate::program::{Program, own_address};

/// Ports are `PORT + 20 * cluster + 2 * member`, and one more for the member's peers.
const PORT: u16 = 20_000;

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
    arguments: Vec<String>,
    address: String,
    running: Option<Program>,
}

impl EtcdCluster {
    /// Starts `count` members and blocks until all of them serve.
    pub fn start(count: u16) -> Self {
        Self::start_with(count, false)
    }

    /// The same with members that serve by TLS, and ask clients for certificates.
    pub fn start_secure(count: u16) -> Self {
        Self::start_with(count, true)
    }

    fn start_with(count: u16, is_secure: bool) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (host, cluster) = own_address();
        let pki = is_secure.then(|| Pki::new(folder.path(), &host.to_string()));
        let scheme = if is_secure { "https" } else { "http" };
        let port = |member: u16| PORT + 20 * cluster + 2 * member;
        let peer = |member: u16| format!("http://{host}:{}", port(member) + 1);
        let all: Vec<_> = (0..count).map(|m| format!("m{m}={}", peer(m))).collect();
        let members = (0..count).map(|member| {
            let address = format!("{host}:{}", port(member));
            let client = format!("{scheme}://{address}");
            let data = folder.path().join(format!("m{member}"));
            let mut arguments = arguments(member, &data, &client, &peer(member), &all);
            arguments.extend(pki.iter().flat_map(secure));
            Member {
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
        let host = self.host(0);
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

fn arguments(member: u16, data: &Path, client: &str, peer: &str, all: &[String]) -> Vec<String> {
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
        // A busy machine is no reason to elect another leader.
        ("--heartbeat-interval", "200".to_owned()),
        ("--election-timeout", "2000".to_owned()),
    ];
    let pairs = named.into_iter();
    pairs
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
}
