//! What guests ask of the platform: state that functions share, and functions that call functions.

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{World, config, wasm, world_of};

/// What the guests of this file import, and how they say what a call gave: as 8 bytes each.
const PRELUDE: &str = r#"
  (import "dunlin" "input_size" (func $input_size (result i32)))
  (import "dunlin" "input_read" (func $input_read (param i32 i32 i32) (result i32)))
  (import "dunlin" "output_write" (func $output_write (param i32 i32) (result i32)))
  (import "dunlin" "state_set" (func $set (param i32 i32 i32 i32) (result i64)))
  (import "dunlin" "state_get" (func $get (param i32 i32 i32 i32) (result i64)))
  (import "dunlin" "state_size" (func $size (param i32 i32) (result i64)))
  (import "dunlin" "state_append" (func $append (param i32 i32 i32 i32) (result i64)))
  (import "dunlin" "state_swap" (func $swap (param i32 i32 i64 i32 i32) (result i64)))
  (import "dunlin" "state_lock" (func $lock (param i32 i32 i32 i64 i64) (result i64)))
  (import "dunlin" "state_unlock" (func $unlock (param i32 i32) (result i64)))
  (import "dunlin" "state_push" (func $push (param i32 i32 i64 i64) (result i64)))
  (import "dunlin" "state_map" (func $map (param i32 i32 i64 i64 i32) (result i64)))
  (import "dunlin" "state_list" (func $list (param i32 i32 i32 i32 i32 i32) (result i64)))
  (import "dunlin" "chain_call" (func $call (param i32 i32 i32 i32) (result i64)))
  (import "dunlin" "chain_spawn" (func $spawn (param i32 i32 i32 i32 i32) (result i64)))
  (import "dunlin" "chain_wait" (func $wait (param i32 i64) (result i64)))
  (import "dunlin" "chain_wait_any" (func $any (param i32 i32 i64) (result i64)))
  (import "dunlin" "chain_wait_all" (func $all (param i32 i32 i64) (result i64)))
  (import "dunlin" "chain_size" (func $reply_size (param i32) (result i64)))
  (import "dunlin" "chain_read" (func $reply_read (param i32 i64 i32 i32) (result i64)))
  (import "dunlin" "chain_problem" (func $problem (param i32 i32 i32) (result i64)))
  (memory (export "memory") 2)
  (data (i32.const 16) "key")
  (data (i32.const 32) "value")
  (data (i32.const 48) "self")
  (data (i32.const 64) "other")
  (func $say (param i64)
    (i64.store (i32.const 1024) (local.get 0))
    (drop (call $output_write (i32.const 1024) (i32.const 8))))
  (func $int (param i64) (result i32) (i32.wrap_i64 (local.get 0)))
"#;

const KEY: &str = "(i32.const 16) (i32.const 3)";
const VALUE: &str = "(i32.const 32) (i32.const 5)";
const SELF: &str = "(i32.const 48) (i32.const 4)";
const OTHER: &str = "(i32.const 64) (i32.const 5)";
const NOTHING: &str = "(i32.const 0) (i32.const 0)";

/// Errors as guests see them.
const DENIED: i64 = -1;
const NOT_FOUND: i64 = -2;
const CONFLICT: i64 = -4;
const EXHAUSTED: i64 = -6;
const TIMED_OUT: i64 = -7;
const FAILED: i64 = -8;

fn reactor(handle: &str) -> String {
    format!("(module {PRELUDE} (func (export \"handle\") (result i32) {handle} (i32.const 0)))")
}

fn say(call: &str) -> String {
    format!("(call $say {call})")
}

fn all_state() -> Value {
    json!({ "state": [{ "prefix": "", "access": "write" }] })
}

async fn world(data: &Path) -> World {
    world_of(config(data)).await.expect("a node")
}

async fn deploy(world: &World, path: &str, handle: &str, allow: Value) {
    let settings = json!({ "allow": allow, "limits": { "deadline_ms": 20_000 } });
    deploy_with(world, path, handle, settings).await;
}

async fn deploy_with(world: &World, path: &str, handle: &str, settings: Value) {
    let module = wasm(&reactor(handle));
    let deployed = world.deploy_with(path, "reactor", module, settings).await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
}

/// What the guest said.
async fn said(world: &World, path: &str) -> Vec<i64> {
    let answer = world.call(&format!("/{path}"), "").await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    let (numbers, rest) = answer.body.as_chunks::<8>();
    assert!(rest.is_empty(), "{path} said half a number");
    numbers
        .iter()
        .map(|bytes| i64::from_le_bytes(*bytes))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_is_kept_only_for_an_app_that_asks_and_only_after_a_good_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    // Counts its calls in its memory; with input it fails.
    let handle = format!(
        r#"(i64.store (i32.const 512) (i64.add (i64.load (i32.const 512)) (i64.const 1)))
           (if (call $input_size) (then unreachable)) {}"#,
        say("(i64.load (i32.const 512))")
    );
    deploy_with(&world, "a/fresh", &handle, json!({})).await;
    deploy_with(&world, "a/kept", &handle, json!({ "reuse": "app" })).await;
    for count in 1..=3 {
        assert_eq!(said(&world, "a/fresh").await, [1]);
        assert_eq!(said(&world, "a/kept").await, [count]);
    }
    let again = world.call("/a/kept", "").await;
    assert_eq!(again.headers["dunlin-start"], "reused");
    assert_eq!(world.call("/a/kept", "fail").await.status, 500);
    assert_eq!(said(&world, "a/kept").await, [1], "what failed is not kept");

    let settings = json!({ "reuse": "app" });
    let module = wasm(support::ECHO);
    let refused = world
        .deploy_with("a/echo", "command", module, settings)
        .await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (400, "invalid-settings")
    );
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_denied() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let calls = [
        format!("(call $set {KEY} {VALUE})"),
        format!("(call $get {KEY} {NOTHING})"),
        format!("(call $lock {KEY} (i32.const 1) (i64.const 0) (i64.const 0))"),
        format!("(call $map {KEY} (i64.const 0) (i64.const 8) (i32.const 1))"),
        format!("(call $list {NOTHING} {NOTHING} {NOTHING})"),
        format!("(call $call {OTHER} {NOTHING})"),
        format!("(call $spawn {OTHER} {NOTHING} (i32.const 0))"),
    ];
    let handle: String = calls.iter().map(|call| say(call)).collect();
    deploy(&world, "a/f", &handle, json!({})).await;
    assert_eq!(said(&world, "a/f").await, vec![DENIED; calls.len()]);

    let read = json!({ "state": [{ "prefix": "k" }] });
    let handle = say(&calls[0]) + &say(&calls[1]);
    deploy(&world, "a/f", &handle, read).await;
    assert_eq!(said(&world, "a/f").await, [DENIED, NOT_FOUND]);
    let metrics = world.get(world.admin("/metrics")).await;
    let denied = "dunlin_host_calls_total{call=\"state_set\",result=\"denied\"} 2";
    assert!(metrics.text().contains(denied), "{}", metrics.text());
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_an_app_share_bytes_without_a_copy() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let map =
        |mode: u32| format!("(call $map {KEY} (i64.const 70000) (i64.const 8) (i32.const {mode}))");
    let write = format!("(i64.store (call $int {}) (i64.const 4711))", map(1));
    let read =
        say(&format!("(i64.load (call $int {}))", map(0))) + &say(&format!("(call $size {KEY})"));
    deploy(&world, "a/write", &write, all_state()).await;
    deploy(&world, "a/read", &read, all_state()).await;
    deploy(&world, "b/read", &say(&map(0)), all_state()).await;
    said(&world, "a/write").await;
    assert_eq!(said(&world, "a/read").await, [4711, 70_008]);
    assert_eq!(
        said(&world, "b/read").await,
        [NOT_FOUND],
        "another app has another state"
    );
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_call_of_a_sandbox_sees_nothing_of_a_mapping() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    // With input it maps and writes, without it looks where the mapping was.
    let handle = format!(
        r#"(if (call $input_size)
             (then (i64.store
               (call $int (call $map {KEY} (i64.const 0) (i64.const 8) (i32.const 1)))
               (i64.const 4711)))
             (else
               (call $say (i64.extend_i32_u (memory.size)))
               (call $say (i64.load (i32.const 131072)))))"#
    );
    deploy(&world, "a/f", &handle, all_state()).await;
    for _ in 0..3 {
        assert_eq!(world.call("/a/f", "map").await.status, 200);
        let looked = world.call("/a/f", "").await;
        assert_eq!(looked.status, 500, "{}", looked.text());
        assert_eq!(looked.code(), "function-trapped");
        assert!(looked.text().contains("out of bounds"), "{}", looked.text());
    }
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_to_what_was_mapped_to_read_ends_the_call_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let map = |mode: u32| {
        format!("(call $int (call $map {KEY} (i64.const 0) (i64.const 8) (i32.const {mode})))")
    };
    let stray = format!("(i64.store {} (i64.const 13))", map(0));
    // The host writes through the guest's pointer here: it must not fault.
    let by_host = format!(
        "(drop (call $input_read (i32.const 0) {} (i32.const 8)))",
        map(0)
    );
    deploy(
        &world,
        "a/write",
        &format!("(i64.store {} (i64.const 7))", map(1)),
        all_state(),
    )
    .await;
    deploy(&world, "a/stray", &stray, all_state()).await;
    deploy(&world, "a/by-host", &by_host, all_state()).await;
    deploy(
        &world,
        "a/read",
        &say(&format!("(i64.load {})", map(0))),
        all_state(),
    )
    .await;
    said(&world, "a/write").await;
    for path in ["/a/stray", "/a/by-host"] {
        let answer = world.call(path, "12345678").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (500, "function-trapped"),
            "{path}"
        );
    }
    assert_eq!(said(&world, "a/read").await, [7]);
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn durable_state_outlives_the_node_and_ephemeral_state_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = format!("(drop (call $append {KEY} {VALUE}))");
    let read = say(&format!("(call $size {KEY})"));
    let grant = |durability: &str| json!({ "state": [{ "prefix": "", "access": "write", "durability": durability }] });
    let first = world(folder.path()).await;
    for (app, durability) in [("kept", "durable"), ("lost", "ephemeral")] {
        deploy(&first, &format!("{app}/write"), &write, grant(durability)).await;
        deploy(&first, &format!("{app}/read"), &read, grant(durability)).await;
        said(&first, &format!("{app}/write")).await;
        said(&first, &format!("{app}/write")).await;
        assert_eq!(said(&first, &format!("{app}/read")).await, [10]);
    }
    first.node.shutdown().await;
    let second = world(folder.path()).await;
    assert_eq!(said(&second, "kept/read").await, [10]);
    assert_eq!(said(&second, "lost/read").await, [NOT_FOUND]);
    second.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_goes_with_its_holder() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let lock = format!("(call $lock {KEY} (i32.const 1) (i64.const 0) (i64.const 0))");
    let unlock = format!("(call $unlock {KEY})");
    deploy(
        &world,
        "a/hold",
        &format!("{} unreachable", say(&lock)),
        all_state(),
    )
    .await;
    let nested = format!(
        "{} (drop (call $call {OTHER} {NOTHING})) {}",
        say(&lock),
        say(&unlock)
    );
    let allow = json!({ "state": [{ "prefix": "", "access": "write" }], "call": ["*"] });
    deploy(&world, "a/take", &nested, allow).await;
    deploy(
        &world,
        "a/other",
        &format!("(if (i64.ne {lock} (i64.const {TIMED_OUT})) (then unreachable))"),
        all_state(),
    )
    .await;
    for _ in 0..2 {
        assert_eq!(world.call("/a/hold", "").await.status, 500);
        assert_eq!(said(&world, "a/take").await, [0, 0]);
    }
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_needs_the_version_it_expects() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let absent = format!("(call $swap {KEY} (i64.const 0) {VALUE})");
    let handle = format!(
        "(local $v i64) (local.set $v {absent}) {} {} {}",
        say(&absent),
        say(&format!(
            "(i64.extend_i32_u (i64.gt_s (call $swap {KEY} (local.get $v) {VALUE}) (local.get $v)))"
        )),
        say(&format!("(call $swap {KEY} (local.get $v) {VALUE})")),
    );
    deploy(&world, "a/f", &handle, all_state()).await;
    assert_eq!(said(&world, "a/f").await, [CONFLICT, 1, CONFLICT]);
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_calls_another_and_reads_its_reply() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let caller = format!(
        r#"(local $h i32) (local.set $h (call $int (call $call {OTHER} {VALUE})))
           {} (drop (call $reply_read (local.get $h) (i64.const 0) (i32.const 2048) (i32.const 8)))
           (call $say (i64.load (i32.const 2048)))"#,
        say("(call $reply_size (local.get $h))")
    );
    // Twice the size of its input.
    let callee = say("(i64.extend_i32_u (i32.mul (call $input_size) (i32.const 2)))");
    deploy(&world, "a/caller", &caller, json!({ "call": ["other"] })).await;
    let unknown = say(&format!("(call $call {OTHER} {NOTHING})"));
    deploy(&world, "b/caller", &unknown, json!({ "call": ["*"] })).await;
    assert_eq!(said(&world, "b/caller").await, [NOT_FOUND]);
    deploy(&world, "a/other", &callee, json!({})).await;
    assert_eq!(said(&world, "a/caller").await, [8, 10]);

    let answer = world.call("/a/caller", "").await;
    let id = answer.headers["dunlin-invocation-id"]
        .to_str()
        .expect("an id")
        .to_owned();
    let graph = world
        .get(world.admin(&format!("/v1/invocations/{id}/graph")))
        .await;
    assert_eq!(graph.status, 200, "{}", graph.text());
    assert!(
        graph.text().contains("\"other\"") || graph.text().contains("a/other"),
        "{}",
        graph.text()
    );
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_learns_why_a_call_failed() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let caller = format!(
        r#"(local $h i32) (local.set $h (call $int (call $call {OTHER} {NOTHING})))
           {} {} (drop (call $output_write (i32.const 2048)
             (call $int (call $problem (local.get $h) (i32.const 2048) (i32.const 4096)))))"#,
        say("(call $reply_size (local.get $h))"),
        say("(call $wait (local.get $h) (i64.const 0))"),
    );
    deploy(&world, "a/caller", &caller, json!({ "call": ["other"] })).await;
    deploy(&world, "a/other", "unreachable", json!({})).await;
    let answer = world.call("/a/caller", "").await;
    let (numbers, problem) = answer.body.split_at(16);
    assert_eq!(
        numbers,
        [FAILED.to_le_bytes(), FAILED.to_le_bytes()].concat()
    );
    let problem = std::str::from_utf8(problem).expect("text");
    assert!(problem.contains("unreachable"), "{problem}");
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recursion_ends_at_its_depth_and_needs_no_places() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    // Says how deep it came: 0 where the call is refused, else one more than what it called said.
    let handle = format!(
        r#"(local $h i64) (local.set $h (call $call {SELF} {NOTHING}))
           (if (i64.lt_s (local.get $h) (i64.const 0))
             (then (if (i64.ne (local.get $h) (i64.const {EXHAUSTED})) (then unreachable))
                   (call $say (i64.const 0)))
             (else (drop (call $reply_read (call $int (local.get $h)) (i64.const 0)
                           (i32.const 2048) (i32.const 8)))
                   (call $say (i64.add (i64.const 1) (i64.load (i32.const 2048))))))"#
    );
    let settings = json!({
        "allow": { "call": ["self"] },
        "limits": { "concurrency_max": 1, "queue_max": 0 },
    });
    deploy_with(&world, "a/self", &handle, settings).await;
    assert_eq!(said(&world, "a/self").await, [32]);
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spawned_calls_are_awaited_one_any_and_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let spawn = |at: u32| {
        format!(
            "(i32.store (i32.const {at}) (call $int (call $spawn {OTHER} {VALUE} (i32.const 0))))"
        )
    };
    let handle = [
        spawn(2048),
        spawn(2052),
        spawn(2056),
        say("(i64.extend_i32_u (i64.lt_u (call $any (i32.const 2048) (i32.const 12) (i64.const 9000)) (i64.const 3)))"),
        say("(call $all (i32.const 2048) (i32.const 12) (i64.const 9000))"),
        say("(call $wait (i32.load (i32.const 2056)) (i64.const 0))"),
        say("(call $reply_size (i32.load (i32.const 2052)))"),
        say("(call $wait (i32.const 99) (i64.const 0))"),
    ]
    .concat();
    deploy(&world, "a/f", &handle, json!({ "call": ["other"] })).await;
    // One at a time, so that two of three have to wait for a place.
    let settings = json!({ "limits": { "concurrency_max": 1 } });
    deploy_with(&world, "a/other", &say("(i64.const 1)"), settings).await;
    assert_eq!(said(&world, "a/f").await, [1, 0, 0, 8, NOT_FOUND]);
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_call_goes_on_when_its_caller_has_died() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let spawn = format!("(drop (call $spawn {OTHER} {NOTHING} (i32.const 1))) unreachable");
    let write = format!("(drop (call $set {KEY} {VALUE}))");
    deploy(&world, "a/dies", &spawn, json!({ "call": ["*"] })).await;
    deploy(&world, "a/other", &write, all_state()).await;
    let read = say(&format!("(call $size {KEY})"));
    deploy(&world, "a/read", &read, all_state()).await;
    assert_eq!(world.call("/a/dies", "").await.status, 500);
    while said(&world, "a/read").await != [5] {
        tokio::task::yield_now().await;
    }
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cancelled_while_it_queues_has_its_end_in_the_graph() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = std::sync::Arc::new(world(folder.path()).await);
    // Until an operator puts the key there.
    let wait = format!("(loop $again (br_if $again (i64.lt_s (call $size {KEY}) (i64.const 0))))");
    let settings = json!({ "allow": all_state(), "limits": { "concurrency_max": 1 } });
    deploy_with(&world, "a/other", &wait, settings).await;
    let dies = format!("(drop (call $spawn {OTHER} {NOTHING} (i32.const 0))) unreachable");
    deploy(&world, "a/dies", &dies, json!({ "call": ["*"] })).await;
    let first = tokio::spawn({
        let world = world.clone();
        async move { world.call("/a/other", "").await.status }
    });
    let is_running = |pool: &Value| pool["function"] == "other" && pool["running"] == 1;
    loop {
        let pools = world.get(world.admin("/v1/pools")).await.json();
        if pools["pools"]
            .as_array()
            .expect("pools")
            .iter()
            .any(is_running)
        {
            break;
        }
    }
    let dead = world.call("/a/dies", "").await;
    assert_eq!(dead.status, 500);
    let id = dead.json()["invocation"]
        .as_str()
        .expect("an id")
        .to_owned();
    let graph = loop {
        let path = world.admin(&format!("/v1/invocations/{id}/graph"));
        let graph = world.get(path).await.json();
        if graph["nodes"][1]["end"].is_object() {
            break graph;
        }
    };
    let end = &graph["nodes"][1]["end"];
    assert_eq!(
        (&end["status"], &end["detail"]),
        (&"refused".into(), &"its caller went away".into())
    );
    let put = hyper::Request::put(world.admin("/v1/apps/a/state/key"));
    let put = put
        .body(http_body_util::Full::from("go"))
        .expect("a request");
    assert_eq!(world.send(put).await.status, 201);
    assert_eq!(first.await.expect("it ends"), 200);
}
