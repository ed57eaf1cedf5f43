//! A store that fails again and again: what it refuses is not accepted, what is accepted runs once.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod node;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use invoker::{Config, InvocationState, Invoker, Registry};
use model::InvocationId;
use node::{LONG, Scripted, fn_path, ok, quick, spec, submission};
use storage::{
    Blobs, LeaseId, Page, Range, RedbStore, Revision, StorageError, Store, Txn, TxnOutcome,
    Versioned, Watch,
};

/// Fails transactions in turn: some before they take effect, some after.
#[derive(Debug)]
struct Faulty {
    store: RedbStore,
    /// Counts transactions; none fails while it is 0.
    turn: AtomicU64,
    /// What the next transactions leave open: whether each is made nevertheless.
    open: Mutex<Vec<bool>>,
}

impl Faulty {
    fn turn(&self) -> u64 {
        match self.turn.load(Ordering::Relaxed) {
            0 => 1,
            _ => self.turn.fetch_add(1, Ordering::Relaxed),
        }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StorageError> {
        self.store.get(key).await
    }
    async fn range(&self, range: Range) -> Result<Page, StorageError> {
        self.store.range(range).await
    }
    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, StorageError> {
        let open = self.open.lock().unwrap().pop();
        if let Some(is_made) = open {
            if is_made {
                // Whoever asked is told nothing of it.
                let _committed = self.store.transact(txn).await?;
            }
            let source = Arc::new(io::Error::from(io::ErrorKind::ConnectionReset));
            return Err(StorageError::Unanswered {
                doing: "testing",
                source,
            });
        }
        let turn = self.turn();
        if turn.is_multiple_of(3) {
            let source = Arc::new(io::Error::from(io::ErrorKind::StorageFull));
            return Err(StorageError::Full {
                doing: "testing",
                source,
            });
        }
        let outcome = self.store.transact(txn).await?;
        if turn.is_multiple_of(5) {
            let source = Arc::new(io::Error::other("the disk went away after the commit"));
            return Err(StorageError::Io {
                doing: "testing",
                source,
            });
        }
        Ok(outcome)
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

#[tokio::test]
async fn on_a_failing_store_what_is_accepted_runs_exactly_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::in_memory(storage::Config::default()).unwrap();
    let faulty = Arc::new(Faulty {
        store,
        turn: AtomicU64::new(0),
        open: Mutex::default(),
    });
    let store: Arc<dyn Store> = faulty.clone();
    let registry = Registry::open(store.clone()).await.unwrap();
    registry.deploy(&fn_path("app/f"), spec(1)).await.unwrap();
    let blobs = Blobs::open(folder.path()).unwrap();
    let config = Config {
        pending_max: 1000,
        ..quick()
    };
    let (invoker, service) = Invoker::open(store, blobs, registry, config).await.unwrap();

    let runs = Arc::new(Mutex::new(BTreeMap::<InvocationId, u32>::new()));
    let counted = runs.clone();
    let runner = Scripted(move |attempt: invoker::Attempt| {
        *counted.lock().unwrap().entry(attempt.id).or_default() += 1;
        async move { ok(attempt.request.body) }
    });
    let service = tokio::spawn(service.run(Arc::new(runner), std::future::pending()));
    faulty.turn.store(1, Ordering::Relaxed);
    let mut accepted = Vec::new();
    let mut refused = 0;
    for n in 0..200 {
        let length = if n % 4 == 0 { 5000 } else { 5 };
        match invoker.submit(submission(vec![n as u8; length])).await {
            Ok(receipt) => accepted.push((receipt.id, n as u8, length)),
            Err(_) => refused += 1,
        }
    }
    assert!(accepted.len() > 50 && refused > 50);
    for (id, n, length) in accepted {
        let done = invoker.wait(id, LONG).await.unwrap();
        assert_eq!((done.state, done.attempts), (InvocationState::Succeeded, 1));
        assert_eq!(
            invoker.reply(id).await.unwrap().unwrap().body,
            vec![n; length]
        );
        assert_eq!(runs.lock().unwrap()[&id], 1);
    }
    assert!(runs.lock().unwrap().values().all(|runs| *runs == 1));
    service.abort();
}

#[tokio::test]
async fn what_a_store_leaves_open_is_accepted_once_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::in_memory(storage::Config::default()).unwrap();
    let faulty = Arc::new(Faulty {
        store,
        turn: AtomicU64::new(0),
        open: Mutex::default(),
    });
    let registry = Registry::open(faulty.clone()).await.unwrap();
    registry.deploy(&fn_path("app/f"), spec(1)).await.unwrap();
    let blobs = Blobs::open(folder.path()).unwrap();
    let opened = Invoker::open(faulty.clone(), blobs, registry, quick()).await;
    let (invoker, service) = opened.unwrap();
    for is_made in [false, true] {
        faulty.open.lock().unwrap().push(is_made);
        let receipt = invoker.submit(submission(vec![7])).await.unwrap();
        assert!(!receipt.is_repeat);
    }
    // A store that never answers is not asked for ever.
    *faulty.open.lock().unwrap() = vec![false; 2];
    let refused = invoker.submit(submission(vec![7])).await;
    assert!(refused.is_err() && faulty.open.lock().unwrap().is_empty());
    let listed = invoker.list(&invoker::Listing::default()).await.unwrap();
    assert_eq!(listed.len(), 2);
    let runner = Scripted(|attempt: invoker::Attempt| async move { ok(attempt.request.body) });
    let service = tokio::spawn(service.run(Arc::new(runner), std::future::pending()));
    for invocation in listed {
        let done = invoker.wait(invocation.id, LONG).await.unwrap();
        assert_eq!((done.state, done.attempts), (InvocationState::Succeeded, 1));
    }
    service.abort();
}

#[tokio::test]
async fn a_full_store_refuses_an_invocation_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::in_memory(storage::Config::default()).unwrap();
    let faulty = Arc::new(Faulty {
        store,
        turn: AtomicU64::new(0),
        open: Mutex::default(),
    });
    let registry = Registry::open(faulty.clone()).await.unwrap();
    registry.deploy(&fn_path("app/f"), spec(1)).await.unwrap();
    let blobs = Blobs::open(folder.path()).unwrap();
    let config = Config {
        pending_max: 1,
        ..quick()
    };
    let opened = Invoker::open(faulty.clone(), blobs, registry, config).await;
    let (invoker, _service) = opened.unwrap();
    faulty.turn.store(3, Ordering::Relaxed);
    let refused = invoker.submit(submission("x")).await.unwrap_err();
    assert!(refused.is_full(), "{refused:?}");
    faulty.turn.store(0, Ordering::Relaxed);
    invoker.submit(submission("x")).await.unwrap();
}
