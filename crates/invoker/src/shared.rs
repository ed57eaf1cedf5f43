//! What the handle, the attempts and the sweep have in common: reading and writing records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use model::InvocationId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use storage::{Blobs, Range, Revision, Store, Txn};
use tokio::sync::{Notify, mpsc};

use crate::record::{self, Accepted, Owner, Place, Progress};
use crate::waiters::Waiters;
use crate::{Config, Invocation, InvokerError, Registry, metrics};

#[derive(Debug)]
pub struct Shared {
    pub store: Arc<dyn Store>,
    pub blobs: Blobs,
    pub registry: Registry,
    pub config: Config,
    pub waiters: Arc<Waiters>,
    /// Invocations accepted and not final.
    pub pending: Pending,
    /// Ids accepted, for the dispatcher.
    pub accepted: mpsc::Sender<InvocationId>,
    /// Says that an id did not fit into the channel.
    pub look: Notify,
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
    owner: Owner,
    inline: Option<Bytes>,
}

impl Placed {
    pub fn put(&self, txn: Txn) -> Txn {
        match (self.place, &self.inline) {
            (Place::Blob(blob), _) => txn.put(record::blob_key(&blob), self.owner.0.to_string()),
            (Place::Inline, Some(bytes)) => txn.put(self.owner.key(), bytes.clone()),
            (Place::Inline, None) => txn,
        }
    }
}

impl Shared {
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

    /// Gives a payload its place. A large one becomes a blob at once: if the transaction that is
    /// to name it never happens, the next start removes it.
    pub async fn place(
        &self,
        owner: Owner,
        head: &impl Serialize,
        body: &Bytes,
    ) -> Result<Placed, InvokerError> {
        let bytes = record::pack(owner, head, body)?;
        if bytes.len() <= self.config.inline_bytes_max {
            return Ok(Placed {
                place: Place::Inline,
                owner,
                inline: Some(bytes),
            });
        }
        let place = Place::Blob(self.blobs.put(bytes).await?);
        Ok(Placed {
            place,
            owner,
            inline: None,
        })
    }

    /// Forgets a payload whose transaction did not take effect.
    pub async fn unplace(&self, placed: &Placed) {
        if let Place::Blob(blob) = placed.place {
            self.delete_blob(&blob).await;
        }
    }

    pub async fn delete_blob(&self, blob: &model::Digest) {
        if let Err(error) = self.blobs.delete(blob).await {
            tracing::warn!(%error, %blob, "a blob is left behind until the next start");
        }
    }

    pub async fn payload<H: DeserializeOwned>(
        &self,
        owner: Owner,
        place: Place,
    ) -> Result<(H, Bytes), InvokerError> {
        let key = owner.key();
        let bytes = match place {
            Place::Inline => self
                .store
                .get(key.as_bytes())
                .await?
                .map(|found| found.value),
            Place::Blob(blob) => self.blobs.get(&blob).await?,
        };
        let bytes = bytes.ok_or_else(|| InvokerError::damaged(&key, "it is gone"))?;
        record::unpack(owner, bytes)
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

/// Counts what is accepted and not final.
#[derive(Debug, Default)]
pub struct Pending(AtomicU64);

impl Pending {
    pub fn new(count: u64) -> Self {
        ::metrics::gauge!(metrics::PENDING).set(count as f64);
        Self(AtomicU64::new(count))
    }

    /// Takes a place, if there is one.
    pub fn enter(&self, max: u64) -> Result<(), InvokerError> {
        let more = |count: u64| (count < max).then_some(count + 1);
        let entered = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        entered.map_err(|_| InvokerError::Overloaded { max })?;
        ::metrics::gauge!(metrics::PENDING).increment(1.0);
        Ok(())
    }

    pub fn leave(&self) {
        let less = |count: u64| Some(count.saturating_sub(1));
        // The closure always gives a number, so this cannot fail.
        let _count = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        ::metrics::gauge!(metrics::PENDING).decrement(1.0);
    }
}
