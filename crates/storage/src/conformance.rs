//! What every [`Store`] does, as one suite. Each check keeps to its own prefix and panics when the
//! store does otherwise, so that a test calls [`all`] on a store of its kind. [`blobs`] is the
//! suite of [`crate::Blobs`].

pub mod blobs;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::store::{PAGE_BYTES_MAX, VALUE_BYTES_MAX};
use crate::txn::TXN_OPS_MAX;
use crate::{Change, Range, Revision, StorageError, Store, Txn, TxnOutcome, Versioned, WatchItem};

/// Runs the whole suite.
pub async fn all(store: Arc<dyn Store>) {
    a_put_reads_back_with_its_revision(&*store).await;
    compares_decide(&*store).await;
    a_transaction_that_changes_nothing_takes_no_revision(&*store).await;
    ranges_are_ordered_and_paged(&*store).await;
    a_page_ends_by_its_entries_or_its_bytes(&*store).await;
    bad_sizes_and_duplicate_keys_are_refused(&*store).await;
    a_watch_sees_every_change_in_order(&*store).await;
    a_watch_begins_in_the_past(&*store).await;
    a_revoked_lease_takes_its_keys(&*store).await;
    a_lease_that_is_not_kept_alive_ends(&*store).await;
    increments_that_race_are_all_counted(store).await;
}

async fn commit(store: &dyn Store, txn: Txn) -> Revision {
    match store.transact(txn.clone()).await {
        Ok(TxnOutcome::Committed { revision }) => revision,
        other => panic!("{txn:?} must commit, but: {other:?}"),
    }
}

async fn conflict(store: &dyn Store, txn: Txn) {
    let outcome = store
        .transact(txn.clone())
        .await
        .expect("a conflict is no error");
    assert_eq!(outcome, TxnOutcome::Conflict, "{txn:?}");
}

async fn get(store: &dyn Store, key: &str) -> Option<Versioned> {
    store.get(key.as_bytes()).await.expect("a key can be read")
}

async fn keys(store: &dyn Store, range: Range) -> Vec<Bytes> {
    let page = store.range(range).await.expect("a range can be read");
    page.entries.into_iter().map(|entry| entry.key).collect()
}

/// Puts and deletes, and what is read after them.
pub async fn a_put_reads_back_with_its_revision(store: &dyn Store) {
    assert_eq!(get(store, "put/a").await, None);
    let first = commit(store, Txn::new().put("put/a", "1")).await;
    let expected = Versioned {
        value: "1".into(),
        revision: first,
    };
    assert_eq!(get(store, "put/a").await, Some(expected));
    let second = commit(store, Txn::new().put("put/a", "").put("put/b", "2")).await;
    assert!(second > first);
    for (key, value) in [("put/a", ""), ("put/b", "2")] {
        let expected = Versioned {
            value: value.into(),
            revision: second,
        };
        assert_eq!(get(store, key).await, Some(expected));
    }
    let third = commit(store, Txn::new().delete("put/a")).await;
    assert!(third > second);
    assert_eq!(get(store, "put/a").await, None);
    let largest = Bytes::from(vec![7; VALUE_BYTES_MAX]);
    commit(store, Txn::new().put("put/largest", largest.clone())).await;
    assert_eq!(
        get(store, "put/largest").await.map(|found| found.value),
        Some(largest)
    );
}

/// A transaction takes effect exactly when all its compares hold.
pub async fn compares_decide(store: &dyn Store) {
    let (key, other) = ("compare/a", "compare/b");
    let first = commit(store, Txn::new().if_absent(key).put(key, "1")).await;
    conflict(store, Txn::new().if_absent(key).put(key, "2")).await;
    conflict(store, Txn::new().if_value(key, "2").put(key, "3")).await;
    conflict(store, Txn::new().if_revision(other, first).put(key, "3")).await;
    conflict(store, Txn::new().if_value(other, "").put(key, "3")).await;
    let mixed = Txn::new()
        .if_value(key, "1")
        .if_revision(key, Revision(first.0 + 1));
    conflict(store, mixed.put(other, "4").delete(key)).await;
    assert_eq!(
        get(store, key).await.map(|found| found.revision),
        Some(first)
    );
    assert_eq!(get(store, other).await, None, "a conflict changes nothing");
    let second = Txn::new()
        .if_revision(key, first)
        .if_value(key, "1")
        .if_absent(other);
    commit(store, second.put(key, "5")).await;
    conflict(store, Txn::new().if_revision(key, first).delete(key)).await;
}

/// Revisions count changes.
pub async fn a_transaction_that_changes_nothing_takes_no_revision(store: &dyn Store) {
    let first = commit(store, Txn::new().put("none/a", "1")).await;
    assert_eq!(commit(store, Txn::new().delete("none/b")).await, first);
    assert_eq!(
        commit(store, Txn::new().if_value("none/a", "1")).await,
        first
    );
}

/// Order, limits, direction and paging.
pub async fn ranges_are_ordered_and_paged(store: &dyn Store) {
    let mut txn = Txn::new().put("range0", "x").put("range", "x");
    for name in ["c", "a", "e", "b", "d"] {
        txn = txn.put(format!("range/{name}"), name);
    }
    let revision = commit(store, txn).await;
    let all = ["range/a", "range/b", "range/c", "range/d", "range/e"];
    assert_eq!(keys(store, Range::prefix("range/")).await, all);
    assert_eq!(
        keys(store, Range::between("range/b", "range/d")).await,
        all[1..3]
    );
    assert!(
        keys(store, Range::between("range/d", "range/b"))
            .await
            .is_empty()
    );
    for reverse in [false, true] {
        let mut range = Range::prefix("range/").limit(2);
        range.reverse = reverse;
        let (mut seen, mut next) = (Vec::new(), Some(range));
        while let Some(range) = next {
            let page = store
                .range(range.clone())
                .await
                .expect("a range can be read");
            assert!(page.entries.len() <= 2 && page.revision >= revision);
            next = range.rest(&page);
            seen.extend(page.entries.into_iter().map(|entry| entry.key));
        }
        if reverse {
            seen.reverse();
        }
        assert_eq!(seen, all, "reverse: {reverse}");
    }
}

/// All pages of a range, forwards or backwards; each holds what a page may hold.
async fn pages(store: &dyn Store, mut range: Range, reverse: bool) -> Vec<usize> {
    range.reverse = reverse;
    let (mut keys, mut sizes, mut next) = (Vec::new(), Vec::new(), Some(range));
    while let Some(range) = next {
        let page = store.range(range.clone()).await;
        let page = page.expect("a range can be read");
        next = range.rest(&page);
        sizes.push(page.entries.len());
        keys.extend(page.entries.into_iter().map(|entry| entry.key));
    }
    let is_ordered = |pair: &[Bytes]| (pair[0] < pair[1]) != reverse;
    assert!(keys.windows(2).all(is_ordered), "reverse: {reverse}");
    sizes
}

/// Small entries fill a page by their number, large ones by their bytes.
pub async fn a_page_ends_by_its_entries_or_its_bytes(store: &dyn Store) {
    const SMALL: usize = 2_500;
    const LARGE: usize = 40;
    let each = TXN_OPS_MAX;
    for from in (0..SMALL).step_by(each) {
        let names = from..SMALL.min(from + each);
        let txn = names.fold(Txn::new(), |txn, n| txn.put(format!("page/s/{n:05}"), "x"));
        commit(store, txn).await;
    }
    let largest = Bytes::from(vec![7; VALUE_BYTES_MAX]);
    for n in 0..LARGE {
        let put = Txn::new().put(format!("page/t/{n:05}"), largest.clone());
        commit(store, put).await;
    }
    let fit = PAGE_BYTES_MAX / VALUE_BYTES_MAX;
    for reverse in [false, true] {
        let small = pages(store, Range::prefix("page/s/"), reverse).await;
        assert_eq!(small, [SMALL]);
        let limited = pages(store, Range::prefix("page/s/").limit(2_000), reverse).await;
        assert_eq!(limited, [2_000, 500]);
        let large = pages(store, Range::prefix("page/t/"), reverse).await;
        assert_eq!(large, [fit, fit, LARGE - 2 * fit]);
        let both = pages(store, Range::prefix("page/"), reverse).await;
        assert_eq!(both.iter().sum::<usize>(), SMALL + LARGE);
    }
    let empty = store.range(Range::prefix("page/").limit(0)).await;
    let empty = empty.expect("a range can be read");
    assert!(empty.entries.is_empty() && empty.more);
}

/// What a store does not take, by name.
pub async fn bad_sizes_and_duplicate_keys_are_refused(store: &dyn Store) {
    let value = vec![0; VALUE_BYTES_MAX + 1];
    let refused = store.transact(Txn::new().put("bad/a", value)).await;
    assert!(
        matches!(refused, Err(StorageError::ValueTooLarge { .. })),
        "{refused:?}"
    );
    for key in [vec![], vec![b'k'; crate::store::KEY_BYTES_MAX + 1]] {
        let refused = store.transact(Txn::new().put(key, "x")).await;
        assert!(
            matches!(refused, Err(StorageError::KeySize { .. })),
            "{refused:?}"
        );
    }
    let refused = store
        .transact(Txn::new().put("bad/a", "1").delete("bad/a"))
        .await;
    assert!(
        matches!(refused, Err(StorageError::DuplicateKey { .. })),
        "{refused:?}"
    );
    let many = (0..=TXN_OPS_MAX).fold(Txn::new(), |txn, n| txn.delete(format!("{n}")));
    let refused = store.transact(many).await;
    assert!(
        matches!(refused, Err(StorageError::TxnTooLarge { .. })),
        "{refused:?}"
    );
    assert_eq!(get(store, "bad/a").await, None);
}

/// The next change that `watch` shows, as (key, value or none, revision).
async fn next(watch: &mut crate::Watch) -> (Bytes, Option<Bytes>, Revision) {
    match watch.next().await {
        Some(WatchItem::Event(event)) => match event.change {
            Change::Put(value) => (event.key, Some(value), event.revision),
            Change::Delete => (event.key, None, event.revision),
        },
        other => panic!("the watch must show a change, but: {other:?}"),
    }
}

/// A watch from now.
pub async fn a_watch_sees_every_change_in_order(store: &dyn Store) {
    commit(store, Txn::new().put("watch/before", "x")).await;
    let mut watch = store
        .watch(b"watch/", None)
        .await
        .expect("a prefix can be watched");
    let first = commit(store, Txn::new().put("watch/a", "1").put("elsewhere", "x")).await;
    let second = commit(store, Txn::new().put("watch/b", "2").delete("watch/a")).await;
    assert_eq!(
        next(&mut watch).await,
        ("watch/a".into(), Some("1".into()), first)
    );
    assert_eq!(
        next(&mut watch).await,
        ("watch/b".into(), Some("2".into()), second)
    );
    assert_eq!(next(&mut watch).await, ("watch/a".into(), None, second));
}

/// A watch from a page's revision misses nothing and repeats nothing.
pub async fn a_watch_begins_in_the_past(store: &dyn Store) {
    commit(store, Txn::new().put("past/a", "1")).await;
    let page = store
        .range(Range::prefix("past/"))
        .await
        .expect("a range can be read");
    let between = commit(store, Txn::new().put("past/b", "2")).await;
    let watch = store.watch(b"past/", Some(page.revision)).await;
    let mut watch = watch.expect("a prefix can be watched");
    let after = commit(store, Txn::new().put("past/c", "3")).await;
    assert_eq!(
        next(&mut watch).await,
        ("past/b".into(), Some("2".into()), between)
    );
    assert_eq!(
        next(&mut watch).await,
        ("past/c".into(), Some("3".into()), after)
    );
}

/// Revoking deletes the lease's keys, and only those that are still on it.
pub async fn a_revoked_lease_takes_its_keys(store: &dyn Store) {
    let ttl = Duration::from_secs(3600);
    let lease = store.lease(ttl).await.expect("a lease is granted");
    let other = store.lease(ttl).await.expect("a lease is granted");
    assert_ne!(lease, other);
    let leased = Txn::new()
        .put_leased("lease/a", "1", lease)
        .put_leased("lease/b", "2", lease);
    commit(store, leased.put_leased("lease/c", "3", other)).await;
    commit(store, Txn::new().put("lease/b", "kept")).await;
    let mut watch = store
        .watch(b"lease/", None)
        .await
        .expect("a prefix can be watched");
    store.keep_alive(lease).await.expect("the lease lives");
    store.revoke(lease).await.expect("the lease lives");
    assert_eq!(
        keys(store, Range::prefix("lease/")).await,
        ["lease/b", "lease/c"]
    );
    let (key, value, _) = next(&mut watch).await;
    assert_eq!((key, value), ("lease/a".into(), None));
    for gone in [
        store.keep_alive(lease).await,
        store.revoke(lease).await,
        store
            .transact(Txn::new().put_leased("lease/d", "4", lease))
            .await
            .map(drop),
    ] {
        assert!(
            matches!(gone, Err(StorageError::LeaseNotFound(id)) if id == lease),
            "{gone:?}"
        );
    }
    assert_eq!(get(store, "lease/d").await, None);
    let refused = store.lease(Duration::ZERO).await;
    assert!(
        matches!(refused, Err(StorageError::LeaseTtl { .. })),
        "{refused:?}"
    );
}

/// Expiry is pushed to those who watch.
pub async fn a_lease_that_is_not_kept_alive_ends(store: &dyn Store) {
    let mut watch = store
        .watch(b"expire/", None)
        .await
        .expect("a prefix can be watched");
    let lease = store
        .lease(Duration::from_secs(1))
        .await
        .expect("a lease is granted");
    commit(store, Txn::new().put_leased("expire/a", "1", lease)).await;
    assert_eq!(next(&mut watch).await.1, Some("1".into()));
    assert_eq!(next(&mut watch).await.1, None);
    assert_eq!(get(store, "expire/a").await, None);
    let gone = store.keep_alive(lease).await;
    assert!(
        matches!(gone, Err(StorageError::LeaseNotFound(_))),
        "{gone:?}"
    );
}

/// Compare-and-transact under contention.
pub async fn increments_that_race_are_all_counted(store: Arc<dyn Store>) {
    const TASKS: u64 = 8;
    const EACH: u64 = 10;
    commit(&*store, Txn::new().put("count", "0")).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while done < EACH {
                    let found = get(&*store, "count").await.expect("the counter is there");
                    let text = String::from_utf8_lossy(&found.value).into_owned();
                    let count: u64 = text.parse().expect("the counter is a number");
                    let txn = Txn::new().if_revision("count", found.revision);
                    let txn = txn.put("count", (count + 1).to_string());
                    let outcome = store.transact(txn).await.expect("it commits or conflicts");
                    done += u64::from(outcome.is_committed());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no task panics");
    }
    let total = get(&*store, "count").await.map(|found| found.value);
    assert_eq!(total, Some((TASKS * EACH).to_string().into()));
}
