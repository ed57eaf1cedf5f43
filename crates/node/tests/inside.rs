//! WebAssembly behind both walls: what a faaslet does, a module inside of a micro-VM does, too.

mod support;

use bytes::Bytes;
use serde_json::{Value, json};
use support::{Answer, World, kvm, wasm, world};

const BOTH: &str = "wasm+vm";
const WALLS: [&str; 2] = ["wasm", BOTH];

const IMPORTS: &str = r#"
  (import "dunlin" "input_size" (func $size (result i32)))
  (import "dunlin" "input_read" (func $read (param i32 i32 i32) (result i32)))
  (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
  (import "dunlin" "log_write" (func $log (param i32 i32 i32)))"#;

/// Replies with the number `$value`.
const SAY: &str = "(func $say (param $value i64)
    (i64.store (i32.const 8) (local.get $value)) (drop (call $write (i32.const 8) (i32.const 8))))";

/// A reactor whose first byte of input chooses what it does.
fn traps() -> String {
    let cases = [
        "unreachable",
        "(drop (i32.load (i32.const 65536)))",
        "(i64.store offset=4294967288 (i32.const -1) (i64.const 1))",
        "(drop (i32.div_s (i32.const 1) (local.get $zero)))",
        "(drop (i32.div_s (i32.const -2147483648) (i32.sub (local.get $zero) (i32.const 1))))",
        "(drop (i32.trunc_f64_s (f64.const 1e300)))",
        "(call_indirect (type $unit) (i32.const 1))",
        "(call_indirect (type $unit) (i32.const 0))",
        "(call_indirect (type $unit) (i32.const 99))",
        "(call $deep)",
        "(drop (call $write (i32.const 65535) (i32.const 2)))",
        "(drop (call $read (i32.const 0) (i32.const -1) (i32.const 1)))",
        "(memory.fill (i32.const 65000) (i32.const 0) (i32.const 1000))",
        "(throw $thrown)",
    ];
    let cases: String = cases
        .iter()
        .enumerate()
        .map(|(at, case)| format!("(if (i32.eq (local.get $case) (i32.const {at})) (then {case}))"))
        .collect();
    format!(
        r#"(module {IMPORTS}
        (type $unit (func)) (type $other (func (param i32)))
        (memory 1) (table 2 funcref) (elem (i32.const 0) func $other) (tag $thrown)
        (func $other (type $other)) (func $deep (call $deep) (call $deep))
        (func (export "handle") (local $case i32) (local $zero i32)
          (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1)))
          (local.set $case (i32.load8_u (i32.const 0)))
          {cases}))"#
    )
}

const TRAPS: u8 = 14;

async fn try_deploy(world: &World, path: &str, text: &str, settings: Value) -> Answer {
    world
        .deploy_with(path, "reactor", wasm(text), settings)
        .await
}

async fn deploy(world: &World, path: &str, text: &str, settings: Value) {
    let deployed = try_deploy(world, path, text, settings).await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
}

async fn reply(world: &World, path: &str, body: impl Into<Bytes>) -> Bytes {
    let answer = world.call(&format!("/{path}"), body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.body
}

async fn number(world: &World, path: &str) -> i64 {
    let reply = reply(world, path, "").await;
    i64::from_le_bytes(reply.as_ref().try_into().expect("a number"))
}

fn isolation(wall: &str) -> Value {
    json!({ "isolation": wall })
}

fn with_state(wall: &str) -> Value {
    let state = json!([{ "prefix": "", "access": "write" }]);
    json!({ "isolation": wall, "allow": { "state": state } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_traps_inside_as_it_does_behind_one_wall() {
    if !kvm() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    for wall in WALLS {
        let path = format!("{}/f", wall.replace('+', "-"));
        deploy(&world, &path, &traps(), isolation(wall)).await;
    }
    for case in 0..TRAPS {
        let mut seen = Vec::new();
        for path in ["/wasm/f", "/wasm-vm/f"] {
            let answer = world.call(path, vec![case]).await;
            assert_eq!(answer.code(), "function-trapped", "{case} of {path}");
            let detail = answer.json()["detail"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            // Where there is no unwinder, there are no names of frames.
            seen.push(detail.lines().next().unwrap_or_default().to_owned());
        }
        assert_eq!(seen[0], seen[1], "case {case}");
    }
    assert_eq!(reply(&world, "wasm-vm/f", vec![200]).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_once_is_in_the_image_and_what_calls_do_is_undone() {
    if !kvm() {
        return;
    }
    let text = format!(
        r#"(module {IMPORTS} (memory 1) {SAY}
        (global $steps (mut i64) (i64.const 0)) (start $start)
        (type $number (func (result i64))) (table 1 funcref) (elem declare func $one $two)
        (func $one (type $number) (i64.const 1000)) (func $two (type $number) (i64.const 2000))
        (func $step (param i64) (global.set $steps
          (i64.add (i64.mul (global.get $steps) (i64.const 10)) (local.get 0))))
        (func $start (call $step (i64.const 1)))
        (func (export "_initialize") (call $step (i64.const 2)))
        (func (export "init") (result i32)
          (call $step (i64.const 3)) (table.set (i32.const 0) (ref.func $one)) (i32.const 0))
        (func (export "handle")
          (call $say (i64.add (global.get $steps) (call_indirect (type $number) (i32.const 0))))
          (call $step (i64.const 4)) (table.set (i32.const 0) (ref.func $two))))"#
    );
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..2 {
        let world = world(folder.path()).await;
        if round == 0 {
            deploy(&world, "a/f", &text, isolation(BOTH)).await;
            let kept = json!({ "isolation": BOTH, "reuse": "app" });
            deploy(&world, "a/kept", &text, kept).await;
        }
        for _ in 0..3 {
            assert_eq!(number(&world, "a/f").await, 1123);
        }
        for expected in [1123, 3234, 14344] {
            assert_eq!(number(&world, "a/kept").await, expected);
        }
        assert!(world.node.shutdown().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_and_replies_pass_both_walls() {
    if !kvm() {
        return;
    }
    let text = format!(
        r#"(module {IMPORTS} (memory 1)
        (func (export "handle") (local $at i32)
          (drop (memory.grow (i32.const 20)))
          (drop (call $read (i32.const 0) (i32.const 100) (call $size)))
          (loop $next
            (drop (call $write (i32.add (i32.const 100) (local.get $at)) (i32.const 1000)))
            (local.set $at (i32.add (local.get $at) (i32.const 1000)))
            (br_if $next (i32.lt_u (local.get $at) (call $size))))))"#
    );
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    deploy(&world, "a/f", &text, isolation(BOTH)).await;
    for thousands in [1, 65, 66, 1000] {
        let body: Vec<u8> = (0..thousands * 1000_u32).map(|at| (at / 7) as u8).collect();
        assert_eq!(reply(&world, "a/f", body.clone()).await, body);
    }
}

/// Maps a value twice, adds one to its first word through the first mapping, reads it through the
/// second, grows its own memory, and says the word.
const MAPS: &str = r#"
  (import "dunlin" "state_map" (func $map (param i32 i32 i64 i64 i32) (result i64)))
  (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
  (data (i32.const 16) "mapped")
  (func $at (result i32) (i32.wrap_i64 (call $map (i32.const 16) (i32.const 6) (i64.const 0)
      (i64.const 65536) (i32.const 1))))
  (func (export "handle") (result i32) (local $one i32) (local $two i32)
    (local.set $one (call $at)) (local.set $two (call $at))
    (if (i32.ne (memory.size) (i32.const 3)) (then unreachable))
    (if (i32.ne (memory.grow (i32.const 1)) (i32.const 3)) (then unreachable))
    (i32.store (i32.const 262140) (i32.const 5))
    (i64.store (i32.const 8) (i64.load (local.get $one)))
    (i64.store (local.get $one) (i64.add (i64.load (local.get $one)) (i64.const 1)))
    (if (i64.ne (i64.load (local.get $one)) (i64.load (local.get $two))) (then unreachable))
    (call $write (i32.const 8) (i32.const 8)))"#;

#[tokio::test(flavor = "multi_thread")]
async fn state_is_mapped_into_linear_memory_and_shared_with_faaslets() {
    if !kvm() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let text = format!("(module {MAPS} (memory 1))");
    for wall in WALLS {
        let path = format!("a/{}", wall.replace('+', "-"));
        deploy(&world, &path, &text, with_state(wall)).await;
    }
    for count in 0..6 {
        let path = ["a/wasm", "a/wasm-vm"][count as usize % 2];
        assert_eq!(number(&world, path).await, count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_that_may_not_grow_is_told_so_and_is_whole_after_it() {
    const EXHAUSTED: i64 = -6;
    if !kvm() {
        return;
    }
    let text = format!(
        r#"(module {IMPORTS}
        (import "dunlin" "state_map" (func $map (param i32 i32 i64 i64 i32) (result i64)))
        (memory 1 1) (data (i32.const 16) "mapped") {SAY}
        (func (export "handle")
          (call $say (call $map (i32.const 16) (i32.const 6) (i64.const 0) (i64.const 65536)
            (i32.const 1)))
          (if (i32.ne (memory.size) (i32.const 1)) (then unreachable))
          (drop (call $map (i32.const 16) (i32.const 6) (i64.const 0) (i64.const 65536)
            (i32.const 1)))))"#
    );
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    deploy(&world, "a/f", &text, with_state(BOTH)).await;
    assert_eq!(number(&world, "a/f").await, EXHAUSTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn state_that_is_mapped_to_read_ends_a_guest_that_writes_to_it() {
    if !kvm() {
        return;
    }
    let text = r#"(module
        (import "dunlin" "state_set" (func $set (param i32 i32 i32 i32) (result i64)))
        (import "dunlin" "state_map" (func $map (param i32 i32 i64 i64 i32) (result i64)))
        (memory 1) (data (i32.const 16) "mapped")
        (func (export "handle")
          (drop (call $set (i32.const 16) (i32.const 6) (i32.const 0) (i32.const 65536)))
          (i32.store (i32.wrap_i64 (call $map (i32.const 16) (i32.const 6) (i64.const 0)
            (i64.const 0) (i32.const 0))) (i32.const 1))))"#;
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    deploy(&world, "a/f", text, with_state(BOTH)).await;
    for _ in 0..2 {
        let answer = world.call("/a/f", "").await;
        assert_eq!(answer.code(), "function-trapped", "{}", answer.text());
        assert!(
            answer.text().contains("mapped to read"),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_another_function_leaves_both_walls_and_comes_back() {
    if !kvm() {
        return;
    }
    let caller = r#"(module
        (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
        (import "dunlin" "chain_call" (func $call (param i32 i32 i32 i32) (result i64)))
        (import "dunlin" "chain_read" (func $read (param i32 i64 i32 i32) (result i64)))
        (memory 1) (data (i32.const 16) "other") (data (i32.const 32) "hello")
        (func (export "handle") (local $handle i32)
          (local.set $handle (i32.wrap_i64 (call $call
            (i32.const 16) (i32.const 5) (i32.const 32) (i32.const 5))))
          (drop (call $write (i32.const 64) (i32.wrap_i64 (call $read (local.get $handle)
            (i64.const 0) (i32.const 64) (i32.const 100)))))))"#;
    let echo = format!(
        r#"(module {IMPORTS} (memory 1) (func (export "handle")
        (drop (call $read (i32.const 0) (i32.const 0) (call $size)))
        (drop (call $write (i32.const 0) (call $size)))))"#
    );
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let may_call = json!({ "isolation": BOTH, "allow": { "call": ["other"] } });
    deploy(&world, "a/f", caller, may_call).await;
    deploy(&world, "a/other", &echo, isolation(BOTH)).await;
    assert_eq!(reply(&world, "a/f", "").await, "hello");
    deploy(&world, "a/denied", caller, isolation(BOTH)).await;
    assert_eq!(world.call("/a/denied", "").await.code(), "function-trapped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_another_signature_than_the_tables_is_refused() {
    if !kvm() {
        return;
    }
    let text = r#"(module (import "dunlin" "chain_call" (func (param i32) (result i64)))
        (func (export "handle")))"#;
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let refused = try_deploy(&world, "a/f", text, isolation(BOTH)).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("chain_call"), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn exceptions_are_thrown_and_caught_inside() {
    if !kvm() {
        return;
    }
    let text = format!(
        r#"(module {IMPORTS} (memory 1) {SAY} (tag $e (param i64))
        (func $throws (throw $e (i64.const 77)))
        (func (export "handle")
          (call $say (block $caught (result i64)
            (try_table (catch $e $caught) (call $throws)) (i64.const 1)))))"#
    );
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    for wall in WALLS {
        let path = format!("a/{}", wall.replace('+', "-"));
        deploy(&world, &path, &text, isolation(wall)).await;
        for _ in 0..3 {
            assert_eq!(number(&world, &path).await, 77, "{wall}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_inside_is_refused_at_deploy_with_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    if !kvm() {
        let refused = try_deploy(&world, "a/f", "(module)", isolation(BOTH)).await;
        assert_eq!(refused.code(), "no-micro-vms");
        return;
    }
    let command = wasm(support::ECHO);
    let refused = world
        .deploy_with("a/f", "command", command, isolation(BOTH))
        .await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (400, "invalid-settings")
    );
    assert!(refused.text().contains("reactors"), "{}", refused.text());

    let imports = r#"(module (import "wasi_snapshot_preview1" "fd_sync" (func (param i32) (result i32)))
        (import "dunlin" "nothing" (func)) (func (export "handle")))"#;
    let refused = try_deploy(&world, "a/f", imports, isolation(BOTH)).await;
    for name in ["wasi_snapshot_preview1.fd_sync", "dunlin.nothing"] {
        assert!(refused.text().contains(name), "{}", refused.text());
    }

    let fails = r#"(module (func (export "init") (result i32) (i32.const 3))
        (func (export "handle")))"#;
    let refused = try_deploy(&world, "a/f", fails, isolation(BOTH)).await;
    assert!(refused.text().contains("returned 3"), "{}", refused.text());

    let traps = r#"(module (func (export "init") unreachable) (func (export "handle")))"#;
    let refused = try_deploy(&world, "a/f", traps, isolation(BOTH)).await;
    assert!(refused.text().contains("unreachable"), "{}", refused.text());

    let small = json!({ "isolation": BOTH, "limits": { "memory_bytes_max": 1 << 20 } });
    let plain = r#"(module (func (export "handle")))"#;
    let refused = try_deploy(&world, "a/f", plain, small).await;
    assert!(
        refused.text().contains("memory_bytes_max"),
        "{}",
        refused.text()
    );
}
