//! Places, queues and the drain.

use super::*;

fn narrow(queue_max: u32) -> Limits {
    limits(|limits| {
        limits.concurrency_max = 1;
        limits.queue_max = queue_max;
    })
}

#[tokio::test]
async fn one_more_than_the_queue_holds_is_told_to_come_back() {
    let house = house();
    let job = house.job_with(&hold(), "a/f", narrow(1));
    let runs = house.start(job.clone());
    house.gate("g").came(1).await;
    let waits = house.start(job.clone());
    house.until(|| house.pool().queued == 1).await;
    match house.run(job, "").await {
        Err(Rejected::QueueFull { scope, retry_after }) => {
            assert_eq!(scope, Scope::Function);
            assert!(retry_after > Duration::ZERO);
        }
        other => panic!("{other:?}"),
    }
    house.gate("g").open(2);
    for started in [runs, waits] {
        assert!(started.await.expect("joins").is_ok());
    }
    assert_eq!(house.reported(), [Status::Ok, Status::Ok]);
}

#[tokio::test]
async fn apps_and_nodes_have_bounds_of_their_own() {
    let app = Config {
        app_running_max: 1,
        app_queued_max: 0,
        ..Config::default()
    };
    let node = Config {
        node_running_max: 1,
        node_queued_max: 0,
        ..Config::default()
    };
    for (config, other, expected) in [
        (app, "a/other", Scope::App),
        (node, "other/other", Scope::Node),
    ] {
        let house = house_with(config);
        let runs = house.start(house.job(&hold()));
        house.gate("g").came(1).await;
        let job = house.job_with(&Guest::Echo, other, Limits::default());
        match house.run(job, "").await {
            Err(Rejected::QueueFull { scope, .. }) => assert_eq!(scope, expected),
            unexpected => panic!("{unexpected:?}"),
        }
        house.gate("g").open(1);
        assert!(runs.await.expect("joins").is_ok());
    }
}

#[tokio::test]
async fn no_wait_is_longer_than_the_longest() {
    let house = house_with(Config {
        queue_wait_max: Duration::from_millis(1),
        ..Config::default()
    });
    let job = house.job_with(&hold(), "a/f", narrow(1));
    let runs = house.start(job.clone());
    house.gate("g").came(1).await;
    match house.run(job, "").await {
        Err(Rejected::QueueFull { scope, .. }) => assert_eq!(scope, Scope::Wait),
        other => panic!("{other:?}"),
    }
    assert_eq!(house.pool().queued, 0);
    house.gate("g").open(1);
    assert!(runs.await.expect("joins").is_ok());
}

#[tokio::test]
async fn a_drain_refuses_the_new_and_waits_for_the_rest() {
    let house = house();
    let job = house.job_with(&hold(), "a/f", narrow(1));
    let runs = house.start(job.clone());
    house.gate("g").came(1).await;
    let waits = house.start(job.clone());
    house.until(|| house.pool().queued == 1).await;
    let executor = house.executor.clone();
    let drain = tokio::spawn(async move { executor.drain(Duration::from_secs(600)).await });
    house
        .until(|| {
            let gate = &house.executor.inner.services.gate;
            gate.is_closed()
        })
        .await;
    assert!(matches!(house.run(job, "").await, Err(Rejected::Draining)));
    assert!(!drain.is_finished());
    house.gate("g").open(2);
    assert_eq!(drain.await.expect("joins"), 0);
    for started in [runs, waits] {
        assert!(started.await.expect("joins").is_ok());
    }
    house.until(|| house.backend.counts().live == 0).await;
}

#[tokio::test]
async fn a_drain_without_patience_sends_those_away_who_wait() {
    let house = house();
    let job = house.job_with(&hold(), "a/f", narrow(1));
    let runs = house.start(job.clone());
    house.gate("g").came(1).await;
    let waits = house.start(job.clone());
    house.until(|| house.pool().queued == 1).await;
    assert_eq!(house.executor.drain(Duration::ZERO).await, 1);
    let waited = waits.await.expect("joins");
    assert!(matches!(waited, Err(Rejected::Draining)));
    house.gate("g").open(1);
    assert!(runs.await.expect("joins").is_ok());
    assert_eq!(house.running(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_survive_a_storm_of_callers_that_come_and_go() {
    let house = house();
    let job = house.job_with(
        &hold(),
        "a/f",
        limits(|limits| {
            limits.concurrency_max = 3;
            limits.queue_max = 1000;
        }),
    );
    let started: Vec<_> = (0..300).map(|_| house.start(job.clone())).collect();
    house.gate("g").open(1000);
    let mut ended = 0;
    for (i, started) in started.into_iter().enumerate() {
        if i % 3 == 0 {
            started.abort();
        }
        ended += usize::from(matches!(started.await, Ok(Ok(_))));
        assert!(house.running() <= 3);
    }
    house.until(|| house.running() == 0).await;
    assert!(ended >= 200);
    // What is still reset is more than may be kept: it is dropped then.
    house.until(|| house.backend.counts().live <= 3).await;
    let after = house.run(job, "after").await.expect("runs");
    assert_eq!(after.reply, "after");
}
