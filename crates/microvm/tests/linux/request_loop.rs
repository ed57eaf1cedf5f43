//! Programs that are frozen where they wait for their input, and those that are not.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use microvm::{Config, MicroVms};
use model::{Digest, InvocationId, Isolation, Kind, Limits, Settings, Snapshot, VersionSpec};
use parking_lot::Mutex;
use sandbox::{
    Artifacts, Backend, BodyError, Call, CallLog, End, LogSink, LogStream, Payload, PrepareError,
    Program,
};

use crate::support::{build, kvm, rust};

/// What a program of the tests needs, and what a deploy needs to be over soon.
fn limits() -> Limits {
    Limits {
        deadline_ms: 60_000,
        memory_bytes_max: 64 << 20,
        ..Limits::default()
    }
}

fn settings(args: &[&str]) -> Settings {
    Settings {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        limits: limits(),
        isolation: Isolation::Vm,
        ..Settings::default()
    }
}

struct NoArtifacts;

#[async_trait]
impl Artifacts for NoArtifacts {
    async fn artifact(&self, _: &Digest) -> Result<Bytes, BodyError> {
        Err("the cache has all of it".into())
    }
}

#[derive(Default)]
struct Lines(Mutex<Vec<u8>>);

impl LogSink for Lines {
    fn write(&self, _: InvocationId, _: LogStream, text: &[u8]) {
        self.0.lock().extend_from_slice(text);
    }
}

/// A version on a node.
struct Deployed {
    dir: tempfile::TempDir,
    program: Arc<dyn Program>,
    spec: VersionSpec,
    note: Option<String>,
}

/// What came of a call.
#[derive(Debug)]
struct Ran {
    end: End,
    reply: String,
    log: String,
    /// CPU time of other threads than the caller's.
    cpu_elsewhere: Duration,
}

impl Ran {
    /// The word after `name` in its own line.
    fn value(&self, name: &str) -> &str {
        let mut lines = self.reply.lines();
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{name} is not in {self:?}"))
    }

    fn ok(self) -> String {
        assert_eq!(self.end, End::Done(model::Status::Ok), "{self:?}");
        self.reply
    }
}

fn backend(dir: &tempfile::TempDir) -> MicroVms {
    MicroVms::new(Config {
        shells: 2,
        ..Config::new(dir.path().join("cache"))
    })
    .unwrap()
}

async fn deploy(program: &[u8], settings: Settings) -> Result<Deployed, PrepareError> {
    let dir = tempfile::tempdir().unwrap();
    let backend = backend(&dir);
    let artifact = Bytes::copy_from_slice(program);
    let spec = VersionSpec {
        kind: Kind::Command,
        artifact: Digest::of(&artifact),
        settings,
    };
    let prepared = backend.prepare(&spec, artifact.clone(), Vec::new()).await?;
    let again = backend.prepare(&spec, artifact, Vec::new()).await?;
    assert_eq!((again.cached, &again.note), (true, &prepared.note));
    Ok(Deployed {
        program: backend.load(&spec, &NoArtifacts).await.unwrap(),
        dir,
        spec,
        note: prepared.note,
    })
}

impl Deployed {
    async fn call_with(&self, body: &str, args: &[&str], env: &[(&str, &str)]) -> Ran {
        let mut sandbox = self.program.sandbox().unwrap();
        let first = self.call_in(&mut *sandbox, body, args, env).await;
        // What a sandbox does after its reset is what it does at first.
        sandbox.reset().unwrap();
        let second = self.call_in(&mut *sandbox, body, args, env).await;
        assert_eq!(first.end, second.end, "{first:?}, then {second:?}");
        second
    }

    async fn call_in(
        &self,
        sandbox: &mut dyn sandbox::Sandbox,
        body: &str,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Ran {
        let lines = Arc::new(Lines::default());
        let id = InvocationId::new(0);
        let own = |text: &&str| (*text).to_owned();
        let call = Call {
            id,
            payload: Payload::Bytes {
                body: Bytes::copy_from_slice(body.as_bytes()),
                args: args.iter().map(own).collect(),
                env: env
                    .iter()
                    .map(|(key, value)| (own(key), own(value)))
                    .collect(),
            },
            limits: Arc::new(self.spec.settings.limits.clone()),
            budget: None,
            log: Arc::new(CallLog::new(id, lines.clone(), 1 << 16)),
            asks: None,
        };
        let completion = sandbox.invoke(call).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran {
            end: completion.end,
            reply: text(&completion.reply),
            log: text(&lines.0.lock()),
            cpu_elsewhere: Duration::from_nanos(completion.cpu_elsewhere_ns),
        }
    }

    async fn call(&self, body: &str) -> Ran {
        self.call_with(body, &[], &[]).await
    }
}

/// The program of `loop.c` that does what `mode` says, on a node of its own.
async fn in_c(compiler: &str, mode: &str) -> Option<Deployed> {
    kvm()?;
    let program = build("loop.c", compiler, &["-pthread", "-w"]);
    Some(deploy(&program, settings(&[mode])).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_finds_what_was_frozen_and_leaves_nothing_of_its_own() {
    for compiler in ["gcc", "musl-gcc"] {
        let Some(plain) = in_c(compiler, "plain").await else {
            return;
        };
        assert_eq!(plain.note, None, "{compiler}");
        for body in ["one", "two"] {
            let ran = plain.call(body).await;
            assert_eq!(ran.log, "prepared\n");
            let expected =
                format!("8 heap 1\ninit;{body} piped;{body} sent;\n-1 0 1\n1 2\nnew 1\n");
            assert_eq!(ran.ok(), expected, "{compiler}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_at_the_input_finds_that_of_the_call() {
    let Some(looks) = in_c("gcc", "looks").await else {
        return;
    };
    assert_eq!(looks.note, None);
    let reply = looks.call("input").await.ok();
    assert_eq!(reply, "poll 1 1\nselect 1\nleft 5\nread 3\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_are_frozen_wherever_they_wait() {
    for compiler in ["gcc", "musl-gcc"] {
        let Some(threads) = in_c(compiler, "threads").await else {
            return;
        };
        assert_eq!(threads.note, None);
        let expected = "thread 1 0.1\nthread 2 0.2\nthread 3 0.3\nthread 4 0.4\nbody\n";
        assert_eq!(threads.call("body").await.ok(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_that_ran_at_once_are_frozen_and_what_they_wrote_is_reset() {
    if kvm().is_none() {
        return;
    }
    let on_two = |mode| {
        let mut settings = settings(&[mode]);
        settings.limits.processors_max = 2;
        settings
    };
    let program = build("loop.c", "gcc", &["-pthread", "-w"]);
    let threads = deploy(&program, on_two("threads")).await.unwrap();
    assert_eq!(threads.note, None);
    let reply = threads.call("body").await.ok();
    let mut lines: Vec<_> = reply.lines().collect();
    lines.sort_unstable();
    let expected = "body,thread 1 0.1,thread 2 0.2,thread 3 0.3,thread 4 0.4";
    assert_eq!(lines.join(","), expected);
    let program = build("at_once.c", "musl-gcc", &["-pthread", "-w"]);
    let clean = deploy(&program, on_two("clean")).await.unwrap();
    assert_eq!(clean.note, None);
    for _ in 0..3 {
        // Each is two calls of one sandbox.
        assert_eq!(clean.call("body").await.ok(), "0 0\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_threads_compute_is_counted() {
    if kvm().is_none() {
        return;
    }
    let program = build("at_once.c", "musl-gcc", &["-pthread", "-w"]);
    for processors in [1, 2] {
        let mut settings = settings(&["work"]);
        settings.limits.processors_max = processors;
        let work = deploy(&program, settings).await.unwrap();
        let ran = work.call("body").await;
        let elsewhere = ran.cpu_elsewhere;
        assert_eq!(ran.ok(), "");
        // A processor needs more than a tenth of a nanosecond for each of 20,000,000 rounds.
        let counted = elsewhere > Duration::from_millis(2);
        assert_eq!(counted, processors > 1, "{elsewhere:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_loop_is_frozen_with_its_timers() {
    let Some(events) = in_c("gcc", "events").await else {
        return;
    };
    assert_eq!(events.note, None);
    let reply = events.call("body").await.ok();
    assert_eq!(reply, "event\nend body\ntimer\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_are_frozen_pending_and_on_their_way() {
    let Some(alarm) = in_c("gcc", "alarm").await else {
        return;
    };
    assert_eq!(alarm.note, None);
    assert_eq!(alarm.call("").await.ok(), "1 1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_cpp_and_rust_are_frozen_with_what_they_built() {
    if kvm().is_none() {
        return;
    }
    let program = build("loop.cpp", "g++", &["-std=c++17"]);
    let cpp = deploy(&program, settings(&[])).await.unwrap();
    assert_eq!(cpp.note, None);
    let ran = cpp.call("word7 word999 other").await;
    assert_eq!(ran.log, "ready\n");
    assert_eq!(ran.ok(), "word7=7\nword999=999\nother?\n");
    let rust = deploy(&rust("loop.rs"), settings(&[])).await.unwrap();
    assert_eq!(rust.note, None);
    for _ in 0..2 {
        assert_eq!(rust.call("2 30").await.ok(), "4\n900\nfrom before\ntrue\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_differ_in_their_random_bytes_and_in_time_though_all_else_is_the_same() {
    if kvm().is_none() {
        return;
    }
    let program = build("loop.c", "gcc", &["-pthread", "-w"]);
    let always = Settings {
        snapshot: Snapshot::Always,
        ..settings(&["both"])
    };
    let both = deploy(&program, always).await.unwrap();
    assert_eq!(both.note, None);
    let (first, second) = (both.call("").await, both.call("").await);
    for frozen in ["then", "before"] {
        assert_eq!(first.value(frozen), second.value(frozen));
    }
    assert_ne!(first.value("fresh"), second.value("fresh"));
    assert_ne!(first.value("fresh"), first.value("then"));
    let time = |ran: &Ran, name| ran.value(name).parse::<u128>().unwrap();
    let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    assert!(time(&first, "before") < time(&first, "now"));
    assert!(time(&first, "now") < time(&second, "now"));
    assert!(time(&second, "now") <= here.unwrap().as_nanos());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_differ_between_calls_is_not_frozen_unless_it_is_asked_for() {
    for (mode, reason) in [
        ("random", "it asks for random bytes"),
        ("time", "it asks what time of day it is"),
        ("reply", "it begins its reply"),
        (
            "end",
            "it ends before it waits for its input: its exit code is 3",
        ),
    ] {
        let Some(deployed) = in_c("gcc", mode).await else {
            return;
        };
        let note = deployed.note.as_deref().unwrap();
        assert!(note.starts_with("each call begins at its first instruction"));
        assert!(note.contains(reason), "{note}");
        let (first, second) = (deployed.call("x").await, deployed.call("x").await);
        assert_eq!(first.end, second.end);
        let differs = ["random", "time"].contains(&mode);
        assert_eq!(first.reply != second.reply, differs, "{first:?} {second:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_waits_is_given_up_and_who_must_be_frozen_is_refused() {
    if kvm().is_none() {
        return;
    }
    let program = build("loop.c", "gcc", &["-pthread", "-w"]);
    let mut spin = settings(&["spin"]);
    spin.limits.deadline_ms = 300;
    let spins = deploy(&program, spin.clone()).await.unwrap();
    let note = spins.note.unwrap();
    assert!(
        note.contains("it has not waited for its input after"),
        "{note}"
    );
    for mode in ["spin", "end", "reply"] {
        let refused = Settings {
            args: vec![mode.to_owned()],
            snapshot: Snapshot::Always,
            ..spin.clone()
        };
        let error = deploy(&program, refused).await.err().unwrap();
        assert!(matches!(error, PrepareError::Init { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_goes_nowhere_that_a_call_may_go() {
    if kvm().is_none() {
        return;
    }
    let program = build("loop.c", "gcc", &["-pthread", "-w"]);
    let alone = deploy(&program, settings(&["out"])).await.unwrap();
    assert_eq!(alone.note, None, "there is nowhere to go");
    assert_eq!(alone.call("").await.ok(), "-1\n");
    let mut granted = settings(&["out"]);
    granted.allow.egress = vec!["127.0.0.9:9".parse().unwrap()];
    let granted = deploy(&program, granted).await.unwrap();
    let note = granted.note.as_deref().unwrap();
    assert!(note.contains("past its loopback"), "{note}");
    assert_eq!(granted.call("").await.ok(), "0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_of_a_call_begin_it_at_its_first_instruction() {
    if kvm().is_none() {
        return;
    }
    let program = build("loop.c", "gcc", &["-pthread", "-w"]);
    let settings = Settings {
        snapshot: Snapshot::Always,
        ..settings(&["random"])
    };
    let deployed = deploy(&program, settings).await.unwrap();
    let frozen = deployed.call("").await.value("then").to_owned();
    let with_args = deployed.call_with("x", &["own"], &[]).await;
    assert!(with_args.reply.ends_with("x own"), "{with_args:?}");
    // One sandbox goes back and forth.
    let mut sandbox = deployed.program.sandbox().unwrap();
    for (args, same) in [(&[][..], true), (&["own"], false), (&[], true)] {
        let ran = deployed.call_in(&mut *sandbox, "", args, &[]).await;
        assert_eq!(ran.value("then") == frozen, same);
        sandbox.reset().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_of_a_call_are_found_by_who_looks_after_its_wait_or_by_who_begins_anew() {
    if kvm().is_none() {
        return;
    }
    for compiler in ["gcc", "musl-gcc"] {
        let program = build("loop.c", compiler, &["-pthread", "-w"]);
        for snapshot in [Snapshot::Auto, Snapshot::Always] {
            let mut settings = Settings {
                snapshot,
                ..settings(&["getenv"])
            };
            settings.env.insert("BOTH".into(), "version".into());
            settings.env.insert("ONE".into(), "version".into());
            let deployed = deploy(&program, settings).await.unwrap();
            assert_eq!(deployed.note, None);
            let own = [("BOTH", "call"), ("OWN", "call")];
            let ran = deployed.call_with("", &[], &own).await.ok();
            let before = match snapshot {
                Snapshot::Always => "version version none",
                _ => "call version call",
            };
            assert_eq!(ran, format!("{before}\ncall version call\n"));
            let without = deployed.call("").await.ok();
            let all = "version version none\n";
            assert_eq!(without, all.repeat(2));
            let long = "x".repeat(1 << 15);
            let ran = deployed.call_with("", &[], &[("OWN", &long)]).await.ok();
            assert_eq!(ran, format!("version version {long}\n").repeat(2));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_frozen_outlives_its_node_and_never_is_never() {
    if kvm().is_none() {
        return;
    }
    let program = build("loop.c", "musl-gcc", &["-pthread", "-w"]);
    let always = Settings {
        snapshot: Snapshot::Always,
        ..settings(&["random"])
    };
    let first = deploy(&program, always).await.unwrap();
    let then = first.call("").await.value("then").to_owned();
    let Deployed {
        dir,
        program: gone,
        spec,
        ..
    } = first;
    drop(gone);
    let restarted = Deployed {
        program: backend(&dir).load(&spec, &NoArtifacts).await.unwrap(),
        dir,
        spec,
        note: None,
    };
    assert_eq!(restarted.call("").await.value("then"), then);
    assert!(restarted.dir.path().exists());
    let never = Settings {
        snapshot: Snapshot::Never,
        ..settings(&["random"])
    };
    let never = deploy(&program, never).await.unwrap();
    let (one, two) = (never.call("").await, never.call("").await);
    assert_ne!(one.value("then"), two.value("then"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_stopped_leaves_nothing_to_the_next() {
    if kvm().is_none() {
        return;
    }
    let program = build("loop.c", "gcc", &["-pthread", "-w"]);
    let deployed = deploy(&program, settings(&["threads"])).await.unwrap();
    let mut sandbox = deployed.program.sandbox().unwrap();
    let call = deployed.call_in(&mut *sandbox, "dropped", &[], &[]);
    let dropped = tokio::time::timeout(Duration::ZERO, call).await;
    drop(dropped);
    sandbox.reset().unwrap();
    let ran = deployed.call_in(&mut *sandbox, "body", &[], &[]).await;
    assert!(ran.ok().ends_with("body\n"));
}
