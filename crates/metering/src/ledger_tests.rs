//! The ledger over a store.

use model::Status;
use storage::{Config, RedbStore};

use super::*;

fn store() -> RedbStore {
    RedbStore::in_memory(Config::default()).expect("a store")
}

fn outcome(status: Status, wall_ms: u64) -> Outcome {
    let mut usage = Usage {
        memory_peak_bytes: 1 << 20,
        ..Usage::default()
    };
    usage.bill(Duration::from_millis(wall_ms));
    Outcome {
        status,
        start: StartKind::Cold,
        usage,
    }
}

fn path(text: &str) -> FunctionPath {
    text.parse().expect("a path")
}

fn all(ledger: &Ledger) -> Report {
    ledger.report(Day(0)..=Day(u32::MAX), &PriceList::default())
}

fn filled() -> Ledger {
    let ledger = Ledger::new(LedgerConfig::default());
    let today = Day::today();
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    ledger.record_on(today, &path("a/f"), &one, &outcome(Status::Ok, 2));
    ledger.record_on(today, &path("a/f"), &two, &outcome(Status::Timeout, 3));
    ledger.record_on(today, &path("b/g"), &one, &outcome(Status::Ok, 5));
    ledger
}

#[test]
fn outcomes_add_up_by_day_and_function() {
    let ledger = filled();
    ledger.record_on(
        Day(1),
        &path("a/f"),
        &Digest::of(b"1"),
        &outcome(Status::Ok, 1),
    );
    let report = ledger.report(Day::today()..=Day::today(), &PriceList::default());
    assert_eq!(report.lines.len(), 2);
    let line = &report.lines[0];
    assert_eq!((line.totals.invocations, line.totals.failed), (2, 1));
    assert_eq!((line.totals.usage.wall_ms, line.totals.cold), (5, 2));
    assert_eq!(report.totals.usage.memory_kib_ms, 10 * 1024);
    assert_eq!(all(&ledger).totals.invocations, 4);
}

#[tokio::test]
async fn what_is_flushed_is_restored() {
    let (ledger, store) = (filled(), store());
    assert_eq!(ledger.flush(&store).await.expect("flushes"), 3);
    assert_eq!(ledger.flush(&store).await.expect("flushes"), 0);
    ledger.record(&path("a/f"), &Digest::of(b"1"), &outcome(Status::Ok, 7));
    assert_eq!(ledger.flush(&store).await.expect("flushes"), 1);
    let restored = Ledger::new(LedgerConfig::default());
    assert_eq!(restored.restore(&store).await.expect("restores"), 3);
    assert_eq!(all(&restored), all(&ledger));
    assert_eq!(restored.flush(&store).await.expect("flushes"), 0);
}

#[tokio::test]
async fn old_days_are_forgotten_everywhere() {
    let (ledger, store) = (filled(), store());
    for day in 0..200 {
        let version = Digest::of(&[day as u8]);
        ledger.record_on(Day(day), &path("a/f"), &version, &outcome(Status::Ok, 1));
    }
    assert_eq!(ledger.flush(&store).await.expect("flushes"), 203);
    assert_eq!(all(&ledger).lines.len(), 2);
    let restored = Ledger::new(LedgerConfig::default());
    assert_eq!(restored.restore(&store).await.expect("restores"), 3);
}

#[tokio::test]
async fn a_stop_flushes_once_more() {
    let ledger = filled();
    let store: Arc<dyn Store> = Arc::new(store());
    ledger
        .keep_flushed(store.clone(), std::future::ready(()))
        .await;
    let restored = Ledger::new(LedgerConfig::default());
    assert_eq!(restored.restore(&*store).await.expect("restores"), 3);
}

#[tokio::test]
async fn a_total_that_cannot_be_read_is_left_out() {
    let (ledger, store) = (filled(), store());
    ledger.flush(&store).await.expect("flushes");
    let txn = Txn::new().put(format!("{PREFIX}x"), "?");
    assert!(store.transact(txn).await.expect("commits").is_committed());
    let restored = Ledger::new(LedgerConfig::default());
    assert_eq!(restored.restore(&store).await.expect("restores"), 3);
}

#[tokio::test]
async fn nodes_that_share_a_store_keep_their_own_and_see_all() {
    let store = store();
    let of = |name: &str| {
        Ledger::new(LedgerConfig {
            node: Some(name.to_owned()),
            ..LedgerConfig::default()
        })
    };
    let (one, two) = (of("n1"), of("n2"));
    let version = Digest::of(b"1");
    for (ledger, count) in [(&one, 2), (&two, 3)] {
        for _ in 0..count {
            ledger.record(&path("a/f"), &version, &outcome(Status::Ok, 1));
        }
        ledger.flush(&store).await.expect("flushes");
    }
    // However often it is read, it is counted once.
    for _ in 0..2 {
        one.follow(&store).await.expect("follows");
        assert_eq!(all(&one).totals.invocations, 5);
    }
    two.record(&path("a/f"), &version, &outcome(Status::Ok, 1));
    two.flush(&store).await.expect("flushes");
    one.follow(&store).await.expect("follows");
    assert_eq!(all(&one).totals.invocations, 6);
    let again = of("n2");
    assert_eq!(again.restore(&store).await.expect("restores"), 1);
    assert_eq!(all(&again).totals.invocations, 6);
    again.record(&path("a/f"), &version, &outcome(Status::Ok, 1));
    again.flush(&store).await.expect("flushes");
    let anew = of("n3");
    assert_eq!(anew.restore(&store).await.expect("restores"), 0);
    assert_eq!(all(&anew).totals.invocations, 7);
}

#[test]
fn a_key_names_its_total() {
    let entry = Entry {
        day: Day(20_777),
        path: path("a/f"),
        version: Digest::of(b"1"),
        node: None,
        totals: Totals::default(),
    };
    let hex = Digest::of(b"1").hex();
    assert_eq!(entry.key(), format!("usage/1/0000020777/a/f/{hex}"));
    let value = serde_json::to_vec(&entry.totals).expect("JSON");
    let read = Entry::read(entry.key().as_bytes(), &value).expect("reads");
    assert_eq!(
        (read.day, read.path, read.version),
        (entry.day, entry.path, entry.version)
    );
}
