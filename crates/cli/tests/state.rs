//! State of an app through the command line alone.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use support::{Node, finish};

fn version(node: &Node, words: &[&str]) -> String {
    let words = [&["state", "put", "e2e"], words, &["--output", "json"]].concat();
    node.dunlin(&words).json()["version"].to_string()
}

#[test]
fn values_are_put_listed_read_and_removed() {
    let node = Node::start();
    let said = node
        .dunlin(&["state", "put", "e2e", "cart/1", "hello"])
        .ok();
    assert!(
        said.text().starts_with("cart/1 has 5 B as version "),
        "{}",
        said.text()
    );
    let read = node.dunlin(&["state", "get", "e2e", "cart/1"]).ok();
    assert_eq!(read.text(), "hello");
    for (range, part) in [("1-3", "ell"), ("3-", "lo"), ("-2", "lo")] {
        let read = node.dunlin(&["state", "get", "e2e", "cart/1", "--range", range]);
        assert_eq!(read.ok().text(), part, "{range}");
    }
    version(&node, &["cart/2", "x", "--ttl", "1h", "--durable"]);
    version(&node, &["grüße 🦆", "-dash"]);
    let listed = node
        .dunlin(&["state", "ls", "e2e", "cart/", "--output", "json"])
        .json();
    let values = listed["values"].as_array().unwrap();
    assert_eq!(values.len(), 2);
    assert_eq!(
        (&values[0]["size"], &values[0]["durability"]),
        (&5.into(), &"ephemeral".into())
    );
    assert_eq!(values[1]["durability"], "durable");
    assert!(values[1]["expires_unix_ms"].is_u64());
    let page = node.dunlin(&["state", "ls", "e2e", "-n", "1"]).ok();
    assert!(page.text().contains("cart/1") && !page.text().contains("cart/2"));
    assert!(page.stderr.contains("--after 'cart/1'"), "{}", page.stderr);
    let dash = node.dunlin(&["state", "get", "e2e", "grüße 🦆"]).ok();
    assert_eq!(dash.text(), "-dash");

    let kept = node
        .dunlin(&["state", "put", "e2e", "cart/1", "x", "--durable"])
        .ok();
    assert!(kept.stderr.contains("stays ephemeral"), "{}", kept.stderr);
    let copied = ["state", "put", "e2e", "copied", "x", "--replicated"];
    let copied = node.dunlin(&copied).ok();
    assert!(copied.text().contains("(replicated)"), "{}", copied.text());
    node.dunlin(&["state", "rm", "e2e", "copied"]).ok();

    node.dunlin(&["state", "rm", "e2e", "cart/1"]).ok();
    for action in ["get", "rm"] {
        let gone = node.dunlin(&["state", action, "e2e", "cart/1"]);
        assert_eq!(gone.code, 3, "{}", gone.stderr);
        assert!(
            gone.stderr.contains("next: `dunlin state ls"),
            "{}",
            gone.stderr
        );
    }
}

#[test]
fn large_values_are_streamed_in_and_out() {
    let node = Node::start();
    let folder = tempfile::tempdir().unwrap();
    let (file, copy) = (folder.path().join("in"), folder.path().join("out"));
    let large: Vec<u8> = (0..20_000_000_u32).map(|at| (at / 3 % 251) as u8).collect();
    std::fs::write(&file, &large).unwrap();
    let named = format!("@{}", file.display());
    version(&node, &["file", &named, "--durable"]);
    let mut piped = node.command(&["state", "put", "e2e", "pipe", "-"]);
    finish(&mut piped, &large).ok();
    for key in ["file", "pipe"] {
        let read = node.dunlin(&["state", "get", "e2e", key]).ok();
        assert!(read.stdout == large, "{key}");
        let copy = copy.to_str().unwrap();
        node.dunlin(&["state", "get", "e2e", key, "--to", copy])
            .ok();
        assert!(std::fs::read(copy).unwrap() == large, "{key}");
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        2,
        "nothing is left beside"
    );
    let missing = node.dunlin(&["state", "put", "e2e", "k", "@/nonexistent/file"]);
    assert_eq!(missing.code, 3, "{}", missing.stderr);
}

#[test]
fn writers_that_expect_another_version_are_refused() {
    let node = Node::start();
    let first = version(&node, &["k", "a", "--if-absent"]);
    let taken = node.dunlin(&["state", "put", "e2e", "k", "b", "--if-absent"]);
    assert_eq!(taken.code, 4, "{}", taken.stderr);
    let second = version(&node, &["k", "b", "--if-version", &first]);
    for words in [&["put", "e2e", "k", "c"][..], &["rm", "e2e", "k"]] {
        let stale = [&["state"], words, &["--if-version", &first]].concat();
        let stale = node.dunlin(&stale);
        assert_eq!(stale.code, 4, "{}", stale.stderr);
        assert!(stale.stderr.contains(&second), "{}", stale.stderr);
    }
    assert_eq!(node.dunlin(&["state", "get", "e2e", "k"]).ok().text(), "b");
    node.dunlin(&["state", "rm", "e2e", "k", "--if-version", &second])
        .ok();
    let usage = [
        "state",
        "put",
        "e2e",
        "k",
        "c",
        "--if-absent",
        "--if-version",
        "1",
    ];
    assert_eq!(node.dunlin(&usage).code, 2);
}

#[test]
fn changes_are_printed_as_they_happen() {
    let mut node = Node::start();
    let mut watch = node
        .command(&["state", "watch", "e2e", "a/", "--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begun = String::new();
    let mut stderr = BufReader::new(watch.stderr.take().unwrap());
    stderr.read_line(&mut begun).unwrap();
    assert_eq!(begun, "watching e2e/a/\n");
    version(&node, &["b", "not watched"]);
    let made = version(&node, &["a/1", "x"]);
    node.dunlin(&["state", "rm", "e2e", "a/1"]).ok();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let seen: Vec<String> = lines.take(2).map(Result::unwrap).collect();
    let line = |deleted| format!(r#"{{"key":"a/1","version":{made},"deleted":{deleted}}}"#);
    assert_eq!(seen, [line(false), line(true)]);
    // The node's end is the stream's.
    assert!(node.stop().success());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn durable_values_outlive_the_node_and_ephemeral_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut node = Node::start_on(&data, &[]);
    let kept = version(&node, &["kept", "on disk", "--durable"]);
    version(&node, &["lost", "in memory"]);
    assert!(node.stop().success());
    drop(node);
    let node = Node::start_on(&data, &[]);
    let listed = node
        .dunlin(&["state", "ls", "e2e", "--output", "json"])
        .json();
    let values = listed["values"].as_array().unwrap();
    assert_eq!(values.len(), 1);
    assert_eq!(values[0]["version"].to_string(), kept);
    assert_eq!(
        node.dunlin(&["state", "get", "e2e", "kept"]).ok().text(),
        "on disk"
    );
    assert_eq!(node.dunlin(&["state", "get", "e2e", "lost"]).code, 3);
}
