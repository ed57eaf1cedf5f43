//! The accepting side: a listener, its connections, and the handler that answers.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use model::NodeId;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, Leaving, Sender};
use crate::call::Command;
use crate::code::{GoAway, Priority, Status};
use crate::config::Config;
use crate::dial::{Greeted, greet, refuse, vouched, welcome};
use crate::driver::{Parts, Role, Serving, drive};
use crate::error::{CallError, Close, DialError};
use crate::machine::{Machine, Side};
use crate::metrics;
use crate::wire::Security;

/// The wait after the system had no descriptor, or no memory, for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers the calls of other nodes.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers one call. Each runs in a task of its own, which is stopped when the call is cut;
    /// a handler that ends without a reply fails it.
    async fn handle(&self, call: Incoming);
}

/// A call of another node.
pub struct Incoming {
    /// Who calls, as its certificate says.
    pub peer: NodeId,
    /// What is asked.
    pub method: u16,
    /// How it stands to other calls.
    pub priority: Priority,
    /// When it is cut.
    pub deadline: Option<Instant>,
    /// What comes with it.
    pub body: Body,
    /// Where the reply goes.
    pub responder: Responder,
}

/// Where a reply goes; dropping it fails the call.
pub struct Responder(pub(crate) Sender);

impl Responder {
    /// Replies with all of the body.
    pub fn reply(self, status: Status, body: impl Into<Bytes>) -> Result<(), CallError> {
        self.reply_tracked(status, body).map(drop)
    }

    /// The same, for one who has something to do once the reply has gone.
    pub fn reply_tracked(
        self,
        status: Status,
        body: impl Into<Bytes>,
    ) -> Result<Leaving, CallError> {
        let sender = self.0.reply(status, body.into(), true)?;
        Ok(sender.leaving())
    }

    /// Replies with a body that is to come.
    pub fn stream(self, status: Status) -> Result<Sender, CallError> {
        self.0.reply(status, Bytes::new(), false)
    }
}

/// A listener for other nodes.
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    security: Security,
    handler: Arc<dyn Handler>,
    places: Arc<Semaphore>,
    peers: Mutex<HashMap<NodeId, usize>>,
}

impl Server {
    /// Listens on `address`.
    pub async fn bind(
        address: SocketAddr,
        config: Config,
        security: Security,
        handler: Arc<dyn Handler>,
    ) -> io::Result<Self> {
        let places = Arc::new(Semaphore::new(config.connections_max));
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            shared: Arc::new(Shared {
                config,
                security,
                handler,
                places,
                peers: Mutex::new(HashMap::new()),
            }),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts connections until `stop`, and then lets their calls finish.
    ///
    /// Dropping the future stops all of them at once.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let drain = CancellationToken::new();
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                Some(ended) = connections.join_next() => {
                    note(ended);
                    continue;
                }
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((tcp, place)) => {
                    let shared = Arc::clone(&self.shared);
                    connections.spawn(shared.serve(tcp, place, drain.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        drain.cancel();
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
    }

    /// The next connection, when there is a place for it: others wait in the kernel's queue.
    async fn accept(&self) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.shared.places).acquire_owned().await;
        let place = place.map_err(io::Error::other)?;
        let (tcp, _) = self.listener.accept().await?;
        Ok((tcp, place))
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "the task of a connection panicked");
    }
}

impl Shared {
    async fn serve(
        self: Arc<Self>,
        tcp: TcpStream,
        place: OwnedSemaphorePermit,
        drain: CancellationToken,
    ) {
        let _place = place;
        let handshake = tokio::time::timeout(self.config.handshake_max, self.admit(tcp));
        let admitted = tokio::select! {
            () = drain.cancelled() => return,
            admitted = handshake => admitted,
        };
        let failed = match admitted {
            Ok(Ok((greeted, seat))) => {
                self.run(greeted, seat, drain).await;
                return;
            }
            Ok(Err(error)) => error,
            Err(_) => DialError::Timeout(self.config.handshake_max),
        };
        let counter = ::metrics::counter!(metrics::HANDSHAKE_FAILURES_TOTAL, "side" => "acceptor");
        counter.increment(1);
        let error: &dyn std::error::Error = &failed;
        tracing::info!(error, "a handshake with another node failed");
    }

    async fn admit(&self, tcp: TcpStream) -> Result<(Greeted, Seat<'_>), DialError> {
        let mut greeted = greet(tcp, &self.config, &self.security).await?;
        let Some(seat) = self.seat(&greeted.theirs.node) else {
            refuse(&mut greeted.wire, GoAway::Busy).await?;
            return Err(DialError::Refused(GoAway::Busy));
        };
        welcome(&mut greeted, &self.config, &self.security).await?;
        Ok((greeted, seat))
    }

    /// One of the connections that a node may have.
    fn seat(&self, node: &NodeId) -> Option<Seat<'_>> {
        let mut peers = self.peers.lock();
        let count = peers.entry(node.clone()).or_default();
        if *count >= self.config.connections_per_peer_max {
            return None;
        }
        *count += 1;
        Some(Seat {
            peers: &self.peers,
            node: node.clone(),
        })
    }

    async fn run(&self, greeted: Greeted, seat: Seat<'_>, drain: CancellationToken) {
        let (closed, _) = watch::channel(None);
        let config = &self.config;
        let (commands, running) = drive(config, |commands| Parts {
            vouched: vouched(&greeted.wire, &self.security),
            wire: greeted.wire,
            machine: Machine::new(Instant::now(), Side::Acceptor, config, greeted.agreed),
            decoder: greeted.decoder,
            input: greeted.input,
            role: Role::Acceptor(Serving {
                peer: seat.node.clone(),
                handler: Arc::clone(&self.handler),
                commands,
                send_buffer_bytes: config.send_buffer_bytes,
            }),
            closed,
        });
        let mut driver = std::pin::pin!(running.run());
        let close = tokio::select! {
            close = &mut driver => close,
            () = drain.cancelled() => {
                // The driver is right here and takes it.
                let _ = commands.send(Command::Drain);
                driver.await
            }
        };
        if !matches!(*close, Close::Drained) {
            let error: &dyn std::error::Error = &*close;
            tracing::info!(peer = %seat.node, error, "a connection from another node was lost");
        }
    }
}

/// A node's claim to one of its connections.
struct Seat<'a> {
    peers: &'a Mutex<HashMap<NodeId, usize>>,
    node: NodeId,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut peers = self.peers.lock();
        if let Some(count) = peers.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.node);
            }
        }
    }
}
