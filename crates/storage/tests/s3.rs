//! Blobs in a bucket of a real S3 server.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use model::Digest;
use storage::{Blobs, S3Config, S3Keys, StorageError, conformance};
use testkit::S3Server;

fn config() -> S3Config {
    S3Config {
        keys: Some(S3Keys {
            access_key_id: S3Server::ACCESS_KEY_ID.to_owned(),
            secret_access_key: S3Server::SECRET_ACCESS_KEY.to_owned(),
        }),
        ..S3Config::default()
    }
}

/// One that gives up at the first failure.
fn impatient() -> S3Config {
    S3Config {
        retry_timeout: Duration::ZERO,
        ..config()
    }
}

fn object(prefix: &str, digest: &Digest) -> String {
    format!("{prefix}/sha256/{}/{}", &digest.hex()[..2], digest.hex())
}

#[tokio::test]
async fn a_bucket_conforms() {
    let server = S3Server::start();
    let blobs = Blobs::open_s3(&server.address("a/b"), &config())
        .await
        .unwrap();
    let spoil = |digest: &Digest, bytes: &[u8]| {
        std::fs::write(server.file(&object("a/b", digest)), bytes).unwrap();
    };
    conformance::blobs::all(&blobs, &spoil).await;
    let digest = blobs.put(Bytes::from_static(b"a")).await.unwrap();
    let beside = Blobs::open_s3(&server.address("a"), &config())
        .await
        .unwrap();
    assert!(
        !beside.contains(&digest).await.unwrap(),
        "prefixes are apart"
    );
    let whole = Blobs::open_s3(&server.address(""), &config())
        .await
        .unwrap();
    assert_eq!(whole.list().try_collect::<Vec<_>>().await.unwrap(), []);
    let digest = whole.put(Bytes::from_static(b"w")).await.unwrap();
    assert!(server.file(&object(".", &digest)).is_file());
    assert_eq!(whole.file(&digest), None, "it is not on this machine");
}

#[tokio::test]
async fn opening_says_what_is_wrong() {
    let mut server = S3Server::start();
    let address = server.address("");
    let check = async |address: &str, config: S3Config, part: &str| {
        let failed = Blobs::open_s3(address, &config).await;
        let text = format!("{:?}", failed.unwrap_err());
        assert!(text.contains(part), "{address}: {text}");
    };
    let elsewhere = address.replace("s3://bucket", "s3://bucked");
    check(&elsewhere, config(), "NoSuchBucket").await;
    check(&elsewhere, config(), "Refused").await;
    let mut stranger = config();
    let keys = stranger.keys.as_mut().unwrap();
    keys.secret_access_key.push('x');
    check(&address, stranger, "Refused").await;
    check("s3://bucket?endpoint=nowhere", config(), "Address").await;
    server.kill();
    check(&address, impatient(), "Unanswered").await;
}

#[tokio::test]
async fn a_server_that_starts_anew_is_waited_for_and_has_lost_nothing() {
    let mut server = S3Server::start();
    let patient = S3Config {
        retry_timeout: Duration::from_secs(60),
        ..config()
    };
    let blobs = Blobs::open_s3(&server.address(""), &patient).await.unwrap();
    let hasty = Blobs::open_s3(&server.address(""), &impatient())
        .await
        .unwrap();
    let before = blobs.put(Bytes::from_static(b"before")).await.unwrap();
    server.kill();
    let failed = hasty.get(&before).await;
    assert!(
        matches!(failed, Err(StorageError::Unanswered { .. })),
        "{failed:?}"
    );
    let large = Bytes::from(vec![1; 20 << 20]);
    let put = tokio::spawn({
        let (blobs, large) = (blobs.clone(), large.clone());
        async move { blobs.put(large).await }
    });
    let failed = hasty.put(Bytes::from_static(b"x")).await;
    assert!(
        matches!(failed, Err(StorageError::Unanswered { .. })),
        "{failed:?}"
    );
    server.restart();
    let digest = put.await.unwrap().unwrap();
    assert!(blobs.get(&digest).await.unwrap() == Some(large));
    assert_eq!(hasty.get(&before).await.unwrap().unwrap(), "before");
}

/// Tells this test, when it runs again as a child, where the bucket is.
const ADDRESS: &str = "STORAGE_S3_TEST_ADDRESS";

#[tokio::test]
async fn the_environment_says_who_asks() {
    if let Ok(address) = std::env::var(ADDRESS) {
        let blobs = Blobs::open_s3(&address, &S3Config::default())
            .await
            .unwrap();
        blobs.put(Bytes::from_static(b"child")).await.unwrap();
        return;
    }
    let server = S3Server::start();
    let child = |secret: &str| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "the_environment_says_who_asks"]);
        child.env(ADDRESS, server.address(""));
        child.env("AWS_ACCESS_KEY_ID", S3Server::ACCESS_KEY_ID);
        child.env("AWS_SECRET_ACCESS_KEY", secret);
        child.output().unwrap().status.success()
    };
    assert!(child(S3Server::SECRET_ACCESS_KEY));
    assert!(!child("wrong"));
    let blobs = Blobs::open_s3(&server.address(""), &config())
        .await
        .unwrap();
    assert!(blobs.contains(&Digest::of(b"child")).await.unwrap());
}
