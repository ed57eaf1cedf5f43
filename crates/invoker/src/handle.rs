//! The handle: accept, look at, wait for and redrive asynchronous invocations.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use model::{Digest, FunctionPath, InvocationId, Outcome};
use storage::{Blobs, Range, Store, Txn};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::changes::{Changes, Seen};
use crate::draft::{Draft, fingerprint};
use crate::record::{self, KeyHolder, Part, Payload};
use crate::shared::{Loaded, Shared, Term};
use crate::{
    Alone, Config, InvocationState, InvokerError, Nodes, Registry, Reply, Request, Select, Service,
    Target, metrics,
};

/// Longest idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Largest request head: arguments and environment, or URI and headers.
pub const HEAD_BYTES_MAX: usize = 128 << 10;
/// Most invocations in one listing.
pub const LIST_MAX: usize = 1000;
/// How often an accept is tried again because its idempotency key came or went meanwhile.
const TRIES_MAX: u32 = 16;

/// A request to run a function later.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The function.
    pub path: FunctionPath,
    /// Which version; it is chosen now and kept through all attempts.
    pub select: Select,
    /// What to run it with.
    pub request: Request,
    /// The same key with the same function and request, within the retention, gives the same id.
    pub idempotency_key: Option<String>,
    /// The W3C `traceparent` that the attempts carry on.
    pub traceparent: Option<String>,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The invocation.
    pub id: InvocationId,
    /// The version that it runs.
    pub version: Digest,
    /// Whether the invocation had been accepted earlier, with the same idempotency key.
    pub is_repeat: bool,
}

/// An asynchronous invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Its name; ids sort by time of acceptance.
    pub id: InvocationId,
    /// The function.
    pub path: FunctionPath,
    /// The version that was chosen when it was accepted.
    pub version: Digest,
    /// Where it is.
    pub state: InvocationState,
    /// Counts its changes.
    pub seq: u64,
    /// Attempts begun.
    pub attempts: u32,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_ms: u64,
    /// When it last changed.
    pub changed_ms: u64,
    /// When the next attempt is due, while it is queued.
    pub next_attempt_ms: Option<u64>,
    /// When it is forgotten, once it is final.
    pub expires_ms: Option<u64>,
    /// How the last attempt that ended did so.
    pub outcome: Option<Outcome>,
    /// What went wrong outside of the guest.
    pub error: Option<String>,
    /// Whether there is a reply to read.
    pub has_reply: bool,
    /// The invocation that a redrive made of this dead letter.
    pub redriven_as: Option<InvocationId>,
}

/// Which invocations to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Only dead letters of this function that were not redriven.
    pub dead_of: Option<FunctionPath>,
    /// Only those accepted before this one.
    pub before: Option<InvocationId>,
    /// At most so many; [`LIST_MAX`] caps it, and 0 means that.
    pub limit: usize,
}

/// Accepts asynchronous invocations and tells what became of them; cheap to clone.
#[derive(Clone, Debug)]
pub struct Invoker {
    shared: Arc<Shared>,
}

impl Invoker {
    /// Opens the invoker of a node alone on its store; `blobs` must be its own, since it removes
    /// what it does not know. Nothing runs until [`Service::run`] does.
    pub async fn open(
        store: Arc<dyn Store>,
        blobs: Blobs,
        registry: Registry,
        config: Config,
    ) -> Result<(Self, Service), InvokerError> {
        let nodes = Arc::new(Alone::default());
        Self::open_among(store, blobs, registry, config, nodes).await
    }

    /// Opens the invoker of one of many nodes that share a store; `blobs` are those of all their
    /// invokers, and nobody else's. Nothing runs until [`Service::run`] does.
    pub async fn open_among(
        store: Arc<dyn Store>,
        blobs: Blobs,
        registry: Registry,
        config: Config,
        nodes: Arc<dyn Nodes>,
    ) -> Result<(Self, Service), InvokerError> {
        let (accepted, queue) = mpsc::channel(config.ready_max.max(1));
        let shared = Arc::new(Shared {
            store,
            blobs,
            registry,
            watches: Arc::new(Semaphore::new(config.watches_max)),
            config,
            nodes,
            waiters: Arc::default(),
            term: Default::default(),
            accepted,
            look: Notify::new(),
        });
        let alone = shared.term().filter(|term| term.queue.is_alone());
        if let Some(term) = alone {
            for prefix in [term.queue.due(), term.queue.run()] {
                let count = |_: &[u8]| {
                    term.pending.take_in();
                    Ok(())
                };
                shared.each_key(Range::prefix(prefix), count).await?;
            }
            remove_unused_blobs(&shared).await?;
        }
        let service = Service::new(shared.clone(), queue);
        Ok((Self { shared }, service))
    }

    /// The functions.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// Accepts an invocation: once this returns, it is durable and reaches exactly one final
    /// state, whatever happens to the node. One that is no member of its cluster accepts none.
    pub async fn submit(&self, submission: Submission) -> Result<Receipt, InvokerError> {
        let Submission {
            path,
            select,
            request,
            idempotency_key,
            traceparent,
        } = submission;
        let target = self.shared.registry.find(&path, &select).await?;
        self.check(&target, &request, idempotency_key.as_deref())?;
        let holder = idempotency_key.map(|key| Digest::of(key.as_bytes()));
        let select = match select {
            Select::Live => None,
            Select::Alias(name) => Some(name.to_string()),
            Select::Version(version) => Some(version.to_string()),
        };
        let print = fingerprint(&select, &request)?;
        for _ in 0..TRIES_MAX {
            if let Some(key) = &holder
                && let Some(receipt) = self.repeated(&path, key, &print).await?
            {
                ::metrics::counter!(metrics::REPEATED).increment(1);
                return Ok(receipt);
            }
            let draft = Draft {
                target: &target,
                select: select.clone(),
                request: &request,
                idempotency: holder.map(|key| (key, print)),
                traceparent: traceparent.clone(),
            };
            if let Some(receipt) = self.accept(draft, Txn::new()).await? {
                return Ok(receipt);
            }
        }
        Err(InvokerError::Contended {
            path,
            tries: TRIES_MAX,
        })
    }

    /// An invocation, unless it is past its retention.
    pub async fn invocation(&self, id: InvocationId) -> Result<Invocation, InvokerError> {
        Ok(self.load(id).await?.view())
    }

    /// The invocation's reply, once it is final and has one.
    pub async fn reply(&self, id: InvocationId) -> Result<Option<Reply>, InvokerError> {
        let Some(place) = self.load(id).await?.progress.reply else {
            return Ok(None);
        };
        let payload = Payload(id, Part::Reply);
        let (head, body) = self.shared.payload(payload, place).await?;
        Ok(Some(Reply { head, body }))
    }

    /// The invocation once it is final, or as it is after `timeout`. The end is pushed.
    pub async fn wait(
        &self,
        id: InvocationId,
        timeout: Duration,
    ) -> Result<Invocation, InvokerError> {
        let mut changes = self.changes(id).await?;
        let mut last = None;
        let ended = tokio::time::timeout(timeout, async {
            while let Some(invocation) = changes.next().await {
                last = Some(invocation);
            }
        });
        // Out of time or not, the last that was seen is the answer.
        let _in_time = ended.await.is_ok();
        match last {
            Some(invocation) => Ok(invocation),
            None => self.invocation(id).await,
        }
    }

    /// The invocation now, then each time it changes, up to and including its final state, at
    /// whichever node it runs. A slow reader skips states, never the last. What another node runs
    /// is watched in the store, once for all who wait for it; of such watches there are at most
    /// [`Config::watches_max`].
    pub async fn changes(
        &self,
        id: InvocationId,
    ) -> Result<BoxStream<'static, Invocation>, InvokerError> {
        let first = Seen::now(&self.shared, id).await?;
        let changes = Changes::new(&self.shared, first);
        Ok(stream::unfold(changes, Changes::next).boxed())
    }

    /// Invocations, newest first.
    pub async fn list(&self, listing: &Listing) -> Result<Vec<Invocation>, InvokerError> {
        let prefix = match &listing.dead_of {
            Some(path) => record::dead_prefix(path),
            None => record::PROGRESS.to_owned(),
        };
        let mut range = Range::prefix(prefix.clone()).reversed();
        range.limit = match listing.limit {
            0 => LIST_MAX,
            limit => limit.min(LIST_MAX),
        };
        if let Some(before) = listing.before {
            range.end = Some(format!("{prefix}{before}").into());
        }
        let page = self.shared.store.range(range).await?;
        let mut all = Vec::with_capacity(page.entries.len());
        for entry in page.entries {
            match self.shared.load(record::id_of(&entry.key)?).await {
                Ok(Some(loaded)) => all.push(loaded.view()),
                // It was past its retention and is gone meanwhile.
                Ok(None) => {}
                Err(error @ InvokerError::Damaged { .. }) => {
                    tracing::error!(%error, "an invocation is left out of a listing");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Submits a dead or failed invocation's request again, as a new invocation of what its
    /// selection means now. Redriving it once more gives the same new invocation.
    pub async fn redrive(&self, id: InvocationId) -> Result<Receipt, InvokerError> {
        for _ in 0..TRIES_MAX {
            let dead = self.load(id).await?;
            if let Some(again) = dead.progress.redriven_as {
                let version = self.load(again).await?.accepted.version;
                return Ok(Receipt {
                    id: again,
                    version,
                    is_repeat: true,
                });
            }
            let state = dead.progress.state;
            if !matches!(state, InvocationState::Dead | InvocationState::Failed) {
                return Err(InvokerError::NotRedrivable { id, state });
            }
            if let Some(receipt) = self.redrive_once(&dead).await? {
                return Ok(receipt);
            }
        }
        let path = self.load(id).await?.accepted.path;
        Err(InvokerError::Contended {
            path,
            tries: TRIES_MAX,
        })
    }

    async fn redrive_once(&self, dead: &Loaded) -> Result<Option<Receipt>, InvokerError> {
        let (id, accepted) = (dead.id, &dead.accepted);
        let select = match &accepted.select {
            Some(select) => select.parse()?,
            None => Select::Live,
        };
        let target = self.shared.registry.find(&accepted.path, &select).await?;
        let payload = Payload(id, Part::Request);
        let (head, body) = self.shared.payload(payload, accepted.request).await?;
        let request = Request { head, body };
        let txn = Txn::new().if_revision(record::progress_key(id), dead.revision);
        let txn = txn.delete(record::dead_key(&accepted.path, id));
        let draft = Draft {
            target: &target,
            select: accepted.select.clone(),
            request: &request,
            idempotency: None,
            traceparent: accepted.traceparent.clone(),
        };
        let fresh = self.shared.new_id();
        let mut progress = dead.progress.clone();
        (progress.redriven_as, progress.seq) = (Some(fresh), progress.seq + 1);
        let txn = txn.put(record::progress_key(id), record::encode(&progress)?);
        self.accept_as(fresh, draft, txn).await
    }

    async fn load(&self, id: InvocationId) -> Result<Loaded, InvokerError> {
        self.shared
            .load(id)
            .await?
            .ok_or(InvokerError::UnknownInvocation(id))
    }

    fn check(
        &self,
        target: &Target,
        request: &Request,
        idempotency_key: Option<&str>,
    ) -> Result<(), InvokerError> {
        let (bytes, max) = (
            request.body.len() as u64,
            target.spec.settings.limits.input_bytes_max,
        );
        if bytes > max {
            return Err(InvokerError::BodyTooLarge {
                path: target.path.clone(),
                bytes,
                max,
            });
        }
        let (bytes, max) = (record::encode(&request.head)?.len(), HEAD_BYTES_MAX);
        if bytes > max {
            return Err(InvokerError::HeadTooLarge { bytes, max });
        }
        match idempotency_key.map(str::len) {
            Some(bytes) if bytes == 0 || bytes > IDEMPOTENCY_KEY_BYTES_MAX => {
                let max = IDEMPOTENCY_KEY_BYTES_MAX;
                Err(InvokerError::IdempotencyKeySize { bytes, max })
            }
            _ => Ok(()),
        }
    }

    /// The invocation that has the idempotency key already.
    async fn repeated(
        &self,
        path: &FunctionPath,
        key: &Digest,
        print: &Digest,
    ) -> Result<Option<Receipt>, InvokerError> {
        let key = record::idempotency_key(path, key);
        let Some(found) = self.shared.store.get(key.as_bytes()).await? else {
            return Ok(None);
        };
        let holder: KeyHolder = record::decode(&key, &found.value)?;
        if holder.request != *print {
            return Err(InvokerError::IdempotencyConflict { id: holder.id });
        }
        let loaded = self.shared.load(holder.id).await?;
        Ok(loaded.map(|loaded| {
            let version = loaded.accepted.version;
            Receipt {
                id: holder.id,
                version,
                is_repeat: true,
            }
        }))
    }

    async fn accept(&self, draft: Draft<'_>, txn: Txn) -> Result<Option<Receipt>, InvokerError> {
        self.accept_as(self.shared.new_id(), draft, txn).await
    }

    /// Makes the invocation durable together with `txn`; none when a compare did not hold.
    async fn accept_as(
        &self,
        id: InvocationId,
        draft: Draft<'_>,
        txn: Txn,
    ) -> Result<Option<Receipt>, InvokerError> {
        let term = self.shared.term().ok_or(InvokerError::NotMember)?;
        term.pending.enter(self.shared.config.pending_max)?;
        let done = self.write(&term, id, &draft, txn).await;
        if !matches!(done, Ok(true)) {
            term.pending.leave();
        }
        if done.is_err() {
            // It may be durable nevertheless; then it must run.
            self.shared.look.notify_one();
        }
        if !done? {
            return match self.shared.is_over(&term.tenure).await? {
                true => Err(InvokerError::NotMember),
                false => Ok(None),
            };
        }
        ::metrics::counter!(metrics::ACCEPTED).increment(1);
        if self.shared.accepted.try_send(id).is_err() {
            self.shared.look.notify_one();
        }
        Ok(Some(Receipt {
            id,
            version: draft.target.version,
            is_repeat: false,
        }))
    }

    async fn write(
        &self,
        term: &Term,
        id: InvocationId,
        draft: &Draft<'_>,
        txn: Txn,
    ) -> Result<bool, InvokerError> {
        let Request { head, body } = draft.request;
        let payload = Payload(id, Part::Request);
        let placed = self.shared.place(term, payload, head, body).await?;
        let txn = draft.put(id, term, &placed, self.shared.guard(term, txn))?;
        let made = self.shared.begin(term, id, txn).await?;
        if !made {
            self.shared.unplace(&placed).await;
        }
        Ok(made)
    }
}

/// Removes blobs that no record names: a crash came between the blob and its transaction. Only for
/// a node alone, since what another one has just placed has no name yet.
async fn remove_unused_blobs(shared: &Shared) -> Result<(), InvokerError> {
    let mut all = shared.blobs.list();
    while let Some(blob) = all.try_next().await? {
        let key = record::blob_key(&blob.digest);
        if shared.store.get(key.as_bytes()).await?.is_none() {
            // One that stays is found at the next start.
            let _is_gone = shared.delete_blob(&blob.digest).await;
        }
    }
    Ok(())
}
