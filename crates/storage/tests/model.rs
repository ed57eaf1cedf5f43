//! Random transactions, ranges and restarts: a store does what a map in memory does, whether it
//! is on disk or in a cluster.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use storage::{
    Config, EtcdConfig, EtcdStore, LeaseId, Range, RedbStore, Revision, Store, Txn, TxnOutcome,
};
use testkit::EtcdCluster;
use tokio::runtime::Runtime;

#[derive(Clone, Debug)]
enum Step {
    Txn {
        compares: Vec<(u8, Expect)>,
        ops: Vec<(u8, Change)>,
    },
    Range {
        start: u8,
        end: u8,
        limit: usize,
        reverse: bool,
    },
    Revoke,
    Reopen,
}

#[derive(Clone, Debug)]
enum Expect {
    Absent,
    Present,
    Value(u8),
}

#[derive(Clone, Debug)]
enum Change {
    Put(u8),
    Leased(u8),
    Delete,
}

fn step() -> impl Strategy<Value = Step> {
    let expect = prop_oneof![
        Just(Expect::Absent),
        Just(Expect::Present),
        (0u8..3).prop_map(Expect::Value)
    ];
    let change = prop_oneof![
        3 => (0u8..3).prop_map(Change::Put),
        1 => (0u8..3).prop_map(Change::Leased),
        2 => Just(Change::Delete)
    ];
    let compares = prop::collection::vec((0u8..8, expect), 0..2);
    let ops = prop::collection::vec((0u8..8, change), 0..4).prop_map(|mut ops| {
        ops.sort_by_key(|(key, _)| *key);
        ops.dedup_by_key(|(key, _)| *key);
        ops
    });
    let range = (0u8..9, 0u8..9, 0usize..9, any::<bool>());
    prop_oneof![
        8 => (compares, ops).prop_map(|(compares, ops)| Step::Txn { compares, ops }),
        4 => range.prop_map(|(start, end, limit, reverse)| Step::Range { start, end, limit, reverse }),
        1 => Just(Step::Revoke),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    revision: u64,
    rows: BTreeMap<u8, Row>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Row {
    value: u8,
    revision: u64,
    leased: bool,
}

impl Model {
    fn transact(&mut self, compares: &[(u8, Expect)], ops: &[(u8, Change)]) -> TxnOutcome {
        let holds = |(key, expect): &(u8, Expect)| match (self.rows.get(key), expect) {
            (row, Expect::Absent) => row.is_none(),
            (row, Expect::Present) => row.is_some(),
            (row, Expect::Value(value)) => row.is_some_and(|row| row.value == *value),
        };
        if !compares.iter().all(holds) {
            return TxnOutcome::Conflict;
        }
        let revision = self.revision + 1;
        for (key, change) in ops {
            let changed = match *change {
                Change::Put(value) => {
                    self.rows.insert(
                        *key,
                        Row {
                            value,
                            revision,
                            leased: false,
                        },
                    );
                    true
                }
                Change::Leased(value) => {
                    self.rows.insert(
                        *key,
                        Row {
                            value,
                            revision,
                            leased: true,
                        },
                    );
                    true
                }
                Change::Delete => self.rows.remove(key).is_some(),
            };
            if changed {
                self.revision = revision;
            }
        }
        TxnOutcome::Committed {
            revision: Revision(self.revision),
        }
    }

    fn revoke(&mut self) {
        let before = self.rows.len();
        self.rows.retain(|_, row| !row.leased);
        self.revision += u64::from(self.rows.len() != before);
    }

    fn range(&self, start: u8, end: u8, limit: usize, reverse: bool) -> Vec<(u8, u8, u64)> {
        let mut rows: Vec<_> = self
            .rows
            .iter()
            .filter(|(key, _)| (start..end).contains(key))
            .map(|(key, row)| (*key, row.value, row.revision))
            .collect();
        if reverse {
            rows.reverse();
        }
        rows.truncate(limit);
        rows
    }

    /// The transaction as the store takes it; "present" is said by the key's revision.
    fn txn(&self, compares: &[(u8, Expect)], ops: &[(u8, Change)], lease: LeaseId) -> Txn {
        let mut txn = Txn::new();
        for (key, expect) in compares {
            let row = self.rows.get(key);
            let revision = Revision(row.map_or(u64::MAX, |row| row.revision));
            txn = match expect {
                Expect::Absent => txn.if_absent(vec![*key]),
                Expect::Present => txn.if_revision(vec![*key], revision),
                Expect::Value(value) => txn.if_value(vec![*key], vec![*value]),
            };
        }
        for (key, change) in ops {
            txn = match change {
                Change::Put(value) => txn.put(vec![*key], vec![*value]),
                Change::Leased(value) => txn.put_leased(vec![*key], vec![*value], lease),
                Change::Delete => txn.delete(vec![*key]),
            };
        }
        txn
    }
}

async fn lease(store: &dyn Store) -> LeaseId {
    store.lease(Duration::from_secs(3600)).await.unwrap()
}

/// Revisions are counted from where the store's stand, since others may be in its cluster.
async fn agree(open: impl AsyncFn() -> Box<dyn Store>, steps: Vec<Step>) {
    let mut store = open().await;
    let page = store.range(Range::prefix("")).await.unwrap();
    let mut model = Model {
        revision: page.revision.0,
        ..Model::default()
    };
    let mut leased = lease(&*store).await;
    for step in steps {
        match step {
            Step::Txn { compares, ops } => {
                let txn = model.txn(&compares, &ops, leased);
                let outcome = store.transact(txn).await.unwrap();
                assert_eq!(outcome, model.transact(&compares, &ops));
            }
            Step::Range {
                start,
                end,
                limit,
                reverse,
            } => {
                let mut range = Range::between(vec![start], vec![end]).limit(limit);
                range.reverse = reverse;
                let page = store.range(range).await.unwrap();
                let row = |e: &storage::Entry| (e.key[0], e.value[0], e.revision.0);
                let found: Vec<_> = page.entries.iter().map(row).collect();
                assert_eq!(found, model.range(start, end, limit, reverse));
                let all = model.range(start, end, usize::MAX, reverse).len();
                assert_eq!(page.more, all > found.len());
                assert_eq!(page.revision, Revision(model.revision));
            }
            Step::Revoke => {
                store.revoke(leased).await.unwrap();
                model.revoke();
                leased = lease(&*store).await;
            }
            Step::Reopen => {
                drop(store);
                store = open().await;
            }
        }
    }
}

fn check(cases: u32, agree: impl Fn(&Runtime, Vec<Step>)) {
    let runtime = Runtime::new().unwrap();
    let config = ProptestConfig {
        cases,
        ..ProptestConfig::default()
    };
    let steps = prop::collection::vec(step(), 1..40);
    let ran = TestRunner::new(config).run(&steps, |steps| {
        agree(&runtime, steps);
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn the_store_on_disk_does_what_a_map_does() {
    check(48, |runtime, steps| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let open = async || {
            let store: Box<dyn Store> =
                Box::new(RedbStore::open(&path, Config::default()).unwrap());
            store
        };
        runtime.block_on(agree(open, steps));
    });
}

#[test]
fn the_store_in_a_cluster_does_what_a_map_does() {
    let cluster = EtcdCluster::start(1);
    let case = AtomicUsize::new(0);
    check(24, |runtime, steps| {
        let case = case.fetch_add(1, Ordering::Relaxed);
        let address = cluster.address(&format!("case-{case}"));
        let open = async || {
            let config = EtcdConfig::default();
            let store: Box<dyn Store> = Box::new(EtcdStore::open(&address, config).await.unwrap());
            store
        };
        runtime.block_on(agree(open, steps));
    });
}
