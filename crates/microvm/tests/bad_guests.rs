//! Guests that try to break out, or break down. Each ends its own call; the next one is clean, and
//! the node's memory returns to where it was.
#![allow(clippy::unwrap_used, missing_docs)]

mod build;

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use microvm::MicroVms;
use model::{
    Digest, FunctionPath, Grants, InvocationId, Kind, Limits, Settings, Status, TraceParent,
    TrapKind, VersionSpec,
};
use sandbox::host::{Arg, Errno, Guest, Host, HostCall, Mapper, Session, Walls};
use sandbox::{
    Artifacts, Asks, Backend, BodyError, Call, CallLog, Completion, End, LogSink, LogStream,
    Payload, PrepareError, Program, Sandbox,
};

/// One call, which never ends.
const TABLE: &[HostCall] = &[HostCall {
    interface: "test",
    name: "test_wait",
    doc: "Waits.",
    params: &[],
    result: "nothing",
    grant: "",
    errors: &[],
    walls: Walls::All,
}];

struct Waits;

impl Host for Waits {
    fn table(&self) -> &'static [HostCall] {
        TABLE
    }

    fn session(&self, _: Guest) -> Box<dyn Session> {
        Box::new(Waits)
    }
}

impl Session for Waits {
    fn call<'a>(
        &'a mut self,
        _: usize,
        _: &'a mut [Arg<'_>],
        _: Option<&'a mut dyn Mapper>,
    ) -> BoxFuture<'a, Result<u64, Errno>> {
        Box::pin(std::future::pending())
    }
}

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

fn spec(artifact: &Bytes, limits: Limits) -> VersionSpec {
    let allow = Grants {
        call: vec!["other".parse().unwrap()],
        ..Grants::default()
    };
    VersionSpec {
        kind: Kind::Reactor,
        artifact: Digest::of(artifact),
        settings: Settings {
            limits,
            allow,
            ..Settings::default()
        },
    }
}

fn limits() -> Limits {
    Limits {
        deadline_ms: 2_000,
        ..Limits::default()
    }
}

struct World {
    _dir: tempfile::TempDir,
    backend: MicroVms,
    program: Arc<dyn Program>,
    spec: VersionSpec,
}

async fn world() -> Option<World> {
    let (dir, backend) = build::backend(TABLE)?;
    let artifact = build::guest("bad.c", "BAD", &["-fno-strict-aliasing"]);
    let spec = spec(&artifact, limits());
    backend.prepare(&spec, artifact, Vec::new()).await.unwrap();
    let program = backend.load(&spec, &NoArtifacts).await.unwrap();
    Some(World {
        _dir: dir,
        backend,
        program,
        spec,
    })
}

impl World {
    fn call(&self, body: &str) -> Call {
        let ends = !matches!(body, "l" | "w");
        let id = InvocationId::new(0);
        let log = Arc::new(CallLog::new(id, Arc::new(NoLog), 1 << 16));
        let guest = Guest {
            id,
            path: "a/f".parse::<FunctionPath>().unwrap(),
            spec: Arc::new(self.spec.clone()),
            branch: None,
            trace: TraceParent::root(id),
            deadline: Instant::now() + Duration::from_secs(1),
            log: log.clone(),
        };
        Call {
            id,
            payload: Payload::Bytes {
                body: Bytes::copy_from_slice(body.as_bytes()),
                args: Vec::new(),
                env: Vec::new(),
            },
            limits: Arc::new(Limits {
                // Whoever does not end gets little time, whoever does as much as it needs.
                deadline_ms: if ends { 60_000 } else { 200 },
                ..limits()
            }),
            budget: None,
            log,
            asks: Some(Box::new(Asks {
                host: Arc::new(Waits),
                guest,
            })),
        }
    }
}

fn status(completion: &Completion) -> &Status {
    match &completion.end {
        End::Done(status) => status,
        End::OverBudget => panic!("a call without a budget went over it"),
    }
}

/// Calls a fresh sandbox so, resets it, and sees that it is clean; gives how the call ended.
async fn harm(world: &World, sandbox: &mut Box<dyn Sandbox>, body: &str) -> Status {
    let completion = sandbox.invoke(world.call(body)).await;
    sandbox.reset().unwrap();
    let next = sandbox.invoke(world.call("e")).await;
    assert_eq!(
        (status(&next), next.reply.as_ref()),
        (&Status::Ok, &b"fine"[..]),
        "after {body}"
    );
    sandbox.reset().unwrap();
    status(&completion).clone()
}

fn is_trap(status: &Status, kind: Option<TrapKind>, part: &str, body: &str) {
    let Status::Trap {
        kind: found,
        message,
    } = status
    else {
        panic!("{body} ended as {status:?}");
    };
    assert!(
        kind.is_none_or(|kind| kind == *found),
        "{body}: {found:?}, {message}"
    );
    assert!(
        message.contains(part),
        "{body}: {message:?} does not say {part:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_privileged_ends_the_call() {
    let Some(world) = world().await else { return };
    let mut sandbox = world.program.sandbox().unwrap();
    for which in "0123456789abcd".chars() {
        let body = format!("p{which}");
        let status = harm(&world, &mut sandbox, &body).await;
        is_trap(&status, None, "`", &body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_use_of_ports_ends_the_call() {
    let Some(world) = world().await else { return };
    let mut sandbox = world.program.sandbox().unwrap();
    for which in "012345678".chars() {
        let body = format!("o{which}");
        let status = harm(&world, &mut sandbox, &body).await;
        is_trap(&status, None, "", &body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_not_the_guests_to_use_so_is_a_fault_of_the_right_kind() {
    use TrapKind::{BadCall, Other, OutOfBounds, StackOverflow};
    let Some(world) = world().await else { return };
    let mut sandbox = world.program.sandbox().unwrap();
    for (body, kind, part) in [
        ("c", OutOfBounds, "protected"),
        ("k", OutOfBounds, "protected"),
        ("j", BadCall, "execute"),
        ("0", OutOfBounds, "null pointer"),
        ("u", OutOfBounds, "not mapped"),
        ("s", OutOfBounds, "protected"),
        ("x", Other, "general protection"),
        ("y", OutOfBounds, "not mapped"),
        ("r", StackOverflow, "deeper"),
        ("S", OutOfBounds, "null pointer"),
    ] {
        let status = harm(&world, &mut sandbox, body).await;
        is_trap(&status, Some(kind), part, body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_lie_to_the_host_end_the_call_or_are_answered() {
    let Some(world) = world().await else { return };
    let mut sandbox = world.program.sandbox().unwrap();
    for (body, part) in [
        ("X", "not offered"),
        ("U", "bad address"),
        ("V", "bad address"),
        ("Y", "system call"),
    ] {
        let status = harm(&world, &mut sandbox, body).await;
        is_trap(&status, Some(TrapKind::Other), part, body);
    }
    for body in ["L", "G"] {
        let status = harm(&world, &mut sandbox, body).await;
        assert!(
            matches!(status, Status::Ok | Status::OutOfMemory),
            "{body}: {status:?}"
        );
    }
    for _ in 0..400 {
        let status = harm(&world, &mut sandbox, "b").await;
        if status != Status::Ok {
            is_trap(&status, Some(TrapKind::Other), "", "b");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_loops_or_waits_ends_at_its_deadline() {
    let Some(world) = world().await else { return };
    let mut sandbox = world.program.sandbox().unwrap();
    for body in ["l", "w"] {
        let begun = Instant::now();
        assert_eq!(
            harm(&world, &mut sandbox, body).await,
            Status::Timeout,
            "{body}"
        );
        assert!(begun.elapsed() >= Duration::from_millis(199));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_dropped_in_a_host_call_leaves_nothing() {
    let Some(world) = world().await else { return };
    let mut sandbox = world.program.sandbox().unwrap();
    for _ in 0..3 {
        let mut call = sandbox.invoke(world.call("w"));
        let mut context = Context::from_waker(Waker::noop());
        assert!(call.as_mut().poll(&mut context).is_pending());
        drop(call);
        sandbox.reset().unwrap();
        assert_eq!(harm(&world, &mut sandbox, "e").await, Status::Ok);
    }
}

/// Resident bytes of this process.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_dirties_everything_gives_it_all_back() {
    let Some(world) = world().await else { return };
    let mut sandbox = world.program.sandbox().unwrap();
    // The first round is not counted: it may leave what later ones use again.
    let mut before = 0;
    for round in 0..5 {
        assert_eq!(harm(&world, &mut sandbox, "d").await, Status::Ok);
        if round == 0 {
            before = resident();
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes more than before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_broke_are_made_anew_and_none_is_left_over() {
    let Some(world) = world().await else { return };
    let mut sandbox = world.program.sandbox().unwrap();
    for _ in 0..20 {
        let status = harm(&world, &mut sandbox, "o0").await;
        is_trap(&status, None, "port", "o0");
    }
    drop(sandbox);
    let until = Instant::now() + Duration::from_secs(10);
    while world.backend.machines_live() > 3 && Instant::now() < until {
        tokio::task::yield_now().await;
    }
    assert!(world.backend.machines_live() <= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_too_big_or_fails_in_its_init_is_refused() {
    let Some((_dir, backend)) = build::backend(&[]) else {
        return;
    };
    let artifact = build::guest("bad.c", "BAD", &["-fno-strict-aliasing"]);
    let small = Limits {
        memory_bytes_max: 8 << 20,
        ..limits()
    };
    let refused = backend
        .prepare(&spec(&artifact, small), artifact, Vec::new())
        .await;
    assert!(
        matches!(refused, Err(PrepareError::TooLarge { .. })),
        "{refused:?}"
    );
    for (defined, part) in [
        ("FAULTS", "`init`"),
        ("RETURNS", "returned 5"),
        ("LOOPS", "deadline"),
        ("ASKS", "unavailable"),
    ] {
        let artifact = build::guest("init.c", defined, &[]);
        let refused = backend
            .prepare(&spec(&artifact, limits()), artifact, Vec::new())
            .await;
        let Err(PrepareError::Init { reason }) = refused else {
            panic!("{defined}: {refused:?}");
        };
        assert!(
            reason.contains(part) || defined == "ASKS",
            "{defined}: {reason}"
        );
    }
}
