//! Components through the back-end's trait: kinds, imports, limits, faults and streams.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::sync::Arc;

use bytes::Bytes;
use faaslet::{ComponentConfig, Components};
use http_body_util::BodyExt;
use model::{Digest, InvocationId, Kind, Limits, Settings, Status, TrapKind, VersionSpec};
use parking_lot::Mutex;
use sandbox::Cache;
use sandbox::{
    Artifacts, Body, BodyError, Call, CallLog, Completion, End, HttpCall, LogSink, LogStream,
    Payload, PrepareError, Program, SandboxError, State, body_of,
};
use tokio::sync::oneshot;

const HTTP: &str = include_str!("wat/http.wat");
const COMMAND: &str = include_str!("wat/command.wat");

/// An http component with this handler.
fn http(handle: &str) -> Bytes {
    wasm(&HTTP.replace(";; HANDLE\n", handle))
}

/// A command with this `run`.
fn command(run: &str) -> Bytes {
    wasm(&COMMAND.replace(";; RUN\n", run))
}

fn wasm(text: &str) -> Bytes {
    wat::parse_str(text).unwrap().into()
}

struct Artifact(Bytes);

#[async_trait::async_trait]
impl Artifacts for Artifact {
    async fn artifact(&self, digest: &Digest) -> Result<Bytes, BodyError> {
        assert_eq!(*digest, Digest::of(&self.0));
        Ok(self.0.clone())
    }
}

#[derive(Default)]
struct Printed(Mutex<Vec<(LogStream, u8)>>);

impl LogSink for Printed {
    fn write(&self, _: InvocationId, stream: LogStream, bytes: &[u8]) {
        let bytes = bytes.iter().map(|byte| (stream, *byte));
        self.0.lock().extend(bytes);
    }
}

impl Printed {
    fn text(&self, stream: LogStream) -> String {
        let printed = self.0.lock();
        let bytes = printed.iter().filter(|(from, _)| *from == stream);
        String::from_utf8(bytes.map(|(_, byte)| *byte).collect()).unwrap()
    }
}

struct Bed {
    components: Components,
    limits: Limits,
    printed: Arc<Printed>,
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        Self::with_sandboxes(4)
    }

    fn with_sandboxes(sandboxes_max: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = ComponentConfig {
            sandboxes_max,
            ..ComponentConfig::default()
        };
        let cache = Arc::new(Cache::new(dir.path()).unwrap());
        Self {
            components: Components::new(
                &config,
                &[],
                cache,
                std::sync::Arc::new(files::Library::empty()),
            )
            .unwrap(),
            limits: Limits::default(),
            printed: Arc::default(),
            dir,
        }
    }

    fn spec(&self, kind: Kind, artifact: &Bytes) -> VersionSpec {
        VersionSpec {
            kind,
            artifact: Digest::of(artifact),
            settings: Settings {
                limits: self.limits.clone(),
                ..Settings::default()
            },
        }
    }

    async fn refused(&self, kind: Kind, artifact: impl Into<Bytes>) -> PrepareError {
        let artifact = artifact.into();
        let spec = self.spec(kind, &artifact);
        self.components
            .prepare(&spec, artifact, Vec::new())
            .await
            .unwrap_err()
    }

    async fn load(&self, kind: Kind, artifact: Bytes) -> Arc<dyn Program> {
        let spec = self.spec(kind, &artifact);
        self.components
            .load(&spec, &Artifact(artifact))
            .await
            .unwrap()
    }

    fn call(&self, payload: Payload) -> Call {
        let id = InvocationId::new(0);
        Call {
            asks: None,
            id,
            payload,
            limits: Arc::new(self.limits.clone()),
            budget: None,
            log: Arc::new(CallLog::new(id, self.printed.clone(), 1 << 20)),
        }
    }

    async fn command(&self, run: &str, body: &'static str) -> Completion {
        let program = self.load(Kind::Command, command(run)).await;
        let payload = Payload::Bytes {
            body: body.into(),
            args: Vec::new(),
            env: Vec::new(),
        };
        program.sandbox().unwrap().invoke(self.call(payload)).await
    }

    /// Begins an http call; the response comes out of the second part.
    fn request(&self) -> (Call, oneshot::Receiver<http::Response<Body>>) {
        let (respond, response) = oneshot::channel();
        let request = http::Request::builder()
            .uri("http://127.0.0.1/path?query")
            .body(body_of("request"))
            .unwrap();
        let payload = Payload::Http(Box::new(HttpCall { request, respond }));
        (self.call(payload), response)
    }

    /// A whole http call: how it completed, and the body if there was a response.
    async fn http(&self, handle: &str) -> (Completion, Option<Result<Bytes, BodyError>>) {
        let program = self.load(Kind::Http, http(handle)).await;
        let mut sandbox = program.sandbox().unwrap();
        let (call, response) = self.request();
        let read = async {
            let body = response.await.ok()?.into_body();
            Some(body.collect().await.map(|body| body.to_bytes()))
        };
        tokio::join!(sandbox.invoke(call), read)
    }
}

fn status(completion: Completion) -> Status {
    match completion.end {
        End::Done(status) => status,
        End::OverBudget => panic!("components have no budget"),
    }
}

#[tokio::test]
async fn a_command_reads_stdin_replies_on_stdout_and_logs_on_stderr() {
    let bed = Bed::new();
    let run = "(local $n i32) (local.set $n (call $read)) (call $print (local.get $n))
               (call $warn (i32.const 2)) (i32.const 0)";
    let completion = bed.command(run, "the body").await;
    assert_eq!(completion.reply, "the body");
    assert!(completion.memory_peak_bytes >= 2 << 16);
    assert_eq!(status(completion), Status::Ok);
    assert_eq!(bed.printed.text(LogStream::Stderr), "th");
}

#[tokio::test]
async fn each_end_of_a_command_has_its_status() {
    let mut bed = Bed::new();
    bed.limits.memory_bytes_max = 1 << 20;
    bed.limits.output_bytes_max = 10;
    let grow = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))";
    let trap = |kind| Status::Trap {
        kind,
        message: String::new(),
    };
    let cases = [
        ("(i32.const 0)", Status::Ok),
        ("(i32.const 1)", Status::Exit { code: 1 }),
        ("(call $exit (i32.const 0)) (i32.const 1)", Status::Ok),
        (
            "(call $exit (i32.const 1)) (i32.const 0)",
            Status::Exit { code: 1 },
        ),
        ("unreachable", trap(TrapKind::Unreachable)),
        ("(i32.load (i32.const -1))", trap(TrapKind::OutOfBounds)),
        (
            "(i32.div_u (i32.const 1) (i32.const 0))",
            trap(TrapKind::Arithmetic),
        ),
        (&format!("{grow} unreachable"), Status::OutOfMemory),
        (&format!("{grow} (i32.const 0)"), Status::Ok),
        (
            "(call $print (i32.const 11)) (i32.const 0)",
            Status::OutputLimit,
        ),
    ];
    for (run, expected) in cases {
        let actual = match status(bed.command(run, "").await) {
            Status::Trap { kind, message } => {
                assert!(!message.is_empty());
                trap(kind)
            }
            status => status,
        };
        assert_eq!(actual, expected, "{run}");
    }
    bed.limits.deadline_ms = 200;
    let endless = bed.command("(loop (br 0)) (i32.const 0)", "").await;
    assert_eq!(status(endless), Status::Timeout);
}

#[tokio::test]
async fn a_computing_guest_lets_others_run_on_its_thread() {
    let mut bed = Bed::new();
    bed.limits.deadline_ms = 300;
    let program = bed
        .load(Kind::Command, command("(loop (br 0)) (i32.const 0)"))
        .await;
    let mut sandbox = program.sandbox().unwrap();
    let call = bed.call(Payload::Bytes {
        body: Bytes::new(),
        args: Vec::new(),
        env: Vec::new(),
    });
    // The test has one thread: the other task only runs when the guest yields.
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async { sender.send(()) });
    tokio::select! {
        biased;
        _ = sandbox.invoke(call) => panic!("the guest did not yield before its deadline"),
        sent = receiver => sent.unwrap(),
    }
    assert_eq!(
        sandbox.state(),
        State::Spent,
        "dropped in the middle of its call"
    );
    sandbox.reset().unwrap();
    assert_eq!(sandbox.state(), State::Fresh);
}

#[tokio::test]
async fn a_reply_that_is_complete_at_once_has_a_known_length() {
    let bed = Bed::new();
    let program = bed
        .load(
            Kind::Http,
            http("(call $respond (local.get $out)) (call $write (i32.const 5)) (call $finish)"),
        )
        .await;
    let mut sandbox = program.sandbox().unwrap();
    for _ in 0..3 {
        let (call, response) = bed.request();
        let completion = sandbox.invoke(call).await;
        sandbox.reset().unwrap();
        assert_eq!(completion.output_bytes, 5);
        assert_eq!(status(completion), Status::Ok);
        let body = response.await.unwrap().into_body();
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(5));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
    }
}

#[tokio::test]
async fn a_body_that_is_left_open_ends_with_its_guest() {
    let bed = Bed::new();
    let (completion, body) = bed
        .http("(call $respond (local.get $out)) (call $write (i32.const 5))")
        .await;
    assert_eq!(status(completion), Status::Ok);
    assert_eq!(body.unwrap().unwrap(), "hello");
}

#[tokio::test]
async fn a_long_reply_is_streamed_and_counted() {
    let bed = Bed::new();
    let handle = "(local $i i32) (call $respond (local.get $out))
        (loop (call $write (i32.const 4096))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if 0 (i32.lt_u (local.get $i) (i32.const 100))))
        (call $finish)";
    let (completion, body) = bed.http(handle).await;
    assert_eq!(body.unwrap().unwrap().len(), 409_600);
    assert_eq!(completion.output_bytes, 409_600);
    assert_eq!(status(completion), Status::Ok);
}

#[tokio::test]
async fn a_reply_over_its_limit_is_broken_off() {
    let mut bed = Bed::new();
    bed.limits.output_bytes_max = 10_000;
    let endless = "(call $respond (local.get $out))
        (loop (call $write (i32.const 4096)) (br 0))";
    let (completion, body) = bed.http(endless).await;
    assert_eq!(status(completion), Status::OutputLimit);
    assert!(body.is_none_or(|body| body.is_err()));
    bed.limits.output_bytes_max = 4;
    let (completion, body) = bed
        .http("(call $respond (local.get $out)) (call $write (i32.const 5)) (call $finish)")
        .await;
    assert_eq!(status(completion), Status::OutputLimit);
    assert!(body.is_none(), "nothing had been sent, and nothing is");
}

#[tokio::test]
async fn a_caller_that_does_not_read_holds_the_guest_back_until_its_deadline() {
    let mut bed = Bed::new();
    bed.limits.deadline_ms = 200;
    let endless =
        http("(call $respond (local.get $out)) (loop (call $write (i32.const 4096)) (br 0))");
    let program = bed.load(Kind::Http, endless).await;
    let mut sandbox = program.sandbox().unwrap();
    let (call, response) = bed.request();
    let completion = sandbox.invoke(call).await;
    assert!(completion.output_bytes < 1 << 20, "{completion:?}");
    assert_eq!(status(completion), Status::Timeout);
    let body = response.await.unwrap().into_body();
    assert!(body.collect().await.is_err(), "it must not look complete");
}

#[tokio::test]
async fn a_guest_that_fails_before_its_reply_is_sent_sends_none() {
    let mut bed = Bed::new();
    for (handle, expected) in [
        ("unreachable", "trap"),
        ("(call $respond (local.get $out)) unreachable", "trap"),
        ("", "no-response"),
        ("(loop (br 0))", "timeout"),
    ] {
        if expected == "timeout" {
            bed.limits.deadline_ms = 200;
        }
        let (completion, body) = bed.http(handle).await;
        assert_eq!(status(completion).as_str(), expected, "{handle}");
        assert!(body.is_none(), "{handle}");
    }
}

#[tokio::test]
async fn nothing_of_one_call_is_seen_by_the_next() {
    let bed = Bed::new();
    let run = "(if (i32.ne (i32.load (i32.const 60000)) (i32.const 0)) (then unreachable))
               (i32.store (i32.const 60000) (i32.const 7))
               (drop (memory.grow (i32.const 3)))
               (if (i32.ne (i32.load (i32.const 200000)) (i32.const 0)) (then unreachable))
               (i32.store (i32.const 200000) (i32.const 7)) (i32.const 0)";
    let program = bed.load(Kind::Command, command(run)).await;
    let mut sandbox = program.sandbox().unwrap();
    for _ in 0..5 {
        let call = bed.call(Payload::Bytes {
            body: Bytes::new(),
            args: Vec::new(),
            env: Vec::new(),
        });
        assert_eq!(status(sandbox.invoke(call).await), Status::Ok);
        sandbox.reset().unwrap();
    }
}

#[tokio::test]
async fn what_is_not_a_component_of_the_kind_is_refused() {
    let bed = Bed::new();
    let nothing = wasm("(component)");
    for kind in [Kind::Http, Kind::Command] {
        let refused = bed.refused(kind, nothing.clone()).await.to_string();
        assert!(refused.contains("exports nothing"), "{refused}");
    }
    let refused = bed.refused(Kind::Http, command("(i32.const 0)")).await;
    let PrepareError::WrongKind { reason, .. } = refused else {
        panic!("{refused}");
    };
    assert_eq!(
        reason,
        "it exports wasi:cli/run@0.2.3, and not `wasi:http/incoming-handler@0.2` or \
         `wasi:http/handler@0.3`"
    );
    let module = bed.refused(Kind::Http, wasm("(module)")).await;
    assert!(matches!(module, PrepareError::NotWasm { .. }), "{module}");
    let whole = command("(i32.const 0)");
    let cut = bed.refused(Kind::Command, whole.slice(..whole.len() / 2));
    assert!(matches!(cut.await, PrepareError::Invalid { .. }));
}

#[tokio::test]
async fn every_unknown_import_is_named() {
    let bed = Bed::new();
    let artifact = wasm(
        r#"(component
          (import "my:own/thing@1.0.0" (instance (export "one" (func)) (export "two" (func))))
          (import "wasi:cli/exit@0.2.0" (instance
            (export "exit" (func (param "status" (result))))
            (export "leave" (func))))
          (import "bare" (func))
          (core module $m (func (export "run") (result i32) (i32.const 0)))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $command (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $command)))"#,
    );
    let refused = bed.refused(Kind::Command, artifact).await;
    let PrepareError::UnknownImports { names } = refused else {
        panic!("{refused}");
    };
    let expected = [
        "my:own/thing@1.0.0#one",
        "my:own/thing@1.0.0#two",
        "wasi:cli/exit@0.2.0#leave",
        "bare",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_component_that_begins_over_its_memory_limit_is_refused() {
    let mut bed = Bed::new();
    bed.limits.memory_bytes_max = 1 << 16;
    let refused = bed.refused(Kind::Command, command("(i32.const 0)")).await;
    assert!(
        matches!(refused, PrepareError::TooLarge { .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn a_full_node_says_so() {
    let bed = Bed::with_sandboxes(2);
    let program = bed.load(Kind::Command, command("(i32.const 0)")).await;
    let held = [program.sandbox().unwrap(), program.sandbox().unwrap()];
    let full = program.sandbox().err();
    assert!(matches!(full, Some(SandboxError::Full { live: 2, max: 2 })));
    drop(held);
    assert!(program.sandbox().is_ok());
}

#[tokio::test]
async fn a_corrupt_cache_entry_is_compiled_again() {
    let bed = Bed::new();
    let artifact = command("(i32.const 0)");
    let spec = bed.spec(Kind::Command, &artifact);
    let prepare = || bed.components.prepare(&spec, artifact.clone(), Vec::new());
    assert!(!prepare().await.unwrap().cached);
    assert!(prepare().await.unwrap().cached);
    let entries = std::fs::read_dir(bed.dir.path()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let code = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "cwasm")
        })
        .collect::<Vec<_>>();
    let [code] = code.as_slice() else {
        panic!("{code:?}");
    };
    std::fs::write(code, b"spoiled").unwrap();
    bed.load(Kind::Command, artifact.clone()).await;
    assert!(prepare().await.unwrap().cached);
}
