//! A real full disk: a small tmpfs in a mount namespace of the test's own.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use futures::TryStreamExt;
use storage::{Blobs, Config, RedbStore, Store, Txn};

const MOUNTED: &str = "STORAGE_FULL_DISK_TEST_FOLDER";

/// Runs this test again as a child whose `folder` is a tmpfs of 4 MiB; none when this user may
/// not make one here.
fn run_on_a_small_disk(test: &str, folder: &Path) -> Option<bool> {
    let unshare = |script: &str| {
        Command::new("unshare")
            .args(["-rm", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(MOUNTED, folder)
            .status()
    };
    const MOUNT: &str = "mount -t tmpfs -o size=4m none \"$STORAGE_FULL_DISK_TEST_FOLDER\"";
    if !unshare(MOUNT).is_ok_and(|status| status.success()) {
        return None;
    }
    let run = unshare(&format!("{MOUNT} && exec \"$0\" \"$@\""));
    Some(run.is_ok_and(|status| status.success()))
}

async fn fill_and_free(folder: PathBuf) {
    let store = RedbStore::open(&folder.join("store"), Config::default()).unwrap();
    let blobs = Blobs::open(&folder.join("blobs")).unwrap();
    assert!(
        store
            .transact(Txn::new().put("first", "x"))
            .await
            .unwrap()
            .is_committed()
    );
    let mut stored = Vec::new();
    let full = loop {
        let bytes = Bytes::from(vec![stored.len() as u8; 300 << 10]);
        match blobs.put(bytes).await {
            Ok(digest) => stored.push(digest),
            Err(error) => break error,
        }
    };
    assert!(full.is_full(), "{full:?}");
    let listed: Vec<_> = blobs.list().try_collect().await.unwrap();
    assert_eq!(listed.len(), stored.len(), "nothing partial is listed");
    let ballast = std::fs::write(folder.join("ballast"), vec![0; 4 << 20]);
    assert!(ballast.is_err(), "the last bytes are taken");

    let mut put = 0;
    let full = loop {
        let outcome = store
            .transact(Txn::new().put(format!("{put}"), vec![1; 100 << 10]))
            .await;
        match outcome {
            Ok(outcome) => assert!(outcome.is_committed()),
            Err(error) => break error,
        }
        put += 1;
    };
    assert!(full.is_full(), "{full:?}");
    assert!(store.get(b"first").await.unwrap().is_some());

    std::fs::remove_file(folder.join("ballast")).unwrap();
    blobs.delete(&stored[0]).await.unwrap();
    blobs.delete(&stored[1]).await.unwrap();
    assert!(
        store
            .transact(Txn::new().put("last", "x"))
            .await
            .unwrap()
            .is_committed()
    );
    assert!(blobs.put(Bytes::from_static(b"small")).await.is_ok());
}

#[test]
fn a_full_disk_is_said_to_be_full_and_work_goes_on_once_there_is_space() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(folder) = std::env::var_os(MOUNTED) {
        return runtime.block_on(fill_and_free(folder.into()));
    }
    let folder = tempfile::tempdir().unwrap();
    let test = "a_full_disk_is_said_to_be_full_and_work_goes_on_once_there_is_space";
    match run_on_a_small_disk(test, folder.path()) {
        Some(passed) => assert!(passed, "see the child's panic above"),
        None => println!("no tmpfs may be mounted here: only the injected fault was tested"),
    }
}
