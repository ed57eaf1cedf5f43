//! A node among others: what it shares with them, how they find each other, and whose calls it
//! runs.
//!
//! ```text
//!            etcd ◀── store, leases ── Membership ──roster──▶ Neighbours ──▶ Peers ─TLS─▶ others
//!  bucket ◀─ Blobs behind a local cache     ▲ load                             ▲
//!              └─miss─▶ Carrier ────────────┼───────────────────────────────────┤
//!                                           └── Executor ◀── Placing ──forward─┘
//!  others ─TLS─▶ Server ─▶ Router ┬▶ Calls ────▲              ▲
//!                                 │                        gateway, queue
//!                                 └▶ Keys ─▶ State ── Owners ──▶ Peers ─TLS─▶ others
//! ```
//!
//! Invariants, as absences:
//! - No call makes more than one hop: what came from another node is run here or refused.
//! - No request asks etcd: where a call runs is decided by what the nodes pushed.
//! - No node is heard or spoken to without a certificate of the cluster's authority, unless its
//!   operator asked for plaintext.
//! - No call is sent twice of which it is not known that it was not started, unless its caller said
//!   that it may run twice.

mod answers;
mod ask;
mod away;
mod carry;
mod certificates;
mod config;
mod decisions;
mod forward;
mod hints;
mod load;
mod logs;
mod messages;
mod metrics;
mod neighbours;
mod nodes;
mod out;
mod owners;
mod place;
mod router;
mod search;
mod security;
mod serve;
mod shared;

mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use executor::Executor;
use invoker::{Members, Registry};
use membership::{Membership, Record};
use metering::{GraphBook, LogBook, PriceList};
use scheduler::Standing;
use state::{Keeper, State};
use storage::{Blobs, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use transport::{Handler, Identity, Peers, Server};

use self::answers::Answers;
use self::away::{Away, Offers};
use self::carry::{Net, Serve};
use self::decisions::Decisions;
use self::hints::Hints;
use self::logs::Lines;
use self::neighbours::Neighbours;
use self::owners::{Keys, Owners};
use self::router::{Router, Service};
use self::serve::Calls;

use crate::NodeError;

pub(crate) use self::metrics::{ARRIVALS_TOTAL, FIRST_LOADS_TOTAL};
pub(crate) use away::{Accepted, Replied};
pub use carry::CarryConfig;
pub(crate) use carry::{Carrier, PART_BYTES_MAX, Span};
pub use certificates::{CertificateError, init_cluster, issue_certificate};
pub use config::ClusterConfig;
pub(crate) use forward::http_input;
pub(crate) use place::Placing;
pub(crate) use shared::{Bucket, Shared};
pub(crate) use wire::Input;

/// How many leases a node waits to become a member before it gives up.
const JOIN_LEASES_MAX: u32 = 3;

/// What runs calls, for this node and for the others.
pub(crate) struct Local<'a> {
    pub executor: &'a Executor,
    pub registry: &'a Registry,
    pub logs: &'a LogBook,
    pub graphs: &'a GraphBook,
    pub prices: &'a PriceList,
    pub blobs: &'a Blobs,
    pub queue_wait_max: Duration,
    pub state: &'a State,
}

/// A node that knows who it is and where it listens: what the parts of the node need of the others,
/// which do not know of it yet.
pub(crate) struct Seat {
    config: ClusterConfig,
    address: SocketAddr,
    identity: Option<Arc<Identity>>,
    membership: Membership,
    service: membership::Service,
    neighbours: Arc<Neighbours>,
    queues: Arc<Members>,
    peers: Peers,
    router: Arc<Router>,
    carrier: Carrier,
    server: Server,
    drain_max: Duration,
}

/// A node that has all it takes to be a member.
pub(crate) struct Joining {
    seat: Seat,
    placing: Arc<Placing>,
    keeper: Keeper,
}

/// A member.
pub(crate) struct Member {
    address: SocketAddr,
    placing: Arc<Placing>,
    neighbours: Arc<Neighbours>,
    /// Ends the owning of state.
    keeping: CancellationToken,
    keeper: JoinHandle<()>,
    drain_max: Duration,
    /// Ends the server, and what tells of the node.
    serving: CancellationToken,
    server: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
    /// Ends the lease: last.
    leaving: CancellationToken,
    lease: JoinHandle<()>,
}

impl Seat {
    /// Listens for other nodes. Calls that run get `drain_max` when the node stops. From now on
    /// the cache of `blobs` asks other nodes; what deploys make is in `images`.
    pub async fn take(
        config: &ClusterConfig,
        store: Arc<dyn Store>,
        [blobs, images]: [&Blobs; 2],
        drain_max: Duration,
    ) -> Result<Self, NodeError> {
        metrics::describe();
        security::check_plaintext(config)?;
        let (security, identity) = security::open(config).await?;
        let transport = transport::Config {
            drain_max,
            ..config.transport.clone()
        };
        let router = Arc::new(Router::default());
        let (addr, handler) = (config.peer_addr, router.clone());
        let listen = |source| NodeError::Listen { addr, source };
        let bound = Server::bind(addr, transport.clone(), security.clone(), handler).await;
        let server = bound.map_err(listen)?;
        let address = config.advertised(server.address().map_err(listen)?)?;
        let record = Record {
            address: address.to_string(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (id, terms) = (config.node.clone(), config.membership);
        let (membership, service) = Membership::new(id, record, store, terms);
        let neighbours = Arc::new(Neighbours::new(membership.clone()));
        let queues = Arc::new(Members::new(membership.clone()));
        let peers = Peers::new(transport, security, neighbours.clone());
        let net = Net::new(
            membership.clone(),
            neighbours.clone(),
            peers.clone(),
            config.carry,
        );
        let (here, patience) = (blobs.clone(), config.carry.bucket_patience);
        let carrier = Carrier::new(Arc::new(net), here, images.clone(), patience);
        blobs.fetch_by(carrier.fetcher());
        Ok(Self {
            config: config.clone(),
            address,
            identity,
            membership,
            service,
            neighbours,
            queues,
            peers,
            router,
            carrier,
            server,
            drain_max,
        })
    }

    /// What brings blobs here.
    pub fn carrier(&self) -> Carrier {
        self.carrier.clone()
    }

    /// Whose queues are in the store.
    pub fn queues(&self) -> Arc<dyn invoker::Nodes> {
        self.queues.clone()
    }

    /// Who owns the parts of the state.
    pub fn owners(&self) -> Arc<dyn state::Cluster> {
        Arc::new(Owners::new(
            self.membership.clone(),
            self.neighbours.clone(),
            self.queues.clone(),
            self.peers.clone(),
        ))
    }

    /// Places calls with what runs them here, and runs those of others; has a part of the state.
    pub fn serve(self, local: &Local<'_>, keeper: Keeper) -> Joining {
        let placing = Arc::new(Placing {
            executor: local.executor.clone(),
            membership: self.membership.clone(),
            neighbours: self.neighbours.clone(),
            peers: self.peers.clone(),
            decisions: Decisions::new(self.config.decisions_max),
            hints: Hints::new(local.blobs.clone(), local.state.clone()),
            standing: watch::Sender::new(Standing::Serving),
            queue_wait_max: local.queue_wait_max,
            offers: Offers::default(),
            away: Arc::new(Away::default()),
        });
        let calls: Arc<dyn Handler> = Arc::new(Calls {
            executor: local.executor.clone(),
            registry: local.registry.clone(),
            logs: local.logs.clone(),
            neighbours: self.neighbours.clone(),
            peers: self.peers.clone(),
            answers: Answers {
                placing: placing.clone(),
                graphs: local.graphs.clone(),
                prices: local.prices.clone(),
            },
        });
        let lines: Arc<dyn Handler> = Arc::new(Lines {
            logs: local.logs.clone(),
            closing: self.neighbours.closing(),
        });
        let serve = Serve::new(self.carrier.clone(), self.config.carry.sending_max);
        let blobs: Arc<dyn Handler> = Arc::new(serve);
        let mut services = vec![
            (Service::Call, calls),
            (Service::Logs, lines),
            (Service::Blob, blobs),
        ];
        if let Some(serve) = local.state.serve() {
            services.push((Service::State, Arc::new(Keys::new(serve))));
        }
        self.router.serve(services);
        Joining {
            seat: self,
            placing,
            keeper,
        }
    }
}

impl Joining {
    /// What places calls.
    pub fn placing(&self) -> Arc<Placing> {
        self.placing.clone()
    }

    /// Joins, and answers other nodes from now on.
    pub async fn join(self) -> Result<Member, NodeError> {
        let Self {
            seat,
            placing,
            keeper,
        } = self;
        let (serving, leaving) = (CancellationToken::new(), CancellationToken::new());
        let keeping = CancellationToken::new();
        let report_every = seat.config.membership.report_every_min;
        let server = tokio::spawn(seat.server.run(serving.clone().cancelled_owned()));
        let mut tasks = vec![
            tokio::spawn(seat.neighbours.clone().follow(leaving.clone())),
            tokio::spawn(seat.queues.follow(leaving.clone())),
            tokio::spawn(load::tell(
                placing.executor.clone(),
                seat.membership.clone(),
                placing.standing.subscribe(),
                report_every,
                leaving.clone(),
            )),
        ];
        tasks.extend(seat.identity.map(|identity| {
            tokio::spawn(certificates::keep_fresh(
                identity,
                seat.config.folder.clone(),
                seat.config.reload_every,
                serving.clone(),
            ))
        }));
        let member = Member {
            address: seat.address,
            placing,
            neighbours: seat.neighbours,
            keeper: tokio::spawn(keeper.run(keeping.clone().cancelled_owned())),
            keeping,
            drain_max: seat.drain_max,
            serving,
            server,
            tasks,
            lease: tokio::spawn(seat.service.run(leaving.clone())),
            leaving,
        };
        let patience = seat.config.membership.lease_ttl * JOIN_LEASES_MAX;
        match tokio::time::timeout(patience, seat.membership.joined()).await {
            Ok(tenure) => {
                let (node, address) = (seat.membership.id(), member.address);
                tracing::info!(%node, %address, token = tenure.token, "a member");
                Ok(member)
            }
            // Dropped, it ends what it began.
            Err(_) => Err(NodeError::NotJoined {
                node: seat.config.node,
                patience,
            }),
        }
    }
}

impl Member {
    /// Where other nodes reach this one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells the others nothing more, as in a crash.
    pub fn fall_silent(&self) {
        self.neighbours.fall_silent();
    }

    /// Takes no new calls of others, says so, and hands over what it has of the state. Until that
    /// is done others are answered, who may ask for it.
    pub fn begin_drain(&self) {
        self.neighbours.close();
        self.placing.standing.send_replace(Standing::Draining);
        self.keeping.cancel();
    }

    /// Waits until the state is handed over and the calls of others have ended, each at most as
    /// long as a drain may take.
    pub async fn end_calls(&mut self) {
        self.begin_drain();
        let handed_over = tokio::time::timeout(self.drain_max, &mut self.keeper).await;
        if handed_over.is_err() {
            tracing::warn!("parts of the state were not handed over: they go with the lease");
            self.keeper.abort();
        }
        self.serving.cancel();
        // A task that panicked has said so already.
        let _ended = (&mut self.server).await;
        self.placing.peers.drain().await;
    }

    /// Gives up the membership. What goes with it must have ended.
    pub async fn leave(mut self) {
        self.leaving.cancel();
        let _ended = (&mut self.lease).await;
        for task in std::mem::take(&mut self.tasks) {
            let _ended = task.await;
        }
    }
}

impl Drop for Member {
    /// What a crash is: the others hear nothing, and the lease runs out.
    fn drop(&mut self) {
        self.server.abort();
        self.keeper.abort();
        self.lease.abort();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
