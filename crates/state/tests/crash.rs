//! `kill -9` under load: every acknowledged change of a durable value is there afterwards, and none
//! is half there.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use state::{AppState, CHUNK_BYTES, Config, Durability, EmbeddedGlobal, Open, State};
use storage::{RedbStore, Store};

const FOLDER: &str = "STATE_CRASH_TEST_FOLDER";
/// Values that are changed beside each other: small ones, and some larger than a transaction.
const VALUES: usize = 6;

async fn open(path: &Path) -> (Arc<dyn Store>, AppState) {
    let store: Arc<dyn Store> =
        Arc::new(RedbStore::open(path, storage::Config::default()).unwrap());
    let global = EmbeddedGlobal::open(store.clone()).await.unwrap();
    let state = State::new(Arc::new(global), Config::default());
    (store, state.app(&"shop".parse().unwrap()))
}

fn length(value: usize) -> usize {
    match value % 3 {
        0 => 100,
        1 => 5 * CHUNK_BYTES,
        _ => 30 * CHUNK_BYTES + 7,
    }
}

/// Changes one value without end, each time all of it to the next number, by turns in the two ways
/// of making changes durable; prints each number that was acknowledged.
async fn change(app: AppState, number: usize) {
    let create = Some(Durability::Durable);
    let key = format!("value-{number}").parse().unwrap();
    let value = app.value(&key, Open { create }).await.unwrap();
    for round in 1u64.. {
        let words = round.to_le_bytes().repeat(length(number).div_ceil(8));
        let data = &words[..length(number)];
        if round % 2 == 0 {
            value.set(data).await.unwrap();
        } else {
            value.write(0, data).await.unwrap();
            value.push(0, u64::MAX).await.unwrap();
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "ack {number} {round}").unwrap();
        out.flush().unwrap();
    }
}

async fn change_until_killed(path: PathBuf) {
    let (_store, app) = open(&path).await;
    let changes = (0..VALUES).map(|number| change(app.clone(), number));
    futures::future::join_all(changes).await;
}

/// Runs this test again as a child, and kills it after `enough` acknowledgements; the last of each
/// value.
fn acknowledged_before_a_kill(path: &Path, enough: usize) -> HashMap<usize, u64> {
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
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ack = |line: String| {
        let (number, round) = line.split_once("ack ")?.1.split_once(' ')?;
        Some((number.parse::<usize>().ok()?, round.parse::<u64>().ok()?))
    };
    let mut last = HashMap::new();
    let mut seen = 0;
    // A line that the kill cuts short has a smaller number, or none.
    for (number, round) in lines.map_while(Result::ok).filter_map(ack) {
        let latest: &mut u64 = last.entry(number).or_default();
        *latest = round.max(*latest);
        seen += 1;
        if seen == enough {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(seen >= enough, "the child ended by itself");
    last
}

async fn check(path: &Path, acknowledged: &HashMap<usize, u64>) {
    let (store, app) = open(path).await;
    for (number, least) in acknowledged {
        let key = format!("value-{number}").parse().unwrap();
        let value = app.value(&key, Open::default()).await.unwrap();
        let (bytes, _) = value.get(1 << 30).await.unwrap();
        assert_eq!(bytes.len(), length(*number));
        let mut round = [0; 8];
        round.copy_from_slice(&bytes[..8]);
        assert!(
            u64::from_le_bytes(round) >= *least,
            "value {number} lost a change"
        );
        let whole = bytes.chunks(8).all(|word| *word == round[..word.len()]);
        assert!(whole, "value {number} is half changed");
    }
    let chunks: usize = (0..VALUES).map(|n| length(n).div_ceil(CHUNK_BYTES)).sum();
    let mut stored = 0;
    let mut next = Some(storage::Range::prefix("state/1/c/"));
    while let Some(range) = next {
        let page = store.range(range.clone()).await.unwrap();
        stored += page.entries.len();
        next = range.rest(&page);
    }
    assert!(stored <= chunks, "{stored} chunks are stored for {chunks}");
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(path) = std::env::var_os(FOLDER) {
        return runtime.block_on(change_until_killed(path.into()));
    }
    for enough in [1, 15, 60] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let acknowledged = acknowledged_before_a_kill(&path, enough);
        runtime.block_on(check(&path, &acknowledged));
    }
}
