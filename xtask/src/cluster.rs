//! A cluster of our own for a while: etcd, a bucket and nodes, on loopback or on hosts of its own.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ureq::Agent;

use crate::node::{Joining, Launch, Node, free_address};

/// How long etcd or the bucket may take until it listens.
const LISTEN_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often a wait looks again.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long a node that is gone keeps what it owned, unless told.
pub const LEASE: Duration = Duration::from_secs(3);

/// Who may use the bucket, and the secret of that. It listens on loopback and holds the demo's
/// artifacts for as long as the demo runs.
const BUCKET_USER: (&str, &str) = ("dunlin", "on-loopback-only");

/// Where a part of a cluster runs.
#[derive(Clone)]
pub struct Site {
    /// Where the other parts find it.
    pub address: String,
    /// What starts a program there.
    pub launch: Launch,
}

impl Site {
    /// This host's loopback.
    pub fn here() -> Self {
        Self {
            address: "127.0.0.1".to_owned(),
            launch: Arc::new(|program: &Path| Command::new(program)),
        }
    }

    /// An address there with a port that nothing listens on here.
    pub fn free_address(&self) -> Result<String> {
        let free = free_address()?;
        let (_, port) = free.split_once(':').context("an address has a port")?;
        Ok(format!("{}:{port}", self.address))
    }
}

/// How the nodes of a cluster live together.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long a node that is gone keeps what it owned.
    pub lease: Duration,
    /// Whether they talk without TLS.
    pub plaintext: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lease: LEASE,
            plaintext: false,
        }
    }
}

/// A cluster. Dropped, its programs are stopped and their data is removed.
pub struct Cluster {
    /// The nodes `n1`, `n2`, and so on; first, so that they stop before what they need.
    pub nodes: Vec<Node>,
    _etcd: Server,
    _bucket: Server,
    folder: PathBuf,
}

impl Cluster {
    /// Starts etcd, a bucket and `count` nodes of `binary`, all of them here, and waits until the
    /// nodes know each other.
    pub fn start(binary: &Path, agent: &Agent, count: usize, terms: Terms) -> Result<Self> {
        let here = Site::here();
        let mut cluster = Self::begin(binary, &here, &vec![here.clone(); count], terms)?;
        for node in &mut cluster.nodes {
            node.wait_until_ready(agent)?;
        }
        for node in &cluster.nodes {
            wait_until_known(node, count)?;
        }
        Ok(cluster)
    }

    /// The same with each part on a host: etcd and the bucket on `services`. The calling thread is
    /// on the first node's, the only one whose listeners it reaches.
    pub fn start_apart(
        binary: &Path,
        agent: &Agent,
        services: &Site,
        nodes: &[Site],
        terms: Terms,
    ) -> Result<Self> {
        let mut cluster = Self::begin(binary, services, nodes, terms)?;
        let first = cluster.nodes.first_mut().context("no nodes")?;
        first.wait_until_ready(agent)?;
        wait_until_known(first, nodes.len())?;
        Ok(cluster)
    }

    fn begin(binary: &Path, services: &Site, nodes: &[Site], terms: Terms) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("dunlin-cluster-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(folder.join("bucket/artifacts")).context("making a folder")?;
        let (etcd, store) = etcd(&folder, services)?;
        let (bucket, blobs) = bucket(&folder, services)?;
        let mut cluster = Self {
            nodes: Vec::new(),
            _etcd: etcd,
            _bucket: bucket,
            folder,
        };
        let certificates = cluster.folder.join("certificates");
        let certificates = text(&certificates)?;
        certify(binary, &["init", "--dir", certificates])?;
        for (number, site) in (1..).zip(nodes) {
            let name = format!("n{number}");
            certify(binary, &["certificate", &name, "--dir", certificates])?;
            let security = match terms.plaintext {
                true => ["--dangerous-plaintext-peers", "true"],
                false => ["--cluster-dir", certificates],
            };
            let joining = joining(&store, &blobs, &name, security, site, terms.lease)?;
            cluster.nodes.push(Node::begin(binary, joining)?);
        }
        Ok(cluster)
    }
}

/// Waits until a node has heard of `count` nodes.
fn wait_until_known(node: &Node, count: usize) -> Result<()> {
    let end = Instant::now() + LISTEN_WAIT_MAX;
    while serving(node)? < count {
        if Instant::now() > end {
            bail!("the nodes do not know each other:\n{}", node.log());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("{} is left: {error}", self.folder.display());
        }
    }
}

/// How many nodes take calls, as far as `node` knows.
fn serving(node: &Node) -> Result<usize> {
    let listed = node.cli(&["nodes", "--output", "json"])?;
    let listed: serde_json::Value = serde_json::from_slice(&listed)?;
    let nodes = listed["nodes"].as_array().context("no list of nodes")?;
    let serves = |node: &&serde_json::Value| node["running_max"].as_u64() > Some(0);
    Ok(nodes.iter().filter(serves).count())
}

fn joining(
    store: &str,
    blobs: &str,
    name: &str,
    security: [&str; 2],
    site: &Site,
    lease: Duration,
) -> Result<Joining> {
    let (peer, lease) = (site.free_address()?, lease.as_millis().to_string());
    let arguments = [
        ["--cluster", store],
        ["--blobs", blobs],
        ["--node", name],
        ["--peer-addr", &peer],
        security,
        ["--lease-ms", &lease],
    ];
    let variables = [
        ("AWS_ACCESS_KEY_ID", BUCKET_USER.0),
        ("AWS_SECRET_ACCESS_KEY", BUCKET_USER.1),
    ];
    Ok(Joining {
        launch: Some(site.launch.clone()),
        arguments: arguments.concat().into_iter().map(str::to_owned).collect(),
        variables: variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    })
}

fn certify(binary: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new(binary)
        .arg("cluster")
        .args(arguments)
        .output()
        .with_context(|| format!("starting {}", binary.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("dunlin cluster {}: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}

/// One member, and its address as `dunlin up --cluster` takes it.
fn etcd(folder: &Path, site: &Site) -> Result<(Server, String)> {
    let (clients, peers) = (site.free_address()?, site.free_address()?);
    let (client_url, peer_url) = (format!("http://{clients}"), format!("http://{peers}"));
    let data = folder.join("etcd");
    let initial = format!("m1={peer_url}");
    let arguments = [
        ["--name", "m1"],
        ["--data-dir", text(&data)?],
        ["--listen-client-urls", &client_url],
        ["--advertise-client-urls", &client_url],
        ["--listen-peer-urls", &peer_url],
        ["--initial-advertise-peer-urls", &peer_url],
        ["--initial-cluster", &initial],
    ];
    let log = folder.join("etcd.log");
    let program = (site.launch)(Path::new("etcd"));
    let server = Server::start(program, &arguments.concat(), &log, &clients)?;
    Ok((server, format!("etcd://{clients}/demo")))
}

/// An S3 server with one bucket, and its address as `dunlin up --blobs` takes it.
fn bucket(folder: &Path, site: &Site) -> Result<(Server, String)> {
    let address = site.free_address()?;
    let (host, port) = address.split_once(':').context("an address has a port")?;
    let buckets = folder.join("bucket");
    let arguments = [
        ["--host", host],
        ["--port", port],
        ["--access-key", BUCKET_USER.0],
        ["--secret-key", BUCKET_USER.1],
    ];
    let mut arguments = arguments.concat();
    arguments.push(text(&buckets)?);
    let log = folder.join("bucket.log");
    let program = (site.launch)(&s3_server()?);
    let server = Server::start(program, &arguments, &log, &address)?;
    Ok((
        server,
        format!("s3://artifacts/demo?endpoint=http://{address}"),
    ))
}

/// Where `guests/setup.sh` puts it.
fn s3_server() -> Result<PathBuf> {
    let toolchains = match std::env::var_os("DUNLIN_TOOLCHAINS") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = std::env::home_dir().context("no home folder")?;
            home.join(".cache/dunlin/toolchains")
        }
    };
    Ok(toolchains.join("bin/s3s-fs"))
}

fn text(path: &Path) -> Result<&str> {
    let text = path.to_str();
    text.with_context(|| format!("{} is not UTF-8", path.display()))
}

/// A program of others that listens; killed when it is dropped.
struct Server(Child);

impl Server {
    fn start(mut program: Command, arguments: &[&str], log: &Path, address: &str) -> Result<Self> {
        let output = File::create(log).context("making a log")?;
        let child = program
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {program:?}"))?;
        let mut server = Self(child);
        let end = Instant::now() + LISTEN_WAIT_MAX;
        while TcpStream::connect(address).is_err() {
            let ended = server.0.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                bail!("{program:?} does not listen:\n{said}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail where it has ended by itself, which is what is wanted.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
