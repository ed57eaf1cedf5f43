//! The store on a real etcd cluster: the suite, and what it promises while members die.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use storage::{
    Change, EtcdConfig, EtcdStore, Event, Range, Revision, StorageError, Store, Txn, Watch,
    WatchItem, conformance,
};
use testkit::EtcdCluster;
use tokio::sync::Notify;

async fn open(address: &str) -> EtcdStore {
    EtcdStore::open(address, EtcdConfig::default())
        .await
        .unwrap()
}

/// A store that does not wait long.
async fn impatient(address: &str) -> Result<EtcdStore, StorageError> {
    let config = EtcdConfig {
        request_timeout: Duration::from_secs(2),
        ..EtcdConfig::default()
    };
    EtcdStore::open(address, config).await
}

async fn put(store: &EtcdStore, key: &str) -> Revision {
    match store.transact(Txn::new().put(key.to_owned(), "x")).await {
        Ok(storage::TxnOutcome::Committed { revision }) => revision,
        other => panic!("{key}: {other:?}"),
    }
}

/// Lets the store find that its connection is dead by what may be asked twice: of a change that
/// was sent over it, nobody knows whether it was made.
async fn notices(store: &EtcdStore) {
    store.range(Range::prefix("")).await.unwrap();
}

async fn event(watch: &mut Watch) -> Event {
    match watch.next().await {
        Some(WatchItem::Event(event)) => event,
        other => panic!("the watch must show a change, but: {other:?}"),
    }
}

fn is_away(error: &StorageError) -> bool {
    use StorageError::{Unanswered, Unavailable};
    matches!(error, Unavailable { .. } | Unanswered { .. })
}

#[tokio::test]
async fn a_cluster_conforms() {
    let cluster = EtcdCluster::start(3);
    conformance::all(Arc::new(open(&cluster.address("a")).await)).await;
    let other = open(&cluster.address("b")).await;
    let page = other.range(Range::prefix("")).await.unwrap();
    assert_eq!(page.entries, [], "prefixes are apart");
}

/// What writers do to a store while its members die.
#[derive(Debug, Default)]
struct Load {
    stop: AtomicBool,
    acknowledged: Mutex<BTreeSet<String>>,
    more: Notify,
    reads: AtomicUsize,
}

impl Load {
    /// Puts keys until it is told to stop; only an open outcome may keep a put from success.
    async fn write(self: Arc<Self>, store: EtcdStore, writer: usize) {
        for n in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let key = format!("load/{writer}-{n}");
            match store
                .transact(Txn::new().put(key.clone(), vec![7; 300]))
                .await
            {
                Ok(outcome) => {
                    assert!(outcome.is_committed());
                    self.acknowledged.lock().insert(key);
                    self.more.notify_one();
                }
                Err(StorageError::Unanswered { .. }) => (),
                Err(error) => panic!("{key}: {error:?}"),
            }
        }
    }

    /// Reads until it is told to stop; no read may fail.
    async fn read(self: Arc<Self>, store: EtcdStore) {
        while !self.stop.load(Ordering::Relaxed) {
            store.get(b"load/0-0").await.unwrap();
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn acknowledge(&self, more: usize) {
        let enough = self.acknowledged.lock().len() + more;
        while self.acknowledged.lock().len() < enough {
            self.more.notified().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_killed_under_load_costs_no_acknowledged_write_and_no_event() {
    for killed in 0..3 {
        let mut cluster = EtcdCluster::start(3);
        let store = open(&cluster.address("")).await;
        let mut watch = store.watch(b"load/", None).await.unwrap();
        let load = Arc::new(Load::default());
        let mut tasks = tokio::task::JoinSet::new();
        (0..8).for_each(|n| drop(tasks.spawn(load.clone().write(store.clone(), n))));
        tasks.spawn(load.clone().read(store.clone()));
        load.acknowledge(100).await;
        cluster.kill(killed);
        load.acknowledge(300).await;
        load.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        assert!(load.reads.load(Ordering::Relaxed) > 0);
        let page = store.range(Range::prefix("load/")).await.unwrap();
        assert!(!page.more);
        let there: BTreeSet<_> = page.entries.iter().map(|e| text(&e.key)).collect();
        let lost: Vec<_> = load
            .acknowledged
            .lock()
            .difference(&there)
            .cloned()
            .collect();
        assert_eq!(lost, [""; 0], "acknowledged and gone");
        let mut in_order: Vec<_> = page
            .entries
            .iter()
            .map(|e| (e.revision, text(&e.key)))
            .collect();
        in_order.sort();
        for (revision, key) in in_order {
            let seen = event(&mut watch).await;
            assert_eq!((seen.revision, text(&seen.key)), (revision, key));
        }
    }
}

fn text(key: &[u8]) -> String {
    String::from_utf8(key.to_vec()).unwrap()
}

#[tokio::test]
async fn without_a_majority_requests_fail_and_with_one_they_work_again() {
    let mut cluster = EtcdCluster::start(3);
    let store = impatient(&cluster.address("")).await.unwrap();
    let before = put(&store, "before").await;
    let lease = store.lease(Duration::from_secs(3600)).await.unwrap();
    let mut watch = store.watch(b"", None).await.unwrap();
    cluster.kill(1);
    cluster.kill(2);
    let failures = [
        store.get(b"before").await.map(drop),
        store.range(Range::prefix("")).await.map(drop),
        store.transact(Txn::new().put("lost", "x")).await.map(drop),
        store.keep_alive(lease).await,
        store.lease(Duration::from_secs(5)).await.map(drop),
        store.watch(b"", None).await.map(drop),
        store.watch(b"", Some(before)).await.map(drop),
    ];
    for failed in failures {
        assert!(failed.as_ref().is_err_and(is_away), "{failed:?}");
    }
    cluster.restart(1);
    cluster.restart(2);
    (0..3).for_each(|member| cluster.wait_ready(member));
    let store = open(&cluster.address("")).await;
    let found = store.get(b"before").await.unwrap().unwrap();
    assert_eq!(found.revision, before);
    store.keep_alive(lease).await.unwrap();
    let after = put(&store, "after").await;
    // Whether the put without a majority was done is open; the watch knows.
    let mut seen = event(&mut watch).await;
    if &*seen.key == b"lost" {
        assert!(store.get(b"lost").await.unwrap().is_some());
        seen = event(&mut watch).await;
    }
    assert_eq!((&*seen.key, seen.revision), (&b"after"[..], after));
}

#[tokio::test]
async fn a_member_that_hangs_fails_no_read_and_is_left() {
    let cluster = EtcdCluster::start(3);
    let store = open(&cluster.address("")).await;
    let mut watch = store.watch(b"", None).await.unwrap();
    put(&store, "a").await;
    cluster.pause(0);
    assert!(store.get(b"a").await.unwrap().is_some());
    put(&store, "b").await;
    // The watch finds out by a ping that nobody answers.
    assert_eq!(&*event(&mut watch).await.key, b"a");
    assert_eq!(&*event(&mut watch).await.key, b"b");
}

#[tokio::test]
async fn a_watch_from_before_a_compaction_has_lagged() {
    let mut cluster = EtcdCluster::start(3);
    let store = open(&cluster.address("")).await;
    let first = put(&store, "a").await;
    let second = put(&store, "a").await;
    let third = put(&store, "a").await;
    let mut open_before = store.watch(b"", Some(second)).await.unwrap();
    assert_eq!(event(&mut open_before).await.revision, third);
    cluster.compact(third.0);
    for from in [Revision(0), first, second] {
        let mut watch = store.watch(b"", Some(from)).await.unwrap();
        assert_eq!(watch.next().await, Some(WatchItem::Lagged), "{from:?}");
        assert_eq!(watch.next().await, None);
    }
    let mut watch = store.watch(b"", Some(third)).await.unwrap();
    let page = store.range(Range::prefix("")).await.unwrap();
    assert_eq!(page.entries[0].revision, third, "what is there stays");
    // A watch that was open, and had seen all, goes on over a member's death.
    cluster.kill(0);
    notices(&store).await;
    let deleted = store.transact(Txn::new().delete("a")).await.unwrap();
    for watch in [&mut open_before, &mut watch] {
        let seen = event(watch).await;
        assert_eq!(seen.change, Change::Delete);
        let revision = seen.revision;
        assert_eq!(deleted, storage::TxnOutcome::Committed { revision });
    }
}

#[tokio::test]
async fn a_watch_that_slept_through_a_compaction_has_lagged() {
    let mut cluster = EtcdCluster::start(1);
    let store = open(&cluster.address("")).await;
    let mut watch = store.watch(b"", None).await.unwrap();
    put(&store, "a").await;
    assert_eq!(&*event(&mut watch).await.key, b"a");
    let mut idle = store.watch(b"elsewhere/", None).await.unwrap();
    for _ in 0..3 {
        put(&store, "b").await;
    }
    let last = put(&store, "b").await;
    cluster.compact(last.0);
    cluster.kill(0);
    cluster.restart(0);
    cluster.wait_ready(0);
    // It cannot know that nothing under its prefix was forgotten.
    assert_eq!(idle.next().await, Some(WatchItem::Lagged));
}

#[tokio::test]
async fn a_lease_ends_though_the_member_that_granted_it_is_dead() {
    let mut cluster = EtcdCluster::start(3);
    let store = open(&cluster.address("")).await;
    let mut watch = store.watch(b"", None).await.unwrap();
    let kept = store.lease(Duration::from_secs(3600)).await.unwrap();
    let lease = store.lease(Duration::from_secs(2)).await.unwrap();
    let txn = Txn::new().put_leased("kept", "x", kept);
    assert!(store.transact(txn).await.unwrap().is_committed());
    let txn = Txn::new().put_leased("leased", "x", lease);
    assert!(store.transact(txn).await.unwrap().is_committed());
    cluster.kill(0);
    assert_eq!(&*event(&mut watch).await.key, b"kept");
    assert_eq!(&*event(&mut watch).await.key, b"leased");
    let end = event(&mut watch).await;
    assert_eq!((&*end.key, end.change), (&b"leased"[..], Change::Delete));
    store.keep_alive(kept).await.unwrap();
    let gone = store.keep_alive(lease).await;
    assert!(
        matches!(gone, Err(StorageError::LeaseNotFound(id)) if id == lease),
        "{gone:?}"
    );
    let txn = Txn::new()
        .put_leased("a", "x", kept)
        .put_leased("b", "x", lease);
    let gone = store.transact(txn).await;
    assert!(
        matches!(gone, Err(StorageError::LeaseNotFound(id)) if id == lease),
        "{gone:?}"
    );
}

#[tokio::test]
async fn a_watch_ends_with_its_store_and_a_slow_one_misses_nothing() {
    let cluster = EtcdCluster::start(1);
    let config = EtcdConfig {
        watch_buffer_events: 2,
        ..EtcdConfig::default()
    };
    let store = EtcdStore::open(&cluster.address(""), config).await.unwrap();
    let mut watch = store.watch(b"", None).await.unwrap();
    for n in 0..50 {
        put(&store, &format!("{n:02}")).await;
    }
    for n in 0..50 {
        assert_eq!(text(&event(&mut watch).await.key), format!("{n:02}"));
    }
    drop(store);
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn opening_says_what_is_wrong() {
    let mut cluster = EtcdCluster::start(1);
    let address = cluster.address("x");
    let named = impatient(&address.replace("etcd://", "etcd://root:secret@")).await;
    let text = format!("{:?}", named.as_ref().unwrap_err());
    assert!(matches!(named, Err(StorageError::Refused { .. })), "{text}");
    assert!(text.contains("authentication is not enabled"), "{text}");
    let secure = impatient(&address.replace("etcd://", "etcds://")).await;
    assert!(secure.as_ref().is_err_and(is_away), "{secure:?}");
    cluster.kill(0);
    let nobody = impatient(&address).await;
    assert!(
        matches!(nobody, Err(StorageError::Unavailable { .. })),
        "{nobody:?}"
    );
    let bad = impatient("etcd://").await;
    assert!(matches!(bad, Err(StorageError::Address { .. })), "{bad:?}");
}

#[tokio::test]
async fn who_has_the_password_may_and_goes_on_when_tokens_are_forgotten() {
    let mut cluster = EtcdCluster::start(1);
    cluster.call(
        "/v3/auth/user/add",
        r#"{"name":"root","password":"sec:ret"}"#,
    );
    cluster.call("/v3/auth/role/add", r#"{"name":"root"}"#);
    cluster.call("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#);
    cluster.call("/v3/auth/enable", "{}");
    let address = cluster.address("");
    for user in ["", "root:wrong@", "nobody:sec:ret@"] {
        let refused = impatient(&address.replace("://", &format!("://{user}"))).await;
        assert!(
            matches!(refused, Err(StorageError::Refused { .. })),
            "{user}: {refused:?}"
        );
    }
    let store = open(&address.replace("://", "://root:sec:ret@")).await;
    let mut watch = store.watch(b"", None).await.unwrap();
    put(&store, "a").await;
    assert_eq!(&*event(&mut watch).await.key, b"a");
    cluster.kill(0);
    cluster.restart(0);
    cluster.wait_ready(0);
    notices(&store).await;
    put(&store, "b").await;
    assert_eq!(&*event(&mut watch).await.key, b"b");
}

#[tokio::test]
async fn with_tls_both_sides_show_who_they_are() {
    let cluster = EtcdCluster::start_secure(1);
    let address = cluster.address("");
    let store = open(&address).await;
    let mut watch = store.watch(b"", None).await.unwrap();
    put(&store, "a").await;
    assert_eq!(&*event(&mut watch).await.key, b"a");
    let (plain, query) = address.split_once('?').unwrap();
    let ca = query.split('&').next().unwrap();
    let missing = query.replace("ca=", "ca=/missing");
    for bad in [
        plain.to_owned(),
        format!("{plain}?{ca}"),
        format!("{plain}?{missing}"),
    ] {
        let failed = impatient(&bad).await;
        let is_file = matches!(failed, Err(StorageError::Io { .. }));
        assert!(is_file == bad.contains("missing"), "{bad}: {failed:?}");
        assert!(failed.is_err(), "{bad}");
    }
}
