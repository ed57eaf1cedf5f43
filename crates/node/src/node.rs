//! The composition root: everything that a node is made of, put together and taken apart.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use executor::Executor;
use gateway::{Gateway, Services, Tokens};
use hostcalls::Hostcalls;
use invoker::{Invoker, Registry};
use metering::{GraphBook, Ledger, LogBook, PriceList};
use state::{EmbeddedGlobal, Keeper, State, SystemClock};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::artifacts::{BlobArtifacts, BlobFiles};
use crate::chain::NodeChain;
use crate::cluster::{Joining, Local, Member, Seat};
use crate::data_dir::DataDir;
use crate::guests::Guests;
use crate::travel::Travel;
use crate::walls::Walls;
use crate::{Config, NodeError, runner, telemetry};

/// A running node. Call [`Node::shutdown`]: dropping it ends it like a crash would, which loses
/// nothing that was accepted.
pub struct Node {
    gateway: Option<Gateway>,
    cluster: Option<Member>,
    executor: Executor,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    usage_stop: CancellationToken,
    usage: Option<JoinHandle<()>>,
    patience: Duration,
    guests: Guests,
    /// Last: the directory is let go when all else is.
    _data_dir: DataDir,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

/// Starts a node. Must be called in a tokio runtime, which answers requests.
pub async fn start(config: Config) -> Result<Node, NodeError> {
    let metrics = telemetry::metrics()?;
    let opened = open(&config).await?;
    let data_dir = &opened.data_dir;
    let guests = Guests::start(config.guest_threads)?;
    let books = Books::open(&config, data_dir).await?;
    let seat = match config.cluster.as_ref().zip(data_dir.bucket.as_ref()) {
        None => None,
        Some((cluster, bucket)) => {
            let (store, drain) = (data_dir.store.clone(), config.drain_patience);
            let blobs = [&data_dir.blobs, &bucket.images];
            Some(Seat::take(cluster, store, blobs, drain).await?)
        }
    };
    let (state, keeper) = state(&config, data_dir, seat.as_ref()).await?;
    let travel = seat.as_ref().map(|seat| {
        let (store, blobs) = (data_dir.store.clone(), data_dir.blobs.clone());
        Travel::new(store, blobs, seat.carrier())
    });
    let queues = match &seat {
        None => Arc::new(invoker::Alone::default()),
        Some(seat) => seat.queues(),
    };
    let running = (guests.handle(), travel);
    let opened_parts = Parts::open(&config, data_dir, &books, running, queues, state);
    let (parts, queue) = opened_parts.await?;
    let joining = seat.zip(keeper).map(|(seat, keeper)| {
        let local = parts.local(&config, &books, data_dir);
        seat.serve(&local, keeper)
    });
    let placing = joining.as_ref().map(|joining| parts.place_by(joining));
    let cluster = match joining {
        Some(joining) => Some(joining.join().await?),
        None => None,
    };
    let stop = CancellationToken::new();
    let runner = runner::runner(parts.executor.clone(), books.logs.clone(), placing.clone());
    let tasks = vec![
        tokio::spawn(queue.run(runner, stop.clone().cancelled_owned())),
        tokio::spawn(parts.state.service().run(stop.clone().cancelled_owned())),
        tokio::spawn(every(METRICS_UPKEEP, stop.clone(), {
            let metrics = metrics.clone();
            move || metrics.run_upkeep()
        })),
    ];
    // It has its own end: usage is written down when everything else has ended.
    let usage_stop = CancellationToken::new();
    let usage = keep_usage(&books.ledger, data_dir, &usage_stop);
    let executor = parts.executor.clone();
    let render = Arc::new(move || metrics.render());
    let services = parts.services(&opened, books, config.prices, placing, render);
    let gateway_config = gateway::Config {
        require_token: opened.require_token,
        ..config.gateway
    };
    let gateway = answer(gateway_config, services, opened.data, opened.admin)?;
    Ok(Node {
        gateway: Some(gateway),
        cluster,
        executor,
        stop,
        tasks,
        usage_stop,
        usage: Some(usage),
        patience: config.drain_patience,
        guests,
        _data_dir: opened.data_dir,
    })
}

/// What is written down of invocations.
struct Books {
    logs: LogBook,
    graphs: GraphBook,
    ledger: Ledger,
}

impl Books {
    async fn open(config: &Config, data_dir: &DataDir) -> Result<Self, NodeError> {
        let (mut graphs, mut ledger) = (config.graphs.clone(), config.ledger.clone());
        if let Some(cluster) = &config.cluster {
            graphs.node = cluster.node.to_string();
            ledger.node = Some(cluster.node.to_string());
        }
        let books = Self {
            logs: LogBook::new(config.logs.clone()),
            graphs: GraphBook::new(graphs),
            ledger: Ledger::new(ledger),
        };
        books.ledger.restore(&*data_dir.store).await?;
        Ok(books)
    }

    /// Where the one outcome of each invocation goes.
    fn on_outcome(&self) -> executor::OnOutcome {
        let (ledger, logs) = (self.ledger.clone(), self.logs.clone());
        let graphs = self.graphs.clone();
        Arc::new(move |job, outcome| {
            ledger.record(&job.path, &job.version, outcome);
            logs.finish(&job.path, job.id);
            let root = job.branch.as_ref().map_or(job.id, |branch| branch.root());
            graphs.ended(root, job.id, outcome);
        })
    }
}

/// What answers requests, behind the gateway.
struct Parts {
    registry: Registry,
    state: State,
    executor: Executor,
    invoker: Invoker,
    chain: NodeChain,
}

impl Parts {
    /// Everything but what runs by itself, and the queue, which is to be run.
    async fn open(
        config: &Config,
        data_dir: &DataDir,
        books: &Books,
        (guests, travel): (&Handle, Option<Travel>),
        queues: Arc<dyn invoker::Nodes>,
        state: State,
    ) -> Result<(Self, invoker::Service), NodeError> {
        let store = &data_dir.store;
        let registry = Registry::open(store.clone()).await?;
        let (logs, graphs) = (books.logs.clone(), books.graphs.clone());
        let chain = NodeChain::new(registry.clone(), logs, graphs, guests.clone());
        let calls = config.hostcalls;
        let host = Hostcalls::new(state.clone(), Arc::new(chain.clone()), calls);
        let executor_config = executor::Config {
            on_outcome: books.on_outcome(),
            host: Arc::new(host),
            ..config.executor.clone()
        };
        let faaslets = faaslet::Config {
            sandboxes_max: config.sandboxes_max,
            cache_bytes_max: config.cache_bytes_max,
            ..faaslet::Config::new(data_dir.cache())
        };
        let executor = executor(faaslets, executor_config, data_dir, guests, travel).await?;
        chain.run_on(&executor);
        let invoker_config = invoker::Config {
            drain: config.drain_patience,
            ..config.invoker.clone()
        };
        let payloads = data_dir.payloads.clone();
        let (store, functions) = (store.clone(), registry.clone());
        let opened = Invoker::open_among(store, payloads, functions, invoker_config, queues);
        let (invoker, queue) = opened.await?;
        let parts = Self {
            registry,
            state,
            executor,
            invoker,
            chain,
        };
        Ok((parts, queue))
    }

    /// What runs calls, for other nodes too.
    fn local<'a>(
        &'a self,
        config: &'a Config,
        books: &'a Books,
        data_dir: &'a DataDir,
    ) -> Local<'a> {
        Local {
            graphs: &books.graphs,
            prices: &config.prices,
            blobs: &data_dir.blobs,
            executor: &self.executor,
            registry: &self.registry,
            logs: &books.logs,
            queue_wait_max: config.executor.queue_wait_max,
            state: &self.state,
        }
    }

    /// What places calls, those of functions too.
    fn place_by(&self, joining: &Joining) -> Arc<dyn gateway::Cluster> {
        let placing = joining.placing();
        self.chain.place_by(&placing);
        placing
    }

    fn services(
        self,
        opened: &Opened,
        books: Books,
        prices: PriceList,
        cluster: Option<Arc<dyn gateway::Cluster>>,
        metrics: Arc<dyn Fn() -> String + Send + Sync>,
    ) -> Services {
        Services {
            executor: self.executor,
            registry: self.registry,
            invoker: self.invoker,
            state: self.state,
            blobs: opened.data_dir.blobs.clone(),
            logs: books.logs,
            ledger: books.ledger,
            graphs: books.graphs,
            prices,
            tokens: opened.tokens.clone(),
            cluster,
            metrics,
        }
    }
}

/// The state of the node's apps, and what keeps this node's part of it in a cluster.
async fn state(
    config: &Config,
    data_dir: &DataDir,
    seat: Option<&Seat>,
) -> Result<(State, Option<Keeper>), NodeError> {
    let (store, terms) = (data_dir.store.clone(), config.state.clone());
    match seat.zip(data_dir.bucket.as_ref()) {
        None => {
            let global = EmbeddedGlobal::open(store).await?;
            Ok((State::new(Arc::new(global), terms), None))
        }
        Some((seat, bucket)) => {
            let (bucket, clock) = (bucket.values.clone(), Arc::new(SystemClock));
            let (state, keeper) = State::clustered(store, bucket, seat.owners(), terms, clock);
            Ok((state, Some(keeper)))
        }
    }
}

/// What can be refused before anything runs: directory, tokens, addresses.
struct Opened {
    data_dir: DataDir,
    tokens: Tokens,
    require_token: bool,
    data: TcpListener,
    admin: TcpListener,
}

async fn open(config: &Config) -> Result<Opened, NodeError> {
    let path = config.data_dir.clone();
    let data_dir = match &config.cluster {
        None => blocking(move || DataDir::open(&path)).await?,
        Some(cluster) => DataDir::open_among(&path, cluster).await?,
    };
    let tokens = Tokens::open(data_dir.store.clone()).await?;
    Ok(Opened {
        require_token: check_exposure(config, &tokens)?,
        data: listen(config.data_addr).await?,
        admin: listen(config.admin_addr).await?,
        data_dir,
        tokens,
    })
}

fn answer(
    config: gateway::Config,
    services: Services,
    data: TcpListener,
    admin: TcpListener,
) -> Result<Gateway, NodeError> {
    let require_token = config.require_token;
    let gateway = Gateway::start(config, services, data, admin).map_err(NodeError::Gateway)?;
    tracing::info!(
        data = %gateway.data_addr(),
        admin = %gateway.admin_addr(),
        require_token,
        "the node is ready"
    );
    Ok(gateway)
}

/// What runs guests.
async fn executor(
    faaslets: faaslet::Config,
    config: executor::Config,
    data_dir: &DataDir,
    guests: &Handle,
    travel: Option<Travel>,
) -> Result<Executor, NodeError> {
    let files = Arc::new(files::Library::new(BlobFiles::new(data_dir.blobs.clone())));
    let faaslets = faaslet::Config {
        table: hostcalls::TABLE,
        files: files.clone(),
        ..faaslets
    };
    let cache = (faaslets.cache_dir.clone(), faaslets.cache_bytes_max);
    let faaslets = blocking(move || Ok(faaslet::Faaslets::new(faaslets)?)).await?;
    let walls = Walls::new(faaslets, cache, files);
    let backend = match travel {
        None => walls,
        Some(travel) => walls.among(travel),
    };
    let artifacts = BlobArtifacts(data_dir.blobs.clone());
    Ok(Executor::new(
        config,
        Arc::new(backend),
        Arc::new(artifacts),
        guests.clone(),
    ))
}

/// Writes usage down now and then, and once more at its end.
fn keep_usage(ledger: &Ledger, data_dir: &DataDir, stop: &CancellationToken) -> JoinHandle<()> {
    let (ledger, store, stop) = (ledger.clone(), data_dir.store.clone(), stop.clone());
    tokio::spawn(async move { ledger.keep_flushed(store, stop.cancelled_owned()).await })
}

impl Node {
    /// Where functions are called.
    pub fn data_addr(&self) -> SocketAddr {
        self.gateway.as_ref().map_or(NOWHERE, Gateway::data_addr)
    }

    /// Where the admin API is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.gateway.as_ref().map_or(NOWHERE, Gateway::admin_addr)
    }

    /// Where other nodes reach it; none for a node that stands alone.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.cluster.as_ref().map(Member::address)
    }

    /// Takes nothing new, finishes what runs, for at most the configured patience, and writes down
    /// what is only in memory. Whether all that ran was finished.
    pub async fn shutdown(mut self) -> bool {
        tracing::info!("the node finishes what runs");
        let Some(gateway) = self.gateway.take() else {
            return true;
        };
        if let Some(cluster) = &self.cluster {
            cluster.begin_drain();
        }
        gateway.begin_drain();
        self.stop.cancel();
        // First what came over HTTP and what the queue had begun; then nothing is admitted.
        let (answered, ()) = tokio::join!(gateway.end(self.patience), async {
            for task in &mut self.tasks {
                // A task that panicked has said so already.
                let _ended = task.await;
            }
        });
        if let Some(cluster) = &mut self.cluster {
            cluster.end_calls().await;
        }
        let left = self.executor.drain(LAST_PATIENCE).await;
        self.usage_stop.cancel();
        if let Some(usage) = self.usage.take() {
            // Flushes once more, and says so if it cannot.
            let _ended = usage.await;
        }
        if let Some(cluster) = self.cluster.take() {
            // Last: others may have what this node owned from now on.
            cluster.leave().await;
        }
        // Tasks of theirs still hold the store; whoever starts next needs it. A thread that a guest
        // holds past its deadline is not waited for.
        self.guests.stop(LAST_PATIENCE).await;
        tracing::info!(left, "the node has stopped");
        answered && left == 0
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(cluster) = &self.cluster {
            cluster.fall_silent();
        }
        self.stop.cancel();
        self.usage_stop.cancel();
    }
}

const NOWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
/// How long what outlived its caller may run on once all callers are answered.
const LAST_PATIENCE: Duration = Duration::from_secs(1);
/// How often histograms are folded, so that they do not grow between two scrapes.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Whether tokens are required; refuses to open a node to others that has none.
fn check_exposure(config: &Config, tokens: &Tokens) -> Result<bool, NodeError> {
    let exposed = [config.data_addr, config.admin_addr]
        .into_iter()
        .find(|addr| !addr.ip().is_loopback());
    match (exposed, config.gateway.require_token, tokens.is_empty()) {
        (Some(addr), _, true) => Err(NodeError::NoToken(addr)),
        (None, true, true) => Err(NodeError::TokenRequired),
        (exposed, asked, _) => Ok(asked || exposed.is_some()),
    }
}

async fn listen(addr: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(addr)
        .await
        .map_err(|source| NodeError::Listen { addr, source })
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, NodeError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(NodeError::Telemetry(format!("starting broke off: {error}"))))
}

async fn every(period: Duration, stop: CancellationToken, work: impl Fn()) {
    let mut ticks = tokio::time::interval(period);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        work();
    }
}
