//! The handle: admits jobs, finds their sandboxes, runs them in their lane.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{
    Digest, FunctionPath, InvocationId, Outcome, StartKind, Status, TraceParent, Usage, VersionSpec,
};
use parking_lot::RwLock;
use sandbox::{
    Artifacts, Backend, Branch, End, LogSink, Payload, PrepareError, Prepared, Sandbox,
    SandboxError, State,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

use crate::admission::Bound;
use crate::gate::{Gate, NoPlace, Place};
use crate::lane::Lane;
use crate::metrics::NodeMetrics;
use crate::pool::{Loaded, Pool, Services, Taken, Way, make};
use crate::running::Running;
use crate::view::PoolView;
use crate::{Config, Rejected, reaper};

/// Of so many threads of guests one may be held by who waits for memory that is still arriving.
const WAITING_THREADS_PART: usize = 4;
/// How often a full node is relieved of an idle sandbox to make another.
const EVICTIONS_MAX: usize = 4;

/// One invocation to run.
#[derive(Clone)]
pub struct Job {
    /// The invocation.
    pub id: InvocationId,
    /// The function.
    pub path: FunctionPath,
    /// The version, which is the digest of `spec`.
    pub version: Digest,
    /// What the version is.
    pub spec: Arc<VersionSpec>,
    /// Where what the guest prints goes.
    pub log: Arc<dyn LogSink>,
    /// Its place in its trace.
    pub trace: TraceParent,
    /// The call that led to it; none for a root.
    pub branch: Option<Arc<Branch>>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("path", &self.path)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// How a job ended, and its reply.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// The reply, or the guest's report if the outcome is an `Error` of its own; else empty.
    pub reply: Bytes,
}

impl Finished {
    pub(crate) fn without_reply(start: StartKind, status: Status) -> Self {
        let outcome = Outcome {
            status,
            start,
            usage: Usage::default(),
        };
        Self {
            outcome,
            reply: Bytes::new(),
        }
    }
}

/// Runs jobs in pooled sandboxes. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    pub(crate) inner: Arc<Inner>,
}

/// An executor, for those that it keeps itself.
#[derive(Clone)]
pub struct WeakExecutor(Weak<Inner>);

impl WeakExecutor {
    /// The executor, if anybody keeps it.
    pub fn upgrade(&self) -> Option<Executor> {
        self.0.upgrade().map(|inner| Executor { inner })
    }
}

pub(crate) struct Inner {
    pub services: Arc<Services>,
    pools: RwLock<HashMap<Digest, Vec<Arc<Pool>>>>,
    prepares: Arc<Semaphore>,
}

impl Executor {
    /// A handle that does not keep the executor.
    pub fn downgrade(&self) -> WeakExecutor {
        WeakExecutor(Arc::downgrade(&self.inner))
    }

    /// An executor of `backend`. `guests` is a runtime of many threads, with its timer enabled,
    /// that guests may hold: one thread for each guest that is to share the cores.
    pub fn new(
        config: Config,
        backend: Arc<dyn Backend>,
        artifacts: Arc<dyn Artifacts>,
        guests: Handle,
    ) -> Self {
        let node = Bound {
            running_max: config.node_running_max,
            queued_max: config.node_queued_max,
        };
        let app = Bound {
            running_max: config.app_running_max,
            queued_max: config.app_queued_max,
        };
        let threads = guests.metrics().num_workers();
        let may_wait = (threads / WAITING_THREADS_PART).max(1);
        let inner = Arc::new(Inner {
            prepares: Arc::new(Semaphore::new(config.prepares_max)),
            pools: RwLock::new(HashMap::new()),
            services: Arc::new(Services {
                gate: Gate::new(node, app, config.queue_wait_max),
                metrics: NodeMetrics::new(),
                may_wait: Arc::new(Semaphore::new(may_wait)),
                idle: AtomicUsize::new(0),
                pressure: Notify::new(),
                config,
                backend,
                artifacts,
                guests: guests.clone(),
            }),
        });
        guests.spawn(reaper::run(Arc::downgrade(&inner), inner.services.clone()));
        Self { inner }
    }

    /// Checks, compiles and initialises an artifact, few at a time and on the guest runtime.
    pub async fn prepare(
        &self,
        spec: &VersionSpec,
        artifact: Bytes,
        layers: Vec<Bytes>,
    ) -> Result<Prepared, PrepareError> {
        let broke_off = |reason: &str| PrepareError::Platform {
            reason: reason.to_owned(),
            source: None,
        };
        let permit = self.inner.prepares.clone().acquire_owned().await;
        let permit = permit.map_err(|_| broke_off("the node is stopping"))?;
        let (services, spec) = (self.inner.services.clone(), spec.clone());
        let task = services.guests.clone().spawn(async move {
            // Moved in: the work goes on, and counts, when the asker goes away.
            let _permit = permit;
            services.backend.prepare(&spec, artifact, layers).await
        });
        let done = task.await;
        done.unwrap_or_else(|_| Err(broke_off("the preparation broke off")))
    }

    /// Runs a command or reactor to its end. Dropping the future cancels the invocation.
    pub async fn invoke(
        &self,
        job: Job,
        body: Bytes,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<Finished, Rejected> {
        let bytes = fits(&job, &body)?;
        let pool = self.inner.pool(&job);
        let place = admit(&pool).await?;
        let (running, way) = self.begin(pool, job, place, bytes).await?;
        Ok(run_in_lane(running, way, body, args, env).await)
    }

    /// Drops what the version's pools hold, and the pools once nothing runs in them.
    pub fn forget(&self, version: &Digest) {
        let forgotten = self.inner.pools.write().remove(version);
        for pool in forgotten.into_iter().flatten() {
            pool.forget();
        }
    }

    /// Each version that is, or recently was, in use.
    pub fn pools(&self) -> Vec<PoolView> {
        let mut views: Vec<PoolView> = self.inner.all().iter().map(|pool| pool.view()).collect();
        views.sort_by(|a, b| (&a.path, a.version).cmp(&(&b.path, b.version)));
        views
    }

    /// Refuses new jobs and waits for the rest. When `patience` is over those that wait are sent
    /// away and those that run are left to their callers, who cancel them by going away: their
    /// number is returned.
    pub async fn drain(&self, patience: Duration) -> usize {
        let gate = &self.inner.services.gate;
        gate.close();
        if tokio::time::timeout(patience, gate.empty()).await.is_err() {
            gate.dismiss();
        }
        for pool in self.inner.all() {
            pool.forget();
        }
        gate.running() as usize
    }

    /// Finds a sandbox for an admitted job.
    pub(crate) async fn begin(
        &self,
        pool: Arc<Pool>,
        job: Job,
        place: Place,
        input_bytes: u64,
    ) -> Result<(Running, Way), Rejected> {
        let begun = Instant::now();
        let taken = pool.begin(begun);
        let mut running = Running::new(pool, job, place, begun);
        running.input_bytes = input_bytes;
        let found = match taken {
            Taken::Idle(sandbox, way) => Ok((sandbox, way)),
            Taken::Make(loaded, way) => self.inner.make(&loaded).map(|sandbox| (sandbox, way)),
            Taken::Load => {
                running.start = StartKind::Cold;
                self.load(running.pool.clone()).await
            }
        };
        match found {
            Ok((sandbox, way)) => {
                if running.start == StartKind::Cold {
                    running.begins_now();
                } else if sandbox.state() == State::Kept {
                    running.start = StartKind::Reused;
                }
                running.sandbox = Some(sandbox);
                running.lane = way.lane;
                running.asks = way.asks;
                Ok((running, way))
            }
            Err(rejected) => {
                running.pool.metrics.rejected(rejected.reason());
                running.reject();
                Err(rejected)
            }
        }
    }

    async fn load(&self, pool: Arc<Pool>) -> Result<(Box<dyn Sandbox>, Way), Rejected> {
        let (loaded, way) = pool.load().await.map_err(Rejected::Load)?;
        Ok((self.inner.make(&loaded)?, way))
    }
}

/// The length of `body`, if its function takes as much.
pub(crate) fn fits(job: &Job, body: &Bytes) -> Result<u64, Rejected> {
    let (bytes, bytes_max) = (body.len() as u64, job.spec.settings.limits.input_bytes_max);
    if bytes > bytes_max {
        return Err(Rejected::InputTooLarge { bytes, bytes_max });
    }
    Ok(bytes)
}

pub(crate) async fn admit(pool: &Arc<Pool>) -> Result<Place, Rejected> {
    let taken = match pool.seat.try_take(pool.bound()) {
        Some(taken) => taken,
        None => pool.seat.take(pool.bound()).await,
    };
    taken.map_err(|no_place| not_placed(pool, no_place))
}

pub(crate) fn not_placed(pool: &Pool, no_place: NoPlace) -> Rejected {
    let rejected = match no_place {
        NoPlace::Closed => Rejected::Draining,
        NoPlace::Full(scope) => Rejected::QueueFull {
            scope,
            retry_after: pool.retry_after(),
        },
    };
    pool.metrics.rejected(rejected.reason());
    rejected
}

/// Runs a command or reactor inline, on the guest runtime, or first here and then there.
pub(crate) async fn run_in_lane(
    mut running: Running,
    way: Way,
    body: Bytes,
    args: Vec<String>,
    env: Vec<(String, String)>,
) -> Finished {
    let again = match way.lane {
        Lane::Guest => Payload::Bytes { body, args, env },
        Lane::Inline => {
            // Cheap: a body is shared, and few calls bring arguments or environment.
            let again = (!way.cooperative).then(|| (body.clone(), args.clone(), env.clone()));
            let budget = again.is_some().then_some(running.budget());
            let payload = Payload::Bytes { body, args, env };
            let ended = running.call(payload, budget).await;
            match (again, &ended) {
                (Some((body, args, env)), Ok(completion)) if completion.end == End::OverBudget => {
                    running.pool.went_over();
                    Payload::Bytes { body, args, env }
                }
                _ => return running.finish(ended),
            }
        }
    };
    running.run_on_guest_runtime(again, way.waits).await
}

impl Running {
    fn budget(&self) -> Duration {
        self.pool.services.config.inline_budget
    }
}

impl Inner {
    pub(crate) fn pool(&self, job: &Job) -> Arc<Pool> {
        let of = |pools: &HashMap<Digest, Vec<Arc<Pool>>>| {
            let mut pools = pools.get(&job.version)?.iter();
            pools.find(|pool| pool.path == job.path).cloned()
        };
        if let Some(pool) = of(&self.pools.read()) {
            return pool;
        }
        let mut pools = self.pools.write();
        if let Some(pool) = of(&pools) {
            return pool;
        }
        let pool = Pool::new(self.services.clone(), job);
        pools.entry(job.version).or_default().push(pool.clone());
        pool
    }

    fn all(&self) -> Vec<Arc<Pool>> {
        self.pools.read().values().flatten().cloned().collect()
    }

    /// A new sandbox; a full node gives up idle ones for it.
    fn make(&self, loaded: &Loaded) -> Result<Box<dyn Sandbox>, Rejected> {
        let mut made = make(loaded);
        for _ in 0..EVICTIONS_MAX {
            if !matches!(made, Err(SandboxError::Full { .. })) || self.evict_oldest() == 0 {
                break;
            }
            made = make(loaded);
        }
        made.map_err(Rejected::Sandbox)
    }

    fn evict_oldest(&self) -> usize {
        let pools = self.all();
        let idle = pools
            .iter()
            .filter_map(|pool| Some((pool.idle_since()?, pool)));
        let oldest = idle.min_by_key(|(since, _)| *since);
        oldest.map_or(0, |(_, pool)| pool.evict().len())
    }

    /// Drops what was idle for long enough at `now`, and what is over the node's cap.
    pub(crate) fn sweep(&self, now: Instant) {
        let services = &self.services;
        for pool in self.all() {
            drop(pool.sweep(now));
        }
        let idle_max = services.config.idle_sandboxes_max;
        // Below the cap by a sixteenth, so that the next few find room.
        let idle_target = idle_max - idle_max / 16;
        if services.idle.load(Ordering::Relaxed) >= idle_max {
            while services.idle.load(Ordering::Relaxed) > idle_target && self.evict_oldest() > 0 {}
        }
        self.pools.write().retain(|_, pools| {
            // Nobody else holds it, and nobody can come to while the map is locked.
            pools.retain(|pool| Arc::strong_count(pool) > 1 || !pool.is_empty());
            !pools.is_empty()
        });
        services.metrics.running.set(services.gate.running());
        services.metrics.queued.set(services.gate.queued());
        services
            .metrics
            .idle
            .set(services.idle.load(Ordering::Relaxed) as f64);
    }
}

impl Rejected {
    const fn reason(&self) -> &'static str {
        match self {
            Rejected::QueueFull { scope, .. } => scope.as_str(),
            Rejected::Draining => "draining",
            Rejected::Load(_) => "load",
            Rejected::Sandbox(_) => "sandbox",
            Rejected::InputTooLarge { .. } => "input",
        }
    }
}
