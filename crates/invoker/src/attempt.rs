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

use crate::clock::millis;
use crate::dispatch::{self, Event};
use crate::life::{self, AttemptEnd, Bounds, Next};
use crate::record::{self, Part, Payload, Progress, Queue};
use crate::shared::{Loaded, Placed, Shared, Term};
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

    fn interrupted() -> Self {
        Self {
            kind: EndingKind::Interrupted,
            outcome: None,
            reply: None,
            error: Some("the node stopped while it was running".into()),
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
pub async fn run(
    shared: Arc<Shared>,
    term: Arc<Term>,
    runner: Arc<dyn Runner>,
    id: InvocationId,
) -> Event {
    let loaded = match shared.load(id).await {
        Ok(Some(loaded)) => loaded,
        Ok(None) => return Event::Finished(id),
        Err(error) => return postpone(&shared, id, &error),
    };
    // The dispatcher may have read the index just before an earlier attempt left it, or have been
    // told of the invocation in an earlier tenure.
    let progress = &loaded.progress;
    match (progress.state, progress.due_ms) {
        _ if progress.owner != term.queue => return Event::Finished(id),
        // What never began is due since it was accepted, whatever the clock was then.
        (InvocationState::Queued, Some(_)) if progress.starts == 0 => {}
        (InvocationState::Queued, Some(due_ms)) if is_due(&shared, due_ms) => {}
        (InvocationState::Queued, Some(due_ms)) => return Event::Requeued((due_ms, id)),
        _ => return Event::Finished(id),
    }
    let attempt = match prepare(&shared, &loaded).await {
        Ok(attempt) => attempt,
        Err(error) if passes(&error) => return postpone(&shared, id, &error),
        Err(error) => return settle(&shared, &term, loaded, Ending::gone(error)).await,
    };
    let Some(started) = start(&shared, &term, loaded).await else {
        return Event::Finished(id);
    };
    if !shared.is_present(&term) {
        // Whoever takes over what the tenure left runs it.
        return Event::Finished(id);
    }
    let ran = AssertUnwindSafe(runner.run(attempt)).catch_unwind().await;
    let ran = ran.unwrap_or_else(|_| panicked());
    settle(&shared, &term, started, Ending::of(ran)).await
}

/// Ends the attempt that was running when this node died.
pub async fn interrupt(shared: &Shared, term: &Term, id: InvocationId) -> Result<(), InvokerError> {
    let Some(loaded) = shared.load(id).await? else {
        return Ok(());
    };
    if loaded.progress.state == InvocationState::Running && loaded.progress.owner == term.queue {
        finish(shared, term, loaded, Ending::interrupted()).await;
    }
    Ok(())
}

/// Takes over what `key` says is in a queue whose tenure is over: what was queued stays due, what
/// ran was interrupted. Whether this node has it now.
pub async fn take_over(shared: &Shared, term: &Term, key: &[u8]) -> Result<bool, InvokerError> {
    let id = record::id_of(key)?;
    let is_there = |loaded: &Loaded| {
        let index_key = loaded.progress.index_key(id);
        index_key.is_some_and(|index_key| index_key.as_bytes() == key)
    };
    let Some(loaded) = shared.load(id).await?.filter(is_there) else {
        // Somebody else has it by now. Nothing comes back into a queue that is over, so that the
        // key, if it is still there, says nothing.
        let stray = Txn::new().delete(key.to_vec());
        return Ok(shared.store.transact(stray).await.map(|_| false)?);
    };
    // Before it is this node's: it may end as soon as it is.
    term.pending.take_in();
    let has_it = match loaded.progress.state {
        InvocationState::Running => finish(shared, term, loaded, Ending::interrupted()).await,
        state => {
            let mut progress = loaded.progress.changed(state, shared.now_ms(), &term.queue);
            progress.due_ms = loaded.progress.due_ms;
            let taken = change(shared, term, loaded, progress, &Ok).await;
            taken.inspect(|taken| shared.waiters.publish(taken.view()))
        }
    };
    if has_it.is_none() {
        term.pending.leave();
    }
    Ok(has_it.is_some())
}

/// Whether an attempt that could not be prepared may be later.
fn passes(error: &InvokerError) -> bool {
    match error {
        InvokerError::Store(_) => !is_damage(error),
        // The functions as this node knows them do not follow the store at present.
        InvokerError::Behind => true,
        _ => false,
    }
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

fn is_due(shared: &Shared, due_ms: u64) -> bool {
    dispatch::is_due(due_ms, shared.now_ms(), millis(shared.config.backoff_max))
}

fn postpone(shared: &Shared, id: InvocationId, error: &InvokerError) -> Event {
    tracing::warn!(invocation = %id, %error, "an attempt is put off: its record cannot be read");
    Event::Requeued((shared.now_ms() + millis(shared.config.store_pause), id))
}

async fn prepare(shared: &Shared, loaded: &Loaded) -> Result<Attempt, InvokerError> {
    let (id, accepted) = (loaded.id, &loaded.accepted);
    let select = Select::Version(accepted.version);
    // It may have been deployed and accepted at another node.
    let target = shared.registry.find(&accepted.path, &select).await?;
    let payload = Payload(id, Part::Request);
    let (head, body) = shared.payload(payload, accepted.request).await?;
    Ok(Attempt {
        id,
        number: loaded.progress.starts + 1,
        target,
        request: Request { head, body },
        traceparent: accepted.traceparent.clone(),
    })
}

/// Records that an attempt begins; none when the invocation is no longer queued here.
async fn start(shared: &Shared, term: &Term, loaded: Loaded) -> Option<Loaded> {
    let progress = loaded
        .progress
        .changed(InvocationState::Running, shared.now_ms(), &term.queue);
    let progress = Progress {
        starts: progress.starts + 1,
        ..progress
    };
    let started = change(shared, term, loaded, progress, &Ok).await?;
    shared.waiters.publish(started.view());
    Some(started)
}

/// Records how an attempt ended and what follows, for the dispatcher.
async fn settle(shared: &Shared, term: &Term, loaded: Loaded, ending: Ending) -> Event {
    let id = loaded.id;
    let ended = finish(shared, term, loaded, ending).await;
    match ended.and_then(|ended| ended.progress.due_ms) {
        Some(due_ms) => Event::Requeued((due_ms, id)),
        None => Event::Finished(id),
    }
}

/// Records how an attempt ended and what follows; none when somebody else has changed it.
async fn finish(shared: &Shared, term: &Term, loaded: Loaded, ending: Ending) -> Option<Loaded> {
    let id = loaded.id;
    ::metrics::counter!(metrics::ATTEMPTS, "result" => ending.label()).increment(1);
    let mut progress = follow(shared, &loaded, &ending, &term.queue);
    let placed = match ending.reply.filter(|_| progress.state.is_final()) {
        Some(reply) => Some(place_reply(shared, term, id, &reply).await?),
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
    let ended = change(shared, term, loaded, progress, &extra).await?;
    tell(shared, term, &ended);
    Some(ended)
}

/// Where an invocation is after an attempt that ended so.
fn follow(shared: &Shared, loaded: &Loaded, ending: &Ending, queue: &Queue) -> Progress {
    let (now, accepted) = (shared.now_ms(), &loaded.accepted);
    let bounds = Bounds::new(&shared.config, accepted.attempts_max, accepted.accepted_ms);
    let mut counts = loaded.progress.counts;
    let chance = shared.config.surroundings.chance() as u64;
    let next = life::next(now, &mut counts, ending.end(), &bounds, chance);
    let mut progress = match next {
        Next::Retry { due_ms } => {
            let mut progress = (loaded.progress).changed(InvocationState::Queued, now, queue);
            progress.due_ms = Some(due_ms);
            progress
        }
        Next::Final(state) => {
            let mut progress = loaded.progress.changed(state, now, queue);
            progress.expires_ms = Some(now.saturating_add(millis(shared.config.retention)));
            progress
        }
    };
    progress.counts = counts;
    progress.error.clone_from(&ending.error);
    progress.outcome = ending.outcome.clone().or(progress.outcome);
    progress
}

fn tell(shared: &Shared, term: &Term, ended: &Loaded) {
    let (progress, accepted) = (&ended.progress, &ended.accepted);
    if progress.state.is_final() {
        term.pending.leave();
        let life = Duration::from_millis(progress.changed_ms.saturating_sub(accepted.accepted_ms));
        ::metrics::counter!(metrics::FINAL, "state" => progress.state.as_str()).increment(1);
        ::metrics::histogram!(metrics::LIFE_SECONDS).record(life.as_secs_f64());
    }
    shared.waiters.publish(ended.view());
}

/// Gives the reply its place, however long the disk is full: the attempt has run, and must not
/// run again for want of space. None when the tenure is over.
async fn place_reply(
    shared: &Shared,
    term: &Term,
    id: InvocationId,
    reply: &Reply,
) -> Option<Placed> {
    let payload = Payload(id, Part::Reply);
    loop {
        match shared.place(term, payload, &reply.head, &reply.body).await {
            Ok(placed) => return Some(placed),
            Err(InvokerError::NotMember) => return None,
            Err(error) => pause(shared, id, &error).await,
        }
    }
}

async fn pause(shared: &Shared, id: InvocationId, error: &InvokerError) {
    tracing::warn!(invocation = %id, %error, "a record cannot be written yet");
    tokio::time::sleep(shared.config.store_pause).await;
}

type Extra<'a> = dyn Fn(Txn) -> Result<Txn, InvokerError> + Send + Sync + 'a;

/// Replaces the progress record, and the index entry that goes with it, until that is durable.
/// None when somebody else has changed it, or the tenure is over.
async fn change(
    shared: &Shared,
    term: &Term,
    mut loaded: Loaded,
    progress: Progress,
    extra: &Extra<'_>,
) -> Option<Loaded> {
    let id = loaded.id;
    loop {
        let error = match try_change(shared, term, &loaded, &progress, extra).await {
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

/// Within one tenure an invocation is changed by one task at a time, so that the same count of
/// changes and the same moment mean the same change.
fn is_same(stored: &Progress, ours: &Progress) -> bool {
    let is_same_change = stored.seq == ours.seq && stored.changed_ms == ours.changed_ms;
    is_same_change && stored.state == ours.state && stored.owner == ours.owner
}

async fn try_change(
    shared: &Shared,
    term: &Term,
    loaded: &Loaded,
    progress: &Progress,
    extra: &Extra<'_>,
) -> Result<TxnOutcome, InvokerError> {
    let txn = Txn::new().if_revision(record::progress_key(loaded.id), loaded.revision);
    let txn = loaded.progress.leave(shared.guard(term, txn), loaded.id);
    let txn = extra(progress.put(txn, loaded.id)?)?;
    Ok(shared.store.transact(txn).await?)
}
