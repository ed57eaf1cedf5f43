//! `kill -9` under load: what was acknowledged is there afterwards.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use storage::{Config, Range, RedbStore, Store, Txn};

const FOLDER: &str = "STORAGE_CRASH_TEST_FOLDER";

/// Writes keys without end, many at once, and prints each that was acknowledged.
async fn write_until_killed(path: PathBuf) {
    let store = RedbStore::open(&path, Config::default()).unwrap();
    let writers = (0..16).map(|writer| {
        let store = store.clone();
        async move {
            for n in 0u64.. {
                let key = format!("{writer}-{n}");
                let put = store
                    .transact(Txn::new().put(key.clone(), vec![7; 3000]))
                    .await;
                assert!(put.unwrap().is_committed());
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {key}").unwrap();
                out.flush().unwrap();
            }
        }
    });
    futures::future::join_all(writers).await;
}

/// Runs this test again as a child that writes; kills it after `enough` acknowledgements.
fn acknowledged_before_a_kill(path: &std::path::Path, enough: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "what_was_acknowledged_survives_a_kill",
            "--nocapture",
        ])
        .env(FOLDER, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let key = |line: String| line.split_once("ack ").map(|(_, key)| key.to_owned());
    let mut keys: Vec<_> = lines
        .by_ref()
        .map_while(Result::ok)
        .filter_map(key)
        .take(enough)
        .collect();
    child.kill().unwrap();
    // What it had said before it died counts too; its last line may be cut short, and a key that
    // is cut short was never written.
    let rest: Vec<_> = lines.map_while(Result::ok).filter_map(key).collect();
    keys.extend(rest.into_iter().rev().skip(1));
    child.wait().unwrap();
    keys
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(path) = std::env::var_os(FOLDER) {
        return runtime.block_on(write_until_killed(path.into()));
    }
    for enough in [1, 40, 400] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let keys = acknowledged_before_a_kill(&path, enough);
        assert!(keys.len() >= enough);
        let store = RedbStore::open(&path, Config::default()).unwrap();
        runtime.block_on(async {
            for key in &keys {
                assert!(store.get(key.as_bytes()).await.unwrap().is_some(), "{key}");
            }
            let page = store.range(Range::prefix("")).await.unwrap();
            assert_eq!(
                page.revision.0,
                page.entries.len() as u64,
                "no transaction is half there"
            );
        });
    }
}
