//! A node from deploy to end, with real guests.

mod support;

use std::time::Duration;

use serde_json::json;
use support::{ECHO, config, says, sleeps, starts, wasm, world, world_of};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_deployed_called_seen_and_billed() {
    let folder = folder();
    let world = world(folder.path()).await;
    world.deploy_command("shop/echo", ECHO).await;
    let answer = world.call("/shop/echo", "hello").await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    let again = world.call("/shop/echo", "again").await;
    assert_eq!(
        (again.text(), &again.headers["dunlin-start"]),
        ("again", &"restored".parse().expect("a header"))
    );
    let usage = world.get(world.admin("/v1/usage")).await.json();
    assert_eq!(usage["functions"][0]["invocations"], 2);
    assert_eq!(usage["functions"][0]["input_bytes"], 10);
    let metrics = world.get(world.admin("/metrics")).await;
    assert!(
        metrics.text().contains("dunlin_gateway_requests_total"),
        "{}",
        metrics.text()
    );
    assert!(world.node.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_does_wrong_ends_only_its_own_call() {
    let folder = folder();
    let world = world(folder.path()).await;
    world.deploy_command("shop/good", &says("good")).await;
    let check = async |name: &str, body: &str, status: u16, code: &str| {
        let path = format!("shop/{name}");
        let mut limits = json!({ "memory_bytes_max": 1 << 20 });
        if code == "function-timeout" {
            limits["deadline_ms"] = 200.into();
        }
        let deployed = world
            .deploy(&path, "command", wasm(&starts(body)), limits)
            .await;
        assert_eq!(deployed.status, 201, "{name}: {}", deployed.text());
        let answer = world.call(&format!("/{path}"), "").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{name}: {}",
            answer.text()
        );
        assert_eq!(world.call("/shop/good", "").await.text(), "good", "{name}");
    };
    check("trap", "unreachable", 500, "function-trapped").await;
    check("loop", "(loop (br 0))", 504, "function-timeout").await;
    check("recurse", "(call $down)", 500, "function-trapped").await;
    check("exit", "(call $exit (i32.const 3))", 500, "function-exited").await;
    let grow = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    check("grow", grow, 500, "out-of-memory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_function_is_refused_with_its_code() {
    let folder = folder();
    let world = world(folder.path()).await;
    let check = async |kind: &str, bytes: Vec<u8>, code: &str| {
        let refused = world.deploy("shop/f", kind, bytes.into(), json!({})).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (422, code),
            "{}",
            refused.text()
        );
        refused
    };
    check("command", b"#!/bin/sh\n".to_vec(), "not-wasm").await;
    let whole = wasm(ECHO);
    check("command", whole[..whole.len() / 2].to_vec(), "invalid-wasm").await;
    check("http", whole.to_vec(), "wrong-kind").await;
    check("reactor", whole.to_vec(), "wrong-kind").await;
    let unknown = r#"(module (import "env" "fork" (func)) (import "env" "exec" (func))
        (memory (export "memory") 1) (func (export "_start")))"#;
    let refused = check("command", wasm(unknown).to_vec(), "unknown-imports").await;
    assert_eq!(refused.json()["imports"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        world
            .get(world.admin("/v1/apps/shop/functions/f"))
            .await
            .status,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_deploys_that_race_leave_one_of_the_two_live() {
    let folder = folder();
    let world = world(folder.path()).await;
    let (one, two) = (says("one"), says("two"));
    let deploys = tokio::join!(
        world.deploy_command("shop/f", &one),
        world.deploy_command("shop/f", &two)
    );
    let function = world
        .get(world.admin("/v1/apps/shop/functions/f"))
        .await
        .json();
    assert_eq!(function["versions"], 2);
    let live = function["live"].as_str().expect("a version");
    let expected = if live == deploys.0 { "one" } else { "two" };
    assert!(live == deploys.0 || live == deploys.1);
    assert_eq!(world.call("/shop/f", "").await.text(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_tokens_and_results_survive_a_restart() {
    let folder = folder();
    let first = world(folder.path()).await;
    first.deploy_command("shop/echo", ECHO).await;
    let accepted = first.call_later("/shop/echo", "kept").await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let id = accepted.json()["id"].as_str().expect("an id").to_owned();
    assert!(first.node.shutdown().await);
    let second = world(folder.path()).await;
    assert_eq!(second.call("/shop/echo", "still").await.text(), "still");
    assert_eq!(second.ended(&id).await["state"], "succeeded");
    let result = second
        .get(second.admin(&format!("/v1/invocations/{id}/result")))
        .await;
    assert_eq!((result.status, result.text()), (200, "kept"));
    let usage = second.get(second.admin("/v1/usage")).await.json();
    assert_eq!(usage["functions"][0]["invocations"], 2);
    assert!(second.node.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoiled_cache_is_made_again() {
    let folder = folder();
    let first = world(folder.path()).await;
    first.deploy_command("shop/echo", ECHO).await;
    assert!(first.node.shutdown().await);
    let spoiled = spoil(&folder.path().join("cache"));
    assert!(spoiled > 0, "there is something in the cache");
    let second = world(folder.path()).await;
    let answer = second.call("/shop/echo", "again").await;
    assert_eq!((answer.status, answer.text()), (200, "again"));
}

/// Turns a bit in the middle of every file; how many there were.
fn spoil(folder: &std::path::Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            count += spoil(&path);
            continue;
        }
        let mut bytes = std::fs::read(&path).expect("a file");
        if let Some(byte) = bytes.len().checked_div(2).and_then(|at| bytes.get_mut(at)) {
            *byte ^= 0x40;
            // The node's files may be read-only: another takes its place.
            std::fs::remove_file(&path).expect("removed");
            std::fs::write(&path, bytes).expect("written");
            count += 1;
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_calls_become_dead_letters_and_are_sent_again() {
    let folder = folder();
    let mut config = config(folder.path());
    config.invoker.backoff_base = Duration::from_millis(1);
    let world = world_of(config).await.expect("a node");
    let limits = json!({ "attempts_max": 2 });
    let trap = wasm(&starts("unreachable"));
    assert_eq!(
        world.deploy("shop/f", "command", trap, limits).await.status,
        201
    );
    let accepted = world.call_later("/shop/f", "x").await.json();
    let id = accepted["id"].as_str().expect("an id").to_owned();
    let dead = world.ended(&id).await;
    assert_eq!(
        (&dead["state"], &dead["attempts"]),
        (&json!("dead-letter"), &json!(2))
    );
    assert_eq!(dead["outcome"]["status"], "trap");
    let letters = world
        .get(world.admin("/v1/dead-letters?app=shop&function=f"))
        .await
        .json();
    assert_eq!(letters["invocations"][0]["id"], json!(id));
    world.deploy_command("shop/f", ECHO).await;
    let uri = world.admin("/v1/dead-letters/redrive");
    let redriven = world
        .send_json("POST", uri, json!({ "ids": [id] }))
        .await
        .json();
    let again = redriven["ids"][0].as_str().expect("an id");
    assert_eq!(world.ended(again).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_finishes_what_runs() {
    let folder = folder();
    let world = world(folder.path()).await;
    world.deploy_command("shop/sleep", &sleeps(300)).await;
    let (client, uri) = (world.client.clone(), world.data("/shop/sleep"));
    let call = tokio::spawn(async move {
        let request = http::Request::post(uri).body(http_body_util::Full::default());
        client
            .request(request.expect("a request"))
            .await
            .expect("an answer")
            .status()
    });
    loop {
        let pools = world.get(world.admin("/v1/pools")).await.json();
        if pools["pools"][0]["running"] == 1 {
            break;
        }
    }
    assert!(world.node.shutdown().await);
    assert_eq!(call.await.expect("it ended"), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_others_can_reach_needs_a_token() {
    let folder = folder();
    let mut open = config(folder.path());
    open.admin_addr = "0.0.0.0:0".parse().expect("an address");
    let refused = world_of(open.clone()).await.err().expect("refused");
    let text = refused.to_string();
    assert!(
        text.contains("dunlin token create") && text.contains("0.0.0.0"),
        "{text}"
    );
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let (_, token) = loop {
        let data = folder.path().to_owned();
        let made = tokio::task::spawn_blocking(move || node::offline::create_token(&data, "first"));
        match made.await.expect("it ran") {
            // What a start began that was refused ends a moment after it.
            Err(error) if format!("{error:?}").contains("Locked") => {
                assert!(std::time::Instant::now() < end, "{error}");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            made => break made.expect("a token"),
        }
    };
    let world = world_of(open).await.expect("a node");
    let uri = format!(
        "http://127.0.0.1:{}/v1/apps",
        world.node.admin_addr().port()
    );
    assert_eq!(world.get(uri.clone()).await.status, 401);
    let with = http::Request::get(uri)
        .header("authorization", format!("Bearer {token}"))
        .body(http_body_util::Full::default());
    assert_eq!(world.send(with.expect("a request")).await.status, 200);
    assert_eq!(
        world.call("/shop/f", "").await.status,
        401,
        "the data listener asks too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_cannot_share_a_data_directory() {
    let folder = folder();
    let first = world(folder.path()).await;
    let refused = world_of(config(folder.path()))
        .await
        .err()
        .expect("refused");
    assert!(refused.to_string().contains("in use"), "{refused}");
    assert!(first.node.shutdown().await);
    assert!(world_of(config(folder.path())).await.is_ok());
}
