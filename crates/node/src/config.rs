//! Everything that a node is told, in one plain struct: the command line composes it from flags,
//! environment, file and defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use metering::PriceList;

use crate::ClusterConfig;

/// A node's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything that survives is kept.
    pub data_dir: PathBuf,
    /// Where functions are called.
    pub data_addr: SocketAddr,
    /// Where the admin API is.
    pub admin_addr: SocketAddr,
    /// Limits of both listeners, host names, whether tokens are required.
    pub gateway: gateway::Config,
    /// Places, queues and idle sandboxes. Its `on_outcome` is set by the node.
    pub executor: executor::Config,
    /// The asynchronous queue: attempts, back-off, retention.
    pub invoker: invoker::Config,
    /// What guests print.
    pub logs: metering::LogConfig,
    /// What functions used.
    pub ledger: metering::LedgerConfig,
    /// Which invocation called which.
    pub graphs: metering::GraphConfig,
    /// State that functions share.
    pub state: state::Config,
    /// What one invocation may ask of the platform.
    pub hostcalls: hostcalls::Config,
    /// What usage costs.
    pub prices: PriceList,
    /// Most live sandboxes; lowered to what the kernel allows.
    pub sandboxes_max: usize,
    /// About the most bytes of what deploys make that are kept, of each back-end.
    pub cache_bytes_max: u64,
    /// Threads on which guests that do not yield share the cores.
    pub guest_threads: usize,
    /// How long a stopping node waits for what runs.
    pub drain_patience: Duration,
    /// The cluster that it joins; none for a node that stands alone.
    pub cluster: Option<ClusterConfig>,
}

/// Threads of the guest runtime unless set.
const GUEST_THREADS: usize = 64;

impl Config {
    /// Defaults, with everything that survives in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let faaslet = faaslet::Config::new("");
        Self {
            data_dir: data_dir.into(),
            data_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            admin_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            gateway: gateway::Config::default(),
            executor: executor::Config::default(),
            invoker: invoker::Config::default(),
            logs: metering::LogConfig::default(),
            ledger: metering::LedgerConfig::default(),
            graphs: metering::GraphConfig::default(),
            state: state::Config::default(),
            hostcalls: hostcalls::Config::default(),
            prices: PriceList::default(),
            sandboxes_max: faaslet.sandboxes_max,
            cache_bytes_max: faaslet.cache_bytes_max,
            guest_threads: GUEST_THREADS,
            drain_patience: Duration::from_secs(30),
            cluster: None,
        }
    }
}
