//! Blobs: whole or absent, and checked.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::TryStreamExt;
use model::Digest;
use storage::{Blobs, StorageError};

fn file(folder: &Path, digest: &Digest) -> PathBuf {
    folder
        .join("sha256")
        .join(&digest.hex()[..2])
        .join(digest.hex())
}

#[tokio::test]
async fn a_blob_is_stored_listed_and_deleted_by_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(&folder.path().join("new/blobs")).unwrap();
    let bytes = Bytes::from_static(b"wasm");
    let digest = Digest::of(&bytes);
    assert_eq!(blobs.get(&digest).await.unwrap(), None);
    assert_eq!(blobs.list().try_collect::<Vec<_>>().await.unwrap(), []);
    assert_eq!(blobs.put(bytes.clone()).await.unwrap(), digest);
    assert_eq!(blobs.put(bytes.clone()).await.unwrap(), digest, "again");
    assert!(blobs.contains(&digest).await.unwrap());
    assert_eq!(blobs.get(&digest).await.unwrap(), Some(bytes));
    let listed: Vec<_> = blobs.list().try_collect().await.unwrap();
    assert_eq!(
        listed
            .iter()
            .map(|b| (b.digest, b.bytes))
            .collect::<Vec<_>>(),
        [(digest, 4)]
    );
    blobs.delete(&digest).await.unwrap();
    blobs.delete(&digest).await.unwrap();
    assert!(!blobs.contains(&digest).await.unwrap());
}

#[tokio::test]
async fn a_damaged_blob_is_found_out_and_mended_by_the_next_put() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path()).unwrap();
    let digest = blobs.put(Bytes::from_static(b"wasm")).await.unwrap();
    std::fs::write(file(folder.path(), &digest), b"mask").unwrap();
    let read = blobs.get(&digest).await;
    assert!(
        matches!(read, Err(StorageError::BlobDamaged { .. })),
        "{read:?}"
    );
    blobs.put(Bytes::from_static(b"wasm")).await.unwrap();
    assert!(blobs.get(&digest).await.unwrap().is_some());
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path()).unwrap();
    let digest = blobs.put(Bytes::from_static(b"wasm")).await.unwrap();
    let staged = file(folder.path(), &digest)
        .with_extension("")
        .with_file_name("abc#1");
    std::fs::write(&staged, b"ha").unwrap();
    Blobs::open(folder.path()).unwrap();
    assert!(!staged.exists());
    assert!(blobs.contains(&digest).await.unwrap());
}
