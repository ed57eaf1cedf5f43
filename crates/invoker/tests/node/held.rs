//! A store that lets a test say when things happen.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use storage::{
    LeaseId, Page, Range, Revision, StorageError, Store, Txn, TxnOutcome, Versioned, Watch,
    WatchItem,
};
use tokio::sync::{Notify, Semaphore, mpsc};

/// Holds the next transaction that accepts an invocation, or the events of watches.
#[derive(Debug)]
pub struct Held {
    store: Arc<dyn Store>,
    holds_accept: AtomicBool,
    holds_events: bool,
    /// Something is held.
    pub reached: Notify,
    /// Each permit lets one go.
    pub go: Arc<Semaphore>,
}

impl Held {
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self::over(store, false))
    }

    /// Each event of a watch needs a permit.
    pub fn with_late_events(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self::over(store, true))
    }

    fn over(store: Arc<dyn Store>, holds_events: bool) -> Self {
        Self {
            store,
            holds_accept: AtomicBool::new(false),
            holds_events,
            reached: Notify::new(),
            go: Arc::new(Semaphore::new(0)),
        }
    }

    pub fn hold_next_accept(&self) {
        self.holds_accept.store(true, Ordering::Release);
    }
}

#[async_trait]
impl Store for Held {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StorageError> {
        self.store.get(key).await
    }
    async fn range(&self, range: Range) -> Result<Page, StorageError> {
        self.store.range(range).await
    }
    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, StorageError> {
        let accepts = txn.ops.iter().any(|op| op.key().starts_with(b"inv/r/"));
        if accepts && self.holds_accept.swap(false, Ordering::AcqRel) {
            self.reached.notify_one();
            self.go.acquire().await.unwrap().forget();
        }
        self.store.transact(txn).await
    }
    async fn watch(&self, prefix: &[u8], from: Option<Revision>) -> Result<Watch, StorageError> {
        let mut events = self.store.watch(prefix, from).await?;
        if !self.holds_events {
            return Ok(events);
        }
        let (live, receiver) = mpsc::channel(100);
        let go = self.go.clone();
        tokio::spawn(async move {
            while let Some(WatchItem::Event(event)) = events.next().await {
                go.acquire().await.unwrap().forget();
                if live.send(event).await.is_err() {
                    return;
                }
            }
        });
        Ok(Watch::new(VecDeque::new(), receiver, Arc::default()))
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
