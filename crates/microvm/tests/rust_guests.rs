//! Guests in Rust on `sdk/rust-vm`, built as their owners build them.
#![allow(clippy::unwrap_used, missing_docs)]

mod build;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use microvm::MicroVms;
use model::{
    Digest, InvocationId, Isolation, Kind, Limits, Settings, Status, TrapKind, VersionSpec,
};
use parking_lot::Mutex;
use sandbox::{
    Artifacts, Backend, BodyError, Call, CallLog, End, LogSink, LogStream, Payload, Program,
};

struct Nothing;

#[async_trait::async_trait]
impl Artifacts for Nothing {
    async fn artifact(&self, _: &Digest) -> Result<Bytes, BodyError> {
        Err("it was prepared already".into())
    }
}

#[derive(Default)]
struct Lines(Mutex<Vec<u8>>);

impl LogSink for Lines {
    fn write(&self, _: InvocationId, _: LogStream, bytes: &[u8]) {
        self.0.lock().extend_from_slice(bytes);
    }
}

/// The program of the crate in `folder`, whose own configuration says how it is linked.
fn built(folder: &str, name: &str) -> Bytes {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--quiet", "--locked", "--release", "--target-dir"])
        .arg(&out)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "RUSTFLAGS",
    ] {
        cargo.env_remove(name);
    }
    let built = cargo.output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{name} does not compile: {said}");
    let program = out.join("x86_64-unknown-linux-gnu/release").join(name);
    std::fs::read(program).unwrap().into()
}

async fn deploy(backend: &MicroVms, artifact: Bytes) -> Arc<dyn Program> {
    let spec = VersionSpec {
        kind: Kind::Reactor,
        artifact: Digest::of(&artifact),
        settings: Settings {
            isolation: Isolation::Vm,
            ..Settings::default()
        },
    };
    backend.prepare(&spec, artifact, Vec::new()).await.unwrap();
    backend.load(&spec, &Nothing).await.unwrap()
}

/// A call in a sandbox of its own: how it ended, what it replied and logged.
async fn call(program: &Arc<dyn Program>, body: &[u8]) -> (Status, Vec<u8>, String) {
    let lines = Arc::new(Lines::default());
    let id = InvocationId::new(1);
    let completion = program
        .sandbox()
        .unwrap()
        .invoke(Call {
            id,
            payload: Payload::Bytes {
                body: Bytes::copy_from_slice(body),
                args: Vec::new(),
                env: Vec::new(),
            },
            limits: Arc::new(Limits::default()),
            budget: None,
            log: Arc::new(CallLog::new(id, lines.clone(), 1 << 20)),
            asks: None,
        })
        .await;
    let End::Done(status) = completion.end else {
        panic!("a call without a budget went over it");
    };
    let log = String::from_utf8_lossy(&lines.0.lock()).into_owned();
    (status, completion.reply.to_vec(), log)
}

/// What a call that ends well replies.
async fn reply(program: &Arc<dyn Program>, body: &[u8]) -> String {
    let (status, reply, log) = call(program, body).await;
    assert_eq!(status, Status::Ok, "{log}");
    String::from_utf8(reply).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_in_rust_does_all_that_its_crate_offers() {
    let Some((_dir, backend)) = build::backend(&[]) else {
        return;
    };
    let guest = built("tests/guests/rust", "rust-guest");
    let program = deploy(&backend, guest).await;
    for _ in 0..2 {
        assert_eq!(reply(&program, b"count").await, "prepared 1 called 1");
    }
    let long = format!("echo {}", "text ".repeat(60_000));
    for body in ["echo", "echo one", &long] {
        assert_eq!(reply(&program, body.as_bytes()).await, body);
    }
    let long = format!("log {}", "x".repeat(20_000));
    let (status, _, log) = call(&program, long.as_bytes()).await;
    assert_eq!(status, Status::Ok);
    assert_eq!(log, format!("one line\n{long}\n"));
    assert_eq!(reply(&program, b"grow").await, "19999900200");
    let (one, two) = (
        reply(&program, b"random").await,
        reply(&program, b"random").await,
    );
    assert!(one.starts_with("true [") && one != two, "{one} {two}");
    // This host offers no state, and the call that it is told of is the one of the table.
    let (status, ..) = call(&program, b"state").await;
    let told = "it made host call 0x54187b45, which is not offered";
    assert_eq!(
        status,
        Status::Trap {
            kind: TrapKind::Other,
            message: told.to_owned(),
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_in_rust_ends_as_it_says() {
    let Some((_dir, backend)) = build::backend(&[]) else {
        return;
    };
    let guest = built("tests/guests/rust", "rust-guest");
    let program = deploy(&backend, guest).await;
    assert_eq!(call(&program, b"").await.0, Status::Exit { code: 7 });
    let trapped = |status: Status| match status {
        Status::Trap { kind, message } => (kind, message),
        other => panic!("{other:?}"),
    };
    let (kind, message) = trapped(call(&program, b"panic").await.0);
    assert_eq!(kind, TrapKind::Other);
    assert!(message.contains("as it was asked"), "{message}");
    let (_, message) = trapped(call(&program, b"null").await.0);
    assert!(message.starts_with("write of 0x8"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_rust_replies_with_a_digest() {
    let Some((_dir, backend)) = build::backend(&[]) else {
        return;
    };
    let program = deploy(
        &backend,
        built("../../examples/sha256-rs-vm", "sha256-rs-vm"),
    )
    .await;
    let digest = "22ea6168287d85f66a8e5371c0f5cf8fa3f6af9139a46311dc5089fc1a99f7bb\n";
    assert_eq!(reply(&program, b"Calidris alpina\n").await, digest);
    let (_, reply, log) = call(&program, b"").await;
    assert!(reply.starts_with(b"e3b0c44298fc1c14"));
    assert_eq!(log, "the body is empty\n");
}
