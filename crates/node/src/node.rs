//! The composition root: everything that a node is made of, put together and taken apart.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use executor::Executor;
use gateway::{Gateway, Services, Tokens};
use invoker::{Invoker, Registry};
use metering::{Ledger, LogBook};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::artifacts::BlobArtifacts;
use crate::data_dir::DataDir;
use crate::{Config, NodeError, runner, telemetry};

/// A running node. Call [`Node::shutdown`]: dropping it ends it like a crash would, which loses
/// nothing that was accepted.
pub struct Node {
    gateway: Option<Gateway>,
    executor: Executor,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    usage_stop: CancellationToken,
    usage: Option<JoinHandle<()>>,
    patience: Duration,
    guests: Option<Runtime>,
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
    executor::metrics::describe();
    metering::metrics::describe();
    let path = config.data_dir.clone();
    let data_dir = blocking(move || DataDir::open(&path)).await?;
    let tokens = Tokens::open(data_dir.store.clone()).await?;
    let require_token = check_exposure(&config, &tokens)?;
    let (data, admin) = (
        listen(config.data_addr).await?,
        listen(config.admin_addr).await?,
    );
    let guests = guest_runtime(config.guest_threads)?;

    let faaslets = faaslet::Config {
        sandboxes_max: config.sandboxes_max,
        ..faaslet::Config::new(data_dir.cache())
    };
    let backend = blocking(move || Ok(faaslet::Faaslets::new(faaslets)?)).await?;
    let logs = LogBook::new(config.logs);
    let ledger = Ledger::new(config.ledger);
    ledger.restore(&*data_dir.store).await?;
    let executor_config = executor::Config {
        on_outcome: on_outcome(&ledger, &logs),
        ..config.executor
    };
    let executor = Executor::new(
        executor_config,
        Arc::new(backend),
        Arc::new(BlobArtifacts(data_dir.blobs.clone())),
        guests.handle().clone(),
    );
    let registry = Registry::open(data_dir.store.clone()).await?;
    let (invoker, service) = Invoker::open(
        data_dir.store.clone(),
        data_dir.payloads.clone(),
        registry.clone(),
        invoker::Config {
            drain: config.drain_patience,
            ..config.invoker
        },
    )
    .await?;

    let stop = CancellationToken::new();
    let queue = service.run(
        runner::runner(executor.clone(), logs.clone()),
        stop.clone().cancelled_owned(),
    );
    let upkeep = {
        let metrics = metrics.clone();
        every(METRICS_UPKEEP, stop.clone(), move || metrics.run_upkeep())
    };
    let tasks = vec![tokio::spawn(queue), tokio::spawn(upkeep)];
    // It has its own end: usage is written down when everything else has ended.
    let usage_stop = CancellationToken::new();
    let usage = tokio::spawn({
        let (ledger, store, stop) = (ledger.clone(), data_dir.store.clone(), usage_stop.clone());
        async move { ledger.keep_flushed(store, stop.cancelled_owned()).await }
    });
    let services = Services {
        executor: executor.clone(),
        registry,
        invoker,
        blobs: data_dir.blobs.clone(),
        logs,
        ledger: ledger.clone(),
        prices: config.prices,
        tokens,
        metrics: Arc::new(move || metrics.render()),
    };
    let gateway_config = gateway::Config {
        require_token,
        ..config.gateway
    };
    let gateway = Gateway::start(gateway_config, services, data, admin).map_err(|source| {
        NodeError::Listen {
            addr: config.data_addr,
            source,
        }
    })?;
    tracing::info!(
        data = %gateway.data_addr(),
        admin = %gateway.admin_addr(),
        require_token,
        "the node is ready"
    );
    Ok(Node {
        gateway: Some(gateway),
        executor,
        stop,
        tasks,
        usage_stop,
        usage: Some(usage),
        patience: config.drain_patience,
        guests: Some(guests),
        _data_dir: data_dir,
    })
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

    /// Takes nothing new, finishes what runs, for at most the configured patience, and writes down
    /// what is only in memory. Whether all that ran was finished.
    pub async fn shutdown(mut self) -> bool {
        tracing::info!("the node finishes what runs");
        let Some(gateway) = self.gateway.take() else {
            return true;
        };
        gateway.begin_drain();
        self.stop.cancel();
        // First what came over HTTP and what the queue had begun; then nothing is admitted.
        let (answered, ()) = tokio::join!(gateway.end(self.patience), async {
            for task in &mut self.tasks {
                // A task that panicked has said so already.
                let _ended = task.await;
            }
        });
        let left = self.executor.drain(LAST_PATIENCE).await;
        self.usage_stop.cancel();
        if let Some(usage) = self.usage.take() {
            // Flushes once more, and says so if it cannot.
            let _ended = usage.await;
        }
        tracing::info!(left, "the node has stopped");
        answered && left == 0
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
        self.usage_stop.cancel();
        if let Some(guests) = self.guests.take() {
            // A guest may hold a thread until its deadline: nobody waits for it.
            guests.shutdown_background();
        }
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

fn guest_runtime(threads: usize) -> Result<Runtime, NodeError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .thread_name("guest")
        .enable_time()
        .enable_io()
        .build()
        .map_err(|source| NodeError::Runtime {
            runtime: "guest",
            source,
        })
}

async fn blocking<T: Send + 'static>(
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

/// Where the one outcome of each invocation goes.
fn on_outcome(ledger: &Ledger, logs: &LogBook) -> executor::OnOutcome {
    let (ledger, logs) = (ledger.clone(), logs.clone());
    Arc::new(move |job, outcome| {
        ledger.record(&job.path, &job.version, outcome);
        logs.finish(&job.path, job.id);
    })
}
