//! The driver: carries out what [`Dispatch`] decides, one task a running attempt.
//!
//! ```text
//!  no member ──▶ recover ──▶ serve: dispatch, sweep, take over ──▶ stopped: drain
//!      ▲                       │ the tenure is over
//!      └─ attempts are dropped ┘
//! ```

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{self, TryStreamExt};
use model::InvocationId;
use storage::Range;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::clock::millis;
use crate::dispatch::{Action, Dispatch, Due, Event};
use crate::nodes::Share;
use crate::record;
use crate::shared::{Shared, Term};
use crate::takeover::take_over_for_ever;
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
    /// again at the next start, or by other nodes.
    ///
    /// While the node is no member of its cluster nothing runs; what ran is dropped when its
    /// tenure ends, since other nodes may run it from then on.
    pub async fn run(mut self, runner: Arc<dyn Runner>, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut changes = self.shared.nodes.changes();
        loop {
            changes.borrow_and_update();
            let Some(term) = self.shared.term() else {
                tokio::select! {
                    biased;
                    // The shared part keeps the nodes, and they the sender.
                    _changed = changes.changed() => {}
                    () = &mut stop => return,
                }
                continue;
            };
            let mut serving = Serving::new(self.shared.clone(), term.clone(), runner.clone());
            // In this order, so that nothing begins in a tenure that is over, and a simulation
            // repeats.
            let is_stopped = tokio::select! {
                biased;
                () = over(&self.shared, &term, &mut changes) => false,
                () = &mut stop => true,
                () = serving.serve(&mut self.accepted) => false,
            };
            if is_stopped {
                tokio::select! {
                    biased;
                    () = over(&self.shared, &term, &mut changes) => {}
                    () = serving.drain() => {}
                }
            }
            serving.end().await;
            if is_stopped {
                return;
            }
            tracing::warn!("the tenure is over: what ran is left to other nodes");
        }
    }
}

/// Waits until the term is not the node's any more.
async fn over(shared: &Shared, term: &Arc<Term>, changes: &mut watch::Receiver<u64>) {
    while shared.is_present(term) && changes.changed().await.is_ok() {}
}

/// What runs in one term.
struct Serving {
    shared: Arc<Shared>,
    term: Arc<Term>,
    runner: Arc<dyn Runner>,
    /// Attempts and reads of the queue.
    tasks: JoinSet<Event>,
    /// What goes on beside.
    beside: JoinSet<()>,
}

impl Serving {
    fn new(shared: Arc<Shared>, term: Arc<Term>, runner: Arc<dyn Runner>) -> Self {
        Self {
            shared,
            term,
            runner,
            tasks: JoinSet::new(),
            beside: JoinSet::new(),
        }
    }

    /// Runs what is due, for ever.
    async fn serve(&mut self, accepted: &mut mpsc::Receiver<InvocationId>) {
        let (shared, term) = (self.shared.clone(), self.term.clone());
        recover_in_the_end(&shared, &term).await;
        self.beside
            .spawn(sweep_now_and_then(shared.clone(), term.clone()));
        self.beside.spawn(take_over_for_ever(shared.clone(), term));
        let config = &shared.config;
        let delay_ms_max = millis(config.backoff_max.max(config.store_pause));
        let mut dispatch = Dispatch::new(config.ready_max, config.running_max, delay_ms_max);
        let mut event = Event::Tick;
        loop {
            for action in dispatch.handle(shared.now_ms(), event) {
                self.spawn(action);
            }
            ::metrics::gauge!(metrics::RUNNING).set(dispatch.running() as f64);
            let wake = dispatch
                .wake_ms()
                .map(|at| Duration::from_millis(at.saturating_sub(shared.now_ms())));
            // Places are freed before more is taken in. What is passed over is in the store.
            event = tokio::select! {
                biased;
                Some(done) = self.tasks.join_next() => match done {
                    Ok(event) => event,
                    Err(error) => {
                        tracing::error!(%error, "a task of the invoker failed");
                        Event::Look
                    }
                },
                () = shared.look.notified() => Event::Look,
                Some(id) = accepted.recv() => Event::Accepted(id),
                () = tokio::time::sleep(wake.unwrap_or_default()), if wake.is_some() => Event::Tick,
            };
        }
    }

    fn spawn(&mut self, action: Action) {
        let (shared, term) = (self.shared.clone(), self.term.clone());
        match action {
            Action::Start(id) => {
                (self.tasks).spawn(run_attempt(shared, term, self.runner.clone(), id));
            }
            Action::Refill { limit } => {
                self.tasks.spawn(async move {
                    refill(&shared, &term, limit).await.unwrap_or_else(|error| {
                        tracing::warn!(%error, "the queue cannot be read yet");
                        Event::RefillFailed {
                            retry_ms: shared.now_ms() + millis(shared.config.store_pause),
                        }
                    })
                });
            }
        }
    }

    /// Waits for what runs, as long as it may.
    async fn drain(&mut self) {
        self.beside.abort_all();
        let (tasks, patience) = (&mut self.tasks, self.shared.config.drain);
        let drained = async { while tasks.join_next().await.is_some() {} };
        let drained = tokio::time::timeout(patience, drained).await;
        if drained.is_err() {
            let running = self.tasks.len();
            tracing::warn!(
                running,
                "attempts are left to the next start, or to other nodes"
            );
        }
    }

    /// Drops what runs, and waits until it has let go of the store.
    async fn end(mut self) {
        self.tasks.shutdown().await;
        self.beside.shutdown().await;
        ::metrics::gauge!(metrics::RUNNING).set(0.0);
    }
}

/// A bug in an attempt must not take its place for good.
async fn run_attempt(
    shared: Arc<Shared>,
    term: Arc<Term>,
    runner: Arc<dyn Runner>,
    id: InvocationId,
) -> Event {
    let run = attempt::run(shared.clone(), term, runner, id);
    let run = AssertUnwindSafe(run).catch_unwind();
    run.await.unwrap_or_else(|_| {
        tracing::error!(invocation = %id, "recording an attempt panicked");
        Event::Requeued((shared.now_ms() + millis(shared.config.store_pause), id))
    })
}

async fn refill(shared: &Shared, term: &Term, limit: usize) -> Result<Event, InvokerError> {
    let prefix = term.queue.due();
    let range = Range::prefix(prefix.clone()).limit(limit);
    let page = shared.store.range(range).await?;
    let read = |entry: &storage::Entry| match record::time_and_id(&prefix, &entry.key) {
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
async fn recover_in_the_end(shared: &Shared, term: &Term) {
    while let Err(error) = recover(shared, term).await {
        tracing::error!(%error, "what was running before cannot be queued again yet");
        tokio::time::sleep(shared.config.store_pause).await;
    }
}

async fn recover(shared: &Shared, term: &Term) -> Result<(), InvokerError> {
    let mut running = Vec::new();
    let collect = |key: &[u8]| {
        running.push(record::id_of(key)?);
        Ok(())
    };
    shared
        .each_key(Range::prefix(term.queue.run()), collect)
        .await?;
    let count = running.len();
    stream::iter(running.into_iter().map(Ok))
        .try_for_each_concurrent(RECOVERY_CONCURRENCY, |id| interrupt(shared, term, id))
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
async fn interrupt(shared: &Shared, term: &Term, id: InvocationId) -> Result<(), InvokerError> {
    match attempt::interrupt(shared, term, id).await {
        Err(error @ InvokerError::Damaged { .. }) => {
            tracing::error!(invocation = %id, %error, "an invocation cannot be queued again");
            Ok(())
        }
        other => other,
    }
}

async fn sweep_now_and_then(shared: Arc<Shared>, term: Arc<Term>) {
    let mut ticks = tokio::time::interval(shared.config.sweep_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // What the store did not answer may be done after it was given up, when the queue was
        // looked into already.
        shared.look.notify_one();
        let Some(share) = Share::of(&term.tenure, &shared.nodes.peers()) else {
            continue;
        };
        if let Err(error) = sweep::sweep(&shared, &share).await {
            tracing::warn!(%error, "what is past its retention cannot be removed yet");
        }
    }
}
