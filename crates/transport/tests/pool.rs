//! The pool of peers, and servers that stop.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod fixture;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fixture::*;
use model::NodeId;
use parking_lot::Mutex;
use transport::{CallError, Close, Config, DialError, PeerError, Peers, Request, Resolve};

/// Where nodes are, as a test says.
#[derive(Default)]
struct Book {
    addresses: Mutex<HashMap<NodeId, SocketAddr>>,
    asked: AtomicUsize,
}

impl Book {
    fn put(&self, name: &str, address: SocketAddr) {
        self.addresses.lock().insert(node(name), address);
    }
}

#[async_trait]
impl Resolve for Book {
    async fn resolve(
        &self,
        node: &NodeId,
    ) -> Result<SocketAddr, Box<dyn std::error::Error + Send + Sync>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let address = self.addresses.lock().get(node).copied();
        address.ok_or_else(|| "no such node".into())
    }
}

fn pool(cluster: &Cluster, config: Config) -> (Arc<Book>, Peers) {
    let book = Arc::new(Book::default());
    let resolve: Arc<dyn Resolve> = book.clone();
    (book, Peers::new(config, cluster.security("a"), resolve))
}

#[tokio::test]
async fn many_who_need_a_node_share_one_attempt_and_one_connection() {
    let cluster = Cluster::new();
    let serving = cluster.serve("b", Config::default()).await;
    let (book, peers) = pool(&cluster, Config::default());
    book.put("b", serving.address);
    let b = node("b");
    let calls = (0..50).map(|_| peers.call(&b, Request::new(ECHO, "x")));
    for result in futures::future::join_all(calls).await {
        assert_eq!(result.unwrap().1, "x");
    }
    assert_eq!(book.asked.load(Ordering::Relaxed), 1);
    assert_eq!(peers.connections(), 1);
}

#[tokio::test]
async fn a_node_that_was_not_reached_is_left_alone_for_a_while() {
    let cluster = Cluster::new();
    let config = Config {
        backoff_min: Duration::from_secs(60),
        backoff_max: Duration::from_secs(60),
        ..Config::default()
    };
    let (book, peers) = pool(&cluster, config);
    let failure = |result: Result<_, PeerError>| match result {
        Err(PeerError::Dial { source, .. }) => source,
        other => panic!("{:?}", other.map(|_: transport::Connection| ())),
    };
    let first = failure(peers.connection(&node("b")).await);
    assert!(matches!(*first, DialError::Resolve { .. }));
    let second = failure(peers.connection(&node("b")).await);
    assert!(matches!(*second, DialError::BackingOff { .. }));
    assert!(chain(&*second).contains("no such node"));
    assert_eq!(book.asked.load(Ordering::Relaxed), 1);
    let other = failure(peers.connection(&node("c")).await);
    assert!(
        matches!(*other, DialError::Resolve { .. }),
        "another node has its own"
    );
}

#[tokio::test]
async fn a_node_that_comes_back_is_reached_again() {
    let cluster = Cluster::new();
    let config = Config {
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(5),
        ..Config::default()
    };
    let serving = cluster.serve("b", config.clone()).await;
    let (book, peers) = pool(&cluster, config.clone());
    book.put("b", serving.address);
    let b = node("b");
    peers.call(&b, Request::new(ECHO, "x")).await.unwrap();
    let connection = peers.connection(&b).await.unwrap();
    serving.task.abort();
    let close = connection.closed().await;
    assert!(!matches!(*close, Close::Drained), "{close:?}");
    let address = serving.address.to_string();
    let gone = peers.call(&b, Request::new(ECHO, "x")).await;
    assert!(matches!(gone, Err(PeerError::Dial { .. })));
    let _again = serve(config, cluster.security("b"), &address).await;
    let reply = loop {
        match peers.call(&b, Request::new(ECHO, "y")).await {
            Ok(reply) => break reply,
            Err(PeerError::Dial { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(reply.1, "y");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_dialled_again_when_needed() {
    let cluster = Cluster::new();
    let config = Config {
        idle_after: Duration::from_millis(30),
        ..Config::default()
    };
    let serving = cluster.serve("b", Config::default()).await;
    let (book, peers) = pool(&cluster, config);
    book.put("b", serving.address);
    let connection = peers.connection(&node("b")).await.unwrap();
    assert!(matches!(*connection.closed().await, Close::Drained));
    assert_eq!(peers.connections(), 0);
    let reply = peers
        .call(&node("b"), Request::new(ECHO, "x"))
        .await
        .unwrap();
    assert_eq!(reply.1, "x");
}

#[tokio::test]
async fn busy_connections_get_company_up_to_the_limit() {
    let cluster = Cluster::new();
    let config = Config {
        pool_busy_calls: 1,
        pool_connections_max: 2,
        ..Config::default()
    };
    let mut serving = cluster.serve("b", Config::default()).await;
    let (book, peers) = pool(&cluster, config);
    book.put("b", serving.address);
    let mut hanging = Vec::new();
    while peers.connections() < 2 {
        let connection = peers.connection(&node("b")).await.unwrap();
        hanging.push(connection.ask(Request::new(HANG, "")).await.unwrap());
        serving.hung.recv().await.unwrap();
    }
    for _ in 0..5 {
        let connection = peers.connection(&node("b")).await.unwrap();
        hanging.push(connection.ask(Request::new(HANG, "")).await.unwrap());
        serving.hung.recv().await.unwrap();
    }
    assert_eq!(peers.connections(), 2);
}

#[tokio::test]
async fn a_server_that_stops_finishes_what_it_began() {
    let (cluster, mut serving, connection) = pair(Config::default()).await;
    let (mut sender, answer) = connection.stream(Request::new(COUNT, "")).await.unwrap();
    sender.send(made_up(1000)).await.unwrap();
    let asked = connection.ask(Request::new(HANG, "")).await.unwrap();
    let stopped = serving.hung.recv().await.unwrap();
    serving.stop.notify_one();
    // The drain has arrived when the connection takes no more.
    while connection.is_open() {
        tokio::task::yield_now().await;
    }
    let refused = connection.call(Request::new(ECHO, "")).await;
    assert!(matches!(refused, Err(CallError::Draining)));
    sender.send(made_up(500)).await.unwrap();
    sender.finish().unwrap();
    let reply = answer.reply().await.unwrap();
    assert_eq!(reply.body.collect(8).await.unwrap(), number(1500));
    drop(asked);
    assert!(stopped.await.is_err());
    assert!(matches!(*connection.closed().await, Close::Drained));
    serving.task.await.unwrap();
    let gone = connect_again(&cluster, serving.address).await;
    assert!(matches!(gone, Err(DialError::Connect(_))));
}

async fn connect_again(cluster: &Cluster, address: SocketAddr) -> Result<(), DialError> {
    let (b, config) = (node("b"), Config::default());
    let result = transport::connect(address, &b, &config, &cluster.security("a")).await;
    result.map(|_| ())
}

#[tokio::test]
async fn a_pool_that_is_drained_takes_no_more() {
    let cluster = Cluster::new();
    let serving = cluster.serve("b", Config::default()).await;
    let (book, peers) = pool(&cluster, Config::default());
    book.put("b", serving.address);
    let b = node("b");
    let connection = peers.connection(&b).await.unwrap();
    peers.drain().await;
    assert!(matches!(*connection.closed().await, Close::Drained));
    let Err(PeerError::Dial { source, .. }) = peers.call(&b, Request::new(ECHO, "")).await else {
        panic!("a drained pool dialled");
    };
    assert!(matches!(*source, DialError::Closed));
}
