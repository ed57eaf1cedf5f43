//! Many nodes on one store: each of them answers for all.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod node;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use invoker::{Attempt, Config, InvocationState, InvokerError, Ran};
use model::Status;
use node::cluster::{Cluster, Host, Tally, in_memory, left_in, stuck};
use node::held::Held;
use node::{Scripted, ended, fn_path, keyed, ok, quick, spec, submission};
use storage::{Blobs, RedbStore, Store};
use tokio::sync::{Semaphore, mpsc};

#[tokio::test]
async fn the_end_is_pushed_to_those_who_wait_wherever_it_runs() {
    let (cluster, _folder) = in_memory().await;
    let (began, mut begun) = mpsc::unbounded_channel();
    let a = Host::start(&cluster, "a", quick(), stuck(began)).await;
    let b = Host::up(&cluster, "b", quick()).await;
    b.join().await;
    let id = a.submit("x").await;
    begun.recv().await.unwrap();
    // One who waits at the node that runs it, and two at one that does not.
    let mut waiting = Vec::new();
    for invoker in [&a.invoker, &b.invoker, &b.invoker] {
        let mut changes = invoker.changes(id).await.unwrap();
        assert_eq!(
            changes.next().await.unwrap().state,
            InvocationState::Running
        );
        waiting.push(changes);
    }
    a.notices();
    a.expires().await;
    let mut c = Host::up(&cluster, "c", quick()).await;
    c.join().await;
    c.run(Tally::default().runner("c"));
    // Node b may be who takes it, and runs nothing.
    b.drains();
    for changes in waiting {
        let states: Vec<_> = changes.map(|seen| seen.state).collect().await;
        assert_eq!(
            states.last(),
            Some(&InvocationState::Succeeded),
            "{states:?}"
        );
    }
}

#[tokio::test]
async fn watches_of_what_others_run_are_bounded_and_shared() {
    let (cluster, _folder) = in_memory().await;
    let (began, _begun) = mpsc::unbounded_channel();
    let a = Host::start(&cluster, "a", quick(), stuck(began)).await;
    let config = Config {
        watches_max: 1,
        ..quick()
    };
    let b = Host::up(&cluster, "b", config).await;
    b.join().await;
    let (one, two) = (a.submit("1").await, a.submit("2").await);
    let first = b.invoker.changes(one).await.unwrap();
    let second = b.invoker.changes(one).await.unwrap();
    let refused = b.invoker.changes(two).await.err().unwrap();
    assert!(
        matches!(refused, InvokerError::TooManyWatches { max: 1 }),
        "{refused:?}"
    );
    drop((first, second));
    // The place is free once the task that had it has ended.
    while let Err(error) = b.invoker.changes(two).await {
        assert!(matches!(error, InvokerError::TooManyWatches { .. }));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn keys_and_redrives_count_for_all_nodes() {
    let (cluster, _folder) = in_memory().await;
    let fails = || Scripted(async |_| ended(Status::Exit { code: 1 }, "no"));
    let a = Host::start(&cluster, "a", quick(), fails()).await;
    let b = Host::start(&cluster, "b", quick(), fails()).await;
    let race = (0..20).map(|n| {
        let invoker = if n % 2 == 0 { &a.invoker } else { &b.invoker };
        invoker.submit(keyed("body", "key"))
    });
    let receipts = futures::future::try_join_all(race).await.unwrap();
    let ids: BTreeSet<_> = receipts.iter().map(|receipt| receipt.id).collect();
    assert_eq!(ids.len(), 1);
    let id = receipts[0].id;
    assert_eq!(b.wait(id).await.state, InvocationState::Dead);
    let (one, two) = tokio::join!(a.invoker.redrive(id), b.invoker.redrive(id));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.id, two.id);
    assert!(one.is_repeat != two.is_repeat);
    assert_eq!(a.wait(one.id).await.state, InvocationState::Dead);
}

#[tokio::test]
async fn a_node_counts_what_it_takes_over() {
    let (cluster, _folder) = in_memory().await;
    let config = Config {
        pending_max: 3,
        ..quick()
    };
    let (began, _begun) = mpsc::unbounded_channel();
    let a = Host::start(&cluster, "a", config.clone(), stuck(began)).await;
    let (took, mut taken) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let gated = gate.clone();
    let runner = Scripted(move |attempt: Attempt| {
        let (gate, took) = (gated.clone(), took.clone());
        async move {
            took.send(attempt.id).unwrap();
            gate.acquire().await.unwrap().forget();
            ok("")
        }
    });
    let b = Host::start(&cluster, "b", config, runner).await;
    let mut ids = vec![b.submit("").await];
    for _ in 0..3 {
        ids.push(a.submit("").await);
    }
    let full = |host: &Host| {
        let invoker = host.invoker.clone();
        async move { invoker.submit(submission("")).await }
    };
    let refused = full(&a).await;
    assert!(
        matches!(refused, Err(InvokerError::Overloaded { max: 3 })),
        "{refused:?}"
    );
    a.dies().await;
    for _ in &ids {
        taken.recv().await.unwrap();
    }
    let refused = full(&b).await;
    assert!(
        matches!(refused, Err(InvokerError::Overloaded { max: 3 })),
        "{refused:?}"
    );
    gate.add_permits(10);
    for id in ids {
        b.wait(id).await;
    }
    // Who waits may hear of an end an instant before the node counts it.
    while let Err(refused) = full(&b).await {
        let is_full = matches!(refused, InvokerError::Overloaded { max: 3 });
        assert!(is_full, "{refused:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_past_its_retention_is_removed_once_by_all_nodes_together() {
    let (cluster, _folder) = in_memory().await;
    let config = Config {
        retention: Duration::ZERO,
        sweep_interval: Duration::from_millis(1),
        ..quick()
    };
    let tally = Tally::default();
    let mut gone = cluster.store.watch(b"inv/r/", None).await.unwrap();
    let a = Host::start(&cluster, "a", config.clone(), tally.runner("a")).await;
    let _b = Host::start(&cluster, "b", config, tally.runner("b")).await;
    for n in 0..20 {
        a.submit(vec![n; 4000]).await;
    }
    let mut removed = 0;
    while removed < 20 {
        if let Some(storage::WatchItem::Event(event)) = gone.next().await {
            removed += usize::from(event.change == storage::Change::Delete);
        }
    }
    assert_eq!(left_in(&*cluster.store, "inv/").await, [""; 0]);
}

/// A runner that does not matter.
async fn nothing(_: Attempt) -> Ran {
    ok("")
}

#[tokio::test]
async fn a_blob_is_removed_when_nothing_can_name_it_any_more_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path()).unwrap();
    let store = RedbStore::in_memory(storage::Config::default()).unwrap();
    let held = Held::new(Arc::new(store));
    let registry = invoker::Registry::open(held.clone()).await.unwrap();
    registry.deploy(&fn_path("app/f"), spec(1)).await.unwrap();
    let cluster = Cluster::new(held.clone(), blobs.clone());
    let a = Host::start(&cluster, "a", quick(), Scripted(nothing)).await;
    let count = async || blobs.list().try_collect::<Vec<_>>().await.unwrap().len();

    // Placed, and not yet named, while another node starts and looks around.
    held.hold_next_accept();
    let submit = |invoker: invoker::Invoker| {
        tokio::spawn(async move { invoker.submit(submission(vec![1; 9000])).await })
    };
    let accepting = submit(a.invoker.clone());
    held.reached.notified().await;
    assert_eq!(count().await, 1);
    let b = Host::start(&cluster, "b", quick(), Scripted(nothing)).await;
    let probe = b.submit("").await;
    b.wait(probe).await;
    held.go.add_permits(1);
    let id = accepting.await.unwrap().unwrap().id;
    assert_eq!(b.wait(id).await.state, InvocationState::Succeeded);
    assert_eq!(left_in(&*cluster.store, "inv/own/").await, [""; 0]);

    // And once more, but now its node is gone before it is named.
    held.hold_next_accept();
    let accepting = submit(a.invoker.clone());
    held.reached.notified().await;
    assert_eq!(count().await, 2);
    a.expires().await;
    let mut noted = held
        .watch(b"inv/own/a/", Some(storage::Revision(0)))
        .await
        .unwrap();
    while let Some(item) = noted.next().await {
        let storage::WatchItem::Event(event) = item else {
            panic!("the watch missed something");
        };
        let is_note = String::from_utf8_lossy(&event.key).contains("/blob/");
        if is_note && event.change == storage::Change::Delete && count().await == 1 {
            break;
        }
    }
    held.go.add_permits(1);
    let refused = accepting.await.unwrap();
    assert!(
        matches!(refused, Err(InvokerError::NotMember)),
        "{refused:?}"
    );
    let reply = b.invoker.reply(id).await.unwrap().unwrap();
    assert_eq!(reply.body, Bytes::new());
}
