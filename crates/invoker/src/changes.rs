//! The states of one invocation as they come, wherever it runs.
//!
//! ```text
//!  here:       attempts ──publish──▶ Waiters ──▶ Subscription ──▶ Changes
//!  elsewhere:  store ──watch─▶ follower ──publish──┘   ▲ closed: look where it is now
//!                                                      └ (a tenure is over, a record is gone)
//! ```

use std::sync::{Arc, Weak};

use model::InvocationId;
use storage::{Change, StorageError, WatchItem};
use tokio::sync::OwnedSemaphorePermit;

use crate::record;
use crate::shared::{Loaded, Shared};
use crate::waiters::Subscription;
use crate::{Invocation, InvokerError};

/// An invocation as it is, and what tells of its next change.
pub struct Seen {
    invocation: Invocation,
    subscription: Subscription,
}

impl Seen {
    /// Looks at an invocation and waits for its changes from then on.
    pub async fn now(shared: &Arc<Shared>, id: InvocationId) -> Result<Self, InvokerError> {
        Self::look(shared, id, || async {
            let permit = shared.watches.clone().try_acquire_owned();
            let max = shared.config.watches_max;
            permit.map_err(|_| InvokerError::TooManyWatches { max })
        })
        .await
    }

    /// The same for one who waits already, and is owed the end: it waits for a place too.
    async fn again(shared: &Arc<Shared>, id: InvocationId) -> Result<Self, InvokerError> {
        Self::look(shared, id, || async {
            let permit = shared.watches.clone().acquire_owned().await;
            permit.map_err(|_| InvokerError::Store(StorageError::Closed))
        })
        .await
    }

    async fn look<F>(
        shared: &Arc<Shared>,
        id: InvocationId,
        place: impl FnOnce() -> F,
    ) -> Result<Self, InvokerError>
    where
        F: Future<Output = Result<OwnedSemaphorePermit, InvokerError>>,
    {
        // Before the look, so that no change falls between the two.
        let subscription = shared.waiters.subscribe(id);
        let loaded = shared.load(id).await?;
        let loaded = loaded.ok_or(InvokerError::UnknownInvocation(id))?;
        let invocation = loaded.view();
        let is_here = || {
            let term = shared.term();
            term.is_some_and(|term| term.queue == loaded.progress.owner)
        };
        if !invocation.state.is_final() && !is_here() && !shared.waiters.is_followed(id) {
            let permit = place().await?;
            let task = || tokio::spawn(follow(shared.clone(), loaded, permit)).abort_handle();
            shared.waiters.follow(id, task);
        }
        Ok(Self {
            invocation,
            subscription,
        })
    }
}

/// A stream of an invocation's states, in the making.
pub struct Changes {
    /// A stream that somebody keeps does not keep the store open.
    shared: Weak<Shared>,
    first: Option<Invocation>,
    subscription: Subscription,
    id: InvocationId,
    seen: u64,
    is_over: bool,
}

impl Changes {
    pub fn new(shared: &Arc<Shared>, first: Seen) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            id: first.invocation.id,
            first: Some(first.invocation),
            subscription: first.subscription,
            seen: 0,
            is_over: false,
        }
    }

    pub async fn next(mut self) -> Option<(Invocation, Self)> {
        if self.is_over {
            return None;
        }
        let invocation = match self.first.take() {
            Some(first) => first,
            None => self.later().await?,
        };
        (self.seen, self.is_over) = (invocation.seq, invocation.state.is_final());
        Some((invocation, self))
    }

    /// The next state after the last that was seen.
    async fn later(&mut self) -> Option<Invocation> {
        loop {
            let next = match self.subscription.next().await {
                Some(next) => next,
                None => {
                    let Seen {
                        invocation,
                        subscription,
                    } = self.look_again().await?;
                    self.subscription = subscription;
                    invocation
                }
            };
            if next.seq > self.seen {
                return Some(next);
            }
        }
    }

    /// None when the invocation is not there any more, or the store is closed.
    async fn look_again(&self) -> Option<Seen> {
        loop {
            let shared = self.shared.upgrade()?;
            let pause = match Seen::again(&shared, self.id).await {
                Ok(seen) => return Some(seen),
                Err(InvokerError::Store(StorageError::Closed)) => return None,
                Err(error @ InvokerError::Store(_)) => {
                    tracing::warn!(invocation = %self.id, %error, "it cannot be looked at yet");
                    shared.config.store_pause
                }
                Err(_) => return None,
            };
            drop(shared);
            tokio::time::sleep(pause).await;
        }
    }
}

/// Brings what other nodes change of an invocation, until it is final or gone.
async fn follow(shared: Arc<Shared>, mut loaded: Loaded, _place: OwnedSemaphorePermit) {
    let id = loaded.id;
    loop {
        match follow_once(&shared, &mut loaded).await {
            Ok(End::Final) => return,
            Ok(End::Lagged) => {}
            Ok(End::Gone) | Err(InvokerError::Store(StorageError::Closed)) => {
                return shared.waiters.forget(id);
            }
            Err(error) => {
                tracing::warn!(invocation = %id, %error, "it cannot be watched yet");
                tokio::time::sleep(shared.config.store_pause).await;
            }
        }
    }
}

/// Why a watch is over.
enum End {
    Final,
    Gone,
    /// Changes may be missing.
    Lagged,
}

async fn follow_once(shared: &Shared, loaded: &mut Loaded) -> Result<End, InvokerError> {
    let key = record::progress_key(loaded.id);
    let page = shared
        .store
        .range(storage::Range::prefix(key.clone()).limit(1))
        .await?;
    let mut record = page.entries.into_iter().next().map(|entry| entry.value);
    let mut watch = shared
        .store
        .watch(key.as_bytes(), Some(page.revision))
        .await?;
    loop {
        let Some(bytes) = record else {
            return Ok(End::Gone);
        };
        loaded.progress = record::decode(&key, &bytes)?;
        shared.waiters.publish(loaded.view());
        if loaded.progress.state.is_final() {
            return Ok(End::Final);
        }
        record = match watch.next().await {
            Some(WatchItem::Event(event)) => match event.change {
                Change::Put(bytes) => Some(bytes),
                Change::Delete => None,
            },
            Some(WatchItem::Lagged) | None => return Ok(End::Lagged),
        };
    }
}
