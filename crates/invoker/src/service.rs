//! The driver: carries out what [`Dispatch`] decides, one task a running attempt.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{self, TryStreamExt};
use model::InvocationId;
use storage::Range;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::clock::{millis, now_ms};
use crate::dispatch::{Action, Dispatch, Due, Event};
use crate::record::{self, DUE, RUN};
use crate::shared::Shared;
use crate::{InvokerError, Runner, attempt, metrics, sweep};

/// Records that recovery writes at once.
const RECOVERY_CONCURRENCY: usize = 64;

/// Runs asynchronous invocations; made by [`crate::Invoker::open`].
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    accepted: mpsc::Receiver<InvocationId>,
}

impl Service {
    pub(crate) fn new(shared: Arc<Shared>, accepted: mpsc::Receiver<InvocationId>) -> Self {
        Self { shared, accepted }
    }

    /// Queues anew what a crash cut short, then runs what is due until `stop`; then waits for
    /// running attempts, at most [`crate::Config::drain`]. What is still running then is run
    /// again at the next start.
    pub async fn run(mut self, runner: Arc<dyn Runner>, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        tokio::select! {
            () = recover_in_the_end(&self.shared) => {}
            () = &mut stop => return,
        }
        let sweeps = tokio::spawn(sweep_now_and_then(self.shared.clone()));
        let config = &self.shared.config;
        let mut dispatch = Dispatch::new(config.ready_max, config.running_max);
        let mut tasks = JoinSet::new();
        let mut event = Event::Tick;
        loop {
            for action in dispatch.handle(now_ms(), event) {
                spawn(&mut tasks, &self.shared, &runner, action);
            }
            ::metrics::gauge!(metrics::RUNNING).set(dispatch.running() as f64);
            let wake = dispatch
                .wake_ms()
                .map(|at| Duration::from_millis(at.saturating_sub(now_ms())));
            event = tokio::select! {
                () = &mut stop => break,
                Some(id) = self.accepted.recv() => Event::Accepted(id),
                () = self.shared.look.notified() => Event::Look,
                Some(done) = tasks.join_next() => match done {
                    Ok(event) => event,
                    Err(error) => {
                        tracing::error!(%error, "a task of the invoker failed");
                        Event::Look
                    }
                },
                () = tokio::time::sleep(wake.unwrap_or_default()), if wake.is_some() => Event::Tick,
            };
        }
        sweeps.abort();
        let drained = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.shared.config.drain, drained)
            .await
            .is_err()
        {
            tracing::warn!(running = tasks.len(), "attempts are left to the next start");
        }
        tasks.shutdown().await;
        // Aborted above: this waits until it has let go of the store.
        let _aborted = sweeps.await;
    }
}

fn spawn(
    tasks: &mut JoinSet<Event>,
    shared: &Arc<Shared>,
    runner: &Arc<dyn Runner>,
    action: Action,
) {
    let shared = shared.clone();
    match action {
        Action::Start(id) => tasks.spawn(run_attempt(shared, runner.clone(), id)),
        Action::Refill { limit } => tasks.spawn(async move {
            refill(&shared, limit).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the queue cannot be read yet");
                Event::RefillFailed {
                    retry_ms: now_ms() + millis(shared.config.store_pause),
                }
            })
        }),
    };
}

/// A bug in an attempt must not take its place for good.
async fn run_attempt(shared: Arc<Shared>, runner: Arc<dyn Runner>, id: InvocationId) -> Event {
    let pause = millis(shared.config.store_pause);
    let run = AssertUnwindSafe(attempt::run(shared, runner, id)).catch_unwind();
    run.await.unwrap_or_else(|_| {
        tracing::error!(invocation = %id, "recording an attempt panicked");
        Event::Requeued((now_ms() + pause, id))
    })
}

async fn refill(shared: &Shared, limit: usize) -> Result<Event, InvokerError> {
    let page = shared.store.range(Range::prefix(DUE).limit(limit)).await?;
    let read = |entry: &storage::Entry| match record::time_and_id(DUE, &entry.key) {
        Ok(due) => Some(due),
        Err(error) => {
            tracing::error!(%error, "an entry of the queue is passed over");
            None
        }
    };
    let entries: Vec<Due> = page.entries.iter().filter_map(read).collect();
    Ok(Event::Refilled {
        entries,
        more: page.more,
    })
}

/// Recovers, however often the store fails first.
async fn recover_in_the_end(shared: &Shared) {
    while let Err(error) = recover(shared).await {
        tracing::error!(%error, "what was running before cannot be queued again yet");
        tokio::time::sleep(shared.config.store_pause).await;
    }
}

async fn recover(shared: &Shared) -> Result<(), InvokerError> {
    let mut running = Vec::new();
    let collect = |key: &[u8]| {
        running.push(record::id_of(key)?);
        Ok(())
    };
    shared.each_key(Range::prefix(RUN), collect).await?;
    let count = running.len();
    stream::iter(running.into_iter().map(Ok))
        .try_for_each_concurrent(RECOVERY_CONCURRENCY, |id| interrupt(shared, id))
        .await?;
    if count > 0 {
        tracing::info!(
            count,
            "invocations that a stop of the node cut short are queued again"
        );
    }
    Ok(())
}

/// One unreadable record must not keep all others from running.
async fn interrupt(shared: &Shared, id: InvocationId) -> Result<(), InvokerError> {
    match attempt::interrupt(shared, id).await {
        Err(error @ InvokerError::Damaged { .. }) => {
            tracing::error!(invocation = %id, %error, "an invocation cannot be queued again");
            Ok(())
        }
        other => other,
    }
}

async fn sweep_now_and_then(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(shared.config.sweep_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = sweep::sweep(&shared).await {
            tracing::warn!(%error, "what is past its retention cannot be removed yet");
        }
    }
}
