//! State of many nodes: each key is one, wherever it is used, and what is lost with a node is told.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use support::cluster::Cluster;
use support::{Answer, World, wasm};

/// The guests of this file: the first 8 bytes of their input name the key, the rest is a value.
const PRELUDE: &str = r#"
  (import "dunlin" "input_size" (func $input_size (result i32)))
  (import "dunlin" "input_read" (func $input_read (param i32 i32 i32) (result i32)))
  (import "dunlin" "output_write" (func $output_write (param i32 i32) (result i32)))
  (import "dunlin" "state_set" (func $set (param i32 i32 i32 i32) (result i64)))
  (import "dunlin" "state_get" (func $get (param i32 i32 i32 i32) (result i64)))
  (import "dunlin" "state_lock" (func $lock (param i32 i32 i32 i64 i64) (result i64)))
  (import "dunlin" "state_unlock" (func $unlock (param i32 i32) (result i64)))
  (import "dunlin" "state_map" (func $map (param i32 i32 i64 i64 i32) (result i64)))
  (import "dunlin" "state_push" (func $push (param i32 i32 i64 i64) (result i64)))
  (memory (export "memory") 160)
  (func $say (param i64)
    (i64.store (i32.const 32) (local.get 0))
    (drop (call $output_write (i32.const 32) (i32.const 8))))
"#;

const KEY: &str = "(i32.const 1024) (i32.const 8)";
const READ_INPUT: &str =
    "(drop (call $input_read (i32.const 0) (i32.const 1024) (call $input_size)))";

/// Sets the key; replies with the version.
fn setter() -> String {
    let data = "(i32.const 1032) (i32.sub (call $input_size) (i32.const 8))";
    format!("{READ_INPUT} (call $say (call $set {KEY} {data}))")
}

/// Replies with the value, or nothing if that fails.
fn getter() -> String {
    let room = "(i32.const 65536) (i32.const 8388608)";
    format!(
        "(local $size i64) {READ_INPUT} (local.set $size (call $get {KEY} {room}))
         (if (i64.gt_s (local.get $size) (i64.const 0)) (then
           (drop (call $output_write (i32.const 65536) (i32.wrap_i64 (local.get $size))))))"
    )
}

/// Adds one to the number there, in two steps that only its lock makes one.
fn counter() -> String {
    format!(
        "{READ_INPUT}
         (if (i64.ne (call $lock {KEY} (i32.const 1) (i64.const 15000) (i64.const 15000))
                     (i64.const 0)) (then unreachable))
         (drop (call $get {KEY} (i32.const 2048) (i32.const 8)))
         (i64.store (i32.const 2048) (i64.add (i64.load (i32.const 2048)) (i64.const 1)))
         (drop (call $set {KEY} (i32.const 2048) (i32.const 8)))
         (call $say (i64.load (i32.const 2048)))
         (if (i64.ne (call $unlock {KEY}) (i64.const 0)) (then unreachable))"
    )
}

/// Maps the key, adds one to a number in each of many chunks, and pushes; replies with the version.
fn mapper() -> String {
    format!(
        "(local $at i64) (local $to i64) {READ_INPUT}
         (local.set $at (call $map {KEY} (i64.const 0) (i64.const {MAPPED}) (i32.const 1)))
         (if (i64.lt_s (local.get $at) (i64.const 0)) (then unreachable))
         (local.set $to (i64.add (local.get $at) (i64.const {MAPPED})))
         (loop $next
           (i64.store (i32.wrap_i64 (local.get $at))
             (i64.add (i64.load (i32.wrap_i64 (local.get $at))) (i64.const 1)))
           (local.set $at (i64.add (local.get $at) (i64.const 100000)))
           (br_if $next (i64.lt_u (local.get $at) (local.get $to))))
         (call $say (call $push {KEY} (i64.const 0) (i64.const 0)))"
    )
}

/// Bytes that the mapper maps.
const MAPPED: usize = 6_000_000;

async fn deploy(worlds: &[&World], path: &str, handle: &str) {
    let text = format!(
        "(module {PRELUDE} (func (export \"handle\") (result i32) {handle} (i32.const 0)))"
    );
    let settings = json!({
        "allow": { "state": [{ "prefix": "", "access": "write" }] },
        "limits": { "deadline_ms": 20_000, "memory_bytes_max": 64 << 20 },
    });
    let deployed = worlds[0].deploy_with(path, "reactor", wasm(&text), settings);
    let deployed = deployed.await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
    for world in worlds {
        world.knows(path).await;
    }
}

/// Keys of 8 bytes, of which each of three nodes owns some.
fn keys() -> impl Iterator<Item = String> {
    (0..24).map(|number| format!("key/{number:04}"))
}

/// Three nodes, each of which owns a part of the keys by now.
async fn three(cluster: &Cluster) -> [World; 3] {
    let worlds = cluster.three().await;
    for key in keys() {
        let made = put(&worlds[0], &key, "?durability=durable", "probe").await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    loop {
        let mut owners = BTreeSet::new();
        for key in keys() {
            owners.insert(owner(&get(&worlds[0], &key).await));
        }
        if owners.len() == 3 {
            break;
        }
    }
    for key in keys() {
        let uri = worlds[0].admin(&format!("/v1/apps/shop/state/{key}"));
        let request = Request::delete(uri).body(Full::default());
        let removed = worlds[0].send(request.expect("a request")).await;
        assert_eq!(removed.status, 204, "{}", removed.text());
    }
    worlds
}

async fn put(world: &World, key: &str, query: &str, data: impl Into<Bytes>) -> Answer {
    let uri = world.admin(&format!("/v1/apps/shop/state/{key}{query}"));
    let request = Request::put(uri).body(Full::new(data.into()));
    world.send(request.expect("a request")).await
}

async fn get(world: &World, key: &str) -> Answer {
    world
        .get(world.admin(&format!("/v1/apps/shop/state/{key}")))
        .await
}

fn owner(answer: &Answer) -> String {
    let owner = answer.headers["dunlin-node"].to_str();
    owner.expect("a name").to_owned()
}

/// Bytes of which no two pieces are alike.
fn pattern(bytes: usize) -> Bytes {
    let words = (0..bytes.div_ceil(8) as u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a));
    let all: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    Bytes::from(all).slice(..bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_on_different_nodes_share_keys() {
    let cluster = Cluster::new();
    let [one, two, three] = three(&cluster).await;
    let worlds = [&one, &two, &three];
    deploy(&worlds, "shop/set", &setter()).await;
    deploy(&worlds, "shop/get", &getter()).await;
    let mut owners = BTreeMap::new();
    for (number, key) in keys().enumerate() {
        let (here, there) = (worlds[number % 3], worlds[(number + 1) % 3]);
        let set = here.call("/shop/set", format!("{key}value of {key}")).await;
        let version = set.body.as_chunks::<8>().0.first().expect("a version");
        assert!(i64::from_le_bytes(*version) > 0, "{}", set.status);
        let read = there.call("/shop/get", key.clone()).await;
        assert_eq!(read.text(), format!("value of {key}"));
        let known = get(worlds[(number + 2) % 3], &key).await;
        assert_eq!(known.text(), read.text());
        *owners.entry(owner(&known)).or_insert(0) += 1;
    }
    assert_eq!(owners.len(), 3, "each node owns some: {owners:?}");
    let listed = two
        .get(two.admin("/v1/apps/shop/state?prefix=key/&limit=100"))
        .await;
    let listed = listed.json()["values"].as_array().map(Vec::len);
    assert_eq!(listed, Some(24), "a listing is of all nodes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compared_and_swapped_is_so_on_every_node() {
    let cluster = Cluster::new();
    let [one, two, three] = three(&cluster).await;
    for key in keys().take(6) {
        let made = put(&one, &key, "", "first").await;
        assert_eq!(made.status, 201, "{}", made.text());
        let tag = made.headers["etag"].clone();
        let swap = async |world: &World, text: &'static str| {
            let uri = world.admin(&format!("/v1/apps/shop/state/{key}"));
            let request = Request::put(uri).header("if-match", tag.clone());
            let request = request.body(Full::from(text)).expect("a request");
            world.send(request).await.status
        };
        let (here, there) = tokio::join!(swap(&two, "second"), swap(&three, "third"));
        let mut statuses = [here, there];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412], "one of them is first");
        let expected = if here == 200 { "second" } else { "third" };
        for world in [&one, &two, &three] {
            assert_eq!(get(world, &key).await.text(), expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_values_pass_between_nodes_whole_and_in_parts() {
    let cluster = Cluster::new();
    let [one, two, three] = three(&cluster).await;
    let worlds = [&one, &two, &three];
    deploy(&worlds, "shop/set", &setter()).await;
    deploy(&worlds, "shop/get", &getter()).await;
    let long = pattern((11 << 20) + 12_345);
    for key in keys().take(4) {
        let made = put(&one, &key, "?durability=ephemeral", long.clone()).await;
        assert_eq!(made.status, 201, "{}", made.text());
        for world in worlds {
            let read = get(world, &key).await;
            assert!(read.body == long, "{key}: {} bytes", read.body.len());
            let uri = world.admin(&format!("/v1/apps/shop/state/{key}"));
            let range = Request::get(uri).header("range", "bytes=4194000-9000000");
            let part = world
                .send(range.body(Full::default()).expect("a request"))
                .await;
            assert_eq!(part.status, 206);
            assert!(part.body == long.slice(4_194_000..9_000_001));
        }
        let mut input = key.clone().into_bytes();
        input.extend_from_slice(&long[..5 << 20]);
        two.call("/shop/set", input).await;
        let read = three.call("/shop/get", key.clone()).await;
        assert!(read.body == long.slice(..5 << 20), "{}", read.body.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_holds_across_nodes() {
    let cluster = Cluster::new();
    let [one, two, three] = three(&cluster).await;
    let worlds = [&one, &two, &three];
    deploy(&worlds, "shop/count", &counter()).await;
    for key in keys().take(3) {
        let calls = (0..30).map(|number| worlds[number % 3].call("/shop/count", key.clone()));
        let calls = futures::future::join_all(calls).await;
        let mut sums: Vec<_> = calls
            .iter()
            .map(|call| {
                assert_eq!(call.status, 200, "{}", call.text());
                i64::from_le_bytes(*call.body.first_chunk().expect("a number"))
            })
            .collect();
        sums.sort_unstable();
        assert_eq!(sums, (1..=30).collect::<Vec<_>>(), "none saw another's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_changes_on_all_nodes() {
    let cluster = Cluster::new();
    let [one, two, three] = three(&cluster).await;
    let uri = two.admin("/v1/apps/shop/state?prefix=key/&watch=true");
    let request = Request::get(uri).body(Full::<Bytes>::default());
    let watching = two.client.request(request.expect("a request")).await;
    let mut events = watching.expect("an answer").into_body();
    let mut expected: Vec<_> = keys().collect();
    for (number, key) in expected.iter().enumerate() {
        let world = [&one, &two, &three][number % 3];
        assert_eq!(put(world, key, "", "new").await.status, 201);
    }
    let mut seen = String::new();
    while !expected.is_empty() {
        let frame = events.frame().await.expect("more").expect("a frame");
        seen.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("text"));
        expected.retain(|key| !seen.contains(key));
    }
    assert!(!seen.contains("event: missed"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_an_owner_loses_nothing_durable_or_replicated_and_is_told_of_the_rest() {
    let cluster = Cluster::new();
    let [one, two, three] = three(&cluster).await;
    let mut owners = BTreeMap::new();
    for key in keys() {
        for kind in ["durable", "replicated"] {
            let query = format!("?durability={kind}");
            let made = put(&one, &format!("{kind}/{key}"), &query, "kept").await;
            assert_eq!(made.status, 201, "{}", made.text());
        }
        let made = put(&one, &key, "", "in memory").await;
        owners.insert(key, owner(&made));
    }
    assert!(owners.values().any(|owner| owner == "n2"), "{owners:?}");
    // Dropped, it ends as in a crash: nothing is said to anybody.
    drop(two);
    for world in [&one, &three] {
        for (key, owner) in &owners {
            for kind in ["durable", "replicated"] {
                let kept = get(world, &format!("{kind}/{key}")).await;
                assert_eq!((kept.status, kept.text()), (200, "kept"), "{kind} {key}");
                assert_eq!(kept.headers["dunlin-durability"], kind);
            }
            let read = get(world, key).await;
            match owner == "n2" {
                true => assert_eq!((read.status, read.code().as_str()), (410, "state-lost")),
                false => assert_eq!((read.status, read.text()), (200, "in memory")),
            }
        }
    }
    // Whoever sets a key knows what it is from then on.
    for (key, owner) in &owners {
        let made = put(&three, key, "", "anew").await;
        let status = if owner == "n2" { 201 } else { 200 };
        assert_eq!(made.status, status, "{}", made.text());
        assert_eq!(get(&one, key).await.text(), "anew");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_hands_over_what_is_durable() {
    let cluster = Cluster::new();
    let [one, two, three] = three(&cluster).await;
    for key in keys() {
        let made = put(&one, &key, "?durability=durable", "kept").await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    assert!(three.node.shutdown().await);
    for key in keys() {
        assert_eq!(get(&two, &key).await.text(), "kept");
    }
    // All of them, and none is left of the state that a node that starts would clear up.
    assert!(one.node.shutdown().await);
    assert!(two.node.shutdown().await);
    let one = cluster.start(1).await.expect("a node");
    for key in keys() {
        let read = get(&one, &key).await;
        assert_eq!((read.status, read.text()), (200, "kept"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mapped_on_one_node_and_pushed_is_seen_on_all() {
    let cluster = Cluster::new();
    let [one, two, three] = three(&cluster).await;
    let worlds = [&one, &two, &three];
    deploy(&worlds, "shop/map", &mapper()).await;
    for key in keys().take(5) {
        // Each node maps it in turn, whoever owns it, and sees what the others pushed.
        for count in 1..=6 {
            let world = worlds[count % 3];
            let pushed = world.call("/shop/map", key.clone()).await;
            assert_eq!(pushed.status, 200, "{}", pushed.text());
            let version = i64::from_le_bytes(*pushed.body.first_chunk().expect("a version"));
            assert!(version > 0, "{version}");
            let read = get(worlds[(count + 1) % 3], &key).await;
            assert_eq!(read.body.len(), MAPPED);
            for at in (0..MAPPED).step_by(100_000) {
                let number = read.body[at..].first_chunk().expect("a number");
                assert_eq!(u64::from_le_bytes(*number), count as u64, "{key} at {at}");
            }
        }
    }
}
