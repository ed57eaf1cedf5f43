//! Asynchronous invocations, from acceptance to their one outcome.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod node;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use invoker::{Config, InvocationState, InvokerError, Listing, Ran, Select, Submission};
use model::{InvocationId, Status};
use node::{Node, Scripted, ended, fn_path, keyed, ok, quick, submission};
use tokio::sync::Semaphore;

#[tokio::test]
async fn an_invocation_runs_and_its_reply_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let echo = Scripted(async |attempt: invoker::Attempt| {
        assert_eq!(attempt.traceparent.as_deref(), Some("00-1-2-01"));
        ok(attempt.request.body)
    });
    let node = Node::start(folder.path(), quick(), echo).await;
    for body in [
        Bytes::new(),
        Bytes::from("small"),
        Bytes::from(vec![7; 200_000]),
    ] {
        let submission = Submission {
            traceparent: Some("00-1-2-01".into()),
            ..submission(body.clone())
        };
        let receipt = node.invoker.submit(submission).await.unwrap();
        let invocation = node.wait(receipt.id).await;
        assert_eq!(invocation.state, InvocationState::Succeeded);
        assert_eq!(
            (invocation.attempts, invocation.version),
            (1, receipt.version)
        );
        assert!(invocation.outcome.unwrap().status.is_ok());
        let reply = node.invoker.reply(receipt.id).await.unwrap().unwrap();
        assert_eq!(reply.body, body);
    }
    node.stop().await;
}

#[tokio::test]
async fn a_failing_function_is_retried_and_becomes_a_dead_letter_that_can_be_redriven() {
    let folder = tempfile::tempdir().unwrap();
    let runner = Scripted(async |attempt: invoker::Attempt| {
        match attempt.target.spec.artifact == node::spec(2).artifact {
            true => ok(attempt.request.body),
            false => ended(Status::Exit { code: 3 }, "oops"),
        }
    });
    let node = Node::start(folder.path(), quick(), runner).await;
    let id = node.submit("work").await;
    let dead = node.wait(id).await;
    assert_eq!((dead.state, dead.attempts), (InvocationState::Dead, 3));
    assert_eq!(dead.outcome.unwrap().status, Status::Exit { code: 3 });
    assert_eq!(node.invoker.reply(id).await.unwrap().unwrap().body, "oops");
    let of_f = Listing {
        dead_of: Some(fn_path("app/f")),
        ..Listing::default()
    };
    let listed = node.invoker.list(&of_f).await.unwrap();
    assert_eq!(listed.iter().map(|i| i.id).collect::<Vec<_>>(), [id]);

    node.deploy("app/f", 2).await;
    let redriven = node.invoker.redrive(id).await.unwrap();
    assert!(redriven.id != id && !redriven.is_repeat);
    assert_eq!(
        node.invoker.redrive(id).await.unwrap().id,
        redriven.id,
        "redriving is idempotent"
    );
    assert_eq!(
        node.wait(redriven.id).await.state,
        InvocationState::Succeeded
    );
    assert_eq!(
        node.invoker.reply(redriven.id).await.unwrap().unwrap().body,
        "work"
    );
    assert!(node.invoker.list(&of_f).await.unwrap().is_empty());
    let old = node.invoker.invocation(id).await.unwrap();
    assert_eq!(
        (old.state, old.redriven_as),
        (InvocationState::Dead, Some(redriven.id))
    );
    let refused = node.invoker.redrive(redriven.id).await;
    assert!(
        matches!(refused, Err(InvokerError::NotRedrivable { .. })),
        "{refused:?}"
    );
    node.stop().await;
}

#[tokio::test]
async fn each_failure_of_a_guest_counts_and_overload_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    let runner = Scripted(move |_| {
        let nth = count.fetch_add(1, Ordering::Relaxed);
        async move {
            match nth {
                0 => ended(Status::Timeout, ""),
                1..=10 => Ran::Overloaded {
                    retry_after: Duration::from_millis(1),
                },
                11 => panic!("a runner's bug"),
                12 => ended(Status::Cancelled, ""),
                _ => ok(""),
            }
        }
    });
    let node = Node::start(folder.path(), quick(), runner).await;
    let id = node.submit("").await;
    let invocation = node.wait(id).await;
    assert_eq!(invocation.state, InvocationState::Succeeded);
    assert_eq!(calls.load(Ordering::Relaxed), 14);
    node.stop().await;
}

#[tokio::test]
async fn what_is_not_deployed_is_refused_and_what_is_deleted_meanwhile_fails() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::open(folder.path(), quick()).await;
    let refused = node.invoker.submit(submission("")).await;
    assert!(
        matches!(refused, Err(InvokerError::UnknownFunction(_))),
        "{refused:?}"
    );
    node.deploy("app/f", 1).await;
    let id = node.submit("").await;
    node.invoker
        .registry()
        .delete(&fn_path("app/f"))
        .await
        .unwrap();
    node.run(Scripted(async |_| ok("")));
    let failed = node.wait(id).await;
    assert_eq!(
        (failed.state, failed.attempts),
        (InvocationState::Failed, 0)
    );
    assert!(failed.error.unwrap().contains("app/f"));
    node.stop().await;
}

#[tokio::test]
async fn an_invocation_stays_on_the_version_it_was_accepted_with() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::open(folder.path(), quick()).await;
    let old = node.deploy("app/f", 1).await;
    let id = node.submit("").await;
    let new = node.deploy("app/f", 2).await;
    node.run(Scripted(async |a: invoker::Attempt| {
        ok(a.target.version.to_string())
    }));
    node.wait(id).await;
    assert_eq!(
        node.invoker.reply(id).await.unwrap().unwrap().body,
        old.to_string()
    );
    let id = node.submit("").await;
    node.wait(id).await;
    assert_eq!(
        node.invoker.reply(id).await.unwrap().unwrap().body,
        new.to_string()
    );
    node.stop().await;
}

#[tokio::test]
async fn one_idempotency_key_is_one_invocation_even_when_submissions_race() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let count = runs.clone();
    let runner = Scripted(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        async { ok("") }
    });
    let node = Node::start(folder.path(), quick(), runner).await;
    let race = (0..20).map(|_| node.invoker.submit(keyed("body", "key")));
    let receipts = futures::future::try_join_all(race).await.unwrap();
    let ids: BTreeSet<_> = receipts.iter().map(|receipt| receipt.id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(
        receipts.iter().filter(|receipt| !receipt.is_repeat).count(),
        1
    );
    node.wait(receipts[0].id).await;
    let late = node.invoker.submit(keyed("body", "key")).await.unwrap();
    assert!(
        late.is_repeat && late.id == receipts[0].id,
        "a final one counts too"
    );
    let other = node.invoker.submit(keyed("another body", "key")).await;
    assert!(
        matches!(other, Err(InvokerError::IdempotencyConflict { .. })),
        "{other:?}"
    );
    let fresh = node
        .invoker
        .submit(keyed("body", "another key"))
        .await
        .unwrap();
    node.wait(fresh.id).await;
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    for key in ["", &"k".repeat(257)] {
        let refused = node.invoker.submit(keyed("body", key)).await;
        assert!(
            matches!(refused, Err(InvokerError::IdempotencyKeySize { .. })),
            "{refused:?}"
        );
    }
    node.stop().await;
}

#[tokio::test]
async fn more_than_memory_holds_is_accepted_and_all_of_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        ready_max: 4,
        running_max: 3,
        ..quick()
    };
    let node = Node::start(
        folder.path(),
        config,
        Scripted(async |a: invoker::Attempt| ok(a.request.body)),
    );
    let node = node.await;
    let submits = (0..300).map(|n| node.submit(format!("{n}")));
    let ids = futures::future::join_all(submits).await;
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(node.wait(*id).await.state, InvocationState::Succeeded);
        let reply = node.invoker.reply(*id).await.unwrap().unwrap();
        assert_eq!(reply.body, n.to_string());
    }
    node.stop().await;
}

#[tokio::test]
async fn no_more_are_accepted_than_may_wait() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        pending_max: 2,
        ..quick()
    };
    let mut node = Node::open(folder.path(), config.clone()).await;
    node.deploy("app/f", 1).await;
    let ids = [node.submit("").await, node.submit("").await];
    let refused = node.invoker.submit(submission("")).await;
    assert!(
        matches!(refused, Err(InvokerError::Overloaded { max: 2 })),
        "{refused:?}"
    );
    node.stop().await;
    node = Node::open(folder.path(), config).await;
    let refused = node.invoker.submit(submission("")).await;
    assert!(
        matches!(refused, Err(InvokerError::Overloaded { .. })),
        "after a restart too"
    );
    node.run(Scripted(async |_| ok("")));
    for id in ids {
        node.wait(id).await;
    }
    node.submit("").await;
    node.stop().await;
}

#[tokio::test]
async fn requests_over_their_limits_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(folder.path(), quick()).await;
    let mut spec = node::spec(1);
    spec.settings.limits.input_bytes_max = 10;
    node.invoker
        .registry()
        .deploy(&fn_path("app/f"), spec)
        .await
        .unwrap();
    let refused = node.invoker.submit(submission("12345678901")).await;
    assert!(
        matches!(refused, Err(InvokerError::BodyTooLarge { max: 10, .. })),
        "{refused:?}"
    );
    let mut large = submission("");
    let args = vec!["x".repeat(200 << 10)];
    large.request.head = invoker::RequestHead::Plain { args, env: vec![] };
    let refused = node.invoker.submit(large).await;
    assert!(
        matches!(refused, Err(InvokerError::HeadTooLarge { .. })),
        "{refused:?}"
    );
    let unknown = node.invoker.wait(InvocationId::new(0), node::LONG).await;
    assert!(
        matches!(unknown, Err(InvokerError::UnknownInvocation(_))),
        "{unknown:?}"
    );
    node.stop().await;
}

#[tokio::test]
async fn changes_are_pushed_up_to_the_final_state_and_a_wait_ends_at_its_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let gated = gate.clone();
    let runner = Scripted(move |_| {
        let gate = gated.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            ok("")
        }
    });
    let node = Node::start(folder.path(), quick(), runner).await;
    let id = node.submit("").await;
    let mut changes = node.invoker.changes(id).await.unwrap();
    while changes.next().await.unwrap().state != InvocationState::Running {}
    let waited = node
        .invoker
        .wait(id, Duration::from_millis(1))
        .await
        .unwrap();
    assert_eq!(waited.state, InvocationState::Running);
    gate.add_permits(1);
    assert_eq!(
        changes.next().await.unwrap().state,
        InvocationState::Succeeded
    );
    assert!(changes.next().await.is_none());
    let after: Vec<_> = node.invoker.changes(id).await.unwrap().collect().await;
    assert_eq!(after.len(), 1, "the final state alone");
    node.stop().await;
}

#[tokio::test]
async fn what_a_stop_cut_short_runs_again_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (began, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let runner = Scripted(move |_| {
        began.send(()).unwrap();
        std::future::pending()
    });
    let node = Node::start(folder.path(), quick(), runner).await;
    let ids = futures::future::join_all((0..5).map(|n| node.submit(format!("{n}")))).await;
    for _ in &ids {
        begun.recv().await.unwrap();
    }
    node.stop().await;
    let mut node = Node::open(folder.path(), quick()).await;
    node.run(Scripted(async |a: invoker::Attempt| {
        ok(a.number.to_string())
    }));
    for id in ids {
        assert_eq!(node.wait(id).await.state, InvocationState::Succeeded);
        assert_eq!(node.invoker.reply(id).await.unwrap().unwrap().body, "2");
    }
    node.stop().await;
}

#[tokio::test]
async fn what_is_past_its_retention_is_removed_with_its_blobs_and_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        retention: Duration::ZERO,
        sweep_interval: Duration::from_millis(1),
        ..quick()
    };
    let echo = Scripted(async |a: invoker::Attempt| ok(a.request.body));
    let node = Node::start(folder.path(), config, echo).await;
    let large: &'static str = "x".repeat(10_000).leak();
    // The functions' records stay; all others go. Their removal is pushed by the store's watch.
    let mut watch = node.store.watch(b"inv/r/", None).await.unwrap();
    let first = node.invoker.submit(keyed(large, "key")).await.unwrap();
    let is_delete = |item| matches!(item, Some(storage::WatchItem::Event(e)) if e.change == storage::Change::Delete);
    while !is_delete(watch.next().await) {}
    let gone = node.invoker.invocation(first.id).await;
    assert!(
        matches!(gone, Err(InvokerError::UnknownInvocation(_))),
        "{gone:?}"
    );
    let again = node.invoker.submit(keyed(large, "key")).await.unwrap();
    assert!(again.id != first.id && !again.is_repeat);
    while !is_delete(watch.next().await) {}
    let left = node
        .store
        .range(storage::Range::prefix("inv/"))
        .await
        .unwrap();
    assert!(left.entries.is_empty(), "{left:?}");
    node.stop().await;
    let blobs = storage::Blobs::open(&folder.path().join("bodies")).unwrap();
    let node = Node::open(folder.path(), quick()).await;
    let left: Vec<_> = blobs.list().try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_body_that_no_record_names_is_removed_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(folder.path(), quick()).await;
    node.deploy("app/f", 1).await;
    let id = node.submit(vec![1; 10_000]).await;
    node.stop().await;
    let blobs = storage::Blobs::open(&folder.path().join("bodies")).unwrap();
    blobs
        .put(Bytes::from("left behind by a crash"))
        .await
        .unwrap();
    let mut node = Node::open(folder.path(), quick()).await;
    assert_eq!(blobs.list().try_collect::<Vec<_>>().await.unwrap().len(), 1);
    node.run(Scripted(async |a: invoker::Attempt| {
        ok(a.request.body.len().to_string())
    }));
    assert_eq!(node.wait(id).await.state, InvocationState::Succeeded);
    node.stop().await;
}

#[tokio::test]
async fn listings_are_newest_first_and_paged() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(folder.path(), quick()).await;
    node.deploy("app/f", 1).await;
    let mut ids = BTreeSet::new();
    for _ in 0..5 {
        ids.insert(node.submit("").await);
    }
    let mut seen = Vec::new();
    let mut listing = Listing {
        limit: 2,
        ..Listing::default()
    };
    loop {
        let page = node.invoker.list(&listing).await.unwrap();
        let Some(last) = page.last() else { break };
        listing.before = Some(last.id);
        seen.extend(page.into_iter().map(|invocation| invocation.id));
    }
    assert_eq!(seen, ids.into_iter().rev().collect::<Vec<_>>());
    let select: Select = "nobody".parse().unwrap();
    let refused = node
        .invoker
        .submit(Submission {
            select,
            ..submission("")
        })
        .await;
    assert!(
        matches!(refused, Err(InvokerError::UnknownAlias { .. })),
        "{refused:?}"
    );
    node.stop().await;
}
