//! Blobs and images travel between the nodes of a cluster.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use support::cluster::Cluster;
use support::counting::Counting;
use support::{ECHO, World, says, wasm};

/// A command that is a component.
const COMPONENT: &str = include_str!("support/fetch.wat");

/// The files under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let all = paths.map(|path| match path.is_dir() {
        true => files(&path),
        false => vec![path],
    });
    all.flatten().collect()
}

/// Whole objects; what is being written has another name.
fn objects(folder: &Path) -> Vec<PathBuf> {
    let mut files = files(folder);
    let is_name = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 64);
    files.retain(is_name);
    files
}

/// Waits until the bucket has code, image and description of the one function; the test's own time
/// limit bounds it.
async fn images(folder: &Path) -> Vec<PathBuf> {
    loop {
        let objects = objects(folder);
        if objects.len() == 3 {
            return objects;
        }
        tokio::task::yield_now().await;
    }
}

/// Makes a node forget all that it could fetch or make again.
fn forget(cluster: &Cluster, number: u16) {
    for folder in ["cache", "cluster-blobs"] {
        std::fs::remove_dir_all(cluster.data(number).join(folder)).expect("it was there");
    }
}

fn artifact(text: &str) -> String {
    model::Digest::of(&wasm(text)).hex()
}

async fn three(cluster: &Cluster, bucket: &Counting) -> [World; 3] {
    let start = |number| {
        let mut config = cluster.config(number);
        let of_cluster = config.cluster.as_mut().expect("a cluster");
        of_cluster.blobs = bucket.blobs();
        of_cluster.s3 = bucket.config();
        support::world_of(config)
    };
    let (one, two, three) = tokio::join!(start(1), start(2), start(3));
    let worlds = [one, two, three].map(|world| world.expect("a node"));
    for world in &worlds {
        world.sees(|nodes| nodes.len() == 3).await;
    }
    worlds
}

async fn all_say(worlds: &[World; 3], path: &str, expected: &str) {
    let calls = worlds.each_ref().map(|world| world.call(path, ""));
    for answer in futures::future::join_all(calls).await {
        assert_eq!((answer.status, answer.text()), (200, expected));
    }
}

async fn stop(cluster: &Cluster, worlds: [World; 3]) {
    for (world, number) in worlds.into_iter().zip(1..) {
        assert!(world.node.shutdown().await);
        forget(cluster, number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flash_crowd_costs_the_bucket_one_read() {
    let (cluster, bucket) = (Cluster::new(), Counting::start().await);
    let worlds = three(&cluster, &bucket).await;
    worlds[0].deploy_command("shop/says", &says("well")).await;
    for world in &worlds {
        world.knows("shop/says").await;
    }
    all_say(&worlds, "/shop/says", "well").await;
    assert!(bucket.take_reads().is_empty(), "the first node has it all");
    let folder = bucket.server.file("nodes/images");
    let made = images(&folder).await;
    let names = made.iter().map(|path| path.file_name().expect("a name"));
    let names: BTreeSet<_> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    // Nobody has anything: each part of the image is read once, and the artifact not at all.
    stop(&cluster, worlds).await;
    let worlds = three(&cluster, &bucket).await;
    bucket.take_reads();
    all_say(&worlds, "/shop/says", "well").await;
    let reads = bucket.take_reads();
    assert_eq!(reads.len(), names.len(), "{reads:?}");
    assert_eq!(BTreeSet::from_iter(reads), names);
    // Without images, the artifact is read once, and compiled by each.
    stop(&cluster, worlds).await;
    for path in made {
        std::fs::remove_file(path).expect("an object");
    }
    let worlds = three(&cluster, &bucket).await;
    bucket.take_reads();
    all_say(&worlds, "/shop/says", "well").await;
    let artifact = artifact(&says("well"));
    let reads = bucket.take_reads();
    assert_eq!(
        reads.iter().filter(|name| **name == artifact).count(),
        1,
        "{reads:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compiled_once_is_run_by_all_also_without_a_bucket() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three().await;
    one.deploy_command("shop/echo", ECHO).await;
    for world in [&two, &three] {
        world.knows("shop/echo").await;
    }
    // Nothing is written there any more once its image is.
    images(&cluster.shared().join("images")).await;
    // With the artifact nowhere, nobody could compile it.
    std::fs::remove_dir_all(cluster.shared()).expect("a folder");
    std::fs::remove_dir_all(cluster.data(1).join("cluster-blobs")).expect("a folder");
    for world in [&two, &three] {
        let answer = world.call("/shop/echo", "hello").await;
        assert_eq!((answer.status, answer.text()), (200, "hello"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_what_was_made_before_travels_too() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three().await;
    // Nothing is made for the second, which differs in what no code or image depends on.
    for (path, deadline_ms) in [("shop/fetch", 10_000), ("shop/slow", 20_000)] {
        let limits = json!({ "deadline_ms": deadline_ms });
        let deployed = one.deploy(path, "command", wasm(COMPONENT), limits).await;
        assert_eq!(deployed.status, 201, "{}", deployed.text());
    }
    for world in [&two, &three] {
        world.knows("shop/slow").await;
    }
    // With the artifact nowhere, nobody could compile it.
    std::fs::remove_dir_all(cluster.shared().join("blobs")).expect("a folder");
    std::fs::remove_dir_all(cluster.data(1).join("cluster-blobs")).expect("a folder");
    for world in [&one, &two, &three] {
        let answer = world.call("/shop/slow", "nowhere.test").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_outlives_the_node_that_made_it() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three().await;
    one.deploy_command("shop/echo", ECHO).await;
    two.knows("shop/echo").await;
    images(&cluster.shared().join("images")).await;
    // Dropped, it ends as in a crash: its lease runs on, and nobody answers.
    drop(one);
    std::fs::remove_dir_all(cluster.shared().join("blobs")).expect("a folder");
    let answer = two.call("/shop/echo", "hello").await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    drop(three);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_is_refused_and_made_anew() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three().await;
    one.deploy_command("shop/echo", ECHO).await;
    two.knows("shop/echo").await;
    let made = images(&cluster.shared().join("images")).await;
    for path in &made {
        let mut bytes = std::fs::read(path).expect("an object");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).expect("a folder of ours");
    }
    // Nor has the node that made it got it any more; what it runs stays mapped.
    for file in files(&cluster.data(1).join("cache")) {
        std::fs::remove_file(file).expect("a folder of ours");
    }
    let answer = two.call("/shop/echo", "hello").await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    // And whoever comes now gets what was made anew.
    std::fs::remove_dir_all(cluster.shared().join("blobs")).expect("a folder");
    for number in [1, 2] {
        let blobs = cluster.data(number).join("cluster-blobs");
        std::fs::remove_dir_all(blobs).expect("a folder");
    }
    three.knows("shop/echo").await;
    let answer = three.call("/shop/echo", "hello").await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
}

/// An http component that is a runtime, with a memory of 75 MiB.
const RUNTIME: &str = include_str!("../../faaslet/tests/wat/http.wat");

/// Fills most of it with a layer's first byte.
const LOAD: &str = r#"
    (func (export "load") (param $at i32) (param $length i32) (result i32)
      (memory.fill (i32.const 65536) (i32.load8_u (local.get $at)) (i32.const 75000000))
      (i32.store8 (i32.const 50000000) (i32.const 98))
      (i32.const 8192))
    (func (export "handle")"#;

const LOADER: &str = r#"
  (func $load (param "layer" (list u8)) (result (result (error string)))
    (canon lift (core func $main "load") (memory (core memory $memory "memory"))
      (realloc (core func $memory "realloc"))))
  (instance $loader (export "load" (func $load)))
  (export "dunlin:runtime/loader@1.0.0" (instance $loader))
  (instance $handler"#;

/// Replies with a byte of the middle of its memory and one of its end.
const HANDLE: &str = "
    (i32.store8 (i32.const 4096) (i32.load8_u (i32.const 50000000)))
    (i32.store8 (i32.const 4097) (i32.load8_u (i32.const 75000000)))
    (call $respond (local.get $out)) (call $write (i32.const 2)) (call $finish)";

/// A module that fills as much, and a little more, when it is deployed.
const FILLED: &str = r#"(module
  (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
  (memory 1200)
  (func (export "_initialize")
    (memory.fill (i32.const 65536) (i32.const 97) (i32.const 76000000))
    (i32.store8 (i32.const 50000000) (i32.const 98)))
  (func (export "handle")
    (i32.store8 (i32.const 0) (i32.load8_u (i32.const 50000000)))
    (i32.store8 (i32.const 1) (i32.load8_u (i32.const 75000000)))
    (drop (call $write (i32.const 0) (i32.const 2)))))"#;

/// A runtime that holds a MiB, and 75 with a layer.
fn runtime() -> Bytes {
    let filled: String = std::iter::repeat_n('r', 1_500_000).collect();
    let data = format!(r#"(data (i32.const 65536) "{filled}")"#);
    let text = RUNTIME
        .replace(
            r#"(memory (export "memory") 2)"#,
            &format!(r#"(memory (export "memory") 1200) {data}"#),
        )
        .replace("    (func (export \"handle\")", LOAD)
        .replace("  (instance $handler", LOADER)
        .replace(";; HANDLE\n", HANDLE);
    wasm(&text)
}

/// Waits until the node has a file of pages of that size at least; the test's own time limit
/// bounds it.
async fn keeps_pages(cluster: &Cluster, number: u16, bytes: u64) {
    let is_it = |path: &PathBuf| {
        let is_pages = path.extension().is_some_and(|kind| kind == "pages");
        is_pages && path.metadata().is_ok_and(|file| file.len() >= bytes)
    };
    while !files(&cluster.data(number).join("cache")).iter().any(is_it) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_image_comes_while_guests_run_over_it() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three().await;
    let layer = Bytes::from_static(b"abc");
    let digest = model::Digest::of(&layer).to_string();
    let upload = Request::put(one.admin(&format!("/v1/artifacts/{digest}")));
    let upload = upload.body(Full::new(layer)).expect("a request");
    assert_eq!(one.send(upload).await.status, 201);
    let settings = json!({ "layers": [digest] });
    let deployed = one.deploy_with("shop/table", "http", runtime(), settings);
    let deployed = deployed.await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
    let deployed = one.deploy("shop/filled", "reactor", wasm(FILLED), json!({}));
    let deployed = deployed.await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
    for (world, number) in [(&two, 2), (&three, 3)] {
        world.knows("shop/filled").await;
        for (path, bytes) in [("/shop/table", 75_000_000), ("/shop/filled", 76_000_000)] {
            for _ in 0..2 {
                let answer = world.call(path, "").await;
                assert_eq!((answer.status, answer.text()), (200, "ba"));
            }
            keeps_pages(&cluster, number, bytes).await;
            let answer = world.call(path, "").await;
            assert_eq!((answer.status, answer.text()), (200, "ba"));
        }
    }
}
