//! Blobs in a folder: the suite, and what a crash leaves.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::Digest;
use storage::{Blobs, conformance};

fn file(folder: &Path, digest: &Digest) -> PathBuf {
    folder
        .join("sha256")
        .join(&digest.hex()[..2])
        .join(digest.hex())
}

#[tokio::test]
async fn a_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(&folder.path().join("new/blobs")).unwrap();
    let path = |digest: &Digest| file(&folder.path().join("new/blobs"), digest);
    let spoil = |digest: &Digest, bytes: &[u8]| std::fs::write(path(digest), bytes).unwrap();
    conformance::blobs::all(&blobs, &spoil).await;
    let digest = blobs.put(Bytes::from_static(b"wasm")).await.unwrap();
    assert_eq!(blobs.file(&digest), Some(path(&digest)));
}

#[tokio::test]
async fn memory_conforms_where_nobody_can_spoil_it() {
    use conformance::blobs::{
        a_blob_is_stored_listed_and_deleted_by_its_digest, a_large_blob_comes_back_whole,
        an_empty_blob_is_a_blob, many_that_put_the_same_blob_agree,
    };
    let blobs = Blobs::in_memory();
    a_blob_is_stored_listed_and_deleted_by_its_digest(&blobs).await;
    an_empty_blob_is_a_blob(&blobs).await;
    a_large_blob_comes_back_whole(&blobs).await;
    many_that_put_the_same_blob_agree(&blobs).await;
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
