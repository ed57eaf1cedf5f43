//! Callers that go away.

use super::*;

#[tokio::test]
async fn a_guest_ends_with_its_caller_and_is_recorded() {
    let house = house();
    let started = house.start(house.job(&hold()));
    house.gate("g").came(1).await;
    started.abort();
    assert_eq!(house.reports(1).await, [Status::Cancelled]);
    house.until(|| house.running() == 0).await;
    house.until(|| house.pool().idle == 1).await;
    let counts = house.backend.counts();
    assert_eq!((counts.dropped_calls, counts.resets), (1, 1));
    assert_eq!(house.reported().len(), 1);
}

#[tokio::test]
async fn an_inline_guest_ends_with_its_caller_and_is_recorded() {
    let house = house();
    for _ in 0..3 {
        house.gate("g").open(1);
        house.run(house.job(&hold()), "").await.expect("runs");
    }
    house.gate("g").came(3).await;
    assert_eq!(house.pool().lane, Some(Lane::Inline));
    let started = house.start(house.job(&hold()));
    house.gate("g").came(1).await;
    started.abort();
    assert_eq!(house.reports(4).await.last(), Some(&Status::Cancelled));
    house.until(|| house.running() == 0).await;
    assert_eq!(house.backend.counts().dropped_calls, 1);
}

#[tokio::test]
async fn one_who_leaves_the_queue_was_never_admitted() {
    let house = house();
    let job = house.job_with(&hold(), "a/f", limits(|l| l.concurrency_max = 1));
    let runs = house.start(job.clone());
    house.gate("g").came(1).await;
    let waits = house.start(job);
    house.until(|| house.pool().queued == 1).await;
    waits.abort();
    house.until(|| house.pool().queued == 0).await;
    house.gate("g").open(1);
    assert!(runs.await.expect("joins").is_ok());
    assert_eq!((house.reported(), house.running()), (vec![Status::Ok], 0));
}

#[tokio::test]
async fn a_guest_that_holds_its_thread_keeps_its_place_until_it_lets_go() {
    let house = house();
    let started = house.start(house.job(&Guest::Block("b".into())));
    house.gate("b").came(1).await;
    started.abort();
    assert!(started.await.is_err());
    assert_eq!((house.running(), house.reported()), (1, vec![]));
    house.gate("b").open(1);
    // Its caller is gone, but it ended by itself: that is its outcome.
    assert_eq!(house.reports(1).await, [Status::Ok]);
    house.until(|| house.running() == 0).await;
}

#[tokio::test]
async fn guests_end_with_their_runtime_and_are_recorded() {
    let mut house = house();
    let started = house.start(house.job(&hold()));
    house.gate("g").came(1).await;
    if let Some(guests) = house.guests.take() {
        guests.shutdown_background();
    }
    let finished = started.await.expect("joins").expect("is told");
    assert_eq!(finished.outcome.status, Status::Cancelled);
    assert_eq!(house.reports(1).await, [Status::Cancelled]);
}
