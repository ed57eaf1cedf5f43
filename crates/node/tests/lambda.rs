//! Functions that were made for AWS Lambda, and clients that were.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use serde_json::json;
use support::{ECHO, kvm, wasm, world};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A runtime on AWS's own crate.
fn invoice() -> Bytes {
    let file = root().join("guests/out/invoice-lambda.elf");
    let bytes = std::fs::read(&file);
    let bytes = bytes.unwrap_or_else(|error| panic!("{file:?}: {error}; run ./x guests"));
    bytes.into()
}

/// A runtime without any library.
fn plain() -> Bytes {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("bootstrap");
    let built = Command::new("gcc")
        .args(["-O2", "-w", "-static", "-o"])
        .arg(&out)
        .arg(root().join("crates/microvm/tests/guests/bootstrap.c"))
        .output()
        .expect("gcc is there: apt install gcc");
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    std::fs::read(out).expect("the bootstrap").into()
}

/// The Python that has boto3.
fn python() -> PathBuf {
    let toolchains = match std::env::var_os("DUNLIN_TOOLCHAINS") {
        Some(toolchains) => PathBuf::from(toolchains),
        None => {
            let home = std::env::var_os("HOME").expect("a home");
            Path::new(&home).join(".cache/dunlin/toolchains")
        }
    };
    toolchains.join("python/bin/python")
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_invokes_what_was_made_for_lambda_as_it_is() {
    if !kvm() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    for (path, bootstrap) in [("shop/invoice", invoice()), ("shop/plain", plain())] {
        let settings = json!({ "isolation": "vm", "limits": { "deadline_ms": 5000 } });
        let deployed = world.deploy_with(path, "lambda", bootstrap, settings).await;
        assert_eq!(deployed.status, 201, "{}", deployed.text());
    }
    world.deploy_command("shop/echo", ECHO).await;
    let script = root().join("crates/node/tests/clients/invoke.py");
    let endpoint = world.data("");
    let ran = tokio::task::spawn_blocking(move || {
        let python = python();
        let ran = Command::new(&python).arg(script).arg(endpoint).output();
        ran.unwrap_or_else(|error| panic!("{python:?}: {error}; run ./x guests"))
    });
    let ran = ran.await.expect("it ran");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let id = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    let ended = world.ended(&id).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let reply = world
        .get(world.admin(&format!("/v1/invocations/{id}/result")))
        .await;
    assert_eq!(reply.json()["total_cents"], 3138, "{}", reply.text());
}

#[tokio::test]
async fn a_lambda_function_is_refused_behind_another_wall() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let refused = world
        .deploy("shop/f", "lambda", wasm(ECHO), json!({}))
        .await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (422, "wrong-kind")
    );
    assert!(
        refused.text().contains("isolation = \\\"vm\\\""),
        "{}",
        refused.text()
    );
}
