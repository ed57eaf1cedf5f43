//! What a node of a cluster is told beside what every node is told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::NodeId;

use super::carry::CarryConfig;
use crate::NodeError;

/// The cluster that a node joins.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The node's name: its certificate is for it, and no other node has it.
    pub node: NodeId,
    /// The store: `etcd://host,host/prefix`.
    pub store: String,
    /// Where artifacts are: `s3://bucket/prefix`, or `file:///folder` that all nodes share.
    pub blobs: String,
    /// Where this node listens for other nodes.
    pub peer_addr: SocketAddr,
    /// Where other nodes reach it, if that is another address.
    pub advertise: Option<SocketAddr>,
    /// The folder of the cluster's authority and of the node's certificate.
    pub folder: PathBuf,
    /// Whether nodes talk without TLS, and so without knowing each other: whoever reaches the port
    /// is whoever he says. For measurements; refused but on private addresses.
    pub dangerous_plaintext: bool,
    /// Leases, and the rate of reports.
    pub membership: membership::Config,
    /// Connections to other nodes.
    pub transport: transport::Config,
    /// Requests to etcd.
    pub etcd: storage::EtcdConfig,
    /// Requests to the bucket, if the blobs are in one.
    pub s3: storage::S3Config,
    /// How often the certificate's file is looked at for a newer one.
    pub reload_every: Duration,
    /// How many decisions to send a call elsewhere are kept to be explained.
    pub decisions_max: usize,
    /// Bytes of blobs that the node keeps at most, but for those that loaded versions use.
    pub blob_cache_bytes_max: u64,
    /// How blobs travel between nodes.
    pub carry: CarryConfig,
}

/// Bytes of blobs that a node keeps unless set.
const BLOB_CACHE_BYTES_MAX: u64 = 10 << 30;

impl ClusterConfig {
    /// The defaults of a node that is named so.
    pub fn new(
        node: NodeId,
        store: impl Into<String>,
        blobs: impl Into<String>,
        peer_addr: SocketAddr,
        folder: impl Into<PathBuf>,
    ) -> Self {
        let mut config = Self {
            node,
            store: store.into(),
            blobs: blobs.into(),
            peer_addr,
            advertise: None,
            folder: folder.into(),
            dangerous_plaintext: false,
            membership: membership::Config::default(),
            transport: transport::Config::default(),
            etcd: storage::EtcdConfig::default(),
            s3: storage::S3Config::default(),
            reload_every: Duration::from_secs(30),
            decisions_max: 4096,
            blob_cache_bytes_max: BLOB_CACHE_BYTES_MAX,
            carry: CarryConfig::default(),
        };
        config.set_lease(config.membership.lease_ttl);
        config
    }

    /// Sets the time that a node's lease lasts, and with it all times that hang together. Users
    /// wait for no node, and for no answer of etcd, for longer than a lease and some.
    pub fn set_lease(&mut self, ttl: Duration) {
        let membership = &mut self.membership;
        membership.lease_ttl = ttl;
        membership.lease_margin = ttl / 5;
        // Often: what is left of a lease when etcd loses its leader is what an election may take.
        membership.renew_every = ttl / 10;
        membership.retry_after = ttl / 20;
        membership.request_timeout = ttl / 5;
        let transport = &mut self.transport;
        // A node that keeps its lease and is not heard is as lost to its neighbour as a dead one.
        transport.dead_after = ttl;
        transport.ping_after = ttl / 3;
        transport.handshake_max = ttl / 2;
        transport.backoff_max = ttl / 2;
        self.etcd.request_timeout = ttl;
        self.etcd.try_timeout = ttl * 3 / 10;
        self.etcd.connect_timeout = ttl / 5;
    }

    /// Where other nodes reach this one, which listens at `bound`.
    pub(super) fn advertised(&self, bound: SocketAddr) -> Result<SocketAddr, NodeError> {
        let address = self.advertise.unwrap_or(bound);
        match address.ip().is_unspecified() || address.port() == 0 {
            true => Err(NodeError::Advertise(address)),
            false => Ok(address),
        }
    }
}
