//! Clients that are too slow, too many or too large; and the graceful end.

mod support;

use std::time::Duration;

use support::{World, world};
use testkit::Guest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SHORT: Duration = Duration::from_millis(100);

async fn connect(world: &World) -> TcpStream {
    TcpStream::connect(world.gateway.data_addr())
        .await
        .expect("connected")
}

/// Sends bytes, and gives what the gateway says until it closes.
async fn exchange(world: &World, bytes: &[u8]) -> String {
    let mut stream = connect(world).await;
    stream.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    // A reset is an end too.
    let _reset = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut() {
    let world = world(|config| config.data.head_timeout = SHORT).await;
    assert_eq!(
        exchange(&world, b"GET /shop/echo HTTP/1.1\r\nhost: x\r\nx-slow: ").await,
        ""
    );
    assert_eq!(exchange(&world, b"P").await, "");
    // The beginning of HTTP/2, and nothing after it.
    assert!(
        !exchange(&world, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .contains("200")
    );
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_cut() {
    let world = world(|config| config.data.idle_timeout = SHORT).await;
    assert_eq!(exchange(&world, b"").await, "");
}

#[tokio::test]
async fn a_body_that_pauses_answers_408() {
    let world = world(|config| config.data.body_idle_timeout = SHORT).await;
    world.deploy("shop/echo", &Guest::Echo).await;
    let head = b"POST /shop/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf";
    let answer = exchange(&world, head).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("request-timeout"), "{answer}");
}

#[tokio::test]
async fn a_body_that_drips_answers_408() {
    let world = world(|config| config.data.body_timeout = SHORT).await;
    world.deploy("shop/echo", &Guest::Echo).await;
    let mut stream = connect(&world).await;
    let head = b"POST /shop/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head).await.expect("sent");
    let (mut read, mut write) = stream.into_split();
    let drip = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while write.write_all(b"1\r\nx\r\n").await.is_ok() {
            ticks.tick().await;
        }
    });
    let mut answer = [0; 12];
    read.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 408");
    drip.abort();
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_not_read() {
    let world = world(|_| ()).await;
    let limits = serde_json::json!({ "input_bytes_max": 10 });
    world.deploy_with("shop/echo", &Guest::Echo, limits).await;
    // The body is never sent: whoever reads it first would wait.
    let head = b"POST /shop/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000000\r\n\r\n";
    let mut stream = connect(&world).await;
    stream.write_all(head).await.expect("sent");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let world = world(|config| config.data.head_bytes_max = 8192).await;
    let head = format!("GET /a/f HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    let answer = exchange(&world, head.as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let world = world(|_| ()).await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS"[..],
        b"hello\r\n\r\n",
    ] {
        let answer = exchange(&world, bytes).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn one_connection_more_waits_for_its_turn() {
    let world = world(|config| config.data.connections_max = 1).await;
    world.deploy("shop/echo", &Guest::Echo).await;
    let request = b"POST /shop/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nok";
    let mut first = connect(&world).await;
    first.write_all(request).await.expect("sent");
    first.read_u8().await.expect("an answer");
    let mut second = connect(&world).await;
    second.write_all(request).await.expect("sent");
    drop(first);
    second
        .read_u8()
        .await
        .expect("an answer, once the first has gone");
}

#[tokio::test]
async fn an_ending_gateway_finishes_what_runs_and_takes_nothing_new() {
    let world = world(|_| ()).await;
    world.deploy("shop/hold", &Guest::Hold("g".into())).await;
    let gate = world.backend.gate("g");
    let first = world.post(world.data("/shop/hold"), "kept");
    let end = async {
        gate.came(1).await;
        assert_eq!(world.get(world.admin("/readyz")).await.status, 200);
        world.gateway.begin_drain();
        let draining = world.get(world.admin("/readyz")).await;
        assert_eq!(
            (draining.status.as_u16(), draining.code().as_str()),
            (503, "draining")
        );
        assert_eq!(world.get(world.admin("/healthz")).await.status, 200);
        gate.open(1);
    };
    let (first, ()) = tokio::join!(first, end);
    assert_eq!((first.status.as_u16(), first.text()), (200, "kept"));
    let addr = world.gateway.data_addr();
    assert!(world.gateway.end(Duration::from_secs(60)).await);
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn what_outlasts_the_patience_is_cut() {
    let world = world(|_| ()).await;
    world.deploy("shop/hold", &Guest::Hold("g".into())).await;
    let mut stream = connect(&world).await;
    let request = b"POST /shop/hold HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    world.backend.gate("g").came(1).await;
    assert!(!world.gateway.end(Duration::from_millis(20)).await);
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
}

/// Reads one answer of a connection: its head, and as much body as that says.
async fn answer(stream: &mut TcpStream) -> String {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await.expect("a head");
        read.push(byte[0]);
    }
    let head = String::from_utf8(read).expect("text");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length.expect("a length").parse().expect("a number");
    stream
        .read_exact(&mut vec![0; length])
        .await
        .expect("a body");
    head
}

#[tokio::test]
async fn who_is_refused_while_a_body_is_on_its_way_may_ask_again() {
    let world = world(|_| ()).await;
    world.deploy("shop/echo", &Guest::Echo).await;
    let mut stream = connect(&world).await;
    stream.set_nodelay(true).expect("set");
    for path in ["/shop/none", "/2015-03-31/functions/shop_none/invocations"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        // As a client that writes head and body apart, and is slow between.
        tokio::time::sleep(SHORT).await;
        stream.write_all(b"null").await.expect("sent");
        let refused = answer(&mut stream).await;
        assert!(refused.starts_with("HTTP/1.1 404"), "{refused}");
        assert!(!refused.contains("connection: close"), "{refused}");
    }
    let again = "POST /shop/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi";
    stream.write_all(again.as_bytes()).await.expect("sent");
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn whose_body_is_not_read_is_told_that_the_connection_ends() {
    let world = world(|_| ()).await;
    world.deploy("shop/echo", &Guest::Echo).await;
    for (path, more) in [
        ("/shop/none", "content-length: 1000000\r\n"),
        (
            "/shop/none",
            "content-length: 4\r\nexpect: 100-continue\r\n",
        ),
        ("/shop/echo", "content-length: 1000000000\r\n"),
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n");
        let said = exchange(&world, head.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 4"), "{said}");
        assert!(said.contains("\r\nconnection: close\r\n"), "{said}");
    }
}
