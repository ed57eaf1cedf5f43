//! Programs and sandboxes: loaded once, pooled, retired, and gone when idle.

use sandbox::Presence;

use super::*;

#[tokio::test]
async fn a_program_is_loaded_once_for_all_who_ask_at_once() {
    let house = house();
    let loads = Arc::new(Gate::default());
    house.backend.hold_loads(loads.clone());
    let first = house.start(house.job(&Guest::Echo));
    loads.came(1).await;
    let more: Vec<_> = (0..5)
        .map(|_| house.start(house.job(&Guest::Echo)))
        .collect();
    house.until(|| house.running() == 6).await;
    loads.open(1);
    for started in more.into_iter().chain([first]) {
        let finished = started.await.expect("joins").expect("runs");
        assert_eq!(finished.outcome.start, StartKind::Cold);
    }
    assert_eq!(house.backend.counts().loads, 1);
    assert_eq!(house.pool().starts.cold, 6);
}

#[tokio::test]
async fn a_load_goes_on_when_its_caller_goes_away() {
    let house = house();
    let loads = Arc::new(Gate::default());
    house.backend.hold_loads(loads.clone());
    let first = house.start(house.job(&Guest::Echo));
    loads.came(1).await;
    first.abort();
    assert_eq!(house.reports(1).await, [Status::Cancelled]);
    loads.open(1);
    house.until(|| house.pool().loaded).await;
    let finished = house.run(house.job(&Guest::Echo), "").await.expect("runs");
    assert_eq!(finished.outcome.start, StartKind::Restored);
    assert_eq!(house.backend.counts().loads, 1);
}

#[tokio::test]
async fn a_version_that_cannot_be_loaded_is_rejected_and_tried_again() {
    let house = house();
    let mut job = house.job(&Guest::Echo);
    let mut spec = (*job.spec).clone();
    spec.artifact = model::Digest::of(b"gone");
    job.spec = Arc::new(spec);
    job.version = job.spec.digest();
    for loads in 1..3 {
        let rejected = house.run(job.clone(), "").await;
        assert!(matches!(rejected, Err(Rejected::Load(_))));
        assert_eq!(house.backend.counts().loads, loads);
    }
    assert_eq!((house.reported(), house.running()), (vec![], 0));
}

#[tokio::test]
async fn a_sandbox_is_used_again_after_its_reset() {
    let house = house();
    for _ in 0..10 {
        house.run(house.job(&Guest::Echo), "").await.expect("runs");
        house.until(|| house.pool().idle == 1).await;
    }
    let counts = house.backend.counts();
    assert_eq!((counts.made, counts.resets), (1, 10));
    assert_eq!(
        (house.pool().starts.cold, house.pool().starts.restored),
        (1, 9)
    );
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_reset_is_retired() {
    let house = house();
    for made in 1..4 {
        house
            .run(house.job(&Guest::Sticky), "")
            .await
            .expect("runs");
        house.until(|| house.backend.counts().live == 0).await;
        assert_eq!((house.pool().idle, house.backend.counts().made), (0, made));
    }
}

#[tokio::test]
async fn idle_sandboxes_go_and_then_the_program_and_then_the_pool() {
    let house = house();
    let job = house.job_with(&Guest::Echo, "a/f", limits(|l| l.keep_alive_ms = 60_000));
    house.run(job.clone(), "").await.expect("runs");
    house.until(|| house.pool().idle == 1).await;
    house.sweep_after(Duration::from_secs(59));
    assert_eq!(house.pool().idle, 1);
    house.sweep_after(Duration::from_secs(61));
    assert_eq!((house.pool().idle, house.pool().loaded), (0, true));
    assert_eq!(house.backend.counts().live, 0);
    house.sweep_after(Duration::from_secs(61 + 301));
    assert_eq!(house.executor.pools().len(), 0);
    let finished = house.run(job, "").await.expect("runs");
    assert_eq!(finished.outcome.start, StartKind::Cold);
}

#[tokio::test]
async fn a_function_that_wants_nothing_kept_keeps_nothing() {
    let house = house();
    let job = house.job_with(&Guest::Echo, "a/f", limits(|l| l.keep_alive_ms = 0));
    house.run(job, "").await.expect("runs");
    house.until(|| house.backend.counts().live == 0).await;
    assert_eq!((house.pool().idle, house.backend.counts().resets), (0, 0));
}

#[tokio::test]
async fn no_more_are_idle_than_the_node_may_keep() {
    let house = house_with(Config {
        idle_sandboxes_max: 2,
        ..Config::default()
    });
    for i in 0..4 {
        let path = format!("a/f{i}");
        let job = house.job_with(&Guest::Echo, &path, Limits::default());
        house.run(job, "").await.expect("runs");
    }
    house.until(|| house.backend.counts().live <= 2).await;
    house.sweep_after(Duration::ZERO);
    let idle: usize = house.executor.pools().iter().map(|pool| pool.idle).sum();
    assert!(idle <= 2);
}

#[tokio::test]
async fn a_full_node_gives_up_an_idle_sandbox_for_a_new_one() {
    let house = house();
    house.backend.cap_sandboxes(1);
    house.run(house.job(&Guest::Echo), "").await.expect("runs");
    house.until(|| house.pool().idle == 1).await;
    let other = house.job_with(&hold(), "b/g", Limits::default());
    let running = house.start(other.clone());
    house.gate("g").came(1).await;
    let rejected = house.run(house.job(&Guest::Echo), "").await;
    assert!(matches!(rejected, Err(Rejected::Sandbox(_))));
    house.gate("g").open(1);
    assert!(running.await.expect("joins").is_ok());
}

#[tokio::test]
async fn a_forgotten_version_ends_its_calls_and_keeps_nothing() {
    let house = house();
    let job = house.job(&hold());
    let running = house.start(job.clone());
    house.gate("g").came(1).await;
    house.executor.forget(&job.version);
    assert_eq!(house.executor.pools().len(), 0);
    house.gate("g").open(1);
    assert!(running.await.expect("joins").is_ok());
    house.until(|| house.backend.counts().live == 0).await;
}

#[tokio::test]
async fn two_functions_of_one_version_share_no_sandbox() {
    let house = house();
    for path in ["a/f", "b/f"] {
        let job = house.job_with(&Guest::Echo, path, Limits::default());
        house.run(job, "").await.expect("runs");
    }
    assert_eq!(house.executor.pools().len(), 2);
    assert_eq!(house.backend.counts().made, 2);
}

#[tokio::test]
async fn what_is_still_arriving_runs_where_it_may_hold_its_thread() {
    let house = house();
    house.backend.presence(Presence::Whole, Presence::Arriving);
    for _ in 0..4 {
        house.run(house.job(&Guest::Echo), "").await.expect("runs");
        house.until(|| house.pool().idle == 1).await;
        assert_eq!(house.pool().lane, Some(Lane::Guest));
    }
    house.backend.presence(Presence::Whole, Presence::Whole);
    assert_eq!(
        house.pool().lane,
        Some(Lane::Inline),
        "it is known to be quick"
    );
    assert_eq!(house.backend.counts().loads, 1);
}

#[tokio::test]
async fn a_program_that_is_lost_is_loaded_anew() {
    let house = house();
    let job = || house.job(&Guest::Echo);
    house.run(job(), "").await.expect("runs");
    house.until(|| house.pool().idle == 1).await;
    house.backend.presence(Presence::Lost, Presence::Whole);
    let finished = house.run(job(), "again").await.expect("runs");
    assert_eq!(
        (finished.outcome.start, &finished.reply[..]),
        (StartKind::Cold, &b"again"[..])
    );
    house.until(|| house.pool().idle == 1).await;
    let counts = house.backend.counts();
    assert_eq!((counts.loads, counts.made, counts.live), (2, 2, 1));
}

#[tokio::test]
async fn who_waits_for_memory_leaves_threads_to_others() {
    let house = house();
    let blocks = |name: &str| house.start(house.job(&Guest::Block(name.into())));
    house.backend.presence(Presence::Whole, Presence::Arriving);
    // One of the four threads may be held so.
    let waiting: Vec<_> = (0..6).map(|_| blocks("waits")).collect();
    house.gate("waits").came(1).await;
    house.backend.presence(Presence::Arriving, Presence::Whole);
    let others: Vec<_> = (0..3).map(|_| blocks("others")).collect();
    house.gate("others").came(3).await;
    for gate in ["others", "waits"] {
        house.gate(gate).open(6);
    }
    for run in others.into_iter().chain(waiting) {
        let finished = run.await.expect("joins").expect("runs");
        assert_eq!(finished.outcome.status, Status::Ok);
    }
}
