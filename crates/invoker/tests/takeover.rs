//! Whose an invocation is, while nodes come, die and come back late.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod node;

use std::collections::BTreeSet;
use std::sync::Arc;

use invoker::{Attempt, Config, InvocationState, InvokerError};
use model::InvocationId;
use node::cluster::{Cluster, Host, Tally, cluster_on, in_memory, left_in, stuck, stuck_seen};
use node::{Node, Scripted, ok, quick, submission};
use storage::{Blobs, EtcdConfig, EtcdStore, RedbStore, Store};
use tokio::sync::{Semaphore, mpsc};

/// Node `a` dies with five that run and many that are queued.
async fn what_a_dead_node_had(store: Arc<dyn Store>) {
    const COUNT: usize = 60;
    let (cluster, _folder) = cluster_on(store).await;
    let config = Config {
        running_max: 5,
        ..quick()
    };
    let (began, mut begun) = mpsc::unbounded_channel();
    let a = Host::start(&cluster, "a", config.clone(), stuck(began)).await;
    let tally = Tally::default();
    let b = Host::start(&cluster, "b", config.clone(), tally.runner("b")).await;
    let c = Host::start(&cluster, "c", config, tally.runner("c")).await;
    let mut ids = Vec::new();
    for n in 0..COUNT {
        ids.push(a.submit(format!("{n}")).await);
    }
    let mut ran = BTreeSet::new();
    for _ in 0..5 {
        ran.insert(begun.recv().await.unwrap());
    }
    a.dies().await;
    for id in &ids {
        let done = c.wait(*id).await;
        assert_eq!(done.state, InvocationState::Succeeded);
        assert_eq!(done.attempts, 1 + u32::from(ran.contains(id)));
        assert!(b.invoker.reply(*id).await.unwrap().is_some());
    }
    let shares = [tally.of("b"), tally.of("c")];
    assert_eq!(shares.iter().sum::<usize>(), COUNT, "each ran once");
    assert!(shares.iter().all(|share| *share > COUNT / 6), "{shares:?}");
    assert_eq!(left_in(&*cluster.store, "inv/own/").await, [""; 0]);
}

#[tokio::test]
async fn what_a_dead_node_ran_and_had_queued_is_shared_by_those_that_live() {
    what_a_dead_node_had(Arc::new(
        RedbStore::in_memory(storage::Config::default()).unwrap(),
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_on_etcd() {
    let etcd = testkit::EtcdCluster::start(1);
    let store = EtcdStore::open(&etcd.address("inv"), EtcdConfig::default()).await;
    what_a_dead_node_had(Arc::new(store.unwrap())).await;
}

#[tokio::test]
async fn a_node_drops_what_runs_when_its_tenure_is_over_and_may_come_back() {
    let (cluster, _folder) = in_memory().await;
    let (began, mut begun) = mpsc::unbounded_channel();
    let dropped = Arc::new(Semaphore::new(0));
    let a = Host::start(&cluster, "a", quick(), stuck_seen(began, dropped.clone())).await;
    let id = a.submit("x").await;
    begun.recv().await.unwrap();
    a.notices();
    dropped.acquire().await.unwrap().forget();
    assert!(a.is_refused().await);
    assert_eq!(
        a.invoker.invocation(id).await.unwrap().state,
        InvocationState::Running
    );
    // Its own old tenure is as over as a dead node's.
    a.expires().await;
    a.join().await;
    assert_eq!(begun.recv().await, Some(id));
    let next = a.submit("y").await;
    assert_eq!(begun.recv().await, Some(next));
    assert_eq!(a.invoker.invocation(id).await.unwrap().attempts, 2);
}

#[tokio::test]
async fn an_owner_that_is_late_records_nothing_and_accepts_nothing() {
    let (cluster, _folder) = in_memory().await;
    let gate = Arc::new(Semaphore::new(0));
    let (began, mut begun) = mpsc::unbounded_channel();
    let gated = gate.clone();
    let late = Scripted(move |attempt: Attempt| {
        let (gate, began) = (gated.clone(), began.clone());
        async move {
            began.send(attempt.id).unwrap();
            gate.acquire().await.unwrap().forget();
            ok("late")
        }
    });
    let a = Host::start(&cluster, "a", quick(), late).await;
    let ids = [a.submit("small").await, a.submit(vec![7; 9000]).await];
    for _ in ids {
        begun.recv().await.unwrap();
    }
    a.expires().await;
    let tally = Tally::default();
    let b = Host::start(&cluster, "b", quick(), tally.runner("b")).await;
    let mut done = Vec::new();
    for id in ids {
        done.push(b.wait(id).await);
    }
    gate.add_permits(2);
    // It holds itself for a member still; the store knows better.
    assert!(a.is_refused().await);
    let large = a.invoker.submit(submission(vec![8; 9000])).await;
    assert!(matches!(large, Err(InvokerError::NotMember)), "{large:?}");
    for (id, done) in ids.into_iter().zip(done) {
        assert_eq!(b.invoker.reply(id).await.unwrap().unwrap().body, "b 2");
        assert_eq!(b.invoker.invocation(id).await.unwrap(), done);
    }
}

#[tokio::test]
async fn what_a_node_alone_left_is_taken_over_and_the_other_way_round() {
    let folder = tempfile::tempdir().unwrap();
    let (began, mut begun) = mpsc::unbounded_channel();
    let config = Config {
        running_max: 2,
        ..quick()
    };
    let alone = stuck(began);
    let node = Node::start(folder.path(), config.clone(), alone).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(node.submit(vec![n; 2000]).await);
    }
    for _ in 0..2 {
        begun.recv().await.unwrap();
    }
    let store = node.store.clone();
    assert_eq!(left_in(&*store, "inv/run/").await.len(), 2);
    drop(store);
    node.stop().await;

    let open = || RedbStore::open(&folder.path().join("store"), storage::Config::default());
    let bodies = Blobs::open(&folder.path().join("bodies")).unwrap();
    let cluster = Cluster::new(Arc::new(open().unwrap()), bodies);
    let a = Host::start(&cluster, "a", quick(), Tally::default().runner("a")).await;
    for id in ids {
        assert_eq!(a.wait(id).await.state, InvocationState::Succeeded);
    }
    let later = a.submit(vec![9; 2000]).await;
    a.wait(later).await;
    a.notices();
    let (began, mut begun) = mpsc::unbounded_channel();
    let b = Host::start(&cluster, "b", config, stuck(began)).await;
    let id = b.submit(vec![10; 2000]).await;
    begun.recv().await.unwrap();
    b.dies().await;
    a.dies().await;
    // Tasks that were aborted let go of the store when their turn comes.
    let store = Arc::downgrade(&cluster.store);
    drop(cluster);
    while store.strong_count() > 0 {
        tokio::task::yield_now().await;
    }

    let mut node = Node::open(folder.path(), quick()).await;
    node.run(Scripted(async |a: Attempt| ok(a.request.body)));
    assert_eq!(node.wait(id).await.attempts, 2);
    let reply = node.invoker.reply(id).await.unwrap().unwrap();
    assert_eq!(reply.body, vec![10; 2000]);
    node.stop().await;
}

/// Dies a hundred times, with many submitting: none that was accepted is lost.
#[tokio::test]
async fn a_hundred_kills_lose_nothing() {
    const KILLS: usize = 100;
    let (cluster, _folder) = in_memory().await;
    let config = Config {
        interruptions_max: KILLS as u32,
        running_max: 4,
        ..quick()
    };
    let tally = Tally::default();
    let mut hosts: Vec<Host> = Vec::new();
    for name in ["n0", "n1", "n2"] {
        hosts.push(Host::start(&cluster, name, config.clone(), tally.runner(name)).await);
    }
    let records = cluster.store.watch(b"inv/s/", None).await.unwrap();
    let (ends, mut ended) = mpsc::unbounded_channel();
    tokio::spawn(tell_ends(records, ends));
    let mut ids = BTreeSet::new();
    for kill in 0..KILLS {
        let invoker = hosts[kill % 3].invoker.clone();
        let burst = (0..8u8).map(|n| invoker.submit(submission(vec![n; 100 * usize::from(n) * 4])));
        let burst = futures::future::join_all(burst);
        // Some are accepted while the node dies.
        let name = ["n0", "n1", "n2"][kill % 3];
        let victim = hosts.remove(kill % 3);
        let (accepted, ()) = tokio::join!(burst, async {
            for _ in 0..kill {
                tokio::task::yield_now().await;
            }
            victim.dies().await;
        });
        ids.extend(accepted.into_iter().flatten().map(|receipt| receipt.id));
        let host = Host::start(&cluster, name, config.clone(), tally.runner(name)).await;
        hosts.insert(kill % 3, host);
    }
    assert!(ids.len() > KILLS, "{}", ids.len());
    let mut seen = BTreeSet::new();
    while !ids.is_subset(&seen) {
        let id = ended.recv().await.unwrap();
        assert!(seen.insert(id), "{id} ended twice");
    }
    for id in ids {
        assert_eq!(hosts[0].wait(id).await.state, InvocationState::Succeeded);
    }
}

/// Sends the id of each invocation that becomes final.
async fn tell_ends(mut records: storage::Watch, ends: mpsc::UnboundedSender<InvocationId>) {
    while let Some(item) = records.next().await {
        let storage::WatchItem::Event(event) = item else {
            panic!("the watch missed something");
        };
        let storage::Change::Put(record) = event.change else {
            continue;
        };
        if !String::from_utf8_lossy(&record).contains(r#""expires_ms":null"#) {
            let id = std::str::from_utf8(&event.key[6..]).unwrap();
            // Nobody listens once the test has seen all.
            let _sent = ends.send(id.parse().unwrap());
        }
    }
}
