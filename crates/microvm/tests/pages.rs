//! Guests that have pages of their own choice, code in them, and faults that they catch.
#![allow(clippy::unwrap_used, missing_docs)]

mod build;

use std::sync::Arc;

use bytes::Bytes;
use model::{Digest, InvocationId, Kind, Limits, Settings, Status, TrapKind, VersionSpec};
use sandbox::{
    Artifacts, Backend, BodyError, Call, CallLog, Completion, End, LogSink, LogStream, Payload,
    Sandbox,
};

struct NoArtifacts;

#[async_trait::async_trait]
impl Artifacts for NoArtifacts {
    async fn artifact(&self, _: &Digest) -> Result<Bytes, BodyError> {
        Err("what was prepared is in the cache".into())
    }
}

struct NoLog;

impl LogSink for NoLog {
    fn write(&self, _: InvocationId, _: LogStream, _: &[u8]) {}
}

fn call(body: &str) -> Call {
    let id = InvocationId::new(0);
    Call {
        id,
        payload: Payload::Bytes {
            body: Bytes::copy_from_slice(body.as_bytes()),
            args: Vec::new(),
            env: Vec::new(),
        },
        limits: Arc::new(Limits::default()),
        budget: None,
        log: Arc::new(CallLog::new(id, Arc::new(NoLog), 1 << 16)),
        asks: None,
    }
}

struct World {
    _dir: tempfile::TempDir,
    sandbox: Box<dyn Sandbox>,
}

async fn world() -> Option<World> {
    let (dir, backend) = build::backend(&[])?;
    let artifact = build::guest("pages.c", "PAGES", &[]);
    let spec = VersionSpec {
        kind: Kind::Reactor,
        artifact: Digest::of(&artifact),
        settings: Settings::default(),
    };
    backend.prepare(&spec, artifact, Vec::new()).await.unwrap();
    let program = backend.load(&spec, &NoArtifacts).await.unwrap();
    let sandbox = program.sandbox().unwrap();
    Some(World { _dir: dir, sandbox })
}

impl World {
    /// How a call ends; the next one finds the machine clean.
    async fn call(&mut self, body: &str) -> Completion {
        let completion = self.sandbox.invoke(call(body)).await;
        self.sandbox.reset().unwrap();
        let next = self.sandbox.invoke(call("z")).await;
        assert_eq!(next.reply.as_ref(), [0; 8], "after {body}");
        self.sandbox.reset().unwrap();
        completion
    }

    async fn number(&mut self, body: &str) -> i64 {
        let reply = self.call(body).await.reply;
        i64::from_le_bytes(reply.as_ref().try_into().expect(body))
    }

    async fn trap(&mut self, body: &str) -> (TrapKind, String) {
        match self.call(body).await.end {
            End::Done(Status::Trap { kind, message }) => (kind, message),
            other => panic!("{body} ended {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_zeros_keep_what_they_hold_and_can_be_code() {
    let Some(mut world) = world().await else {
        return;
    };
    assert_eq!(world.number("g").await, 5);
    assert_eq!(world.number("x").await, 42);
    let (kind, message) = world.trap("w").await;
    assert_eq!(kind, TrapKind::OutOfBounds);
    assert!(message.contains("write of 0x50000000"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_may_not_have_is_refused() {
    const INVALID: i64 = -3;
    const EXHAUSTED: i64 = -6;
    let Some(mut world) = world().await else {
        return;
    };
    for (body, error) in [
        ("b", INVALID),
        ("o", INVALID),
        ("h", INVALID),
        ("m", EXHAUSTED),
    ] {
        assert_eq!(world.number(body).await, error, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_is_caught_goes_on_at_its_handler_and_another_ends_the_call() {
    let Some(mut world) = world().await else {
        return;
    };
    let caught = world.trap("c").await;
    assert_eq!(caught, (TrapKind::Arithmetic, "caught it".to_owned()));
    let (kind, message) = world.trap("f").await;
    assert_eq!(kind, TrapKind::OutOfBounds);
    assert!(message.contains("write of 0x8"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_that_makes_no_sense_ends_the_call_and_says_so() {
    let Some(mut world) = world().await else {
        return;
    };
    let (kind, message) = world.trap("t").await;
    assert_eq!(kind, TrapKind::Other);
    assert!(message.contains("a trap that there is not"), "{message}");
    let (_, message) = world.trap("l").await;
    assert!(message.contains("bad address"), "{message}");
}
