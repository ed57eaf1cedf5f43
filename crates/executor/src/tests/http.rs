//! Http components: streams, ends without a response, clients that go away.

use ::http::{Method, Request};
use http_body_util::BodyExt;
use sandbox::{Body, body_of, empty_body};

use super::*;
use crate::HttpReply;

fn http_hold() -> Guest {
    Guest::HttpHold("g".to_owned())
}

fn request(body: Body) -> Request<Body> {
    let request = Request::builder().uri("http://host/path");
    request.body(body).expect("a request")
}

async fn serve(house: &House, guest: &Guest, request: Request<Body>) -> HttpReply {
    let job = house.job(guest);
    house
        .executor
        .invoke_http(job, request)
        .await
        .expect("runs")
}

async fn text(body: Body) -> Bytes {
    body.collect().await.expect("a body").to_bytes()
}

#[tokio::test]
async fn a_body_streams_through_the_guest() {
    let house = house();
    let reply = serve(&house, &Guest::HttpEcho, request(body_of("hello"))).await;
    let response = reply.head.expect("a response");
    assert_eq!(text(response.into_body()).await, "hello");
    let outcome = reply.done.await;
    assert_eq!(outcome.status, Status::Ok);
    assert_eq!(
        (outcome.usage.input_bytes, outcome.usage.output_bytes),
        (5, 5)
    );
    assert_eq!(house.reported(), [Status::Ok]);
}

#[tokio::test]
async fn the_head_comes_before_the_guest_ends() {
    let house = house();
    let reply = serve(&house, &http_hold(), request(empty_body())).await;
    assert!(reply.done.now().is_none());
    assert_eq!((house.running(), house.reported()), (1, vec![]));
    let response = reply.head.expect("a response");
    house.gate("g").open(1);
    assert_eq!(text(response.into_body()).await, "held");
    assert_eq!(reply.done.await.status, Status::Ok);
    house.until(|| house.running() == 0).await;
}

#[tokio::test]
async fn a_guest_that_ends_at_once_is_answered_at_once() {
    let house = house();
    let reply = serve(&house, &Guest::HttpSilent, request(empty_body())).await;
    let outcome = reply.head.expect_err("no response");
    assert_eq!(outcome.status.as_str(), "no-response");
    assert_eq!(reply.done.now(), Some(&outcome));
    assert_eq!(reply.done.await, outcome);
    assert_eq!((house.reported().len(), house.running()), (1, 0));
}

#[tokio::test]
async fn a_guest_whose_client_goes_away_is_cancelled() {
    let house = house();
    let reply = serve(&house, &http_hold(), request(empty_body())).await;
    house.gate("g").came(1).await;
    drop(reply.head);
    assert_eq!(reply.done.await.status, Status::Cancelled);
    assert_eq!(house.reported(), [Status::Cancelled]);
    house.until(|| house.running() == 0).await;
}

#[tokio::test]
async fn a_head_request_leaves_its_guest_to_its_end() {
    let house = house();
    let mut head = request(empty_body());
    *head.method_mut() = Method::HEAD;
    let reply = serve(&house, &http_hold(), head).await;
    house.gate("g").came(1).await;
    drop(reply.head);
    house.gate("g").open(1);
    assert_eq!(reply.done.await.status, Status::Ok);
}

#[tokio::test]
async fn a_guest_without_a_head_yet_is_cancelled_with_its_caller() {
    let house = house();
    // The gate is before the head: the load holds it.
    let loads = Arc::new(Gate::default());
    house.backend.hold_loads(loads.clone());
    let executor = house.executor.clone();
    let job = house.job(&Guest::HttpEcho);
    let caller =
        tokio::spawn(async move { executor.invoke_http(job, request(empty_body())).await });
    loads.came(1).await;
    caller.abort();
    assert_eq!(house.reports(1).await, [Status::Cancelled]);
    house.until(|| house.running() == 0).await;
}

#[tokio::test]
async fn nobody_has_to_wait_for_the_outcome() {
    let house = house();
    let HttpReply { head, done } = serve(&house, &http_hold(), request(empty_body())).await;
    drop(done);
    house.gate("g").open(1);
    let body = head.expect("a response").into_body();
    assert_eq!(text(body).await, "held");
    assert_eq!(house.reports(1).await, [Status::Ok]);
}
