//! Whatever becomes of nodes, in whatever order: what was accepted has exactly one final record.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod node;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use invoker::{Attempt, Config, InvocationState, Nodes, Runner};
use model::{InvocationId, Status};
use node::cluster::{Cluster, Host, View};
use node::{Scripted, ended, fn_path, ok, quick, spec, submission};
use proptest::prelude::*;
use storage::{Blobs, Change, Range, RedbStore, Store, WatchItem};

const NAMES: [&str; 3] = ["n0", "n1", "n2"];

#[derive(Clone, Debug)]
enum Step {
    /// Two requests, one of them a blob; not waited for.
    Submit(usize),
    /// The node dies, and the others find out.
    Kill(usize),
    /// The node's time is over; it finds out itself.
    Notice(usize),
    /// The node's time is over; the others find out.
    Expire(usize),
    /// A node that is dead starts, one that is no member joins.
    Join(usize),
    /// The node takes over nothing from now on.
    Drain(usize),
    /// Lets tasks go on.
    Pass(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NAMES.len();
    prop_oneof![
        6 => node().prop_map(Step::Submit),
        2 => node().prop_map(Step::Kill),
        1 => node().prop_map(Step::Notice),
        2 => node().prop_map(Step::Expire),
        4 => node().prop_map(Step::Join),
        1 => node().prop_map(Step::Drain),
        6 => any::<u8>().prop_map(Step::Pass),
    ]
}

/// Three nodes, up or not.
struct World {
    cluster: Arc<Cluster>,
    hosts: [Option<Host>; 3],
    submits: tokio::task::JoinSet<Option<InvocationId>>,
    /// An attempt began at a node that knew itself to be no member.
    is_broken: Arc<AtomicBool>,
    _folder: tempfile::TempDir,
}

fn config() -> Config {
    Config {
        running_max: 2,
        ready_max: 2,
        interruptions_max: 1000,
        ..quick()
    }
}

/// Takes a while; some fail at first, some always.
fn runner(view: Arc<View>, is_broken: Arc<AtomicBool>) -> impl Runner {
    Scripted(move |attempt: Attempt| {
        is_broken.fetch_or(view.own().is_none(), Ordering::Relaxed);
        async move {
            let n = attempt.request.body[0];
            for _ in 0..n % 8 {
                tokio::task::yield_now().await;
            }
            match (n % 4, attempt.number) {
                (0, _) | (1, 1) => ended(Status::Exit { code: 1 }, vec![n; 3000]),
                _ => ok(vec![n; 3000]),
            }
        }
    })
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = RedbStore::in_memory(storage::Config::default()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let registry = invoker::Registry::open(store.clone()).await.unwrap();
        registry.deploy(&fn_path("app/f"), spec(1)).await.unwrap();
        Self {
            cluster: Cluster::new(store, Blobs::open(folder.path()).unwrap()),
            hosts: [None, None, None],
            submits: tokio::task::JoinSet::new(),
            is_broken: Arc::default(),
            _folder: folder,
        }
    }

    async fn step(&mut self, n: usize, step: Step) {
        match step {
            Step::Submit(node) => {
                let Some(host) = &self.hosts[node] else {
                    return;
                };
                for bytes in [1, 3000] {
                    let invoker = host.invoker.clone();
                    let submission = submission(vec![n as u8; bytes]);
                    let submit = async move { invoker.submit(submission).await.ok() };
                    (self.submits).spawn(async move { submit.await.map(|receipt| receipt.id) });
                }
            }
            Step::Kill(node) => {
                if let Some(host) = self.hosts[node].take() {
                    host.dies().await;
                }
            }
            Step::Notice(node) => self.hosts[node].iter().for_each(Host::notices),
            Step::Expire(node) => {
                if let Some(host) = &self.hosts[node] {
                    host.expires().await;
                }
            }
            Step::Join(node) => self.join(node).await,
            Step::Drain(node) => self.hosts[node].iter().for_each(Host::drains),
            Step::Pass(turns) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    async fn join(&mut self, node: usize) {
        if let Some(host) = &self.hosts[node] {
            if host.view.own().is_none() {
                host.join().await;
            }
            return;
        }
        let mut host = Host::up(&self.cluster, NAMES[node], config()).await;
        host.join().await;
        host.run(runner(host.view.clone(), self.is_broken.clone()));
        self.hosts[node] = Some(host);
    }

    /// All nodes but one die, and that one has joined anew; gives what was accepted.
    async fn settle(&mut self) -> BTreeSet<InvocationId> {
        for node in 0..NAMES.len() {
            if let Some(host) = self.hosts[node].take() {
                host.dies().await;
            }
        }
        self.join(0).await;
        let mut accepted = BTreeSet::new();
        while let Some(done) = self.submits.join_next().await {
            accepted.extend(done.unwrap());
        }
        accepted
    }
}

async fn every_one_ends_once(steps: Vec<Step>) {
    let mut world = World::new().await;
    let finals = world.cluster.store.watch(b"inv/s/", None).await.unwrap();
    let finals = tokio::spawn(each_once(finals));
    for (n, step) in steps.into_iter().enumerate() {
        world.step(n, step).await;
    }
    let accepted = world.settle().await;
    let host = world.hosts[0].take().unwrap();
    let store = &world.cluster.store;
    let all = store.range(Range::prefix("inv/s/")).await.unwrap().entries;
    let all = all
        .iter()
        .map(|entry| text(&entry.key[6..]).parse().unwrap());
    let all: BTreeSet<InvocationId> = all.collect();
    assert!(accepted.is_subset(&all), "what was accepted has a record");
    for id in all {
        let end = host.wait(id).await;
        assert_ne!(end.state, InvocationState::Failed, "{:?}", end.error);
        assert!(host.invoker.reply(id).await.unwrap().is_some());
    }
    for key in store
        .range(Range::prefix("inv/own/"))
        .await
        .unwrap()
        .entries
    {
        assert!(text(&key.key).contains("/blob/"), "{:?}", key.key);
    }
    assert!(!world.is_broken.load(Ordering::Relaxed));
    host.dies().await;
    // The watch ends with the store, once all tasks have let go of it.
    drop(world);
    finals.await.unwrap();
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// No record is final twice, as long as the store is open.
async fn each_once(mut records: storage::Watch) {
    let mut ended = BTreeSet::new();
    while let Some(item) = records.next().await {
        let WatchItem::Event(event) = item else {
            panic!("the watch missed something");
        };
        let Change::Put(record) = event.change else {
            continue;
        };
        if !String::from_utf8_lossy(&record).contains(r#""expires_ms":null"#) {
            assert!(
                ended.insert(event.key.clone()),
                "{:?} ended twice",
                event.key
            );
        }
    }
}

proptest! {
    #[test]
    fn what_was_accepted_ends_once(steps in prop::collection::vec(step(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(every_one_ends_once(steps));
    }
}
