//! Stand-ins for the tiers below: one that counts, and one that dies.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::AppName;
use parking_lot::Mutex;
use storage::{LeaseId, Page, Revision, StorageError, Store, Txn, TxnOutcome, Versioned, Watch};

use crate::{Content, EmbeddedGlobal, Found, Global, GlobalError, Head, Key, Name, Push};

/// A global tier that remembers which chunks went by.
#[derive(Debug)]
pub(crate) struct Counting {
    inner: EmbeddedGlobal,
    pub pulled: Mutex<Vec<usize>>,
    pub pushed: Mutex<Vec<Vec<usize>>>,
}

impl Counting {
    pub async fn over(store: &Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            inner: EmbeddedGlobal::open(store.clone()).await.unwrap(),
            pulled: Mutex::default(),
            pushed: Mutex::default(),
        })
    }
}

#[async_trait]
impl Global for Counting {
    async fn head(&self, name: &Name) -> Result<Found, GlobalError> {
        self.inner.head(name).await
    }

    async fn pull(
        &self,
        name: &Name,
        chunks: Range<usize>,
    ) -> Result<Vec<(usize, Bytes)>, GlobalError> {
        self.pulled.lock().extend(chunks.clone());
        self.inner.pull(name, chunks).await
    }

    async fn push(&self, name: &Name, push: Push, content: Content<'_>) -> Result<(), GlobalError> {
        self.pushed.lock().push(push.chunks.clone());
        self.inner.push(name, push, content).await
    }

    async fn remove(&self, name: &Name, expected: u64) -> Result<(), GlobalError> {
        self.inner.remove(name, expected).await
    }

    async fn list(
        &self,
        app: &AppName,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Key, Head)>, GlobalError> {
        self.inner.list(app, prefix, after, limit).await
    }

    async fn expired(&self, now_ms: u64, limit: usize) -> Result<Vec<(Name, u64)>, GlobalError> {
        self.inner.expired(now_ms, limit).await
    }
}

/// A store that takes so many transactions and then none; with `answered` false, the last one that
/// it takes is said to have failed.
#[derive(Debug)]
pub(crate) struct Dying {
    pub store: Arc<dyn Store>,
    pub left: AtomicUsize,
    pub answered: bool,
}

#[async_trait]
impl Store for Dying {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StorageError> {
        self.store.get(key).await
    }

    async fn range(&self, range: storage::Range) -> Result<Page, StorageError> {
        self.store.range(range).await
    }

    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, StorageError> {
        let one_less = |left: usize| left.checked_sub(1);
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .map_err(|_| StorageError::Closed)?;
        let done = self.store.transact(txn).await?;
        match left == 1 && !self.answered {
            true => Err(StorageError::Closed),
            false => Ok(done),
        }
    }

    async fn watch(&self, prefix: &[u8], from: Option<Revision>) -> Result<Watch, StorageError> {
        self.store.watch(prefix, from).await
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StorageError> {
        self.store.lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StorageError> {
        self.store.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StorageError> {
        self.store.revoke(lease).await
    }
}
