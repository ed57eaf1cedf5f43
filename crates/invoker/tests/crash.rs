//! `kill -9` under a burst: every accepted id reaches exactly one outcome after a restart.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod node;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use invoker::{Attempt, Config, InvocationState, Ran};
use model::{InvocationId, Status};
use node::{Node, Scripted, ended, ok, quick, submission};
use storage::{Range, WatchItem};

const FOLDER: &str = "INVOKER_CRASH_TEST_FOLDER";

fn config() -> Config {
    Config {
        ready_max: 16,
        running_max: 8,
        ..quick()
    }
}

/// Every third request fails, always; every fifth fails the first time.
async fn work(attempt: Attempt) -> Ran {
    let n: u64 = std::str::from_utf8(&attempt.request.body[..8])
        .unwrap()
        .parse()
        .unwrap();
    match (n % 3, n % 5) {
        (0, _) => ended(Status::Exit { code: 1 }, "no"),
        (_, 0) if attempt.number == 1 => ended(Status::OutOfMemory, ""),
        _ => ok(attempt.request.body),
    }
}

/// A request whose body begins with its number; every seventh is large enough to be a blob.
fn body(n: u64) -> String {
    let length = if n.is_multiple_of(7) { 5_000 } else { 8 };
    format!("{n:08}{}", "x".repeat(length - 8))
}

/// Submits without end, many at once, and prints each id that was accepted.
async fn submit_until_killed(folder: &Path) {
    let node = Node::start(folder, config(), Scripted(work)).await;
    let clients = (0..16u64).map(|client| {
        let invoker = node.invoker.clone();
        async move {
            for n in 0u64.. {
                let receipt = invoker
                    .submit(submission(body(n * 16 + client)))
                    .await
                    .unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "id {}", receipt.id).unwrap();
                out.flush().unwrap();
            }
        }
    });
    futures::future::join_all(clients).await;
}

/// Runs this test again as a child that submits; kills it after `enough` ids.
fn accepted_before_a_kill(folder: &Path, enough: usize) -> Vec<InvocationId> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "what_was_accepted_reaches_one_outcome_after_a_kill",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let id = |line: String| line.split_once("id ").and_then(|(_, id)| id.parse().ok());
    let mut ids: Vec<_> = lines
        .by_ref()
        .map_while(Result::ok)
        .filter_map(id)
        .take(enough)
        .collect();
    child.kill().unwrap();
    // What it had said before it died counts too; a line that is cut short is no id.
    ids.extend(lines.map_while(Result::ok).filter_map(id));
    child.wait().unwrap();
    ids
}

#[test]
fn what_was_accepted_reaches_one_outcome_after_a_kill() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(folder) = std::env::var_os(FOLDER) {
        return runtime.block_on(submit_until_killed(Path::new(&folder)));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut ids = BTreeSet::new();
    for enough in [20, 200] {
        let accepted = accepted_before_a_kill(folder.path(), enough);
        assert!(accepted.len() >= enough);
        ids.extend(accepted);
    }
    runtime.block_on(every_one_ends_once(folder.path(), ids));
}

async fn every_one_ends_once(folder: &Path, ids: BTreeSet<InvocationId>) {
    let mut node = Node::open(folder, config()).await;
    let finals = tokio::spawn(finals(node.store.watch(b"inv/s/", None).await.unwrap()));
    node.run(Scripted(work));
    for id in &ids {
        let state = node.wait(*id).await.state;
        assert!(
            matches!(state, InvocationState::Succeeded | InvocationState::Dead),
            "{state}"
        );
    }
    // What was accepted but not said to be ends too.
    let mut next = Some(Range::prefix("inv/s/"));
    let mut total = 0;
    while let Some(range) = next {
        let page = node.store.range(range.clone()).await.unwrap();
        for entry in &page.entries {
            let id = std::str::from_utf8(&entry.key[6..])
                .unwrap()
                .parse()
                .unwrap();
            node.wait(id).await;
            total += 1;
        }
        next = range.rest(&page);
    }
    assert!(total >= ids.len());
    for index in ["inv/due/", "inv/run/"] {
        let left = node.store.range(Range::prefix(index)).await.unwrap();
        assert!(left.entries.is_empty(), "{index} is empty");
    }
    node.stop().await;
    assert!(finals.await.unwrap() > 0);
}

/// Counts the invocations that end while the store is open; none ends twice.
async fn finals(mut records: storage::Watch) -> usize {
    let mut ended = BTreeSet::new();
    while let Some(item) = records.next().await {
        let WatchItem::Event(event) = item else {
            panic!("the watch missed something");
        };
        let storage::Change::Put(record) = event.change else {
            continue;
        };
        if !String::from_utf8_lossy(&record).contains(r#""expires_ms":null"#) {
            assert!(
                ended.insert(event.key.clone()),
                "{:?} ended twice",
                event.key
            );
        }
    }
    ended.len()
}
