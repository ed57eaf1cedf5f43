//! Calls on the data listener.

mod support;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::world;
use testkit::Guest;
use tokio::net::TcpStream;

#[tokio::test]
async fn a_reactor_is_called_by_path_and_by_host() {
    let world = world(|_| ()).await;
    let version = world.deploy("shop/echo", &Guest::Echo).await;
    let by_path = world.post(world.data("/shop/echo"), "hello").await;
    assert_eq!((by_path.status.as_u16(), by_path.text()), (200, "hello"));
    assert_eq!(by_path.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(by_path.header("dunlin-start"), "cold");
    assert_eq!(by_path.header("dunlin-invocation-id").len(), 32);
    assert!(version.contains(by_path.header("dunlin-version")));
    let by_host = Request::post(world.data("/any/where"))
        .header("host", "echo.shop.localhost:1")
        .body(Full::new(Bytes::from_static(&[0xff])))
        .expect("a request");
    let by_host = world.send(by_host).await;
    assert_eq!(
        (by_host.status.as_u16(), &by_host.body[..]),
        (200, &[0xff][..])
    );
    assert_eq!(by_host.header("content-type"), "application/octet-stream");
    assert_eq!(by_host.header("dunlin-start"), "restored");
}

#[tokio::test]
async fn http_components_stream_and_keep_their_status() {
    let world = world(|_| ()).await;
    world.deploy("shop/web", &Guest::HttpEcho).await;
    let answer = world.post(world.data("/shop/web/x?y=1"), "streamed").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "streamed"));
    assert!(answer.headers.contains_key("traceparent"));
}

#[tokio::test]
async fn a_reply_begins_before_its_end() {
    let world = world(|_| ()).await;
    world
        .deploy("shop/slow", &Guest::HttpHold("g".into()))
        .await;
    let request = Request::get(world.data("/shop/slow")).body(Full::default());
    let begun = world.begin(request.expect("a request")).await;
    assert_eq!(begun.status(), 200);
    world.backend.gate("g").open(1);
    begun.into_body().collect().await.expect("the rest");
}

#[tokio::test]
async fn a_trace_goes_on_and_one_begins_where_there_is_none() {
    let world = world(|_| ()).await;
    world.deploy("shop/echo", &Guest::Echo).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = Request::post(world.data("/shop/echo"))
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .body(Full::default());
    let answer = world.send(request.expect("a request")).await;
    assert!(
        answer
            .header("traceparent")
            .starts_with(&format!("00-{trace}-"))
    );
    assert!(!answer.header("traceparent").contains("00f067aa0ba902b7"));
    let answer = world.post(world.data("/shop/echo"), "").await;
    assert!(
        answer
            .header("traceparent")
            .contains(answer.header("dunlin-invocation-id"))
    );
}

#[tokio::test]
async fn each_failure_is_a_problem_with_its_code() {
    let world = world(|_| ()).await;
    let check = async |name: &str, guest: Guest, status: u16, code: &str| {
        let mut limits = serde_json::json!({ "output_bytes_max": 100 });
        if code == "function-timeout" {
            limits["deadline_ms"] = 50.into();
        }
        world
            .deploy_with(&format!("shop/{name}"), &guest, limits)
            .await;
        let answer = world.post(world.data(&format!("/shop/{name}")), "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (status, code),
            "{name}"
        );
        let id = answer.header("dunlin-invocation-id").to_owned();
        assert_eq!(answer.json()["invocation"], id, "{name}");
        answer
    };
    check("trap", Guest::Trap, 500, "function-trapped").await;
    check("recurse", Guest::Recurse, 500, "function-trapped").await;
    check("hog", Guest::Hog, 500, "out-of-memory").await;
    check("loop", Guest::Loop, 504, "function-timeout").await;
    check("flood", Guest::Flood(1000), 502, "output-limit").await;
    check("silent", Guest::HttpSilent, 500, "no-response").await;
    let exit = check("exit", Guest::Exit(7), 500, "function-exited").await;
    assert_eq!(
        (exit.header("dunlin-exit-code"), &exit.json()["exit_code"]),
        ("7", &7.into())
    );
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let world = world(|_| ()).await;
    world.deploy("shop/echo", &Guest::Echo).await;
    let long = "x".repeat(20_000);
    let check = async |path: &str, code: &str| {
        let answer = world.get(world.data(path)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (404, code),
            "{path:.40}"
        );
        assert!(answer.body.len() < 1000);
    };
    check("/", "route-not-found").await;
    check("/shop", "route-not-found").await;
    check("/shop/other", "function-not-found").await;
    check("/other/echo", "function-not-found").await;
    check("/Shop/echo", "function-not-found").await;
    check("/shop/e.cho", "function-not-found").await;
    check("/shop/%C3%A9cho", "function-not-found").await;
    check("/..%2f..%2fetc/passwd", "function-not-found").await;
    check(&format!("/shop/{long}"), "function-not-found").await;
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused() {
    let world = world(|_| ()).await;
    let limits = serde_json::json!({ "input_bytes_max": 10 });
    world.deploy_with("shop/echo", &Guest::Echo, limits).await;
    assert_eq!(
        world
            .post(world.data("/shop/echo"), "0123456789")
            .await
            .status,
        200
    );
    let refused = world.post(world.data("/shop/echo"), "0123456789+").await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (413, "body-too-large")
    );
}

#[tokio::test]
async fn a_full_queue_answers_429_and_says_when_to_come_back() {
    let world = world(|_| ()).await;
    let limits = serde_json::json!({ "concurrency_max": 1, "queue_max": 0 });
    world
        .deploy_with("shop/hold", &Guest::Hold("g".into()), limits)
        .await;
    let gate = world.backend.gate("g");
    let first = world.post(world.data("/shop/hold"), "first");
    let others = async {
        gate.came(1).await;
        let refused = world.post(world.data("/shop/hold"), "second").await;
        assert_eq!(
            (refused.status.as_u16(), refused.code().as_str()),
            (429, "queue-full")
        );
        assert!(
            refused
                .header("retry-after")
                .parse::<u64>()
                .expect("seconds")
                >= 1
        );
        gate.open(1);
    };
    let (first, ()) = tokio::join!(first, others);
    assert_eq!((first.status.as_u16(), first.text()), (200, "first"));
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_call() {
    let world = world(|_| ()).await;
    let limits = serde_json::json!({ "concurrency_max": 1, "queue_max": 1 });
    world
        .deploy_with("shop/hold", &Guest::Hold("g".into()), limits)
        .await;
    let gate = world.backend.gate("g");
    {
        let call = world.post(world.data("/shop/hold"), "left");
        tokio::select! {
            _ = call => panic!("the gate is closed"),
            () = gate.came(1) => (),
        }
    }
    // Its place is free only once it was cancelled: the next call waits for that, then runs.
    let next = world.post(world.data("/shop/hold"), "next");
    let open = async {
        gate.came(1).await;
        gate.open(1);
    };
    let (next, ()) = tokio::join!(next, open);
    assert_eq!((next.status.as_u16(), next.text()), (200, "next"));
}

#[tokio::test]
async fn asynchronous_calls_are_accepted_once_for_a_key() {
    let world = world(|_| ()).await;
    world.deploy("shop/echo", &Guest::Echo).await;
    let call = async |body: &'static str| {
        let request = Request::post(world.data("/shop/echo"))
            .header("prefer", "respond-async")
            .header("idempotency-key", "k1")
            .body(Full::new(Bytes::from_static(body.as_bytes())));
        world.send(request.expect("a request")).await
    };
    let first = call("a").await;
    assert_eq!(first.status, 202, "{}", first.text());
    let id = first.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(first.header("location"), format!("/v1/invocations/{id}"));
    assert_eq!(first.header("preference-applied"), "respond-async");
    let again = call("a").await;
    assert_eq!(
        (again.json()["id"].as_str(), &again.json()["repeated"]),
        (Some(&*id), &true.into())
    );
    assert_eq!(call("b").await.code(), "idempotency-mismatch");
    let kept = world.get(world.admin(first.header("location"))).await;
    assert_eq!(
        (&kept.json()["state"], &kept.json()["app"]),
        (&"waiting".into(), &"shop".into())
    );
    let result = world
        .get(world.admin(&format!("/v1/invocations/{id}/result")))
        .await;
    assert_eq!(
        (result.status.as_u16(), result.code().as_str()),
        (409, "not-finished")
    );
}

#[tokio::test]
async fn http2_without_tls_is_answered() {
    let world = world(|_| ()).await;
    world.deploy("shop/echo", &Guest::Echo).await;
    let stream = TcpStream::connect(world.gateway.data_addr())
        .await
        .expect("connected");
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a handshake");
    tokio::spawn(connection);
    for body in ["one", "two"] {
        let request = Request::post(world.data("/shop/echo")).body(Full::new(Bytes::from(body)));
        let answer = send
            .send_request(request.expect("a request"))
            .await
            .expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), answer.version()),
            (200, http::Version::HTTP_2)
        );
        assert_eq!(
            answer
                .into_body()
                .collect()
                .await
                .expect("a body")
                .to_bytes(),
            body
        );
    }
}

#[tokio::test]
async fn an_alias_and_a_version_are_called_by_name() {
    let world = world(|_| ()).await;
    let first = world.deploy("shop/f", &Guest::Echo).await;
    world.deploy("shop/f", &Guest::Counter).await;
    let call = async |name: &str| {
        let request = Request::post(world.data("/shop/f"))
            .header("dunlin-alias", name)
            .body(Full::new(Bytes::from_static(b"x")));
        world.send(request.expect("a request")).await
    };
    assert_eq!(call("live").await.text(), "1");
    assert_eq!(call(&first).await.text(), "x");
    assert_eq!(call("other").await.code(), "alias-not-found");
    assert_eq!(call("No.Name").await.code(), "invalid-name");
}
