//! The executor over scripted guests: outcomes, pools, queues, lanes, cancellation, drain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{InvocationId, Limits, Outcome, StartKind, Status};
use parking_lot::Mutex;
use testkit::{Gate, Guest, MemoryArtifacts, MockBackend, NoLog};
use tokio::runtime::Runtime;

use crate::{Config, Executor, Finished, Job, Lane, PoolView, Rejected, Scope};

mod cancel;
mod http;
mod nested;
mod pools;
mod queues;
mod runs;
mod spawned;

/// An executor over a mock back-end, which keeps every outcome that is reported.
pub(crate) struct House {
    pub executor: Executor,
    pub backend: MockBackend,
    pub artifacts: Arc<MemoryArtifacts>,
    outcomes: Arc<Mutex<Vec<(InvocationId, Outcome)>>>,
    told: Arc<tokio::sync::Notify>,
    /// Ends with the house, without waiting for guests that hold their threads.
    guests: Option<Runtime>,
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(guests) = self.guests.take() {
            guests.shutdown_background();
        }
    }
}

pub(crate) fn house() -> House {
    house_with(Config::default())
}

pub(crate) fn house_with(config: Config) -> House {
    let backend = MockBackend::new();
    let artifacts = Arc::new(MemoryArtifacts::default());
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::new(tokio::sync::Notify::new());
    let guests = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    let kept = (outcomes.clone(), told.clone());
    let config = Config {
        on_outcome: Arc::new(move |job: &Job, outcome: &Outcome| {
            kept.0.lock().push((job.id, outcome.clone()));
            kept.1.notify_waiters();
        }),
        ..config
    };
    House {
        executor: Executor::new(
            config,
            Arc::new(backend.clone()),
            artifacts.clone(),
            guests.handle().clone(),
        ),
        backend,
        artifacts,
        outcomes,
        told,
        guests: Some(guests),
    }
}

impl House {
    /// A job of `guest` as the function `a/f`.
    pub fn job(&self, guest: &Guest) -> Job {
        self.job_with(guest, "a/f", Limits::default())
    }

    pub fn job_with(&self, guest: &Guest, path: &str, limits: Limits) -> Job {
        self.artifacts.put(guest.artifact());
        let spec = guest.spec(limits);
        Job {
            id: InvocationId::new(1),
            path: path.parse().expect("a path"),
            version: spec.digest(),
            spec: Arc::new(spec),
            trace: model::TraceParent::root(InvocationId::new(0)),
            branch: None,
            log: Arc::new(NoLog),
        }
    }

    pub async fn run(&self, job: Job, body: &'static str) -> Result<Finished, Rejected> {
        let body = Bytes::from_static(body.as_bytes());
        self.executor
            .invoke(job, body, Vec::new(), Vec::new())
            .await
    }

    /// Runs in a task of its own.
    pub fn start(&self, job: Job) -> tokio::task::JoinHandle<Result<Finished, Rejected>> {
        let executor = self.executor.clone();
        tokio::spawn(async move {
            let body = Bytes::from_static(b"x");
            executor.invoke(job, body, Vec::new(), Vec::new()).await
        })
    }

    /// The statuses reported so far, in order.
    pub fn reported(&self) -> Vec<Status> {
        let outcomes = self.outcomes.lock();
        outcomes
            .iter()
            .map(|(_, outcome)| outcome.status.clone())
            .collect()
    }

    /// Waits until `count` outcomes are reported.
    pub async fn reports(&self, count: usize) -> Vec<Status> {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if self.outcomes.lock().len() >= count {
                return self.reported();
            }
            told.await;
        }
    }

    /// The view of the only pool.
    pub fn pool(&self) -> PoolView {
        let mut pools = self.executor.pools();
        assert_eq!(pools.len(), 1);
        pools.remove(0)
    }

    /// Waits, by giving way to other tasks, until it is so.
    pub async fn until(&self, is_so: impl Fn() -> bool) {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    }

    pub fn running(&self) -> u32 {
        self.executor.inner.services.gate.running()
    }

    pub fn gate(&self, name: &str) -> Arc<Gate> {
        self.backend.gate(name)
    }

    /// What the reaper does, as if it were so much later.
    pub fn sweep_after(&self, later: Duration) {
        self.executor.inner.sweep(Instant::now() + later);
    }
}

pub(crate) fn hold() -> Guest {
    Guest::Hold("g".to_owned())
}

pub(crate) fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}
