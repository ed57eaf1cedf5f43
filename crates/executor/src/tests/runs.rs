//! Each way to end, what it reports, and where it ran.

use sandbox::{LogSink, Prepared};
use testkit::KeptLog;

use super::*;
use crate::Leftover;

#[tokio::test]
async fn a_reply_comes_back_with_its_usage() {
    let house = house();
    let finished = house
        .run(house.job(&Guest::Echo), "hello")
        .await
        .expect("runs");
    assert_eq!(finished.reply, "hello");
    let usage = finished.outcome.usage;
    assert_eq!((usage.input_bytes, usage.output_bytes), (5, 5));
    assert_eq!(usage.memory_peak_bytes, 1 << 16);
    assert!(usage.wall_ms >= 1 && usage.cpu_us > 0 && usage.memory_kib_ms >= 64);
    assert_eq!(house.reported(), [Status::Ok]);
}

#[track_caller]
fn status_name(guest: &Guest, limits: Limits) -> &'static str {
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let house = house();
        let job = house.job_with(guest, "a/f", limits);
        let finished = house.run(job, "x").await.expect("runs");
        let ok = finished.outcome.status.is_ok();
        assert!(ok || finished.reply.is_empty());
        assert_eq!(
            house.reported(),
            std::slice::from_ref(&finished.outcome.status)
        );
        house.until(|| house.running() == 0).await;
        // The next is none the wiser.
        let next = house
            .run(house.job(&Guest::Echo), "next")
            .await
            .expect("runs");
        assert_eq!(next.reply, "next");
        finished.outcome.status.as_str()
    })
}

#[test]
fn each_fault_ends_its_own_invocation() {
    let little = limits(|limits| limits.output_bytes_max = 10);
    let brief = limits(|limits| limits.deadline_ms = 1);
    let cases = [
        (Guest::Trap, "trap"),
        (Guest::Recurse, "trap"),
        (Guest::Exit(3), "exit"),
        (Guest::Exit(0), "ok"),
        (Guest::Hog, "out-of-memory"),
        (Guest::Flood(11), "output-limit"),
        (Guest::Flood(10), "ok"),
        (Guest::Leak(11), "output-limit"),
        (Guest::Panic, "platform"),
    ];
    for (guest, expected) in cases {
        assert_eq!(status_name(&guest, little.clone()), expected, "{guest:?}");
    }
    assert_eq!(status_name(&Guest::Loop, brief), "timeout");
}

#[tokio::test]
async fn an_input_over_the_limit_is_refused() {
    let house = house();
    let job = house.job_with(&Guest::Echo, "a/f", limits(|l| l.input_bytes_max = 3));
    let refused = house.run(job, "four").await;
    assert!(matches!(
        refused,
        Err(Rejected::InputTooLarge {
            bytes: 4,
            bytes_max: 3
        })
    ));
    assert_eq!(house.reported(), []);
}

#[tokio::test]
async fn every_invocation_starts_fresh() {
    let house = house();
    for _ in 0..20 {
        let finished = house
            .run(house.job(&Guest::Counter), "")
            .await
            .expect("runs");
        assert_eq!(finished.reply, "1");
    }
}

#[tokio::test]
async fn a_quick_version_moves_inline() {
    let house = house();
    assert_eq!(house.executor.pools().len(), 0);
    for _ in 0..3 {
        house.run(house.job(&Guest::Echo), "").await.expect("runs");
    }
    assert_eq!(house.pool().lane, Some(Lane::Inline));
}

#[tokio::test]
async fn an_inline_call_leaves_its_sandbox_to_who_replies() {
    let house = house();
    let job = || house.job(&Guest::Echo);
    for _ in 0..3 {
        let leftover = Arc::<Leftover>::default();
        let admitted = house.executor.admit(job()).await.expect("there is room");
        let left = Some(leftover.clone());
        let called = admitted.invoke_to(left, Bytes::new(), Vec::new(), Vec::new());
        called.await.expect("runs");
        // On the guest runtime nothing is left to anybody.
        house.until(|| house.pool().idle == 1).await;
        drop(leftover);
    }
    let resets = house.backend.counts().resets;
    for is_reset in [true, false] {
        let leftover = Arc::<Leftover>::default();
        let admitted = house.executor.admit(job()).await.expect("there is room");
        let left = Some(leftover.clone());
        let called = admitted.invoke_to(left, Bytes::new(), Vec::new(), Vec::new());
        called.await.expect("runs");
        assert_eq!((house.running(), house.pool().idle), (0, 0));
        if is_reset {
            leftover.reset();
            assert_eq!(house.pool().idle, 1, "at once");
        }
        drop(leftover);
        house.until(|| house.pool().idle == 1).await;
    }
    assert_eq!(house.backend.counts().resets, resets + 2);
}

#[tokio::test]
async fn a_call_over_its_budget_is_repeated_on_the_guest_runtime() {
    let house = house();
    // It computes 20 ms by the wall's clock only, so that it seems quick between its turns.
    let job = || house.job(&Guest::Compute(20));
    for _ in 0..3 {
        house.run(job(), "").await.expect("runs");
        house.until(|| house.pool().idle == 1).await;
    }
    assert_eq!(house.pool().lane, Some(Lane::Inline));
    let finished = house.run(job(), "again").await.expect("runs");
    assert_eq!(finished.reply, "again");
    assert_eq!(finished.outcome.status, Status::Ok);
    assert_eq!(house.pool().lane, Some(Lane::Guest));
    assert_eq!(house.reported().len(), 4);
    assert_eq!(house.backend.counts().made, 1);
}

#[tokio::test]
async fn what_a_guest_prints_is_cut_at_its_limit_and_counted() {
    let house = house();
    let log = Arc::new(KeptLog::default());
    let mut job = house.job_with(
        &Guest::Print(1000),
        "a/f",
        limits(|l| l.log_bytes_max = 100),
    );
    job.log = log.clone() as Arc<dyn LogSink>;
    let finished = house.run(job, "").await.expect("runs");
    assert_eq!((finished.outcome.usage.log_bytes, log.bytes()), (100, 100));
}

#[tokio::test]
async fn a_guest_that_its_wall_does_not_stop_is_given_up() {
    let config = Config {
        deadline_grace: Duration::from_millis(1),
        ..Config::default()
    };
    for guest in [Guest::Stuck, Guest::Block("b".into())] {
        let house = house_with(config.clone());
        let job = house.job_with(&guest, "a/f", limits(|l| l.deadline_ms = 1));
        let finished = house.run(job, "").await.expect("runs");
        assert_eq!(finished.outcome.status, Status::Timeout);
        assert_eq!(house.reported(), [Status::Timeout]);
        // One that holds its thread keeps its place until it lets go; none reports twice.
        house.gate("b").open(1);
        house.until(|| house.running() == 0).await;
        assert_eq!(house.reported(), [Status::Timeout]);
    }
}

#[tokio::test]
async fn artifacts_are_prepared_and_refused() {
    let house = house();
    let spec = Guest::Echo.spec(Limits::default());
    let artifact = Guest::Echo.artifact();
    let prepared = house
        .executor
        .prepare(&spec, artifact.clone(), Vec::new())
        .await
        .expect("prepares");
    assert!(!prepared.cached);
    let again = house
        .executor
        .prepare(&spec, artifact, Vec::new())
        .await
        .expect("prepares");
    assert_eq!(
        again,
        Prepared {
            cached: true,
            ..prepared
        }
    );
    let refused = house
        .executor
        .prepare(&spec, Bytes::from_static(b"no"), Vec::new())
        .await;
    assert!(refused.is_err());
}
