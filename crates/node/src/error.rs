//! Why a node does not start.

use std::net::SocketAddr;
use std::path::PathBuf;

use storage::StorageError;

/// Why a node could not be started, or a command on its data directory done.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory cannot be used.
    #[error("the data directory {} could not be {doing}", path.display())]
    DataDir {
        /// What was being done.
        doing: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Another node has it.
    #[error("the data directory {} is in use by another node", .0.display())]
    InUse(PathBuf),
    /// A listener would be open to others, and there is no token.
    #[error(
        "{0} can be reached from other machines, and no token exists: make one first with \
         `dunlin token create NAME --data DIR`, or listen on 127.0.0.1"
    )]
    NoToken(SocketAddr),
    /// Tokens are required, and there is none.
    #[error(
        "tokens are required and none exists: make one first with \
         `dunlin token create NAME --data DIR`"
    )]
    TokenRequired,
    /// An address cannot be listened on.
    #[error("{addr} could not be listened on")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The listeners do not say where they are.
    #[error("the gateway could not be started")]
    Gateway(#[source] std::io::Error),
    /// The engines could not be started.
    #[error("the engines could not be started")]
    Engines(#[from] faaslet::FaasletsError),
    /// The store failed.
    #[error("the store could not be opened or read")]
    Storage(#[from] StorageError),
    /// The invoker could not take up its work.
    #[error("the invoker could not be started")]
    Invoker(#[from] invoker::InvokerError),
    /// What a crash left of the state could not be put in order.
    #[error("the stored state could not be opened")]
    State(#[from] state::GlobalError),
    /// Usage could not be read or written.
    #[error("the usage ledger could not be read")]
    Ledger(#[from] metering::LedgerError),
    /// Tokens could not be read or changed.
    #[error(transparent)]
    Token(#[from] gateway::TokenError),
    /// The cluster's certificates are missing or cannot be used.
    #[error(transparent)]
    Certificate(#[from] crate::CertificateError),
    /// It is not said where the blobs are in a way that is known.
    #[error(
        "`{0}` names no place for blobs: write s3://BUCKET/PREFIX, or file:///FOLDER of a folder \
         that all nodes share"
    )]
    Blobs(String),
    /// Other nodes could not reach this one.
    #[error(
        "other nodes cannot reach this one at {0}: name an address and port of this machine with \
         --peer-addr, or what others are to use with --advertise"
    )]
    Advertise(SocketAddr),
    /// Strangers could reach a node that does not ask who they are.
    #[error(
        "{0} may be reached from outside of a private network: without TLS nodes listen, and are \
         advertised, at addresses of the loopback or of a private network only"
    )]
    Plaintext(SocketAddr),
    /// The node did not become a member.
    #[error(
        "{node} did not join the cluster within {} s: another node is named so, or etcd does not \
         answer", patience.as_secs_f64()
    )]
    NotJoined {
        /// The node.
        node: model::NodeId,
        /// How long it waited.
        patience: std::time::Duration,
    },
    /// Threads could not be started.
    #[error("the {runtime} runtime could not be started")]
    Runtime {
        /// Which.
        runtime: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Logs or traces could not be set up.
    #[error("{0}")]
    Telemetry(String),
}
