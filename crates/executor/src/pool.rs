//! The pool of one version of one function: its program, its idle sandboxes, what it learned.
//!
//! ```text
//!   program:  Absent ──load──▶ Loading ──▶ Loaded ──idle for long──▶ Absent
//!                 ▲───────── fails ─┘
//!   sandbox:  made ─▶ lent ─▶ spent ──reset──▶ idle ─▶ lent … ──idle for long──▶ dropped
//!                                └─ fails ─▶ dropped
//! ```
//!
//! Invariants: only sandboxes that are fresh, or kept for their app, are idle; while one is, the
//! program is loaded.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use model::{Digest, FunctionPath, Limits, Reuse, StartKind, VersionSpec};
use parking_lot::Mutex;
use sandbox::{
    Artifacts, Backend, LoadError, PrepareError, Presence, Program, Sandbox, SandboxError,
    State as Life,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

use crate::admission::Bound;
use crate::gate::{Gate, Seat};
use crate::keep_alive::IdleTimes;
use crate::lane::{Lane, Pace, mean};
use crate::metrics::{NodeMetrics, PoolMetrics};
use crate::view::{PoolView, StartCounts};
use crate::{Config, Job};

/// Least and most that a refused caller is told to wait.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(50);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// What all pools of a node share.
pub(crate) struct Services {
    pub config: Config,
    pub backend: Arc<dyn Backend>,
    pub artifacts: Arc<dyn Artifacts>,
    pub guests: Handle,
    pub gate: Arc<Gate>,
    pub metrics: NodeMetrics,
    /// Threads of guests that may be held by those who wait for their memory: others find some,
    /// also what loads programs.
    pub may_wait: Arc<Semaphore>,
    /// Idle sandboxes of all pools.
    pub idle: AtomicUsize,
    /// Says that there are too many of them.
    pub pressure: Notify,
}

type Loading = Shared<BoxFuture<'static, Result<Loaded, Arc<LoadError>>>>;

/// A loaded program.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub program: Arc<dyn Program>,
    pub cooperative: bool,
    pub asks: bool,
}

enum Slot {
    Absent,
    Loading(Loading),
    Loaded(Loaded),
}

struct Idle {
    sandbox: Box<dyn Sandbox>,
    since: Instant,
}

struct State {
    program: Slot,
    idle: Vec<Idle>,
    running: u32,
    pace: Pace,
    idle_times: IdleTimes,
    service_ns: u64,
    ended: u32,
    last_end: Instant,
    starts: StartCounts,
    memory_peak_bytes: u64,
    forgotten: bool,
}

/// How a call is to be run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub lane: Lane,
    pub cooperative: bool,
    /// Whether the guest may ask anything of the platform.
    pub asks: bool,
    /// Whether it may have to wait for its memory, and hold its thread meanwhile.
    pub waits: bool,
}

/// What a call starts from.
pub(crate) enum Taken {
    Idle(Box<dyn Sandbox>, Way),
    Make(Loaded, Way),
    Load,
}

/// What a run taught.
pub(crate) struct Lesson {
    pub lane: Lane,
    pub start: StartKind,
    pub cpu_ns: u64,
    pub wall: Duration,
    pub memory_peak_bytes: u64,
}

/// What a sweep took out of a pool; dropped outside of its lock.
#[derive(Default)]
pub(crate) struct Swept {
    sandboxes: Vec<Box<dyn Sandbox>>,
    program: Option<Arc<dyn Program>>,
}

pub(crate) struct Pool {
    pub services: Arc<Services>,
    pub path: FunctionPath,
    pub version: Digest,
    pub limits: Arc<Limits>,
    pub metrics: PoolMetrics,
    pub seat: Arc<Seat>,
    spec: Arc<VersionSpec>,
    state: Mutex<State>,
}

impl Pool {
    pub(crate) fn new(services: Arc<Services>, job: &Job) -> Arc<Self> {
        let state = State {
            program: Slot::Absent,
            idle: Vec::new(),
            running: 0,
            pace: Pace::default(),
            idle_times: IdleTimes::default(),
            service_ns: 0,
            ended: 0,
            last_end: Instant::now(),
            starts: StartCounts::default(),
            memory_peak_bytes: 0,
            forgotten: false,
        };
        Arc::new(Self {
            seat: services.gate.seat(&job.path),
            metrics: PoolMetrics::new(&job.path, &job.version),
            limits: Arc::new(job.spec.settings.limits.clone()),
            path: job.path.clone(),
            version: job.version,
            spec: job.spec.clone(),
            state: Mutex::new(state),
            services,
        })
    }

    /// How many may run and wait.
    pub(crate) fn bound(&self) -> Bound {
        Bound {
            running_max: self.limits.concurrency_max,
            queued_max: self.limits.queue_max,
        }
    }

    fn keep_alive_max(&self) -> Duration {
        Duration::from_millis(self.limits.keep_alive_ms)
    }

    /// When one who finds the queue full is likely to find room.
    pub(crate) fn retry_after(&self) -> Duration {
        let service = Duration::from_nanos(self.state.lock().service_ns);
        let ahead = u32::try_from(self.seat.queued() + 1).unwrap_or(u32::MAX);
        let wait = service.saturating_mul(ahead) / self.limits.concurrency_max.max(1);
        wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
    }

    /// Begins a run: counts it, and takes what it can start from.
    pub(crate) fn begin(&self, now: Instant) -> Taken {
        // Dropped after the lock.
        let _lost;
        let mut state = self.state.lock();
        if state.running == 0 && state.ended > 0 {
            let gap = now.saturating_duration_since(state.last_end);
            state.idle_times.saw(gap);
        }
        state.running += 1;
        _lost = self.take_lost(&mut state);
        let Slot::Loaded(loaded) = &state.program else {
            return Taken::Load;
        };
        let way = way(loaded, &state.pace);
        let loaded = loaded.clone();
        match state.idle.pop() {
            Some(idle) => {
                self.services.idle.fetch_sub(1, Ordering::Relaxed);
                Taken::Idle(idle.sandbox, way)
            }
            None => Taken::Make(loaded, way),
        }
    }

    /// Takes out a program that is of no use any more, with its sandboxes: the next call loads it
    /// anew.
    fn take_lost(&self, state: &mut State) -> Swept {
        match &state.program {
            Slot::Loaded(loaded) if loaded.program.presence() == Presence::Lost => {
                let count = state.idle.len();
                Swept {
                    sandboxes: self.take_bottom(state, count),
                    program: take_program(&mut state.program),
                }
            }
            _ => Swept::default(),
        }
    }

    /// Ends a run; nothing is learned from one that was broken off.
    pub(crate) fn end(&self, now: Instant, lesson: Option<Lesson>) {
        let mut state = self.state.lock();
        state.running -= 1;
        state.last_end = now;
        let Some(lesson) = lesson else { return };
        let wall_ns = u64::try_from(lesson.wall.as_nanos()).unwrap_or(u64::MAX);
        state.service_ns = mean(state.service_ns, wall_ns, state.ended);
        state.ended = state.ended.saturating_add(1);
        state.pace.ran(lesson.lane, lesson.cpu_ns);
        state.starts.add(lesson.start);
        state.memory_peak_bytes = state.memory_peak_bytes.max(lesson.memory_peak_bytes);
    }

    /// An inline call went over its budget.
    pub(crate) fn went_over(&self) {
        self.state.lock().pace.went_over();
        self.metrics.over_budget.increment(1);
    }

    /// The program, loading it if need be; many who ask at once load it once. The load goes on when
    /// the asker goes away.
    pub(crate) async fn load(self: &Arc<Self>) -> Result<(Loaded, Way), Arc<LoadError>> {
        let loading = {
            let mut state = self.state.lock();
            match &state.program {
                Slot::Loaded(loaded) => {
                    return Ok((loaded.clone(), way(loaded, &state.pace)));
                }
                Slot::Loading(loading) => loading.clone(),
                Slot::Absent => {
                    let loading = self.start_loading();
                    state.program = Slot::Loading(loading.clone());
                    loading
                }
            }
        };
        let loaded = loading.await?;
        let way = way(&loaded, &self.state.lock().pace);
        Ok((loaded, way))
    }

    fn start_loading(self: &Arc<Self>) -> Loading {
        let pool = self.clone();
        // On the guest runtime: mapping code, or compiling it again, blocks.
        let task = self.services.guests.spawn(async move {
            let services = &pool.services;
            let load = services.backend.load(&pool.spec, &*services.artifacts);
            let result = match AssertUnwindSafe(load).catch_unwind().await {
                Ok(Ok(program)) => Ok(Loaded {
                    cooperative: program.cooperative(),
                    // A kept sandbox holds what a call did to it: no call in it can be repeated.
                    asks: program.asks() || pool.spec.settings.reuse == Reuse::App,
                    program,
                }),
                Ok(Err(error)) => Err(Arc::new(error)),
                Err(_) => Err(load_broke_off("the back-end panicked")),
            };
            pool.metrics.loads.increment(1);
            let mut state = pool.state.lock();
            state.last_end = Instant::now();
            state.program = match &result {
                Ok(loaded) => Slot::Loaded(loaded.clone()),
                Err(_) => Slot::Absent,
            };
            drop(state);
            result
        });
        let waited = async {
            task.await
                .unwrap_or_else(|_| Err(load_broke_off("it stops")))
        };
        waited.boxed().shared()
    }

    /// Takes a sandbox back: a spent one is reset first, off the caller's path unless it is to be
    /// done `here`.
    pub(crate) fn give_back(self: &Arc<Self>, mut sandbox: Box<dyn Sandbox>, here: bool) {
        match sandbox.state() {
            Life::Fresh | Life::Kept => self.put(sandbox),
            Life::Spent if !self.keeps() => drop(sandbox),
            Life::Spent => {
                let pool = self.clone();
                let reset = move || match sandbox.reset() {
                    Ok(()) => pool.put(sandbox),
                    Err(error) => pool.retire(sandbox, &error.to_string()),
                };
                if here {
                    return reset();
                }
                let runtime = Handle::try_current();
                let runtime = runtime.as_ref().unwrap_or(&self.services.guests);
                runtime.spawn(async move { reset() });
            }
            Life::Running | Life::Retired => self.retire(sandbox, "it was left in a call"),
        }
    }

    /// Gives up a sandbox that cannot be trusted any more.
    pub(crate) fn retire(&self, sandbox: Box<dyn Sandbox>, reason: &str) {
        drop(sandbox);
        self.metrics.retired.increment(1);
        tracing::warn!(function = %self.path, reason, "a sandbox was retired");
    }

    /// Whether calls find what the last one left.
    pub(crate) fn reuses(&self) -> bool {
        self.spec.settings.reuse == Reuse::App
    }

    fn keeps(&self) -> bool {
        let state = self.state.lock();
        self.keeps_one_more(&state)
    }

    fn keeps_one_more(&self, state: &State) -> bool {
        let room = state.idle.len() < self.limits.concurrency_max as usize;
        room && !state.forgotten && self.limits.keep_alive_ms > 0
    }

    fn put(&self, sandbox: Box<dyn Sandbox>) {
        let idle = self.services.idle.fetch_add(1, Ordering::Relaxed);
        let over = idle >= self.services.config.idle_sandboxes_max;
        let mut state = self.state.lock();
        if !over && self.keeps_one_more(&state) {
            // As good as now, and free: some call has just ended.
            let since = state.last_end;
            state.idle.push(Idle { sandbox, since });
            return;
        }
        drop(state);
        self.services.idle.fetch_sub(1, Ordering::Relaxed);
        drop(sandbox);
        if over {
            self.services.pressure.notify_one();
        }
    }

    /// Takes out what was idle for long enough at `now`.
    pub(crate) fn sweep(&self, now: Instant) -> Swept {
        let mut state = self.state.lock();
        let keep = state.idle_times.keep_for(self.keep_alive_max());
        // The list is a stack: those at its bottom are idle for the longest.
        let old = |idle: &Idle| now.saturating_duration_since(idle.since) >= keep;
        let expired = state.idle.iter().take_while(|idle| old(idle)).count();
        let mut swept = Swept {
            sandboxes: self.take_bottom(&mut state, expired),
            program: None,
        };
        let quiet = now.saturating_duration_since(state.last_end);
        let unused = state.running == 0 && state.idle.is_empty();
        if unused && quiet >= keep + self.services.config.program_keep_alive {
            swept.program = take_program(&mut state.program);
        }
        swept
    }

    fn take_bottom(&self, state: &mut State, count: usize) -> Vec<Box<dyn Sandbox>> {
        self.services.idle.fetch_sub(count, Ordering::Relaxed);
        state.idle.drain(..count).map(|idle| idle.sandbox).collect()
    }

    /// Since when its longest idle sandbox is idle.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        self.state.lock().idle.first().map(|idle| idle.since)
    }

    /// Takes out the longest idle sandbox.
    pub(crate) fn evict(&self) -> Swept {
        let mut state = self.state.lock();
        let count = state.idle.len().min(1);
        Swept {
            sandboxes: self.take_bottom(&mut state, count),
            program: None,
        }
    }

    /// Takes everything idle out, and keeps nothing from now on.
    pub(crate) fn forget(&self) -> Swept {
        let mut state = self.state.lock();
        state.forgotten = true;
        let count = state.idle.len();
        Swept {
            sandboxes: self.take_bottom(&mut state, count),
            program: None,
        }
    }

    /// Whether it holds nothing that is worth keeping it for.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.running == 0 && matches!(state.program, Slot::Absent) && state.idle.is_empty()
    }

    pub(crate) fn view(&self) -> PoolView {
        let queued = self.seat.queued();
        let state = self.state.lock();
        let loaded = match &state.program {
            Slot::Loaded(loaded) => Some(loaded),
            Slot::Absent | Slot::Loading(_) => None,
        };
        PoolView {
            path: self.path.clone(),
            version: self.version,
            kind: self.spec.kind,
            loaded: loaded.is_some(),
            lane: loaded.map(|loaded| way(loaded, &state.pace).lane),
            idle: state.idle.len(),
            running: state.running as usize,
            queued,
            starts: state.starts,
            memory_peak_bytes: state.memory_peak_bytes,
            service_time: Duration::from_nanos(state.service_ns),
            keep_alive: state.idle_times.keep_for(self.keep_alive_max()),
        }
    }
}

/// A sandbox of a loaded program.
pub(crate) fn make(loaded: &Loaded) -> Result<Box<dyn Sandbox>, SandboxError> {
    loaded.program.sandbox()
}

fn way(loaded: &Loaded, pace: &Pace) -> Way {
    // Who waits for memory that is still arriving holds its thread.
    let is_here = loaded.program.presence() == Presence::Whole;
    let cooperative = loaded.cooperative && is_here;
    let lane = match (cooperative, loaded.asks || !is_here) {
        (true, _) => Lane::Inline,
        // It may wait, and what it asked for cannot be taken back and repeated.
        (false, true) => Lane::Guest,
        (false, false) => pace.lane(),
    };
    Way {
        lane,
        cooperative,
        asks: loaded.asks,
        waits: !is_here,
    }
}

fn take_program(slot: &mut Slot) -> Option<Arc<dyn Program>> {
    match std::mem::replace(slot, Slot::Absent) {
        Slot::Loaded(loaded) => Some(loaded.program),
        other => {
            *slot = other;
            None
        }
    }
}

fn load_broke_off(reason: &str) -> Arc<LoadError> {
    Arc::new(LoadError::Prepare(PrepareError::Platform {
        reason: format!("the load broke off: {reason}"),
        source: None,
    }))
}

impl Swept {
    /// How many sandboxes were taken out.
    pub(crate) fn len(&self) -> usize {
        self.sandboxes.len()
    }
}
