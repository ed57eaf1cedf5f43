//! One admitted job, from its place to its one outcome.
//!
//! ```text
//!   admitted ─▶ has a sandbox ─▶ in a call ─▶ ended ──▶ outcome reported, sandbox given back,
//!      │              │              │ over budget        place free
//!      │              │              └─▶ repeated on the guest runtime
//!      │              └── dropped ──▶ Cancelled
//!      └─ rejected: no outcome
//! ```
//!
//! Invariant: whatever happens, also when its future is dropped, a [`Running`] that was not
//! rejected reports exactly one outcome, and its place returns when its guest has stopped.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{Limits, Outcome, StartKind, Status, Usage};
use sandbox::host::Guest;
use sandbox::{Asks, Call, CallLog, Completion, End, Payload, Sandbox, State};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::gate::Place;
use crate::lane::Lane;
use crate::meter::{CpuMeter, Fault, Metered};
use crate::pool::{Lesson, Pool};
use crate::{Finished, Job, Leftover};

/// How a call in a sandbox ended.
pub(crate) type Ended = Result<Completion, Fault>;

/// Says who reports the outcome of a call on the guest runtime: the call, or who waits for it.
#[derive(Debug, Default)]
struct Claim {
    reported: AtomicBool,
    begun: OnceLock<Instant>,
}

impl Claim {
    fn take(&self) -> bool {
        !self.reported.swap(true, Ordering::AcqRel)
    }
}

pub(crate) struct Running {
    pub pool: Arc<Pool>,
    pub job: Job,
    pub sandbox: Option<Box<dyn Sandbox>>,
    pub start: StartKind,
    pub lane: Lane,
    /// Whether the guest may ask anything of the platform.
    pub asks: bool,
    /// Where its sandbox is left instead of being reset, if it runs inline.
    pub leftover: Option<Arc<Leftover>>,
    /// Whether its caller waits on this thread, so that a reset elsewhere would only wake another.
    pub resets_here: bool,
    pub input_bytes: u64,
    /// Told the outcome, beside the executor's hook.
    pub done: Option<oneshot::Sender<Outcome>>,
    cpu: CpuMeter,
    log: Arc<CallLog>,
    started: Instant,
    claim: Option<Arc<Claim>>,
    settled: bool,
    _place: Place,
}

impl Running {
    /// `begun` is now.
    pub(crate) fn new(pool: Arc<Pool>, job: Job, place: Place, begun: Instant) -> Self {
        let log_bytes_max = pool.limits.log_bytes_max;
        Self {
            log: Arc::new(CallLog::new(job.id, job.log.clone(), log_bytes_max)),
            pool,
            job,
            sandbox: None,
            start: StartKind::Restored,
            lane: Lane::Guest,
            asks: false,
            leftover: None,
            resets_here: false,
            input_bytes: 0,
            done: None,
            cpu: CpuMeter::default(),
            started: begun,
            claim: None,
            settled: false,
            _place: place,
        }
    }

    /// The job is not run: who asked is told so instead of an outcome.
    pub(crate) fn reject(mut self) {
        self.settled = true;
        self.pool.end(Instant::now(), None);
    }

    /// When the call ends at the latest: its own deadline, or that of those who wait for it.
    fn deadline(&self) -> Instant {
        let own = self.started + Duration::from_millis(self.pool.limits.deadline_ms);
        let branch = self.job.branch.as_ref();
        branch.map_or(own, |branch| own.min(branch.deadline))
    }

    /// How long after its start a call is given up whose sandbox did not keep its deadline.
    fn patience(&self) -> Duration {
        let deadline = self.deadline().saturating_duration_since(self.started);
        deadline + self.pool.services.config.deadline_grace
    }

    /// The limits of a call that may take so long. Walls count in milliseconds, so a child that is
    /// called at once shares the limits of its pool.
    fn limits(&self, left: Duration) -> Arc<Limits> {
        let left_ms = u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        if left_ms >= self.pool.limits.deadline_ms {
            return self.pool.limits.clone();
        }
        Arc::new(Limits {
            deadline_ms: left_ms,
            ..Limits::clone(&self.pool.limits)
        })
    }

    /// One call in the sandbox.
    pub(crate) async fn call(&mut self, payload: Payload, budget: Option<Duration>) -> Ended {
        let left = self.deadline().saturating_duration_since(self.started);
        if left.is_zero() {
            // Nobody waits for it any longer.
            return Ok(Completion::without_reply(Status::Timeout));
        }
        let call = Call {
            id: self.job.id,
            payload,
            limits: self.limits(left),
            budget,
            log: self.log.clone(),
            asks: self.asks.then(|| Box::new(self.way_to_host())),
        };
        let overdue = self.started + self.patience();
        // A call that is repeated is billed for the time that answered.
        self.cpu.reset();
        let Some(sandbox) = self.sandbox.as_mut() else {
            return Err(Fault::Panicked("the call has no sandbox".to_owned()));
        };
        Metered::new(sandbox.invoke(call), &self.cpu, overdue).await
    }

    fn way_to_host(&self) -> Asks {
        let job = &self.job;
        Asks {
            host: self.pool.services.config.host.clone(),
            guest: Guest {
                id: job.id,
                path: job.path.clone(),
                spec: job.spec.clone(),
                branch: job.branch.clone(),
                trace: job.trace,
                deadline: self.deadline(),
                log: self.log.clone(),
            },
        }
    }

    /// The whole of a call that is not repeated.
    pub(crate) async fn run(mut self, payload: Payload) -> Finished {
        let ended = self.call(payload, None).await;
        self.finish(ended)
    }

    /// Runs, or repeats, the call on the guest runtime; `waits` says that it may hold its thread
    /// until its memory has come.
    pub(crate) async fn run_on_guest_runtime(mut self, payload: Payload, waits: bool) -> Finished {
        let turn = match waits {
            true => {
                let turn = self.pool.services.may_wait.clone().acquire_owned();
                match tokio::time::timeout(self.patience(), turn).await {
                    // It is never closed.
                    Ok(turn) => turn.ok(),
                    Err(_) => {
                        return self.settle_with(Completion::without_reply(Status::Timeout));
                    }
                }
            }
            false => None,
        };
        let claim = Arc::new(Claim::default());
        self.claim = Some(claim.clone());
        self.lane = Lane::Guest;
        self.leftover = None;
        let (pool, job, start) = (self.pool.clone(), self.job.clone(), self.start);
        // The call's own backstop comes first; this one is for a guest that holds its thread.
        let patience = self.patience() + pool.services.config.deadline_grace;
        let guests = pool.services.guests.clone();
        let mut task = AbortOnDrop(guests.spawn(async move {
            let _turn = turn;
            self.repeat(payload).await
        }));
        loop {
            match tokio::time::timeout(patience, &mut task.0).await {
                Ok(Ok(finished)) => return finished,
                Ok(Err(error)) => return Finished::without_reply(start, broke_off(&error)),
                Err(_) if claim.is_overdue(patience) => {}
                Err(_) => continue,
            }
            let finished = Finished::without_reply(start, Status::Timeout);
            if claim.take() {
                tracing::error!(invocation = %job.id, "a guest holds its thread past its deadline");
                report(&pool, &job, &finished.outcome, patience);
            }
            return finished;
        }
    }

    /// Says that the call begins only now: what came before is not billed.
    pub(crate) fn begins_now(&mut self) {
        self.started = Instant::now();
    }

    async fn repeat(mut self, payload: Payload) -> Finished {
        if let Some(claim) = &self.claim {
            let _ = claim.begun.set(Instant::now());
        }
        if let Err(error) = self.freshen().await {
            let message = error.to_string();
            return self.settle_with(Completion::without_reply(Status::Platform { message }));
        }
        self.begins_now();
        self.run(payload).await
    }

    /// Resets the sandbox if a call was tried in it, or takes another if it cannot be.
    async fn freshen(&mut self) -> Result<(), sandbox::SandboxError> {
        let Some(mut sandbox) = self.sandbox.take() else {
            return Ok(());
        };
        let is_untouched = matches!(sandbox.state(), State::Fresh | State::Kept);
        if is_untouched || sandbox.reset().is_ok() {
            self.sandbox = Some(sandbox);
            return Ok(());
        }
        self.pool.retire(sandbox, "it could not be reset");
        let loaded = self.pool.load().await;
        let (loaded, _) = loaded.map_err(|error| sandbox::SandboxError::Failed {
            doing: "made",
            reason: error.to_string(),
        })?;
        self.sandbox = Some(loaded.program.sandbox()?);
        Ok(())
    }

    /// Ends the job.
    pub(crate) fn finish(mut self, ended: Ended) -> Finished {
        match ended {
            Ok(completion) => self.settle_with(completion),
            Err(fault) => {
                if let Some(sandbox) = self.sandbox.take() {
                    self.pool.retire(sandbox, "its call went wrong");
                }
                self.settle_with(Completion::without_reply(status_of(fault)))
            }
        }
    }

    fn settle_with(mut self, mut completion: Completion) -> Finished {
        let bytes_max = self.pool.limits.output_bytes_max;
        let mut status = match completion.end {
            End::Done(status) => status,
            End::OverBudget => Status::Platform {
                message: "a call without a budget went over it".to_owned(),
            },
        };
        if status.is_ok() && completion.reply.len() as u64 > bytes_max {
            status = Status::OutputLimit;
        }
        let told = status.is_ok() || matches!(status, Status::Error { .. });
        if !told || completion.reply.len() as u64 > bytes_max {
            completion.reply = Bytes::new();
        }
        if status.is_ok()
            && self.pool.reuses()
            && let Some(sandbox) = &mut self.sandbox
        {
            // What cannot be kept is reset like any other.
            let _kept = sandbox.keep();
        }
        self.cpu.add(completion.cpu_elsewhere_ns);
        let usage = Usage {
            memory_peak_bytes: completion.memory_peak_bytes,
            input_bytes: self.input_bytes.max(completion.input_bytes),
            output_bytes: completion.output_bytes.max(completion.reply.len() as u64),
            ..Usage::default()
        };
        Finished {
            outcome: self.settle(status, usage, true),
            reply: completion.reply,
        }
    }

    fn settle(&mut self, status: Status, mut usage: Usage, completed: bool) -> Outcome {
        self.settled = true;
        let now = Instant::now();
        let wall = now.saturating_duration_since(self.started);
        let cpu_ns = self.cpu.ns();
        usage.cpu_us = cpu_ns.div_ceil(1000);
        usage.log_bytes = self.log.written();
        usage.bill(wall);
        let lesson = completed.then_some(Lesson {
            lane: self.lane,
            start: self.start,
            cpu_ns,
            wall,
            memory_peak_bytes: usage.memory_peak_bytes,
        });
        self.pool.end(now, lesson);
        let outcome = Outcome {
            status,
            start: self.start,
            usage,
        };
        if self.claim.as_ref().is_none_or(|claim| claim.take()) {
            report(&self.pool, &self.job, &outcome, wall);
        }
        if let Some(done) = self.done.take() {
            // Nobody has to wait for it.
            let _ = done.send(outcome.clone());
        }
        outcome
    }
}

impl Claim {
    fn is_overdue(&self, patience: Duration) -> bool {
        // A call that has not begun waits for a thread; the deadlines of others bound that.
        self.begun
            .get()
            .is_some_and(|begun| begun.elapsed() >= patience)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.settled {
            let status = if std::thread::panicking() {
                status_of(Fault::Panicked("a panic passed by".to_owned()))
            } else {
                Status::Cancelled
            };
            let usage = Usage {
                input_bytes: self.input_bytes,
                ..Usage::default()
            };
            self.settle(status, usage, false);
        }
        match (self.sandbox.take(), self.leftover.take()) {
            (Some(sandbox), Some(leftover)) => leftover.leave(self.pool.clone(), sandbox),
            (Some(sandbox), None) => self.pool.give_back(sandbox, self.resets_here),
            (None, _) => {}
        }
    }
}

fn report(pool: &Pool, job: &Job, outcome: &Outcome, wall: Duration) {
    pool.metrics.ended(outcome, wall);
    (pool.services.config.on_outcome)(job, outcome);
}

fn status_of(fault: Fault) -> Status {
    match fault {
        Fault::Overdue => {
            tracing::error!("a sandbox did not keep its deadline");
            Status::Timeout
        }
        Fault::Panicked(words) => {
            tracing::error!(words, "a back-end panicked");
            Status::Platform {
                message: format!("the back-end panicked: {words}"),
            }
        }
    }
}

/// What the caller is told of a task that ended without saying how; its drop has reported it.
fn broke_off(error: &tokio::task::JoinError) -> Status {
    if error.is_cancelled() {
        return Status::Cancelled;
    }
    Status::Platform {
        message: "the call's task panicked".to_owned(),
    }
}

/// A task that ends with who waits for it.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
