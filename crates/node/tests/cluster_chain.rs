//! Functions that call functions on other nodes.

mod support;

use std::collections::BTreeSet;

use http_body_util::Full;
use serde_json::{Value, json};
use support::cluster::Cluster;
use support::{Answer, ECHO, World, sleeps, wasm, world_of};

/// What the callers of this file import. A number is said as 8 bytes.
const PRELUDE: &str = r#"
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
  (import "dunlin" "chain_spawn" (func $spawn (param i32 i32 i32 i32 i32) (result i64)))
  (import "dunlin" "chain_wait" (func $wait (param i32 i64) (result i64)))
  (import "dunlin" "chain_wait_any" (func $any (param i32 i32 i64) (result i64)))
  (import "dunlin" "chain_wait_all" (func $all (param i32 i32 i64) (result i64)))
  (import "dunlin" "chain_read" (func $read (param i32 i64 i32 i32) (result i64)))
  (import "dunlin" "chain_problem" (func $problem (param i32 i32 i32) (result i64)))
  (memory (export "memory") 1)
  (data (i32.const 16) "slow")
  (data (i32.const 32) "deep")
  (func $say (param i64)
    (i64.store (i32.const 1024) (local.get 0))
    (drop (call $write (i32.const 1024) (i32.const 8))))
  (func $sleep (param $ns i64)
    (i32.store (i32.const 2064) (i32.const 1))
    (i64.store (i32.const 2072) (local.get $ns))
    (drop (call $poll (i32.const 2048) (i32.const 2112) (i32.const 1) (i32.const 2176))))
  (func $many (param $count i32) (local $i i32)
    (loop $again
      (i32.store (i32.add (i32.const 4096) (i32.shl (local.get $i) (i32.const 2)))
        (i32.wrap_i64 (call $spawn (i32.const 16) (i32.const 4) (i32.const 0) (i32.const 0)
          (i32.const 0))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (local.get $count)))))
"#;

/// As guests see that a budget is used up.
const EXHAUSTED: i64 = -6;

async fn deploy_caller(world: &World, path: &str, handle: &str, concurrency_max: u32) {
    let text = format!(
        "(module {PRELUDE} (func (export \"handle\") (result i32) (local $child i64) {handle} \
         (i32.const 0)))"
    );
    let settings = json!({
        "allow": { "call": ["*"] },
        "limits": { "deadline_ms": 60_000, "concurrency_max": concurrency_max, "queue_max": 200 },
    });
    let deployed = world
        .deploy_with(path, "reactor", wasm(&text), settings)
        .await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
}

async fn deploy_slow(world: &World, ms: u64, concurrency_max: u32) {
    let limits = json!({
        "deadline_ms": 300_000, "concurrency_max": concurrency_max, "queue_max": 200,
    });
    let deployed = world
        .deploy("a/slow", "command", wasm(&sleeps(ms)), limits)
        .await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
}

async fn all_know(worlds: &[World], path: &str) {
    for world in worlds {
        world.knows(path).await;
    }
}

/// A key that is large enough for calls to go to it.
async fn put_model(world: &World) {
    let put = http::Request::put(world.admin("/v1/apps/a/state/model"))
        .body(Full::from(vec![7; 4 << 20]))
        .expect("a request");
    assert_eq!(world.send(put).await.status, 201);
}

fn id_of(answer: &Answer) -> &str {
    answer.headers["dunlin-invocation-id"]
        .to_str()
        .expect("an id")
}

fn number(answer: &Answer) -> i64 {
    assert_eq!(answer.status, 200, "{}", answer.text());
    i64::from_le_bytes(answer.body[..].try_into().expect("8 bytes"))
}

async fn graph(world: &World, id: &str) -> Vec<Value> {
    let found = world
        .get(world.admin(&format!("/v1/invocations/{id}/graph")))
        .await;
    assert_eq!(found.status, 200, "{}", found.text());
    found.json()["nodes"].as_array().cloned().expect("nodes")
}

fn nodes_of(graph: &[Value]) -> BTreeSet<&str> {
    graph
        .iter()
        .filter_map(|node| node["node"].as_str())
        .collect()
}

fn running(nodes: &[Value], name: &str) -> Option<u64> {
    let node = nodes.iter().find(|node| node["name"] == name)?;
    node["running"].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fan_out_from_one_node_is_spread_over_all_and_its_graph_is_whole() {
    let cluster = Cluster::new();
    let worlds = cluster.three().await;
    let one = &worlds[0];
    deploy_slow(one, 50, 2).await;
    let handle = "(call $many (i32.const 100))
        (call $say (call $all (i32.const 4096) (i32.const 400) (i64.const 50000)))";
    deploy_caller(one, "a/fan", handle, 10).await;
    all_know(&worlds, "a/slow").await;
    let answer = one.call("/a/fan", "").await;
    assert_eq!(number(&answer), 0, "calls that failed");
    let id = id_of(&answer);
    let whole = graph(one, id).await;
    assert_eq!(whole.len(), 101);
    assert!(
        whole.iter().all(|node| node["end"]["status"] == "ok"),
        "{whole:?}"
    );
    assert_eq!(nodes_of(&whole), BTreeSet::from(["n1", "n2", "n3"]));
    // Whoever is asked tells the same, of the graph and of why a call ran where it did.
    assert_eq!(graph(&worlds[1], id).await, whole);
    let sent = whole.iter().find(|node| node["node"] == "n2").expect("one");
    let child = sent["id"].as_str().expect("an id");
    for world in &worlds {
        let uri = world.admin(&format!("/v1/invocations/{child}/decision"));
        let explained = world.get(uri).await;
        assert_eq!(explained.status, 200, "{}", explained.text());
        let text = explained.json()["text"].as_str().expect("text").to_owned();
        assert!(text.contains("n2 ran it"), "{text}");
    }
    for world in worlds {
        assert!(world.node.shutdown().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_over_many_nodes_ends_at_its_depth() {
    let longest = chain_within(|tree| tree.depth_max = 4).await;
    assert_eq!(longest, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_over_many_nodes_ends_when_its_calls_are_used_up() {
    let longest = chain_within(|tree| tree.calls_max = 6).await;
    assert_eq!(longest, 6);
}

/// How many calls a chain has after its first, which goes over many nodes until it may go no
/// further.
async fn chain_within(bound: impl Fn(&mut sandbox::TreeLimits)) -> usize {
    let cluster = Cluster::new();
    let start = |number| {
        let mut config = cluster.config(number);
        bound(&mut config.hostcalls.tree);
        world_of(config)
    };
    let (one, two, three) = tokio::join!(start(1), start(2), start(3));
    let worlds = [one, two, three].map(|world| world.expect("a node"));
    for world in &worlds {
        let is_known = |node: &Value| node["running_max"].as_u64() > Some(0);
        world
            .sees(|nodes| nodes.len() == 3 && nodes.iter().all(is_known))
            .await;
    }
    // It calls itself, waits long enough for another node to take that, and passes on what the
    // deepest one said: why it could call no further.
    let handle = "
        (local.set $child (call $spawn (i32.const 32) (i32.const 4) (i32.const 0) (i32.const 0)
          (i32.const 0)))
        (if (i64.lt_s (local.get $child) (i64.const 0))
          (then (call $say (local.get $child)))
          (else
            (call $sleep (i64.const 300000000))
            (drop (call $wait (i32.wrap_i64 (local.get $child)) (i64.const 50000)))
            (drop (call $read (i32.wrap_i64 (local.get $child)) (i64.const 0) (i32.const 1024)
              (i32.const 8)))
            (drop (call $write (i32.const 1024) (i32.const 8)))))";
    deploy_caller(&worlds[0], "a/deep", handle, 1).await;
    all_know(&worlds, "a/deep").await;
    let answer = worlds[0].call("/a/deep", "").await;
    assert_eq!(number(&answer), EXHAUSTED);
    let whole = graph(&worlds[0], id_of(&answer)).await;
    assert!(nodes_of(&whole).len() > 1, "{whole:?}");
    for pair in whole.windows(2) {
        assert_eq!(
            pair[1]["parent"], pair[0]["id"],
            "each was called by the one before"
        );
    }
    for world in worlds {
        assert!(world.node.shutdown().await);
    }
    whole.len() - 1
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_a_node_is_told_and_what_it_leaves_is_cancelled_elsewhere() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three().await;
    deploy_slow(&one, 200_000, 1).await;
    // One has the place here, one may run in its caller's stead, and each other node has one.
    // Whichever ends first is the one that is lost: it says why, and leaves the others.
    let handle = "(call $many (i32.const 4))
        (local.set $child (call $any (i32.const 4096) (i32.const 16) (i64.const 50000)))
        (drop (call $write (i32.const 1024) (i32.wrap_i64 (call $problem
          (i32.load (i32.add (i32.const 4096)
            (i32.shl (i32.wrap_i64 (local.get $child)) (i32.const 2))))
          (i32.const 1024) (i32.const 512)))))";
    deploy_caller(&one, "a/fan", handle, 10).await;
    for world in [&two, &three] {
        world.knows("a/slow").await;
    }
    let all_run = |nodes: &[Value]| {
        ["n2", "n3"]
            .iter()
            .all(|name| running(nodes, name) == Some(1))
    };
    let call = one.call("/a/fan", "");
    let kill = async {
        one.sees(all_run).await;
        // Dropped, it ends as in a crash: nothing is said to anybody.
        drop(two);
    };
    let (answer, ()) = tokio::join!(call, kill);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.text();
    assert!(told.starts_with("node-lost: node n2"), "{told}");
    let nodes = graph(&one, id_of(&answer)).await;
    let lost: Vec<_> = nodes
        .iter()
        .filter(|node| node["end"]["status"] == "lost")
        .collect();
    assert_eq!(
        (lost.len(), lost[0]["node"].as_str()),
        (1, Some("n2")),
        "{nodes:?}"
    );
    // Its caller has ended: what ran for it elsewhere is cancelled.
    one.sees(|nodes| running(nodes, "n3") == Some(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_a_function_goes_to_the_owner_of_a_large_key_that_it_names() {
    let cluster = Cluster::new();
    let worlds = cluster.three().await;
    put_model(&worlds[0]).await;
    let settings = json!({ "near": ["model"] });
    let deployed = worlds[0]
        .deploy_with("a/slow", "command", wasm(ECHO), settings)
        .await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
    let handle = "(call $many (i32.const 1))
        (call $say (call $all (i32.const 4096) (i32.const 4) (i64.const 50000)))";
    deploy_caller(&worlds[0], "a/fan", handle, 10).await;
    all_know(&worlds, "a/slow").await;
    all_know(&worlds, "a/fan").await;
    // A node learns of the value's length after its first call; and who owns it may change while
    // nodes have just come.
    loop {
        let mut ran = BTreeSet::new();
        for world in &worlds {
            let answer = world.call("/a/fan", "").await;
            assert_eq!(number(&answer), 0, "calls that failed");
            let whole = graph(world, id_of(&answer)).await;
            let child = whole.iter().find(|node| node["function"] == "slow");
            ran.insert(child.expect("one")["node"].to_string());
        }
        let value = worlds[0].get(worlds[0].admin("/v1/apps/a/state/model"));
        let owner = format!("{:?}", value.await.headers["dunlin-node"]);
        if ran == BTreeSet::from([owner]) {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_to_the_owner_of_a_large_key_that_its_function_names() {
    let cluster = Cluster::new();
    let worlds = cluster.three().await;
    put_model(&worlds[0]).await;
    let settings = json!({ "near": ["model"] });
    let module = wasm(ECHO);
    let deployed = worlds[0]
        .deploy_with("a/near", "command", module, settings)
        .await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
    worlds[0].deploy_command("a/far", ECHO).await;
    all_know(&worlds, "a/near").await;
    all_know(&worlds, "a/far").await;
    // Each node learns of the value's length after its first call, and then all send it there.
    let owner = loop {
        let mut ran = BTreeSet::new();
        for world in &worlds {
            let answer = world.call("/a/near", "x").await;
            assert_eq!((answer.status, answer.text()), (200, "x"));
            ran.insert(
                answer.headers["dunlin-node"]
                    .to_str()
                    .expect("a name")
                    .to_owned(),
            );
        }
        if ran.len() == 1 {
            break ran.pop_first();
        }
    };
    assert!(owner.is_some());
    for (world, name) in worlds.iter().zip(["n1", "n2", "n3"]) {
        let answer = world.call("/a/far", "x").await;
        assert_eq!(answer.headers["dunlin-node"], name, "it names no key");
    }
}
