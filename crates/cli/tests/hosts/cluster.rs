//! A cluster whose every part has a host of its own: three members of etcd, a bucket, three nodes;
//! and one more host, where the users are.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{EtcdCluster, Host, Lan, S3Server};

use super::support::caller::{Caller, Reply};
use super::support::guests::{ECHO, sleeps};
use super::support::{Node, Starting, as_ours, dunlin, finish};

/// How long a node that is gone keeps what it owned.
pub const LEASE: Duration = Duration::from_secs(4);

/// The same where etcd loses its leader: a tie makes an election of four seconds.
pub const LONG_LEASE: Duration = Duration::from_secs(6);

/// How long a change may take until it is seen: more than anything here takes.
pub const SEEN_MAX: Duration = Duration::from_secs(30);

/// How often a wait looks again, so that it leaves the machine to what it waits for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Lines of each log that are shown when a story fails.
const SHOWN_LINES: usize = 25;

pub const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// The parts stop before the network goes.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub etcd: EtcdCluster,
    pub bucket: S3Server,
    /// Where the nodes are, in their order.
    pub hosts: Vec<Host>,
    pub etcd_hosts: Vec<Host>,
    pub bucket_host: Host,
    pub token: String,
    pub lan: Lan,
    /// How long a node that is gone keeps what it owned.
    lease: Duration,
    /// A node whose clock can be stepped, and the library that does it.
    stepped: Option<(usize, PathBuf)>,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts it, with functions that all nodes know. None where no networks can be made: that is
    /// said, and a failure where they are asked for.
    pub fn start(lease: Duration, stepped: Option<(usize, PathBuf)>) -> Option<Self> {
        if let Err(missing) = Lan::possible() {
            assert!(std::env::var_os("REQUIRE_NETNS").is_none(), "{missing}");
            eprintln!("left out, for want of network namespaces: {missing}");
            return None;
        }
        let lan = Lan::new().unwrap();
        let host = || lan.host().unwrap();
        // This thread is where the users are; so is what it starts.
        host().enter().unwrap();
        let etcd_hosts: Vec<_> = (0..3).map(|_| host()).collect();
        let (bucket_host, hosts) = (host(), NAMES.map(|_| host()).to_vec());
        let mut cluster = Self {
            nodes: Vec::new(),
            etcd: EtcdCluster::start_on(&etcd_hosts),
            bucket: S3Server::start_on(&bucket_host),
            hosts,
            etcd_hosts,
            bucket_host,
            token: String::new(),
            lan,
            lease,
            stepped,
            folder: tempfile::tempdir().unwrap(),
        };
        dunlin(&["cluster", "init", "--dir", &cluster.path("ca")]).ok();
        for name in NAMES {
            let words = ["cluster", "certificate", name, "--dir"];
            dunlin(&[&words[..], &[&cluster.path("ca")]].concat()).ok();
        }
        cluster.step_clock("+0s");
        cluster.token = cluster.first_token();
        let begun: Vec<_> = (0..NAMES.len()).map(|node| cluster.begin(node)).collect();
        for (node, starting) in begun.into_iter().enumerate() {
            let started = cluster.ready(node, starting);
            cluster.nodes.push(started);
        }
        for node in 0..NAMES.len() {
            cluster.sees(node, |nodes| nodes.len() == NAMES.len());
        }
        cluster.deploy("echo", ECHO);
        cluster.deploy("nap", &sleeps(5_000));
        cluster.deploy("doze", &sleeps(1_500));
        Some(cluster)
    }

    /// How long users wait for any answer: what a cluster promises when a node is lost.
    pub fn patience(&self) -> Duration {
        self.lease * 2
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Everybody asks for a token on a network: the first is made on a node that is on none.
    fn first_token(&self) -> String {
        let alone = ["127.0.0.1:8080", "127.0.0.1:8081"];
        let mut first = self.ready(0, self.begin_at(0, alone.map(str::to_owned)));
        let create = ["token", "create", "operator"];
        let command = self.hosts[0].command(env!("CARGO_BIN_EXE_dunlin"));
        let mut command = as_ours(command, &create);
        let created = finish(command.env("DUNLIN_ADMIN", &first.admin), b"").ok();
        assert!(first.stop().success());
        created.text().trim().to_owned()
    }

    fn begin(&self, node: usize) -> Starting {
        let address = self.hosts[node].address();
        self.begin_at(node, [8080, 8081].map(|port| format!("{address}:{port}")))
    }

    fn begin_at(&self, node: usize, [listen, admin]: [String; 2]) -> Starting {
        let (data, certificates) = (self.path(NAMES[node]), self.path("ca"));
        let (etcd, bucket) = (self.etcd.address("hosts"), self.bucket.address("hosts"));
        let peer = format!("{}:8082", self.hosts[node].address());
        let lease = self.lease.as_millis().to_string();
        let flags = [
            ["--data", &data],
            ["--listen", &listen],
            ["--admin", &admin],
            ["--cluster", &etcd],
            ["--blobs", &bucket],
            ["--node", NAMES[node]],
            ["--peer-addr", &peer],
            ["--cluster-dir", &certificates],
            ["--lease-ms", &lease],
        ];
        // A test that is killed takes no leave; the kernel tells its nodes.
        let mut command = self.hosts[node].command("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(env!("CARGO_BIN_EXE_dunlin"));
        let mut command = as_ours(command, &[&["up"][..], &flags.concat()].concat());
        command.envs([
            ("AWS_ACCESS_KEY_ID", S3Server::ACCESS_KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", S3Server::SECRET_ACCESS_KEY),
            ("AWS_REGION", "us-east-1"),
        ]);
        self.add_clock(node, &mut command);
        Starting::new(command)
    }

    fn ready(&self, node: usize, starting: Starting) -> Node {
        let log = self.folder.path().join(format!("{}.log", NAMES[node]));
        let log = File::options().create(true).append(true).open(log);
        let data = self.folder.path().join(NAMES[node]);
        let mut started = starting.ready(&data, log.unwrap());
        started.token = Some(self.token.clone());
        started
    }

    /// Its own idea of the date, which [`Cluster::step_clock`] changes while it runs. Clocks that
    /// only measure are left as they are, as when an operator sets a machine's date.
    fn add_clock(&self, node: usize, command: &mut Command) {
        let Some((stepped, library)) = &self.stepped else {
            return;
        };
        if *stepped == node {
            command.env("LD_PRELOAD", library);
            command.env("FAKETIME_TIMESTAMP_FILE", self.path("clock"));
            command.env("FAKETIME_NO_CACHE", "1");
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
    }

    /// Steps the clock of that node so far from the true date.
    pub fn step_clock(&self, by: &str) {
        let (file, new) = (self.path("clock"), self.path("clock.new"));
        std::fs::write(&new, by).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// Starts a node that has ended, over what it left, and waits until it answers.
    pub fn start_again(&mut self, node: usize) {
        let starting = self.begin(node);
        self.nodes[node] = self.ready(node, starting);
    }

    /// Deploys a command, and waits until every node runs it.
    pub fn deploy(&self, name: &str, wat: &str) {
        self.deploy_with(name, wat, &[]);
    }

    #[track_caller]
    pub fn deploy_with(&self, name: &str, wat: &str, flags: &[&str]) {
        let flags = [&["--kind", "command"], flags].concat();
        self.nodes[0].deploy(name, wat, &flags).ok();
        for node in 0..NAMES.len() {
            let uri = format!("/v1/apps/e2e/functions/{name}");
            self.until(|| self.get(node, &uri).status == 200);
        }
    }

    /// Asks the admin listener of a node.
    #[track_caller]
    pub fn get(&self, node: usize, path: &str) -> Reply {
        let head = self.head("GET", path);
        let caller = Caller::with_patience(&self.nodes[node].admin, SEEN_MAX);
        let reply = caller.and_then(|mut caller| caller.send(&head, ""));
        reply.unwrap_or_else(|error| panic!("{} {path}: {error}", NAMES[node]))
    }

    fn head(&self, method: &str, path: &str) -> String {
        let token = &self.token;
        format!("{method} {path} HTTP/1.1\r\nauthorization: Bearer {token}")
    }

    /// Calls a function through a node.
    pub fn call(&self, node: usize, function: &str, body: &str) -> io::Result<Reply> {
        let head = self.head("POST", &format!("/e2e/{function}"));
        Caller::with_patience(&self.nodes[node].address, self.patience())?.send(&head, body)
    }

    /// Calls a function that takes its time; the answer comes by the channel.
    pub fn call_meanwhile(&self, node: usize, function: &str) -> Receiver<io::Result<Reply>> {
        let head = self.head("POST", &format!("/e2e/{function}"));
        let address = self.nodes[node].address.clone();
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let caller = Caller::with_patience(&address, SEEN_MAX);
            // A story that has failed does not listen any more.
            sender.send(caller.and_then(|mut caller| caller.send(&head, "")))
        });
        receiver
    }

    /// Asks a node to see to a call later.
    pub fn accept(&self, node: usize, function: &str, body: &str) -> io::Result<Reply> {
        self.accept_within(self.patience(), node, function, body)
    }

    /// The same with more patience: a bucket is asked again and again for ten seconds.
    pub fn accept_within(
        &self,
        patience: Duration,
        node: usize,
        function: &str,
        body: &str,
    ) -> io::Result<Reply> {
        let path = format!("/e2e/{function}");
        let head = format!("{}\r\nprefer: respond-async", self.head("POST", &path));
        Caller::with_patience(&self.nodes[node].address, patience)?.send(&head, body)
    }

    /// An invocation as a node tells of it, once it has ended.
    #[track_caller]
    pub fn outcome(&self, node: usize, id: &str) -> Value {
        self.look(|| {
            let found = self.get(node, &format!("/v1/invocations/{id}?wait=10s"));
            assert_eq!(found.status, 200, "{id} was accepted: {found:?}");
            let found = found.json();
            match found["state"].as_str().unwrap() {
                "waiting" | "running" => Err(found),
                _ => Ok(found),
            }
        })
    }

    /// What it replied.
    pub fn result(&self, node: usize, id: &str) -> String {
        self.get(node, &format!("/v1/invocations/{id}/result")).body
    }

    /// How many calls of a function run on a node.
    pub fn running(&self, node: usize, function: &str) -> u64 {
        let pools = self.get(node, "/v1/pools").json();
        let pools = pools["pools"].as_array().unwrap().iter();
        let of_it = pools.filter(|pool| pool["function"] == function);
        of_it.map(|pool| pool["running"].as_u64().unwrap()).sum()
    }

    /// Waits until a node sees the nodes of the cluster so.
    #[track_caller]
    pub fn sees(&self, node: usize, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        self.look(|| {
            let found = self.get(node, "/v1/nodes").json();
            let nodes = found["nodes"].as_array().unwrap().clone();
            match is_so(&nodes) {
                true => Ok(nodes),
                false => Err(found),
            }
        })
    }

    /// The tokens of the nodes' tenures, as a node sees them.
    pub fn tokens(&self, node: usize) -> Vec<(String, u64)> {
        let nodes = self.sees(node, |nodes| !nodes.is_empty());
        let of = |node: &Value| {
            let name = node["name"].as_str().unwrap().to_owned();
            (name, node["token"].as_u64().unwrap())
        };
        nodes.iter().map(of).collect()
    }

    /// Waits until a node accepts calls for later; they come to good.
    #[track_caller]
    pub fn accepts(&self, node: usize) {
        let accepts = || self.accept(node, "echo", "").ok();
        self.until(|| accepts().is_some_and(|reply| reply.status == 202));
    }

    /// Waits until a node runs calls of a function.
    #[track_caller]
    pub fn runs(&self, node: usize, function: &str) {
        self.until(|| self.running(node, function) > 0);
    }

    /// Says what an operator wants of a node, and waits until every node knows.
    #[track_caller]
    pub fn wish(&self, verb: &str, node: usize) {
        self.nodes[node].dunlin(&["node", verb, NAMES[node]]).ok();
        let wanted = match verb {
            "cordon" => "cordoned",
            _ => "serving",
        };
        let is_so = |node: usize| {
            move |nodes: &[Value]| {
                let mut named = nodes.iter().filter(|n| n["name"] == NAMES[node]);
                named.any(|node| node["standing"] == wanted)
            }
        };
        for other in 0..NAMES.len() {
            self.sees(other, is_so(node));
        }
    }

    /// Looks again until it is so; an error is what is seen instead.
    #[track_caller]
    fn look<T>(&self, look: impl Fn() -> Result<T, Value>) -> T {
        let end = Instant::now() + SEEN_MAX;
        loop {
            let instead = match look() {
                Ok(seen) => return seen,
                Err(instead) => instead,
            };
            assert!(Instant::now() < end, "after {SEEN_MAX:?}: {instead}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn until(&self, is_so: impl Fn() -> bool) {
        self.look(|| is_so().then_some(()).ok_or("it is not so".into()));
    }
}

impl Drop for Cluster {
    /// A story that fails says what the nodes said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in NAMES {
                let log = self.folder.path().join(format!("{name}.log"));
                eprintln!("── {name}\n{}", last_lines(&log));
            }
        }
    }
}

fn last_lines(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}
