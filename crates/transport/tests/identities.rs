//! Who may talk to whom, and how long.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod fixture;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fixture::*;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use transport::{
    Authority, Close, Config, DialError, GoAway, Identity, IdentityError, NodeCertificate, Request,
    Security,
};

/// A clock that a test sets.
#[derive(Debug)]
struct Clock(AtomicU64);

impl Clock {
    fn new() -> Arc<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Arc::new(Self(AtomicU64::new(now.as_secs())))
    }

    fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_secs(), Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.0.load(Ordering::Relaxed);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[tokio::test]
async fn another_node_than_the_one_dialled_is_refused() {
    let (cluster, serving, _connection) = pair(Config::default()).await;
    let security = cluster.security("a");
    let result = dial(&serving, "c", &Config::default(), &security).await;
    let error = result.map(|_| ()).unwrap_err();
    assert!(matches!(error, DialError::Connect(_)));
    assert!(
        chain(&error).contains("not valid for name"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn nodes_of_another_cluster_are_refused_in_both_directions() {
    let (cluster, serving, connection) = pair(Config::default()).await;
    let config = Config::default();
    let stranger = Cluster::new();
    let result = dial(&serving, "b", &config, &stranger.security("a")).await;
    assert!(
        matches!(result, Err(DialError::Connect(_))),
        "its server is not trusted"
    );

    // Trusts this cluster, and shows a certificate of the other.
    let issued = stranger
        .authority
        .issue(&node("a"), SystemTime::now(), DAY)
        .unwrap();
    let trusted = [
        cluster.authority.certificate().clone(),
        stranger.authority.certificate().clone(),
    ];
    let mixed = Identity::new(node("a"), &issued, &trusted).unwrap();
    let result = dial(&serving, "b", &config, &Security::Mutual(Arc::new(mixed))).await;
    assert!(
        matches!(result, Err(DialError::Connect(_))),
        "it is not trusted as a client"
    );
    assert_eq!(
        connection.call(Request::new(ECHO, "x")).await.unwrap().1,
        "x"
    );
}

#[tokio::test]
async fn who_shows_no_certificate_is_not_heard() {
    let (_cluster, serving, _connection) = pair(Config::default()).await;
    let address = serving.address;
    let answer = tokio::task::spawn_blocking(move || {
        let mut tcp = std::net::TcpStream::connect(address).unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer);
        answer
    });
    let answer = answer.await.unwrap();
    // A TLS alert at most.
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
}

#[test]
fn certificates_that_peers_would_refuse_are_refused_at_once() {
    let cluster = Cluster::new();
    let trusted = [cluster.authority.certificate().clone()];
    let now = SystemTime::now();
    let refused = |certificate: &NodeCertificate, name: &str| {
        let result = Identity::new(node(name), certificate, &trusted);
        chain(&result.map(|_| ()).unwrap_err())
    };
    let old = cluster
        .authority
        .issue(&node("a"), now - 2 * DAY, DAY)
        .unwrap();
    assert!(
        refused(&old, "a").contains("expired"),
        "{}",
        refused(&old, "a")
    );
    let early = cluster.authority.issue(&node("a"), now + DAY, DAY).unwrap();
    assert!(
        refused(&early, "a").contains("not valid yet"),
        "{}",
        refused(&early, "a")
    );
    let other = cluster.authority.issue(&node("b"), now, DAY).unwrap();
    assert!(
        refused(&other, "a").contains("NotValidForName"),
        "{}",
        refused(&other, "a")
    );
    let stranger = Cluster::new()
        .authority
        .issue(&node("a"), now, DAY)
        .unwrap();
    assert!(
        refused(&stranger, "a").contains("invalid"),
        "{}",
        refused(&stranger, "a")
    );
    let mixed = NodeCertificate::from_pem(old.chain_pem(), other.key_pem(), old.not_after());
    assert!(matches!(
        Identity::new(node("a"), &mixed.unwrap(), &trusted),
        Err(IdentityError::Use(_))
    ));
    let none = Identity::new(node("b"), &other, &[]);
    assert!(matches!(none, Err(IdentityError::NoAuthority)));
}

#[tokio::test]
async fn an_authority_from_its_files_issues_what_the_cluster_trusts() {
    let (cluster, serving, _connection) = pair(Config::default()).await;
    let made = &cluster.authority;
    let read = Authority::from_pem(made.certificate_pem(), &made.key_pem()).unwrap();
    let issued = read.issue(&node("c"), SystemTime::now(), DAY).unwrap();
    let not_after = issued.not_after();
    let issued = NodeCertificate::from_pem(issued.chain_pem(), issued.key_pem(), not_after);
    let trusted = [read.certificate().clone()];
    let identity = Identity::new(node("c"), &issued.unwrap(), &trusted).unwrap();
    let security = Security::Mutual(Arc::new(identity));
    let connection = dial(&serving, "b", &Config::default(), &security)
        .await
        .unwrap();
    assert_eq!(
        connection.call(Request::new(ECHO, "x")).await.unwrap().1,
        "x"
    );
}

#[tokio::test]
async fn a_new_certificate_is_used_from_the_next_handshake_and_the_old_one_to_its_end() {
    let cluster = Cluster::new();
    let clock = Clock::new();
    let config = Config {
        // How often certificates are looked at.
        ping_after: Duration::from_millis(20),
        ..Config::default()
    };
    let trusted = [cluster.authority.certificate().clone()];
    let identity = |name: &str, lifetime| {
        let issued = cluster
            .authority
            .issue(&node(name), SystemTime::now(), lifetime)
            .unwrap();
        let clock: Arc<dyn TimeProvider> = clock.clone();
        Arc::new(Identity::with_clock(node(name), &issued, &trusted, clock).unwrap())
    };
    let (a, b) = (identity("a", DAY), identity("b", 10 * DAY));
    let serving = serve(config.clone(), Security::Mutual(b), "127.0.0.1:0").await;
    let security = Security::Mutual(Arc::clone(&a));
    let old = dial(&serving, "b", &config, &security).await.unwrap();

    let next = cluster
        .authority
        .issue(&node("a"), SystemTime::now(), 5 * DAY)
        .unwrap();
    a.replace(&next, &trusted).unwrap();
    let new = dial(&serving, "b", &config, &security).await.unwrap();
    for connection in [&old, &new] {
        assert_eq!(
            connection.call(Request::new(ECHO, "x")).await.unwrap().1,
            "x"
        );
    }
    clock.pass(2 * DAY);
    let close = old.closed().await;
    assert!(matches!(*close, Close::Drained), "{close:?}");
    assert_eq!(new.call(Request::new(ECHO, "y")).await.unwrap().1, "y");

    // The old certificate, once more, is refused by this node and would be by the other.
    let expired = cluster
        .authority
        .issue(&node("a"), SystemTime::now(), DAY)
        .unwrap();
    assert!(matches!(
        a.replace(&expired, &trusted),
        Err(IdentityError::NotOurs { .. })
    ));
    assert_eq!(new.call(Request::new(ECHO, "z")).await.unwrap().1, "z");
}

#[tokio::test]
async fn a_node_with_certificates_and_one_without_tls_do_not_talk() {
    let (cluster, config) = (Cluster::new(), Config::default());
    let plain = |name| Security::DangerousPlaintext(node(name));
    let with = cluster.serve("b", config.clone()).await;
    assert!(dial(&with, "b", &config, &plain("a")).await.is_err());
    let without = serve(config.clone(), plain("b"), "127.0.0.1:0").await;
    let security = cluster.security("a");
    assert!(dial(&without, "b", &config, &security).await.is_err());
    // Each of them talks to its like.
    dial(&with, "b", &config, &security).await.unwrap();
    dial(&without, "b", &config, &plain("a")).await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_does_not_get_in() {
    let cluster = Cluster::new();
    let config = Config::default();
    let trusted = [cluster.authority.certificate().clone()];
    // The acceptor's clock is ahead, so that the dialler believes in its own certificate.
    let ahead = Clock::new();
    let issued = cluster
        .authority
        .issue(&node("b"), SystemTime::now(), 9 * DAY)
        .unwrap();
    let b = Identity::with_clock(node("b"), &issued, &trusted, ahead.clone()).unwrap();
    let security = Security::Mutual(Arc::new(b));
    let serving = serve(config.clone(), security, "127.0.0.1:0").await;
    let a = cluster.security("a");
    let valid = dial(&serving, "b", &config, &a).await.unwrap();
    assert_eq!(valid.call(Request::new(ECHO, "x")).await.unwrap().1, "x");
    ahead.pass(2 * DAY);
    let error = dial(&serving, "b", &config, &a)
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(
        chain(&error).contains("CertificateExpired"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn an_authority_that_is_no_longer_trusted_ends_its_connections() {
    let (old, new) = (Cluster::new(), Cluster::new());
    let config = Config {
        ping_after: Duration::from_millis(20),
        ..Config::default()
    };
    let b = old.identity("b");
    let serving = serve(
        config.clone(),
        Security::Mutual(Arc::clone(&b)),
        "127.0.0.1:0",
    )
    .await;
    let connection = dial(&serving, "b", &config, &old.security("a"))
        .await
        .unwrap();
    assert_eq!(
        connection.call(Request::new(ECHO, "x")).await.unwrap().1,
        "x"
    );
    let issued = new
        .authority
        .issue(&node("b"), SystemTime::now(), DAY)
        .unwrap();
    b.replace(&issued, &[new.authority.certificate().clone()])
        .unwrap();
    let close = connection.closed().await;
    assert!(matches!(*close, Close::Drained), "{close:?}");
    let result = dial(&serving, "b", &config, &old.security("a")).await;
    assert!(matches!(result, Err(DialError::Connect(_))));
    let connection = dial(&serving, "b", &config, &new.security("a"))
        .await
        .unwrap();
    assert_eq!(
        connection.call(Request::new(ECHO, "y")).await.unwrap().1,
        "y"
    );
}

#[tokio::test]
async fn a_node_has_no_more_connections_than_its_share() {
    let config = Config {
        connections_per_peer_max: 2,
        ..Config::default()
    };
    let (cluster, serving, first) = pair(config.clone()).await;
    let (a, c) = (cluster.security("a"), cluster.security("c"));
    let _second = dial(&serving, "b", &config, &a).await.unwrap();
    let third = dial(&serving, "b", &config, &a).await.map(|_| ());
    assert!(
        matches!(third, Err(DialError::Refused(GoAway::Busy))),
        "{third:?}"
    );
    dial(&serving, "b", &config, &c).await.unwrap();
    first.drain();
    first.closed().await;
    // The seat is free once the other side has seen the end too.
    while let Err(error) = dial(&serving, "b", &config, &a).await {
        assert!(
            matches!(error, DialError::Refused(GoAway::Busy)),
            "{error:?}"
        );
    }
}
