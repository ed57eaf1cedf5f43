//! `Peers`: connections to other nodes, dialled when they are needed.
//!
//! Idle connections close themselves; so the pool forgets, and never has to sweep.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use model::NodeId;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::code::Status;
use crate::config::Config;
use crate::dial::connect;
use crate::error::{CallError, DialError};
use crate::handle::{Connection, Request};
use crate::wire::Security;

/// Knows where nodes are.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// The address at which `node` listens for other nodes.
    async fn resolve(
        &self,
        node: &NodeId,
    ) -> Result<SocketAddr, Box<dyn std::error::Error + Send + Sync>>;
}

/// Why a node did not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PeerError {
    /// There is no connection to it.
    #[error("connecting to {node}")]
    Dial {
        /// The node.
        node: NodeId,
        /// The cause, shared by all who waited.
        source: Arc<DialError>,
    },
    /// The call itself failed.
    #[error("calling {node}")]
    Call {
        /// The node.
        node: NodeId,
        /// The cause.
        source: CallError,
    },
}

/// A pool of connections; clones are of the same.
#[derive(Clone)]
pub struct Peers(Arc<Shared>);

struct Shared {
    config: Config,
    security: Security,
    resolve: Arc<dyn Resolve>,
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    nodes: HashMap<NodeId, Node>,
    closed: bool,
}

struct Node {
    connections: Vec<Connection>,
    dialling: Option<Dialling>,
    backoff: Backoff,
    failure: Option<Arc<DialError>>,
}

type Dialled = Result<Connection, Arc<DialError>>;
type Dialling = watch::Receiver<Option<Dialled>>;

/// What there is to be had of a node at once.
enum Found {
    Connection(Connection),
    Dialling(Dialling),
    Failed(Arc<DialError>),
}

impl Peers {
    /// An empty pool.
    pub fn new(config: Config, security: Security, resolve: Arc<dyn Resolve>) -> Self {
        Self(Arc::new(Shared {
            config,
            security,
            resolve,
            pool: Mutex::new(Pool::default()),
        }))
    }

    /// A connection to `node`: the least busy there is, or a new one. All who ask while it is
    /// dialled wait for the same attempt; who asks shortly after one failed is told so at once.
    pub async fn connection(&self, node: &NodeId) -> Result<Connection, PeerError> {
        let dial_error = |source| PeerError::Dial {
            node: node.clone(),
            source,
        };
        let mut dialling = match self.find(node) {
            Found::Connection(connection) => return Ok(connection),
            Found::Failed(error) => return Err(dial_error(error)),
            Found::Dialling(dialling) => dialling,
        };
        let result = match dialling.wait_for(Option::is_some).await {
            Ok(result) => result.clone(),
            // The attempt's task is gone, which only the end of the runtime does.
            Err(_) => None,
        };
        match result {
            Some(Ok(connection)) => Ok(connection),
            Some(Err(error)) => Err(dial_error(error)),
            None => Err(dial_error(Arc::new(DialError::Closed))),
        }
    }

    /// Asks `node` and waits for all of the reply.
    ///
    /// A call that crossed the end of its connection was not begun, and is sent once more.
    pub async fn call(
        &self,
        node: &NodeId,
        request: Request,
    ) -> Result<(Status, Bytes), PeerError> {
        let connection = self.connection(node).await?;
        let result = match connection.call(request.clone()).await {
            Err(CallError::Draining) => self.connection(node).await?.call(request).await,
            result => result,
        };
        result.map_err(|source| PeerError::Call {
            node: node.clone(),
            source,
        })
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        let pool = self.0.pool.lock();
        let open = |node: &Node| node.connections.iter().filter(|one| one.is_open()).count();
        pool.nodes.values().map(open).sum()
    }

    /// Takes no more calls, and waits until those under way are over.
    pub async fn drain(&self) {
        let connections: Vec<Connection> = {
            let mut pool = self.0.pool.lock();
            pool.closed = true;
            let nodes = std::mem::take(&mut pool.nodes);
            nodes.into_values().flat_map(|n| n.connections).collect()
        };
        for connection in &connections {
            connection.drain();
        }
        for connection in &connections {
            connection.closed().await;
        }
    }

    fn find(&self, name: &NodeId) -> Found {
        let config = &self.0.config;
        let mut pool = self.0.pool.lock();
        if pool.closed {
            return Found::Failed(Arc::new(DialError::Closed));
        }
        let node = pool.nodes.entry(name.clone()).or_insert_with(|| Node {
            connections: Vec::new(),
            dialling: None,
            backoff: Backoff::new(config.backoff_min, config.backoff_max),
            failure: None,
        });
        node.connections.retain(Connection::is_open);
        let least = node
            .connections
            .iter()
            .min_by_key(|one| one.calls())
            .cloned();
        let retry_in = node.backoff.wait(Instant::now());
        if let Some(least) = least {
            let more = least.calls() >= config.pool_busy_calls
                && node.connections.len() < config.pool_connections_max
                && node.dialling.is_none()
                && retry_in.is_none();
            if more {
                node.dialling = Some(self.dial(name));
            }
            return Found::Connection(least);
        }
        if let Some(dialling) = &node.dialling {
            return Found::Dialling(dialling.clone());
        }
        if let (Some(retry_in), Some(source)) = (retry_in, node.failure.clone()) {
            return Found::Failed(Arc::new(DialError::BackingOff {
                node: name.clone(),
                retry_in,
                source,
            }));
        }
        let dialling = self.dial(name);
        node.dialling = Some(dialling.clone());
        Found::Dialling(dialling)
    }

    /// Starts an attempt in a task of its own: who asked for it may go away, others may wait.
    fn dial(&self, node: &NodeId) -> Dialling {
        let (sender, receiver) = watch::channel(None);
        let (peers, node) = (self.clone(), node.clone());
        tokio::spawn(async move {
            let result = peers.reach(&node).await.map_err(Arc::new);
            let result = peers.dialled(&node, result);
            sender.send_replace(Some(result));
        });
        receiver
    }

    async fn reach(&self, node: &NodeId) -> Result<Connection, DialError> {
        let shared = &self.0;
        let found = tokio::time::timeout(shared.config.handshake_max, shared.resolve.resolve(node));
        let address = match found.await {
            Ok(Ok(address)) => address,
            Ok(Err(source)) => {
                return Err(DialError::Resolve {
                    node: node.clone(),
                    source,
                });
            }
            Err(_) => return Err(DialError::Timeout(shared.config.handshake_max)),
        };
        connect(address, node, &shared.config, &shared.security).await
    }

    /// Notes how an attempt ended. A pool that was closed meanwhile keeps nothing.
    fn dialled(&self, name: &NodeId, result: Dialled) -> Dialled {
        let mut pool = self.0.pool.lock();
        if pool.closed {
            return Err(Arc::new(DialError::Closed));
        }
        let Some(node) = pool.nodes.get_mut(name) else {
            return result;
        };
        node.dialling = None;
        match &result {
            Ok(connection) => {
                node.backoff.reached();
                node.failure = None;
                node.connections.push(connection.clone());
            }
            Err(error) => {
                node.backoff.failed(Instant::now(), rand::random::<f64>());
                node.failure = Some(Arc::clone(error));
            }
        }
        result
    }
}
