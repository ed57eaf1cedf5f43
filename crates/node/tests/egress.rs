//! What functions may connect to: the hosts that they were granted, and no other.

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use support::{World, wasm, world};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Sends a GET to the host that its input names.
const FETCH: &str = include_str!("support/fetch.wat");
/// What the guest prints for `HTTP-request-denied`.
const DENIED: &[u8] = &[b'E', 15];

/// A server on the loopback that tells a request's host and trace.
async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serve =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(tell));
            tokio::spawn(serve);
        }
    });
    address
}

async fn tell(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.map_or("", |value| value.to_str().expect("text"))
    };
    let trace = header("traceparent").get(3..35).unwrap_or_default();
    let told = format!("{} {} {trace}", header("host"), request.uri());
    Ok(Response::new(Full::from(told)))
}

async fn fetch(world: &World, grants: &[String], authority: &str) -> Bytes {
    let settings = json!({ "allow": { "egress": grants } });
    let deployed = world
        .deploy_with("a/fetch", "command", wasm(FETCH), settings)
        .await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
    let answer = world.call("/a/fetch", authority.to_owned()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_reaches_what_it_was_granted_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let address = server().await;
    let (literal, port) = (address.to_string(), address.port());
    let localhost = format!("localhost:{port}");

    for (grants, authority) in [
        (vec![literal.clone()], &literal),
        (vec![format!("127.0.0.0/8:{port}")], &literal),
        (vec![localhost.clone()], &localhost),
    ] {
        let told = fetch(&world, &grants, authority).await;
        let told = String::from_utf8_lossy(&told);
        let rest = told.strip_prefix(&format!("{authority} / "));
        let trace = rest.unwrap_or_else(|| panic!("{grants:?}: {told}"));
        assert_eq!(
            trace.len(),
            32,
            "the request carries the call's trace: {told}"
        );
    }
    for (grants, authority) in [
        (vec![], &literal),
        (vec![localhost.clone()], &literal),
        (vec![literal.clone()], &localhost),
        (vec!["127.0.0.1:1".to_owned()], &literal),
        (vec!["*".to_owned(), format!("0.0.0.0/0:{port}")], &literal),
        (vec!["*".to_owned()], &localhost),
    ] {
        let told = fetch(&world, &grants, authority).await;
        assert_eq!(told, DENIED, "{grants:?} {authority}");
    }
    let metrics = world.get(world.admin("/metrics")).await;
    let denied = "dunlin_egress_connections_total{way=\"http\",result=\"denied\"} 6";
    assert!(metrics.text().contains(denied), "{}", metrics.text());
    world.node.shutdown().await;
}

/// A guest of `guests/egress`.
fn guest(name: &str) -> Bytes {
    let file = format!("../../guests/out/egress/{name}.wasm");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let guest = std::fs::read(&file).expect("a guest; `./x guests` builds it");
    Bytes::from(guest)
}

async fn deploy_guest(world: &World, kind: &str, name: &str, grants: &[String]) {
    let settings = json!({ "allow": { "egress": grants } });
    let deployed = world.deploy_with("a/guest", kind, guest(name), settings);
    let deployed = deployed.await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_of_wasi_0_3_streams_what_it_fetches() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let address = server().await.to_string();
    let fetch = async |grants: &[String]| {
        deploy_guest(&world, "http", "http3", grants).await;
        world.get(world.data(&format!("/a/guest?{address}"))).await
    };
    let told = fetch(std::slice::from_ref(&address)).await;
    let trace = told.text().strip_prefix(&format!("{address} / "));
    let trace = trace.unwrap_or_else(|| panic!("{}", told.text()));
    let of_the_call = told.headers["traceparent"].to_str().expect("text");
    assert_eq!(
        of_the_call.get(3..35),
        Some(trace),
        "one trace leads through"
    );

    let denied = fetch(&[]).await;
    assert_eq!(denied.status, 500);
    let told = denied.text();
    assert!(told.contains("HttpRequestDenied"), "{told}");
    world.node.shutdown().await;
}

/// A server on the loopback that says to each what it hears first.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = [0; 5];
                stream.read_exact(&mut heard).await?;
                stream.write_all(&heard).await
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_connects_where_it_may_and_never_listens() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let port = echo().await.port();
    let try_all = async |grant: String, to: String| {
        let grants: Vec<_> = [grant]
            .into_iter()
            .filter(|grant| !grant.is_empty())
            .collect();
        deploy_guest(&world, "command", "sockets", &grants).await;
        let answer = world.call("/a/guest", to).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let could = answer
            .text()
            .lines()
            .filter_map(|line| line.strip_suffix(" yes"));
        could.collect::<Vec<_>>().join(" ")
    };
    let literal = format!("127.0.0.1:{port}");
    let name = format!("localhost:{port}");
    for (grant, to, could) in [
        (String::new(), &name, ""),
        (literal.clone(), &literal, "look-up connect send"),
        (name.clone(), &name, "look-up connect send"),
        ("127.0.0.0/8:1".to_owned(), &literal, "look-up"),
        ("*".to_owned(), &name, "look-up"),
    ] {
        assert_eq!(
            try_all(grant.clone(), to.clone()).await,
            could,
            "{grant} {to}"
        );
    }
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_names_no_host_is_refused_at_deploy() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let settings = json!({ "allow": { "egress": ["10.0.0.1"] } });
    let deployed = world
        .deploy_with("a/fetch", "command", wasm(FETCH), settings)
        .await;
    assert_eq!(deployed.status, 400, "{}", deployed.text());
    assert!(
        deployed.text().contains("add a port"),
        "{}",
        deployed.text()
    );
    world.node.shutdown().await;
}
