//! What a node is told, from flags, environment and files: read once, here.
//!
//! ```text
//!  flag > DUNLIN_* > --config FILE or ./dunlin-node.toml > ~/.config/dunlin/node.toml > default
//! ```

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use api::manifest::keys::{Problem, Problems, Shape, unknown};
use clap::{Args, ValueEnum};
use metering::PriceList;
use model::NodeId;
use serde::Deserialize;

use crate::exit::{Exit, Failure};

/// The project's file, looked for where the node is started.
pub const PROJECT_FILE: &str = "dunlin-node.toml";
/// The user's file, under the folder of his configuration.
const USER_FILE: &str = "dunlin/node.toml";
/// Longest configuration file, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// Every key of a configuration file. A test compares it with [`Settings`].
const SHAPE: Shape = Shape::Table(&[
    ("data", Shape::Value),
    ("listen", Shape::Value),
    ("admin", Shape::Value),
    ("host", Shape::Value),
    ("require_token", Shape::Value),
    ("log_format", Shape::Value),
    ("log_filter", Shape::Value),
    ("sandboxes_max", Shape::Value),
    ("guest_threads", Shape::Value),
    ("running_max", Shape::Value),
    ("queued_max", Shape::Value),
    ("artifact_bytes_max", Shape::Value),
    ("cache_bytes_max", Shape::Value),
    ("drain_s", Shape::Value),
    ("state_value_bytes_max", Shape::Value),
    ("state_app_bytes_max", Shape::Value),
    ("state_app_keys_max", Shape::Value),
    ("state_node_bytes_max", Shape::Value),
    ("state_regions_max", Shape::Value),
    ("cluster", Shape::Value),
    ("blobs", Shape::Value),
    ("node", Shape::Value),
    ("peer_addr", Shape::Value),
    ("advertise", Shape::Value),
    ("cluster_dir", Shape::Value),
    ("dangerous_plaintext_peers", Shape::Value),
    ("lease_ms", Shape::Value),
    ("blob_cache_bytes_max", Shape::Value),
    ("prices", Shape::Table(PRICES)),
]);

const PRICES: &[(&str, Shape)] = &[
    ("currency", Shape::Value),
    ("million_invocations", Shape::Value),
    ("gb_second", Shape::Value),
    ("cpu_second", Shape::Value),
    ("input_gb", Shape::Value),
    ("output_gb", Shape::Value),
];

/// One layer of configuration: what it does not say is left to the next.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Folder of everything that survives [default: dunlin-data]
    #[arg(long, env = "DUNLIN_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where functions are called [default: 127.0.0.1:8080]
    #[arg(long, env = "DUNLIN_LISTEN", value_name = "ADDR")]
    pub listen: Option<Address>,
    /// Where the admin API is [default: 127.0.0.1:8081]
    #[arg(long, env = "DUNLIN_ADMIN", value_name = "ADDR")]
    pub admin: Option<Address>,
    /// Base of host names, as in FUNCTION.APP.HOST [default: localhost]
    #[arg(long, env = "DUNLIN_HOST", value_name = "HOST")]
    pub host: Option<String>,
    /// Ask every request for a token, on both listeners [default: only off loopback]
    #[arg(long, env = "DUNLIN_REQUIRE_TOKEN", value_name = "BOOL", num_args = 0..=1,
        default_missing_value = "true")]
    pub require_token: Option<bool>,
    /// How the node's own log looks [default: text on a terminal, json otherwise]
    #[arg(long, env = "DUNLIN_LOG_FORMAT", value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What the node logs, as in RUST_LOG [default: info]
    #[arg(long, env = "DUNLIN_LOG_FILTER", value_name = "FILTER")]
    pub log_filter: Option<String>,
    /// Most live sandboxes
    #[arg(long, env = "DUNLIN_SANDBOXES_MAX", value_name = "COUNT",
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub sandboxes_max: Option<u64>,
    /// Threads that share the cores between computing guests
    #[arg(long, env = "DUNLIN_GUEST_THREADS", value_name = "COUNT",
        value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub guest_threads: Option<u64>,
    /// Most invocations that run at once
    #[arg(long, env = "DUNLIN_RUNNING_MAX", value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub running_max: Option<u32>,
    /// Most invocations that wait for a place
    #[arg(long, env = "DUNLIN_QUEUED_MAX", value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub queued_max: Option<u32>,
    /// Largest artifact, in bytes
    #[arg(long, env = "DUNLIN_ARTIFACT_BYTES_MAX", value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub artifact_bytes_max: Option<u64>,
    /// Most bytes of compiled code and images that are kept, of each back-end
    #[arg(long, env = "DUNLIN_CACHE_BYTES_MAX", value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1..=1 << 50))]
    pub cache_bytes_max: Option<u64>,
    /// How long a stopping node waits for what runs, in seconds [default: 30]
    #[arg(long, env = "DUNLIN_DRAIN_S", value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub drain_s: Option<u64>,
    /// Longest value of state, in bytes
    #[arg(long, env = "DUNLIN_STATE_VALUE_BYTES_MAX", value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1..=2 << 30))]
    pub state_value_bytes_max: Option<u64>,
    /// Most bytes of one app's state in memory
    #[arg(long, env = "DUNLIN_STATE_APP_BYTES_MAX", value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1..=1 << 44))]
    pub state_app_bytes_max: Option<u64>,
    /// Most keys of one app's state in memory
    #[arg(long, env = "DUNLIN_STATE_APP_KEYS_MAX", value_name = "COUNT",
        value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub state_app_keys_max: Option<u64>,
    /// Most bytes of all state in memory
    #[arg(long, env = "DUNLIN_STATE_NODE_BYTES_MAX", value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1..=1 << 44))]
    pub state_node_bytes_max: Option<u64>,
    /// Most values of state in regions of their own, each with a file descriptor
    #[arg(long, env = "DUNLIN_STATE_REGIONS_MAX", value_name = "COUNT",
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub state_regions_max: Option<u64>,
    /// Store of the cluster to join, as in etcd://HOST:PORT,HOST:PORT [default: none, alone]
    #[arg(
        long,
        env = "DUNLIN_CLUSTER",
        hide_env_values = true,
        value_name = "ADDR"
    )]
    pub cluster: Option<String>,
    /// Where artifacts are: s3://BUCKET/PREFIX, or file:///FOLDER that all nodes share
    #[arg(long, env = "DUNLIN_BLOBS", value_name = "ADDR")]
    pub blobs: Option<String>,
    /// Name of the node in the cluster [default: the machine's]
    #[arg(long, env = "DUNLIN_NODE", value_name = "NAME")]
    pub node: Option<NodeId>,
    /// Where the node listens for other nodes [default: the address of --listen, port 8082]
    #[arg(long, env = "DUNLIN_PEER_ADDR", value_name = "ADDR")]
    pub peer_addr: Option<Address>,
    /// Where other nodes reach it, if not there
    #[arg(long, env = "DUNLIN_ADVERTISE", value_name = "ADDR")]
    pub advertise: Option<Address>,
    /// Folder of the cluster's certificates [default: dunlin-cluster]
    #[arg(long, env = "DUNLIN_CLUSTER_DIR", value_name = "DIR")]
    pub cluster_dir: Option<PathBuf>,
    /// Talk to other nodes without TLS. INSECURE: whoever reaches the port for other nodes reads
    /// all, and can do all that a node can; for measurements on private networks
    #[arg(long, env = "DUNLIN_DANGEROUS_PLAINTEXT_PEERS", value_name = "BOOL", num_args = 0..=1,
        default_missing_value = "true")]
    pub dangerous_plaintext_peers: Option<bool>,
    /// How long a node that is gone keeps what it owned, in milliseconds [default: 10000]
    #[arg(long, env = "DUNLIN_LEASE_MS", value_name = "MS",
        value_parser = clap::value_parser!(u64).range(2000..=600_000))]
    pub lease_ms: Option<u64>,
    /// Bytes of the cluster's blobs that the node keeps at most [default: 10737418240]
    #[arg(long, env = "DUNLIN_BLOB_CACHE_BYTES_MAX", value_name = "BYTES")]
    pub blob_cache_bytes_max: Option<u64>,
    /// What usage costs; only in files.
    #[arg(skip)]
    pub prices: Option<PriceList>,
}

/// How the node's own log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a listener binds. A URL is taken too, so that `DUNLIN_ADMIN` suits node and clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(80).collect();
        let address = text.strip_prefix("http://").unwrap_or(text);
        let address = address.strip_suffix('/').unwrap_or(address);
        if let Ok(address) = address.parse() {
            return Ok(Self(address));
        }
        let mut found = address
            .to_socket_addrs()
            .map_err(|_| format!("`{shown}` is not an address: write HOST:PORT"))?;
        found
            .next()
            .map(Self)
            .ok_or_else(|| format!("`{shown}` names no address of this machine"))
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Settings {
    /// These settings, and those of the files below them: `config` or the project's, the user's.
    pub fn with_files(self, config: Option<&Path>) -> Result<Self, Failure> {
        let project = match config {
            Some(file) => Self::read(file)?,
            None => Self::read_if_there(Path::new(PROJECT_FILE))?,
        };
        let user = match user_file() {
            Some(file) => Self::read_if_there(&file)?,
            None => Self::default(),
        };
        Ok(self.or(project).or(user))
    }

    /// These settings, and where they are silent those of `lower`.
    fn or(self, lower: Self) -> Self {
        Self {
            data: self.data.or(lower.data),
            listen: self.listen.or(lower.listen),
            admin: self.admin.or(lower.admin),
            host: self.host.or(lower.host),
            require_token: self.require_token.or(lower.require_token),
            log_format: self.log_format.or(lower.log_format),
            log_filter: self.log_filter.or(lower.log_filter),
            sandboxes_max: self.sandboxes_max.or(lower.sandboxes_max),
            guest_threads: self.guest_threads.or(lower.guest_threads),
            running_max: self.running_max.or(lower.running_max),
            queued_max: self.queued_max.or(lower.queued_max),
            artifact_bytes_max: self.artifact_bytes_max.or(lower.artifact_bytes_max),
            cache_bytes_max: self.cache_bytes_max.or(lower.cache_bytes_max),
            drain_s: self.drain_s.or(lower.drain_s),
            state_value_bytes_max: self.state_value_bytes_max.or(lower.state_value_bytes_max),
            state_app_bytes_max: self.state_app_bytes_max.or(lower.state_app_bytes_max),
            state_app_keys_max: self.state_app_keys_max.or(lower.state_app_keys_max),
            state_node_bytes_max: self.state_node_bytes_max.or(lower.state_node_bytes_max),
            state_regions_max: self.state_regions_max.or(lower.state_regions_max),
            cluster: self.cluster.or(lower.cluster),
            blobs: self.blobs.or(lower.blobs),
            node: self.node.or(lower.node),
            peer_addr: self.peer_addr.or(lower.peer_addr),
            advertise: self.advertise.or(lower.advertise),
            cluster_dir: self.cluster_dir.or(lower.cluster_dir),
            dangerous_plaintext_peers: self
                .dangerous_plaintext_peers
                .or(lower.dangerous_plaintext_peers),
            lease_ms: self.lease_ms.or(lower.lease_ms),
            blob_cache_bytes_max: self.blob_cache_bytes_max.or(lower.blob_cache_bytes_max),
            prices: self.prices.or(lower.prices),
        }
    }

    fn read_if_there(file: &Path) -> Result<Self, Failure> {
        if file.is_file() {
            Self::read(file)
        } else {
            Ok(Self::default())
        }
    }

    fn read(file: &Path) -> Result<Self, Failure> {
        let shown = file.display();
        let meta = std::fs::metadata(file).with_context(|| format!("reading {shown}"))?;
        if meta.len() > BYTES_MAX {
            let message = format!("{shown} is too long: at most {BYTES_MAX} bytes");
            return Err(Failure::new(Exit::Refused, message).next("name a configuration file"));
        }
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {shown}"))?;
        let mut settings = Self::parse(&text).map_err(|problems| {
            Failure::new(Exit::Refused, format!("{shown} is not valid:\n{problems}"))
                .next("correct it; docs/cli.md lists the keys")
        })?;
        // A path in a file is relative to the file, wherever the node is started.
        let paths = [&mut settings.data, &mut settings.cluster_dir];
        if let Some(folder) = file.parent() {
            paths
                .into_iter()
                .flatten()
                .for_each(|path| *path = folder.join(&*path));
        }
        Ok(settings)
    }

    fn parse(text: &str) -> Result<Self, Problems> {
        let unknown = unknown(text, SHAPE)?;
        if !unknown.is_empty() {
            return Err(Problems::new(unknown));
        }
        toml::from_str(text).map_err(|error| Problems::one(Problem::of_toml(text, &error)))
    }

    /// The node's configuration: these settings over the defaults.
    pub fn config(&self) -> Result<node::Config, Failure> {
        let data = self.data.clone().unwrap_or_else(|| "dunlin-data".into());
        let mut config = node::Config::new(data);
        set(&mut config.data_addr, self.listen.map(|address| address.0));
        set(&mut config.admin_addr, self.admin.map(|address| address.0));
        set(&mut config.gateway.host, self.host.clone());
        set(&mut config.gateway.require_token, self.require_token);
        set(
            &mut config.gateway.artifact_bytes_max,
            self.artifact_bytes_max,
        );
        set(&mut config.sandboxes_max, self.sandboxes_max.map(whole));
        set(&mut config.cache_bytes_max, self.cache_bytes_max);
        set(&mut config.guest_threads, self.guest_threads.map(whole));
        set(&mut config.executor.node_running_max, self.running_max);
        set(&mut config.executor.node_queued_max, self.queued_max);
        set(
            &mut config.drain_patience,
            self.drain_s.map(Duration::from_secs),
        );
        self.set_state(&mut config);
        set(&mut config.prices, self.prices.clone());
        config.cluster = self.cluster_config()?;
        Ok(config)
    }

    fn set_state(&self, config: &mut node::Config) {
        let state = &mut config.state;
        for (to, value) in [
            (&mut state.value_bytes_max, self.state_value_bytes_max),
            (&mut state.app_bytes_max, self.state_app_bytes_max),
            (&mut state.app_keys_max, self.state_app_keys_max),
            (&mut state.node_bytes_max, self.state_node_bytes_max),
            (&mut state.node_regions_max, self.state_regions_max),
        ] {
            set(to, value.map(whole));
        }
    }
}

fn set<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}

fn whole(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn user_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = match set("XDG_CONFIG_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(set("HOME")?).join(".config"),
    };
    Some(folder.join(USER_FILE))
}

#[cfg(test)]
#[path = "node_config_tests.rs"]
mod tests;
