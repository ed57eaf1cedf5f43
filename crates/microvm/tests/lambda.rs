//! Lambda runtimes in micro-VMs: what they are given, and what their ends come to.
#![allow(clippy::unwrap_used, missing_docs)]

mod build;

use std::sync::Arc;

use bytes::Bytes;
use microvm::MicroVms;
use model::{
    Digest, InvocationId, Isolation, Kind, Limits, Settings, Snapshot, Status, VersionSpec,
};
use parking_lot::Mutex;
use sandbox::{
    Artifacts, Backend, BodyError, Call, CallLog, Completion, End, LogSink, LogStream, Payload,
    PrepareError, Program,
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

fn settings(env: &[(&str, &str)]) -> Settings {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Settings {
        env: env.iter().map(pair).collect(),
        limits: Limits {
            deadline_ms: 5_000,
            output_bytes_max: 64 << 10,
            ..Limits::default()
        },
        isolation: Isolation::Vm,
        ..Settings::default()
    }
}

async fn prepare(backend: &MicroVms, settings: Settings) -> Result<Arc<dyn Program>, PrepareError> {
    let artifact = build::linux("bootstrap.c", "LAMBDA");
    let spec = VersionSpec {
        kind: Kind::Lambda,
        artifact: Digest::of(&artifact),
        settings,
    };
    backend.prepare(&spec, artifact, Vec::new()).await?;
    Ok(backend.load(&spec, &Nothing).await.unwrap())
}

struct Called {
    completion: Completion,
    log: String,
}

impl Called {
    fn status(&self) -> &Status {
        match &self.completion.end {
            End::Done(status) => status,
            End::OverBudget => panic!("a call without a budget went over it"),
        }
    }

    fn text(&self) -> String {
        assert_eq!(self.status(), &Status::Ok, "{}", self.log);
        String::from_utf8_lossy(&self.completion.reply).into_owned()
    }
}

/// A call in a sandbox of its own.
async fn call(program: &Arc<dyn Program>, settings: &Settings, event: &str) -> Called {
    let lines = Arc::new(Lines::default());
    let id = InvocationId::new(1);
    let env = [
        ("DUNLIN_INVOCATION_ID", id.to_string()),
        ("LAMBDA_INVOKED_FUNCTION_ARN", "arn:of:it".to_owned()),
        ("LAMBDA_CLIENT_CONTEXT", "{}".to_owned()),
    ];
    let mut sandbox = program.sandbox().unwrap();
    let completion = sandbox
        .invoke(Call {
            id,
            payload: Payload::Bytes {
                body: Bytes::copy_from_slice(event.as_bytes()),
                args: Vec::new(),
                env: env.map(|(key, value)| (key.to_owned(), value)).to_vec(),
            },
            limits: Arc::new(settings.limits.clone()),
            budget: None,
            log: Arc::new(CallLog::new(id, lines.clone(), 1 << 20)),
            asks: None,
        })
        .await;
    sandbox.reset().unwrap();
    let log = String::from_utf8_lossy(&lines.0.lock()).into_owned();
    Called { completion, log }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_is_given_its_event_and_replies_with_its_response() {
    let Some((_dir, backend)) = build::backend(&[]) else {
        return;
    };
    let settings = settings(&[("AWS_LAMBDA_FUNCTION_NAME", "app_function")]);
    let program = prepare(&backend, settings.clone()).await.unwrap();
    for event in ["{\"a\": 1}", "[]", "\"text\""] {
        let called = call(&program, &settings, event).await;
        assert_eq!(called.text(), event);
        assert!(called.log.ends_with("called 1\n"), "{}", called.log);
    }
    assert_eq!(call(&program, &settings, "").await.text(), "{}");
    assert_eq!(
        call(&program, &settings, "\"pieces\"").await.text(),
        "\"in pieces\""
    );
    let told = call(&program, &settings, "\"told\"").await.text();
    let id = InvocationId::new(1);
    for part in [
        "\"arn\":\"arn:of:it\"",
        "\"client\":{}",
        "\"name\":\"app_function\",\"memory\":\"256\",\"region\":\"us-east-1\"",
        "\"root\":\"/var/task\",\"calls\":1",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(told.matches(&id.to_string()[..12]).count(), 1, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runtime_reports_or_suffers_is_the_end_of_its_call() {
    let Some((_dir, backend)) = build::backend(&[]) else {
        return;
    };
    let mut settings = settings(&[]);
    settings.limits.deadline_ms = 1_000;
    let program = prepare(&backend, settings.clone()).await.unwrap();
    let status = |event: &'static str| {
        let (program, settings) = (program.clone(), settings.clone());
        async move { call(&program, &settings, event).await }
    };
    let failed = status("\"fail\"").await;
    let error = |kind: &str| Status::Error {
        kind: kind.to_owned(),
        message: "as it was asked".to_owned(),
    };
    assert_eq!(failed.status(), &error("Test.Failed"));
    assert!(
        failed
            .completion
            .reply
            .starts_with(b"{\"errorType\":\"Test.Failed\"")
    );
    assert_eq!(status("\"fail hard\"").await.status(), &error("Unhandled"));
    assert_eq!(status("\"exit\"").await.status(), &Status::Exit { code: 3 });
    assert!(matches!(
        status("\"leave\"").await.status(),
        Status::NoResponse { .. }
    ));
    assert!(matches!(
        status("\"crash\"").await.status(),
        Status::Trap { .. }
    ));
    assert_eq!(status("\"hang\"").await.status(), &Status::Timeout);
    assert_eq!(status("\"flood\"").await.status(), &Status::OutputLimit);
}

fn born(told: &str) -> String {
    let (_, born) = told.split_once("\"born\":").unwrap();
    born.trim_end_matches('}').to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_begins_each_call_where_it_waited_at_its_deploy() {
    let Some((_dir, backend)) = build::backend(&[]) else {
        return;
    };
    let mut settings = settings(&[]);
    for (snapshot, same) in [(Snapshot::Auto, true), (Snapshot::Never, false)] {
        settings.snapshot = snapshot;
        let program = prepare(&backend, settings.clone()).await.unwrap();
        let mut births = Vec::new();
        for _ in 0..3 {
            let told = call(&program, &settings, "\"told\"").await.text();
            assert!(told.contains("\"calls\":1,"), "{told}");
            births.push(born(&told));
        }
        births.dedup();
        assert_eq!(births.len() == 1, same, "{births:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_cannot_begin_is_not_deployed() {
    let Some((_dir, backend)) = build::backend(&[]) else {
        return;
    };
    for (variable, words) in [
        ("INIT_ERROR", "Test.Init: there is no key"),
        ("INIT_EXIT", "its exit code is 9"),
        ("INIT_HANG", "has not waited"),
    ] {
        let mut settings = settings(&[(variable, "1")]);
        settings.limits.deadline_ms = 500;
        match prepare(&backend, settings).await {
            Err(PrepareError::Init { reason }) => assert!(reason.contains(words), "{reason}"),
            Err(other) => panic!("{variable}: {other}"),
            Ok(_) => panic!("{variable}: it was deployed"),
        }
    }
}
