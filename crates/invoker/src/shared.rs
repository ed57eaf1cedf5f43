//! What the handle, the attempts and the sweep have in common: reading and writing records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use model::{Digest, InvocationId};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use storage::{Blobs, Range, Revision, StorageError, Store, Txn, TxnOutcome};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::nodes::{self, Nodes, Tenure};
use crate::record::{self, Accepted, Payload, Place, Progress, Queue};
use crate::waiters::Waiters;
use crate::{Config, Invocation, InvokerError, Registry, metrics};

#[derive(Debug)]
pub struct Shared {
    pub store: Arc<dyn Store>,
    pub blobs: Blobs,
    pub registry: Registry,
    pub config: Config,
    pub nodes: Arc<dyn Nodes>,
    pub waiters: Arc<Waiters>,
    /// Places for watches of what other nodes run.
    pub watches: Arc<Semaphore>,
    /// What the present tenure owns; see [`Shared::term`].
    pub term: Mutex<Option<Arc<Term>>>,
    /// Ids accepted, for the dispatcher.
    pub accepted: mpsc::Sender<InvocationId>,
    /// Says that an id did not fit into the channel.
    pub look: Notify,
}

/// What this node owns in one tenure.
#[derive(Debug)]
pub struct Term {
    pub tenure: Tenure,
    pub queue: Queue,
    /// Invocations in the queue: accepted, or taken over, and not final.
    pub pending: Pending,
}

impl Term {
    pub fn new(tenure: Tenure, pending: u64) -> Self {
        Self {
            queue: Queue::of(&tenure),
            pending: Pending::new(pending),
            tenure,
        }
    }
}

/// An invocation's records, and the revision to compare for the next change.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub id: InvocationId,
    pub accepted: Accepted,
    pub progress: Progress,
    pub revision: Revision,
}

impl Loaded {
    /// The invocation as callers see it.
    pub fn view(&self) -> Invocation {
        let (accepted, progress) = (&self.accepted, &self.progress);
        Invocation {
            id: self.id,
            path: accepted.path.clone(),
            version: accepted.version,
            state: progress.state,
            seq: progress.seq,
            attempts: progress.starts,
            accepted_ms: accepted.accepted_ms,
            changed_ms: progress.changed_ms,
            next_attempt_ms: progress.due_ms,
            expires_ms: progress.expires_ms,
            outcome: progress.outcome.clone(),
            error: progress.error.clone(),
            has_reply: progress.reply.is_some(),
            redriven_as: progress.redriven_as,
        }
    }
}

/// A payload that has its place: what a transaction must put for it.
#[derive(Debug)]
pub struct Placed {
    pub place: Place,
    payload: Payload,
    inline: Option<Bytes>,
    /// Says that nothing names the blob; goes when something does.
    note: Option<String>,
}

impl Placed {
    pub fn put(&self, txn: Txn) -> Txn {
        let txn = self
            .note
            .iter()
            .fold(txn, |txn, note| txn.delete(note.clone()));
        match (self.place, &self.inline) {
            (Place::Blob(blob), _) => txn.put(record::blob_key(&blob), self.payload.0.to_string()),
            (Place::Inline, Some(bytes)) => txn.put(self.payload.key(), bytes.clone()),
            (Place::Inline, None) => txn,
        }
    }
}

impl Shared {
    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.config.surroundings.now_ms()
    }

    /// The id of an invocation that is accepted now.
    pub fn new_id(&self) -> InvocationId {
        let surroundings = &self.config.surroundings;
        InvocationId::from_parts(surroundings.now_ms(), surroundings.chance())
    }

    pub async fn load(&self, id: InvocationId) -> Result<Option<Loaded>, InvokerError> {
        let (accepted_key, progress_key) = (record::accepted_key(id), record::progress_key(id));
        let Some(accepted) = self.store.get(accepted_key.as_bytes()).await? else {
            return Ok(None);
        };
        let Some(progress) = self.store.get(progress_key.as_bytes()).await? else {
            return Ok(None);
        };
        Ok(Some(Loaded {
            id,
            accepted: record::decode(&accepted_key, &accepted.value)?,
            progress: record::decode(&progress_key, &progress.value)?,
            revision: progress.revision,
        }))
    }

    /// What this node owns at this moment; none while it is no member of its cluster.
    pub fn term(&self) -> Option<Arc<Term>> {
        let mut term = self.term.lock();
        // Asked under the lock, so that an answer that has grown old replaces no newer one.
        let own = self.nodes.own();
        if term.as_ref().map(|term| &term.tenure) != own.as_ref() {
            if let Some(over) = term.take() {
                over.pending.hide();
            }
            // What was awaited here goes on elsewhere.
            self.waiters.disperse();
            *term = own.map(|tenure| Arc::new(Term::new(tenure, 0)));
        }
        term.clone()
    }

    /// Whether `term` is what this node owns at this moment.
    pub fn is_present(&self, term: &Arc<Term>) -> bool {
        self.term().is_some_and(|now| Arc::ptr_eq(&now, term))
    }

    /// Makes the transaction that begins an invocation; whether its compares held. A server of the
    /// store that dies with it leaves open whether it was made. Then it is made again, as long as
    /// the term lasts: it puts what never was, so that whichever of the two comes second changes
    /// nothing.
    pub async fn begin(
        &self,
        term: &Term,
        id: InvocationId,
        txn: Txn,
    ) -> Result<bool, InvokerError> {
        let txn = txn.if_absent(record::progress_key(id));
        let is_made = |outcome| matches!(outcome, TxnOutcome::Committed { .. });
        let open = match self.store.transact(txn.clone()).await {
            Ok(outcome) => return Ok(is_made(outcome)),
            Err(open @ StorageError::Unanswered { .. }) => open,
            Err(error) => return Err(error.into()),
        };
        if self.nodes.own().as_ref() != Some(&term.tenure) {
            return Err(open.into());
        }
        let again = self.store.transact(txn).await?;
        Ok(is_made(again) || self.load(id).await?.is_some())
    }

    /// A transaction that takes effect only while the term lasts.
    pub fn guard(&self, term: &Term, txn: Txn) -> Txn {
        nodes::guard(&*self.nodes, &term.tenure, txn)
    }

    /// Whether a tenure is over by the store.
    pub async fn is_over(&self, tenure: &Tenure) -> Result<bool, InvokerError> {
        nodes::is_over(&*self.nodes, &*self.store, tenure).await
    }

    /// Gives a payload its place. A large one becomes a blob at once; that it may be there without
    /// a name is noted before, for whoever takes over what this tenure leaves. Of a node alone,
    /// the next start finds it.
    pub async fn place(
        &self,
        term: &Term,
        payload: Payload,
        head: &impl Serialize,
        body: &Bytes,
    ) -> Result<Placed, InvokerError> {
        let bytes = record::pack(payload, &term.queue, head, body)?;
        let placed = Placed {
            place: Place::Inline,
            payload,
            inline: None,
            note: None,
        };
        if bytes.len() <= self.config.inline_bytes_max {
            let inline = Some(bytes);
            return Ok(Placed { inline, ..placed });
        }
        let note = match term.queue.unnamed() {
            Some(prefix) => Some(self.note(term, &prefix, payload, &bytes).await?),
            None => None,
        };
        let place = Place::Blob(self.blobs.put(bytes).await?);
        Ok(Placed {
            place,
            note,
            ..placed
        })
    }

    async fn note(
        &self,
        term: &Term,
        prefix: &str,
        payload: Payload,
        bytes: &[u8],
    ) -> Result<String, InvokerError> {
        let note = format!("{prefix}{}", Digest::of(bytes).hex());
        let txn = Txn::new().put(note.clone(), payload.0.to_string());
        match self.store.transact(self.guard(term, txn)).await? {
            TxnOutcome::Committed { .. } => Ok(note),
            TxnOutcome::Conflict => Err(InvokerError::NotMember),
        }
    }

    /// Forgets a payload whose transaction did not take effect.
    pub async fn unplace(&self, placed: &Placed) {
        if let Place::Blob(blob) = placed.place
            && self.delete_blob(&blob).await
            && let Some(note) = &placed.note
            && let Err(error) = self.store.transact(Txn::new().delete(note.clone())).await
        {
            tracing::warn!(%error, "a note of a blob stays until this tenure is over");
        }
    }

    /// Whether it is gone.
    pub async fn delete_blob(&self, blob: &Digest) -> bool {
        let deleted = self.blobs.delete(blob).await;
        if let Err(error) = &deleted {
            tracing::warn!(%error, %blob, "a blob is left behind");
        }
        deleted.is_ok()
    }

    pub async fn payload<H: DeserializeOwned>(
        &self,
        payload: Payload,
        place: Place,
    ) -> Result<(H, Bytes), InvokerError> {
        let key = payload.key();
        let bytes = match place {
            Place::Inline => self
                .store
                .get(key.as_bytes())
                .await?
                .map(|found| found.value),
            Place::Blob(blob) => self.blobs.get(&blob).await?,
        };
        let bytes = bytes.ok_or_else(|| InvokerError::damaged(&key, "it is gone"))?;
        record::unpack(payload, bytes)
    }

    /// Every key of a range, page by page, through `each`.
    pub async fn each_key(
        &self,
        range: Range,
        mut each: impl FnMut(&[u8]) -> Result<(), InvokerError>,
    ) -> Result<(), InvokerError> {
        let mut next = Some(range);
        while let Some(range) = next {
            let page = self.store.range(range.clone()).await?;
            for entry in &page.entries {
                each(&entry.key)?;
            }
            next = range.rest(&page);
        }
        Ok(())
    }
}

/// Counts what a term has in its queue.
#[derive(Debug)]
pub struct Pending {
    count: AtomicU64,
    /// Whether it is what the metric shows.
    is_shown: AtomicBool,
}

impl Pending {
    pub fn new(count: u64) -> Self {
        ::metrics::gauge!(metrics::PENDING).set(count as f64);
        Self {
            count: AtomicU64::new(count),
            is_shown: AtomicBool::new(true),
        }
    }

    /// Takes a place, if there is one.
    pub fn enter(&self, max: u64) -> Result<(), InvokerError> {
        let more = |count: u64| (count < max).then_some(count + 1);
        let entered = (self.count).fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        entered.map_err(|_| InvokerError::Overloaded { max })?;
        self.show(1.0);
        Ok(())
    }

    /// Counts one that was accepted elsewhere, however many there are.
    pub fn take_in(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.show(1.0);
    }

    pub fn leave(&self) {
        let less = |count: u64| Some(count.saturating_sub(1));
        // The closure always gives a number, so this cannot fail.
        let _count = (self.count).fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        self.show(-1.0);
    }

    /// The term is over: nothing of it is this node's any more.
    pub fn hide(&self) {
        if self.is_shown.swap(false, Ordering::AcqRel) {
            ::metrics::gauge!(metrics::PENDING).set(0.0);
        }
    }

    fn show(&self, change: f64) {
        if self.is_shown.load(Ordering::Acquire) {
            ::metrics::gauge!(metrics::PENDING).increment(change);
        }
    }
}
