//! Functions behind a hardware wall, as their callers and the rest of their app see them.

mod support;

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use serde_json::{Value, json};
use support::{World, kvm, wasm, world};

/// What a faaslet of the same app does with the mapped value: adds one to its first word, and
/// replies what that was.
const MAPS: &str = r#"(module
  (import "dunlin" "state_map" (func $map (param i32 i32 i64 i64 i32) (result i64)))
  (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "mapped")
  (func (export "handle") (result i32) (local $at i32)
    (local.set $at (i32.wrap_i64 (call $map (i32.const 16) (i32.const 6) (i64.const 0)
      (i64.const 65536) (i32.const 1))))
    (drop (call $write (local.get $at) (i32.const 8)))
    (i64.store (local.get $at) (i64.add (i64.load (local.get $at)) (i64.const 1)))
    (i32.const 0)))"#;

const SAYS_OTHER: &str = r#"(module
  (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "other")
  (func (export "handle") (result i32) (call $write (i32.const 16) (i32.const 5))))"#;

fn guest() -> Bytes {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("guest");
    let built = Command::new("gcc")
        .args([
            "-O2",
            "-static",
            "-nostdlib",
            "-ffreestanding",
            "-fno-pie",
            "-no-pie",
        ])
        .arg("-I")
        .arg(here.join("../../sdk/c"))
        .arg(here.join("tests/guests/shared.c"))
        .arg("-o")
        .arg(&out)
        .output()
        .expect("gcc is there: apt install gcc");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    std::fs::read(out).expect("the guest").into()
}

async fn deploy(world: &World, path: &str, settings: Value) {
    let mut settings = settings;
    settings["isolation"] = "vm".into();
    let deployed = world.deploy_with(path, "reactor", guest(), settings).await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
}

fn all_state() -> Value {
    json!({ "allow": { "state": [{ "prefix": "", "access": "write" }] } })
}

async fn reply(world: &World, path: &str, body: &str) -> Bytes {
    let answer = world.call(&format!("/{path}"), body.to_owned()).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    answer.body
}

async fn number(world: &World, path: &str, body: &str) -> i64 {
    let reply = reply(world, path, body).await;
    i64::from_le_bytes(reply.as_ref().try_into().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_micro_vm_answers_and_each_call_finds_it_fresh_also_after_a_restart() {
    if !kvm() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..2 {
        let world = world(folder.path()).await;
        if round == 0 {
            deploy(&world, "a/vm", json!({})).await;
        }
        for text in ["hello", "", "again"] {
            assert_eq!(reply(&world, "a/vm", &format!("e{text}")).await, text);
        }
        for _ in 0..5 {
            assert_eq!(number(&world, "a/vm", "n").await, 1);
        }
        assert!(world.node.shutdown().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_calls_of_one_image_have_the_same_random_bytes_or_time() {
    if !kvm() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    deploy(&world, "a/vm", json!({})).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let bytes = reply(&world, "a/vm", "r").await;
        let (random, time) = bytes.split_at(32);
        seen.push((
            random.to_vec(),
            u64::from_le_bytes(time.try_into().expect("a time")),
        ));
    }
    assert!(
        seen.windows(2)
            .all(|two| two[0].0 != two[1].0 && two[0].1 < two[1].1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_micro_vm_and_a_faaslet_share_the_bytes_of_their_app() {
    if !kvm() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    deploy(&world, "a/vm", all_state()).await;
    let deployed = world
        .deploy_with("a/wasm", "reactor", wasm(MAPS), all_state())
        .await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
    for count in 0..6 {
        let path = if count % 2 == 0 { "a/vm" } else { "a/wasm" };
        assert_eq!(number(&world, path, "m").await, count);
    }
    let stray = world.call("/a/vm", "w").await;
    assert_eq!(
        (stray.status, stray.code().as_str()),
        (500, "function-trapped")
    );
    assert_eq!(number(&world, "a/vm", "m").await, 6);
    assert!(number(&world, "a/vm", "svalue").await > 0);
    assert_eq!(reply(&world, "a/vm", "g").await, "value");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_granted_is_denied_and_what_was_is_done() {
    const DENIED: i64 = -1;
    if !kvm() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    deploy(&world, "a/none", json!({})).await;
    deploy(&world, "a/calls", json!({ "allow": { "call": ["other"] } })).await;
    world
        .deploy("a/other", "reactor", wasm(SAYS_OTHER), json!({}))
        .await;
    for body in ["svalue", "g", "m", "c"] {
        assert_eq!(number(&world, "a/none", body).await, DENIED, "{body}");
    }
    assert_eq!(number(&world, "a/calls", "svalue").await, DENIED);
    assert_eq!(reply(&world, "a/calls", "c").await, "other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_says_what_where_and_in_which_function() {
    if !kvm() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    deploy(&world, "a/vm", json!({})).await;
    let answer = world.call("/a/vm", "l").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (500, "function-trapped")
    );
    let detail = answer.json()["detail"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    for part in [
        "write of 0x8",
        "null pointer",
        "instruction 0x40",
        "`handle`",
    ] {
        assert!(detail.contains(part), "{detail:?} does not say {part:?}");
    }
    assert_eq!(reply(&world, "a/vm", "eon").await, "on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_micro_vm_remembers_and_a_fault_makes_it_forget() {
    if !kvm() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    deploy(&world, "a/vm", json!({ "reuse": "app" })).await;
    for count in 1..4 {
        assert_eq!(number(&world, "a/vm", "n").await, count);
    }
    assert_eq!(world.call("/a/vm", "l").await.status, 500);
    assert_eq!(number(&world, "a/vm", "n").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_a_wall_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let refused = world
        .deploy_with("a/f", "reactor", guest(), json!({}))
        .await;
    assert_eq!((refused.status, refused.code().as_str()), (422, "not-wasm"));
    assert!(refused.text().contains("isolation"), "{}", refused.text());
    if !kvm() {
        let vm = json!({ "isolation": "vm" });
        let refused = world.deploy_with("a/f", "reactor", guest(), vm).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (422, "no-micro-vms")
        );
        return;
    }
    let vm = || json!({ "isolation": "vm" });
    let refused = world
        .deploy_with("a/f", "reactor", wasm(SAYS_OTHER), vm())
        .await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (422, "not-executable")
    );
    let refused = world.deploy_with("a/f", "http", guest(), vm()).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (422, "wrong-kind")
    );
}

#[tokio::test]
async fn what_micro_vms_do_not_have_is_refused_and_not_left_out() {
    if !kvm() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    for (what, settings) in [
        ("files", file_settings(&world).await),
        ("layers", layers(&world).await),
    ] {
        let mut settings = settings;
        settings["isolation"] = "vm".into();
        let refused = world
            .deploy_with("app/f", "reactor", guest(), settings)
            .await;
        assert_eq!(refused.code(), "invalid-settings", "{}", refused.text());
        assert!(refused.text().contains(what), "{}", refused.text());
    }
}

async fn uploaded(world: &World, kind: &str, bytes: &'static [u8]) -> String {
    let digest = model::Digest::of(bytes).to_string();
    let request = http::Request::put(world.admin(&format!("/v1/{kind}/{digest}")));
    let body = http_body_util::Full::from(bytes);
    let answer = world.send(request.body(body).expect("a request")).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    digest
}

async fn file_settings(world: &World) -> Value {
    let list = model::FileList::default().to_bytes().leak();
    json!({ "files": uploaded(world, "files", list).await })
}

async fn layers(world: &World) -> Value {
    json!({ "layers": [uploaded(world, "artifacts", b"a layer").await] })
}
