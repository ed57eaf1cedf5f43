//! One attempt, from the store and back to it.
//!
//! The record of an invocation changes only by comparing the revision of its last change. When a
//! transaction's fate is unknown (the disk failed under it), the record is read again: it either
//! still has that revision, or the change was made.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use model::{InvocationId, Outcome, StartKind, Status, Usage};
use storage::{Txn, TxnOutcome};

use crate::clock::{millis, now_ms};
use crate::dispatch::Event;
use crate::life::{self, AttemptEnd, Bounds, Next};
use crate::record::{self, Owner, Part, Progress};
use crate::shared::{Loaded, Placed, Shared};
use crate::{Attempt, InvocationState, InvokerError, Ran, Reply, Request, Runner, Select, metrics};

/// How an attempt ended, with what is recorded of it.
#[derive(Debug)]
struct Ending {
    kind: EndingKind,
    outcome: Option<Outcome>,
    reply: Option<Reply>,
    error: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum EndingKind {
    Ended,
    Overloaded(Duration),
    Interrupted,
    Gone,
}

impl Ending {
    fn gone(error: impl ToString) -> Self {
        let error = Some(error.to_string());
        Self {
            kind: EndingKind::Gone,
            outcome: None,
            reply: None,
            error,
        }
    }

    fn of(ran: Ran) -> Self {
        match ran {
            Ran::Ended { outcome, reply } => Self {
                kind: EndingKind::Ended,
                outcome: Some(outcome),
                reply: Some(reply),
                error: None,
            },
            Ran::Overloaded { retry_after } => Self {
                kind: EndingKind::Overloaded(retry_after),
                outcome: None,
                reply: None,
                error: Some("the function or the node has no place for it".into()),
            },
        }
    }

    fn end(&self) -> AttemptEnd<'_> {
        match (self.kind, &self.outcome) {
            (EndingKind::Ended, Some(outcome)) => AttemptEnd::Ended(&outcome.status),
            (EndingKind::Overloaded(after), _) => AttemptEnd::Overloaded(millis(after)),
            (EndingKind::Interrupted, _) => AttemptEnd::Interrupted,
            (EndingKind::Gone | EndingKind::Ended, _) => AttemptEnd::Gone,
        }
    }

    fn label(&self) -> &'static str {
        match self.end() {
            AttemptEnd::Ended(Status::Ok) => "ok",
            AttemptEnd::Ended(Status::Cancelled) => "cancelled",
            AttemptEnd::Ended(_) => "failed",
            AttemptEnd::Overloaded(_) => "overloaded",
            AttemptEnd::Interrupted => "interrupted",
            AttemptEnd::Gone => "gone",
        }
    }
}

/// Runs one attempt of `id`, if it is due; gives what the dispatcher must know.
pub async fn run(shared: Arc<Shared>, runner: Arc<dyn Runner>, id: InvocationId) -> Event {
    let loaded = match shared.load(id).await {
        Ok(Some(loaded)) => loaded,
        Ok(None) => return Event::Finished(id),
        Err(error) => return postpone(&shared, id, &error),
    };
    // The dispatcher may have read the index just before an earlier attempt left it.
    let progress = &loaded.progress;
    match (progress.state, progress.due_ms) {
        (InvocationState::Queued, Some(due_ms)) if due_ms <= now_ms() => {}
        (InvocationState::Queued, Some(due_ms)) => return Event::Requeued((due_ms, id)),
        _ => return Event::Finished(id),
    }
    let attempt = match prepare(&shared, &loaded).await {
        Ok(attempt) => attempt,
        Err(error @ InvokerError::Store(_)) if !is_damage(&error) => {
            return postpone(&shared, id, &error);
        }
        Err(error) => return finish(&shared, loaded, Ending::gone(error)).await,
    };
    let Some(started) = start(&shared, loaded).await else {
        return Event::Finished(id);
    };
    let ran = AssertUnwindSafe(runner.run(attempt)).catch_unwind().await;
    let ran = ran.unwrap_or_else(|_| panicked());
    finish(&shared, started, Ending::of(ran)).await
}

/// Ends the attempt that was running when the node died.
pub async fn interrupt(shared: &Shared, id: InvocationId) -> Result<(), InvokerError> {
    let Some(loaded) = shared.load(id).await? else {
        return Ok(());
    };
    if loaded.progress.state == InvocationState::Running {
        let error = Some("the node stopped while it was running".into());
        let kind = EndingKind::Interrupted;
        finish(
            shared,
            loaded,
            Ending {
                kind,
                outcome: None,
                reply: None,
                error,
            },
        )
        .await;
    }
    Ok(())
}

fn is_damage(error: &InvokerError) -> bool {
    matches!(
        error,
        InvokerError::Store(storage::StorageError::BlobDamaged { .. })
    )
}

fn panicked() -> Ran {
    let status = Status::Platform {
        message: "the runner panicked".into(),
    };
    let outcome = Outcome {
        status,
        start: StartKind::Cold,
        usage: Usage::default(),
    };
    Ran::Ended {
        outcome,
        reply: Reply::plain(""),
    }
}

fn postpone(shared: &Shared, id: InvocationId, error: &InvokerError) -> Event {
    tracing::warn!(invocation = %id, %error, "an attempt is put off: its record cannot be read");
    Event::Requeued((now_ms() + millis(shared.config.store_pause), id))
}

async fn prepare(shared: &Shared, loaded: &Loaded) -> Result<Attempt, InvokerError> {
    let (id, accepted) = (loaded.id, &loaded.accepted);
    let select = Select::Version(accepted.version);
    let target = shared.registry.resolve(&accepted.path, &select)?;
    let owner = Owner(id, Part::Request);
    let (head, body) = shared.payload(owner, accepted.request).await?;
    Ok(Attempt {
        id,
        number: loaded.progress.starts + 1,
        target,
        request: Request { head, body },
        traceparent: accepted.traceparent.clone(),
    })
}

/// Records that an attempt begins; none when the invocation is no longer queued.
async fn start(shared: &Shared, loaded: Loaded) -> Option<Loaded> {
    let mut progress = loaded.progress.changed(InvocationState::Running, now_ms());
    progress.starts += 1;
    let started = change(shared, loaded, progress, &|txn| Ok(txn)).await?;
    shared.waiters.publish(started.view());
    Some(started)
}

/// Records how an attempt ended and what follows.
async fn finish(shared: &Shared, loaded: Loaded, ending: Ending) -> Event {
    let (id, now) = (loaded.id, now_ms());
    ::metrics::counter!(metrics::ATTEMPTS, "result" => ending.label()).increment(1);
    let bounds = Bounds::new(
        &shared.config,
        loaded.accepted.attempts_max,
        loaded.accepted.accepted_ms,
    );
    let mut counts = loaded.progress.counts;
    let next = life::next(now, &mut counts, ending.end(), &bounds, rand::random());
    let mut progress = match next {
        Next::Retry { due_ms } => {
            let mut progress = loaded.progress.changed(InvocationState::Queued, now);
            progress.due_ms = Some(due_ms);
            progress
        }
        Next::Final(state) => {
            let mut progress = loaded.progress.changed(state, now);
            progress.expires_ms = Some(now.saturating_add(millis(shared.config.retention)));
            progress
        }
    };
    progress.counts = counts;
    progress.error = ending.error;
    progress.outcome = ending.outcome.or(progress.outcome);
    let placed = match ending.reply.filter(|_| progress.state.is_final()) {
        Some(reply) => Some(place_reply(shared, id, &reply).await),
        None => None,
    };
    progress.reply = placed.as_ref().map(|placed| placed.place);
    let path = loaded.accepted.path.clone();
    let is_dead = progress.state == InvocationState::Dead;
    let extra = |txn: Txn| {
        let txn = placed.iter().fold(txn, |txn, placed| placed.put(txn));
        Ok(match is_dead {
            true => txn.put(record::dead_key(&path, id), ""),
            false => txn,
        })
    };
    let Some(ended) = change(shared, loaded, progress, &extra).await else {
        return Event::Finished(id);
    };
    tell(shared, &ended);
    match next {
        Next::Retry { due_ms } => Event::Requeued((due_ms, id)),
        Next::Final(_) => Event::Finished(id),
    }
}

fn tell(shared: &Shared, ended: &Loaded) {
    let (progress, accepted) = (&ended.progress, &ended.accepted);
    if progress.state.is_final() {
        shared.pending.leave();
        let life = Duration::from_millis(progress.changed_ms.saturating_sub(accepted.accepted_ms));
        ::metrics::counter!(metrics::FINAL, "state" => progress.state.as_str()).increment(1);
        ::metrics::histogram!(metrics::LIFE_SECONDS).record(life.as_secs_f64());
    }
    shared.waiters.publish(ended.view());
}

/// Gives the reply its place, however long the disk is full: the attempt has run, and must not
/// run again for want of space.
async fn place_reply(shared: &Shared, id: InvocationId, reply: &Reply) -> Placed {
    loop {
        match shared
            .place(Owner(id, Part::Reply), &reply.head, &reply.body)
            .await
        {
            Ok(placed) => return placed,
            Err(error) => pause(shared, id, &error).await,
        }
    }
}

async fn pause(shared: &Shared, id: InvocationId, error: &InvokerError) {
    tracing::warn!(invocation = %id, %error, "a record cannot be written yet");
    tokio::time::sleep(shared.config.store_pause).await;
}

/// Replaces the progress record, and the index entry that goes with it, until that is durable.
/// None when somebody else has changed it.
async fn change(
    shared: &Shared,
    mut loaded: Loaded,
    progress: Progress,
    extra: &(dyn Fn(Txn) -> Result<Txn, InvokerError> + Send + Sync),
) -> Option<Loaded> {
    let id = loaded.id;
    loop {
        let error = match try_change(shared, &loaded, &progress, extra).await {
            Ok(TxnOutcome::Committed { revision }) => {
                (loaded.progress, loaded.revision) = (progress, revision);
                return Some(loaded);
            }
            Ok(TxnOutcome::Conflict) => match shared.load(id).await {
                // An earlier try of this very change took effect, though it was not said to.
                Ok(Some(stored)) if is_same(&stored.progress, &progress) => return Some(stored),
                Ok(_) => return None,
                Err(error) => error,
            },
            Err(error) => error,
        };
        pause(shared, id, &error).await;
    }
}

/// Within one node an invocation is changed by one task at a time, so that the same count of
/// changes and the same moment mean the same change.
fn is_same(stored: &Progress, ours: &Progress) -> bool {
    (stored.seq, stored.changed_ms, stored.state) == (ours.seq, ours.changed_ms, ours.state)
}

async fn try_change(
    shared: &Shared,
    loaded: &Loaded,
    progress: &Progress,
    extra: &(dyn Fn(Txn) -> Result<Txn, InvokerError> + Send + Sync),
) -> Result<TxnOutcome, InvokerError> {
    let txn = Txn::new().if_revision(record::progress_key(loaded.id), loaded.revision);
    let txn = loaded.progress.leave(txn, loaded.id);
    let txn = extra(progress.put(txn, loaded.id)?)?;
    Ok(shared.store.transact(txn).await?)
}
