//! Children that run beside their parents, or in their stead.

use ::http::Request;
use http_body_util::BodyExt;

use super::*;
use crate::{Enqueued, HeirId, Stead};

fn narrow(queue_max: u32) -> Limits {
    limits(|limits| {
        limits.concurrency_max = 1;
        limits.queue_max = queue_max;
    })
}

type Started = tokio::task::JoinHandle<Result<Finished, Rejected>>;

fn start(enqueued: Enqueued) -> Started {
    tokio::spawn(enqueued.invoke(Bytes::from_static(b"x"), vec![], vec![]))
}

fn spawn(house: &House, stead: &Stead, job: &Job) -> (HeirId, Started) {
    let heir = stead.heir();
    let id = heir.id();
    let enqueued = house.executor.enqueue(job.clone(), heir);
    (id, start(enqueued.expect("there is room")))
}

async fn ends_well(started: Started) {
    let finished = started.await.expect("joins").expect("runs");
    assert_eq!(finished.outcome.status, Status::Ok);
}

#[tokio::test]
async fn a_parent_that_holds_the_only_place_is_not_waited_for_by_its_child() {
    let house = house();
    let job = house.job_with(&hold(), "a/f", narrow(10));
    let parent = house.start(job.clone());
    house.gate("g").came(1).await;
    let stead = Stead::new();
    let (id, child) = spawn(&house, &stead, &job);
    assert_eq!((house.pool().queued, house.running()), (1, 1));
    let lent = stead.lend([id]);
    // It comes while its parent still holds the place that it queued for.
    house.gate("g").came(1).await;
    assert_eq!((house.pool().queued, house.running()), (0, 2));
    house.gate("g").open(2);
    ends_well(child).await;
    drop(lent);
    ends_well(parent).await;
    assert_eq!(house.reported(), [Status::Ok, Status::Ok]);
    assert_eq!(house.running(), 0);
}

#[tokio::test]
async fn parents_that_wait_for_each_others_places_all_end() {
    let house = house();
    let three = limits(|limits| limits.concurrency_max = 3);
    // Two versions of one function: they share its places.
    let parent = house.job_with(&Guest::Hold("p".into()), "a/f", three.clone());
    let child = house.job_with(&hold(), "a/f", three);
    let gate = &house.executor.inner.services.gate;
    let parents: Vec<_> = (0..3).map(|_| house.start(parent.clone())).collect();
    house.gate("p").came(3).await;
    let mut families = Vec::new();
    for _ in &parents {
        let stead = Stead::new();
        let children: Vec<_> = (0..4).map(|_| spawn(&house, &stead, &child)).collect();
        families.push((stead, children));
    }
    assert_eq!((gate.queued(), gate.running()), (12, 3));
    let mut waits = Vec::new();
    for (stead, children) in &families {
        waits.push(stead.lend(children.iter().map(|(id, _)| *id)));
    }
    house.gate("g").came(3).await;
    assert_eq!((gate.queued(), gate.running()), (9, 6));
    // All children end before any parent does.
    house.gate("g").open(12);
    for (_, child) in families.into_iter().flat_map(|(_, children)| children) {
        ends_well(child).await;
    }
    assert_eq!((gate.queued(), gate.running()), (0, 3));
    house.gate("p").open(3);
    for parent in parents {
        ends_well(parent).await;
    }
    assert_eq!((gate.running(), house.reported().len()), (0, 15));
}

#[tokio::test]
async fn children_wait_in_their_queue_while_nobody_waits_for_them() {
    let house = house();
    let job = house.job_with(&hold(), "a/f", narrow(10));
    let parent = house.start(job.clone());
    house.gate("g").came(1).await;
    let stead = Stead::new();
    let (_, child) = spawn(&house, &stead, &job);
    drop(stead.lend([]));
    drop(stead);
    assert_eq!(house.pool().queued, 1);
    house.gate("g").open(1);
    ends_well(parent).await;
    house.gate("g").came(1).await;
    assert_eq!((house.pool().queued, house.running()), (0, 1));
    house.gate("g").open(1);
    ends_well(child).await;
}

#[tokio::test]
async fn a_full_queue_refuses_a_child_at_once() {
    let house = house();
    let job = house.job_with(&hold(), "a/f", narrow(1));
    let parent = house.start(job.clone());
    house.gate("g").came(1).await;
    let stead = Stead::new();
    let waits = house.executor.enqueue(job.clone(), stead.heir());
    match house.executor.enqueue(job, stead.heir()) {
        Err(Rejected::QueueFull { scope, .. }) => assert_eq!(scope, Scope::Function),
        other => panic!("{other:?}"),
    }
    drop(waits);
    assert_eq!(house.pool().queued, 0, "who is dropped leaves the queue");
    house.gate("g").open(1);
    ends_well(parent).await;
}

#[tokio::test]
async fn a_child_of_a_draining_node_is_let_in() {
    let house = house();
    let job = house.job_with(&hold(), "a/f", narrow(0));
    let parent = house.start(job.clone());
    house.gate("g").came(1).await;
    let executor = house.executor.clone();
    let drain = tokio::spawn(async move { executor.drain(Duration::from_secs(600)).await });
    house
        .until(|| house.executor.inner.services.gate.is_closed())
        .await;
    let (_, child) = spawn(&house, &Stead::new(), &job);
    house.gate("g").came(1).await;
    house.gate("g").open(2);
    ends_well(child).await;
    ends_well(parent).await;
    assert_eq!(drain.await.expect("joins"), 0);
}

#[tokio::test]
async fn a_child_that_is_dropped_in_the_stead_makes_room_for_the_next() {
    let house = house();
    let job = house.job_with(&hold(), "a/f", narrow(10));
    let parent = house.start(job.clone());
    house.gate("g").came(1).await;
    let stead = Stead::new();
    let (first_id, first) = spawn(&house, &stead, &job);
    let (second_id, second) = spawn(&house, &stead, &job);
    let _lent = stead.lend([first_id, second_id]);
    house.gate("g").came(1).await;
    assert_eq!(house.pool().queued, 1);
    first.abort();
    assert_eq!(house.reports(1).await, [Status::Cancelled]);
    house.gate("g").came(1).await;
    // The gate let nobody through yet: one of the permits is for whom it had held before.
    house.gate("g").open(2);
    ends_well(second).await;
    ends_well(parent).await;
}

#[tokio::test]
async fn an_http_child_is_let_in() {
    let house = house_with(Config {
        node_running_max: 1,
        ..Config::default()
    });
    let parent = house.start(house.job(&hold()));
    house.gate("g").came(1).await;
    let stead = Stead::new();
    let heir = stead.heir();
    let id = heir.id();
    let job = house.job_with(&Guest::HttpEcho, "a/child", Limits::default());
    let enqueued = house.executor.enqueue(job, heir).expect("there is room");
    let request = Request::builder().uri("http://host/");
    let request = request.body(sandbox::body_of("hello")).expect("a request");
    let child = tokio::spawn(enqueued.invoke_http(request));
    let _lent = stead.lend([id]);
    let reply = child.await.expect("joins").expect("runs");
    let body = reply.head.expect("a response").into_body();
    assert_eq!(body.collect().await.expect("a body").to_bytes(), "hello");
    assert_eq!(reply.done.await.status, Status::Ok);
    house.gate("g").open(1);
    ends_well(parent).await;
    house.until(|| house.running() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steads_survive_a_storm_of_waits_that_are_broken_off() {
    let house = house();
    let job = house.job_with(&hold(), "a/f", limits(|limits| limits.concurrency_max = 2));
    let stead = Stead::new();
    let children: Vec<_> = (0..200).map(|_| spawn(&house, &stead, &job)).collect();
    house.gate("g").open(1000);
    for (at, (id, child)) in children.into_iter().enumerate() {
        let lent = stead.lend([id]);
        match at % 3 {
            0 => child.abort(),
            1 => drop(lent),
            _ => ends_well(child).await,
        }
        assert!(house.running() <= 3);
    }
    house.until(|| house.running() == 0).await;
    assert_eq!(house.pool().queued, 0);
}
