//! Certificates as files: made, renewed while a node runs, and refused.

use std::os::unix::fs::PermissionsExt as _;

use async_trait::async_trait;
use transport::{Config, Handler, Incoming, Security, Server, connect};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

#[test]
fn keys_are_nobody_elses_and_an_authority_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("deep/down");
    init_cluster(&folder).unwrap();
    let (file, end) = issue_certificate(&folder, &node("n1"), DAY).unwrap();
    assert!(end > SystemTime::now());
    for secret in [file, folder.join("ca.key")] {
        let mode = std::fs::metadata(&secret).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", secret.display());
    }
    assert!(matches!(init_cluster(&folder), Err(Error::IsThere(_))));
    assert!(identity(&folder, &node("n1")).is_ok());
}

#[test]
fn what_is_missing_or_of_another_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let missing = identity(folder, &node("n1")).err();
    assert!(
        matches!(missing, Some(Error::NoAuthority(_))),
        "{missing:?}"
    );
    init_cluster(folder).unwrap();
    let missing = identity(folder, &node("n1")).err();
    assert!(matches!(missing, Some(Error::NoCertificate { .. })));
    issue_certificate(folder, &node("n2"), DAY).unwrap();
    std::fs::copy(folder.join("n2.pem"), folder.join("n1.pem")).unwrap();
    let anothers = identity(folder, &node("n1")).err();
    assert!(matches!(anothers, Some(Error::Unusable { .. })));
    std::fs::remove_file(folder.join("ca.key")).unwrap();
    let no_key = issue_certificate(folder, &node("n1"), DAY).err();
    assert!(matches!(no_key, Some(Error::NoKey(_))));
}

struct Nobody;

#[async_trait]
impl Handler for Nobody {
    async fn handle(&self, _call: Incoming) {}
}

#[tokio::test]
async fn a_newer_certificate_is_taken_while_the_node_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    for folder in [&old, &new] {
        init_cluster(folder).unwrap();
        issue_certificate(folder, &node("n1"), DAY).unwrap();
        issue_certificate(folder, &node("n2"), DAY).unwrap();
    }
    let server = Arc::new(identity(&old, &node("n1")).unwrap());
    let security = Security::Mutual(server.clone());
    let local = "127.0.0.1:0".parse().unwrap();
    let config = Config::default();
    let server_of = Server::bind(local, config.clone(), security, Arc::new(Nobody));
    let listener = server_of.await.unwrap();
    let address = listener.address().unwrap();
    let stop = CancellationToken::new();
    let every = Duration::from_millis(5);
    let fresh = tokio::spawn(keep_fresh(server, old.clone(), every, stop.clone()));
    let runs = tokio::spawn(listener.run(stop.clone().cancelled_owned()));
    let client = Security::Mutual(Arc::new(identity(&new, &node("n2")).unwrap()));
    let dial = async || connect(address, &node("n1"), &config, &client).await;
    assert!(dial().await.is_err(), "they trust different authorities");
    // What is half replaced is not taken.
    std::fs::copy(new.join("n1.pem"), old.join("n1.pem")).unwrap();
    std::fs::copy(new.join("ca.pem"), old.join("ca.pem")).unwrap();
    while dial().await.is_err() {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    fresh.await.unwrap();
    runs.await.unwrap();
}
