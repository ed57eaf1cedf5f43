//! The conformance suite that every back-end passes.
//!
//! A back-end's tests make [`Fixtures`] in its own kind of artifact, call [`run`], and fail for
//! each check that did. The suite knows nothing of what the wall is made of.
//!
//! Guests that do not yield hold the thread that polls them, so run it where that is allowed.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use model::{Digest, InvocationId, Kind, Limits, Settings, Status, TrapKind, VersionSpec};

use crate::{
    Artifacts, Backend, BodyError, Call, CallLog, Completion, End, LogSink, LogStream, Payload,
    PrepareError, Program, Sandbox, State,
};

/// One guest of the suite.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// What it is.
    pub kind: Kind,
    /// Its Wasm.
    pub artifact: Bytes,
}

/// The guests that the suite calls. Each does as its field says, whatever its kind.
#[derive(Clone, Debug)]
pub struct Fixtures {
    /// Replies with its input.
    pub echo: Fixture,
    /// Adds one to a number in its memory, 0 at first, and replies with it in decimal.
    pub counter: Fixture,
    /// Replies `clean` if its memory, globals, tables and stack area hold what they began with,
    /// else `dirty`; before that it writes to all of them.
    pub canary: Fixture,
    /// Executes `unreachable`.
    pub trap: Fixture,
    /// Computes without end.
    pub infinite_loop: Fixture,
    /// Calls itself without end.
    pub infinite_recursion: Fixture,
    /// Grows its memory until it is refused, and then traps or fails.
    pub memory_hog: Fixture,
    /// Replies with the size of its memory, in decimal in any unit, then grows it by 1 MiB or more
    /// and writes to what it got. Order matters: the reply is the size before.
    pub grow: Fixture,
    /// Ends itself with code 7; a back-end whose kinds cannot exit says `None`.
    pub exit_7: Option<Fixture>,
    /// Replies with 1 MiB or more.
    pub output_flood: Fixture,
    /// Prints 64 KiB or more, and ends well.
    pub log_flood: Fixture,
    /// Writes to 100 pages or more, and replies with its input.
    pub dirty_pages: Fixture,
    /// Waits for a minute or more in a host call; `None` where no host call waits.
    pub wait: Option<Fixture>,
}

/// What came of one check: nothing, or what was wrong.
pub type Checked = Result<(), String>;

/// Runs every check; gives each one's name and what came of it.
pub async fn run(backend: &dyn Backend, fixtures: &Fixtures) -> Vec<(&'static str, Checked)> {
    vec![
        ("echo", echo(backend, fixtures).await),
        ("states", states(backend, fixtures).await),
        ("freshness", freshness(backend, fixtures).await),
        ("apartness", apartness(backend, fixtures).await),
        ("faults", faults(backend, fixtures).await),
        ("recursion", recursion(backend, fixtures).await),
        ("deadline", deadline(backend, fixtures).await),
        ("budget", budget(backend, fixtures).await),
        ("memory cap", memory_cap(backend, fixtures).await),
        ("growth", growth(backend, fixtures).await),
        ("output cap", output_cap(backend, fixtures).await),
        ("log cap", log_cap(backend, fixtures).await),
        ("dirty pages", dirty_pages(backend, fixtures).await),
        ("dropped calls", dropped_calls(backend, fixtures).await),
        ("bad artifacts", bad_artifacts(backend, fixtures).await),
    ]
}

struct Stored(Digest, Bytes);

#[async_trait::async_trait]
impl Artifacts for Stored {
    async fn artifact(&self, digest: &Digest) -> Result<Bytes, BodyError> {
        if *digest == self.0 {
            return Ok(self.1.clone());
        }
        Err("the suite has no such artifact".into())
    }
}

struct NoLog;

impl LogSink for NoLog {
    fn write(&self, _: InvocationId, _: LogStream, _: &[u8]) {}
}

/// A loaded fixture.
struct Guest {
    program: Arc<dyn Program>,
    limits: Arc<Limits>,
}

fn spec_of(fixture: &Fixture, limits: Limits) -> VersionSpec {
    VersionSpec {
        kind: fixture.kind,
        artifact: Digest::of(&fixture.artifact),
        settings: Settings {
            limits,
            ..Settings::default()
        },
    }
}

async fn load(
    backend: &dyn Backend,
    fixture: &Fixture,
    change: impl FnOnce(&mut Limits),
) -> Result<Guest, String> {
    let mut limits = Limits::default();
    change(&mut limits);
    let spec = spec_of(fixture, limits.clone());
    let prepared = backend
        .prepare(&spec, fixture.artifact.clone(), Vec::new())
        .await;
    prepared.map_err(|error| format!("prepare: {error}"))?;
    let stored = Stored(spec.artifact, fixture.artifact.clone());
    let loaded = backend.load(&spec, &stored).await;
    Ok(Guest {
        program: loaded.map_err(|error| format!("load: {error}"))?,
        limits: Arc::new(limits),
    })
}

async fn load_plain(backend: &dyn Backend, fixture: &Fixture) -> Result<Guest, String> {
    load(backend, fixture, |_| {}).await
}

impl Guest {
    fn sandbox(&self) -> Result<Box<dyn Sandbox>, String> {
        let made = self.program.sandbox();
        let sandbox = made.map_err(|error| format!("sandbox: {error}"))?;
        is(sandbox.state(), State::Fresh, "the state of a new sandbox")?;
        Ok(sandbox)
    }

    fn call(&self, body: &[u8]) -> Call {
        let id = InvocationId::new(0);
        let bytes_max = self.limits.log_bytes_max;
        Call {
            id,
            payload: Payload::Bytes {
                body: Bytes::copy_from_slice(body),
                args: Vec::new(),
                env: Vec::new(),
            },
            limits: self.limits.clone(),
            budget: None,
            log: Arc::new(CallLog::new(id, Arc::new(NoLog), bytes_max)),
            asks: None,
        }
    }
}

fn is<T: PartialEq + std::fmt::Debug>(found: T, expected: T, what: &str) -> Checked {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:?} instead of {expected:?}"))
}

fn holds(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what()) }
}

fn status(completion: &Completion) -> Result<&Status, String> {
    match &completion.end {
        End::Done(status) => Ok(status),
        End::OverBudget => Err("a call without a budget went over it".to_owned()),
    }
}

/// Calls, checks that the sandbox is spent and is fresh again after a reset.
async fn turn(sandbox: &mut Box<dyn Sandbox>, call: Call) -> Result<Completion, String> {
    let completion = sandbox.invoke(call).await;
    is(sandbox.state(), State::Spent, "the state after a call")?;
    freshen(sandbox)?;
    Ok(completion)
}

fn freshen(sandbox: &mut Box<dyn Sandbox>) -> Checked {
    let reset = sandbox.reset();
    reset.map_err(|error| format!("reset: {error}"))?;
    is(sandbox.state(), State::Fresh, "the state after a reset")
}

async fn reply(
    guest: &Guest,
    sandbox: &mut Box<dyn Sandbox>,
    body: &[u8],
) -> Result<Bytes, String> {
    let completion = turn(sandbox, guest.call(body)).await?;
    is(status(&completion)?, &Status::Ok, "the status")?;
    Ok(completion.reply)
}

/// Input of any size comes back.
pub async fn echo(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    let guest = load_plain(backend, &fixtures.echo).await?;
    let mut sandbox = guest.sandbox()?;
    for length in [0, 1, 4095, 70_000, 1 << 20] {
        let body: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let reply = reply(&guest, &mut sandbox, &body).await?;
        holds(reply == body, || {
            format!("{length} bytes came back as {}", reply.len())
        })?;
    }
    Ok(())
}

/// A call leaves a sandbox spent; a spent one is not called.
pub async fn states(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    let guest = load_plain(backend, &fixtures.echo).await?;
    let mut sandbox = guest.sandbox()?;
    sandbox.invoke(guest.call(b"first")).await;
    is(sandbox.state(), State::Spent, "the state after a call")?;
    let again = sandbox.invoke(guest.call(b"second")).await;
    let refused = matches!(status(&again)?, Status::Platform { .. }) && again.reply.is_empty();
    holds(refused, || {
        format!("a spent sandbox was called: {:?}", again.end)
    })?;
    freshen(&mut sandbox)?;
    is(
        reply(&guest, &mut sandbox, b"third").await?,
        "third".into(),
        "the reply",
    )
}

/// Nothing that one call wrote is there for the next.
pub async fn freshness(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    for (fixture, expected) in [(&fixtures.counter, "1"), (&fixtures.canary, "clean")] {
        let guest = load_plain(backend, fixture).await?;
        let mut sandbox = guest.sandbox()?;
        for _ in 0..50 {
            let reply = reply(&guest, &mut sandbox, b"").await?;
            is(reply, expected.into(), "the reply of a fresh guest")?;
        }
    }
    Ok(())
}

/// Sandboxes that live at once do not see each other.
pub async fn apartness(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    for (fixture, expected) in [(&fixtures.counter, "1"), (&fixtures.canary, "clean")] {
        let guest = load_plain(backend, fixture).await?;
        let mut sandboxes = (0..4)
            .map(|_| guest.sandbox())
            .collect::<Result<Vec<_>, _>>()?;
        for sandbox in &mut sandboxes {
            let completion = sandbox.invoke(guest.call(b"")).await;
            is(
                completion.reply,
                expected.into(),
                "the reply beside spent sandboxes",
            )?;
        }
    }
    Ok(())
}

/// A trap and an exit end their own call, with their own status.
pub async fn faults(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    let guest = load_plain(backend, &fixtures.trap).await?;
    let mut sandbox = guest.sandbox()?;
    for _ in 0..3 {
        let completion = turn(&mut sandbox, guest.call(b"")).await?;
        let status = status(&completion)?;
        let unreachable = matches!(
            status,
            Status::Trap {
                kind: TrapKind::Unreachable,
                ..
            }
        );
        holds(unreachable, || {
            format!("an `unreachable` ended as {status:?}")
        })?;
        holds(completion.reply.is_empty(), || "a trap replied".to_owned())?;
    }
    let Some(exit) = &fixtures.exit_7 else {
        return Ok(());
    };
    let guest = load_plain(backend, exit).await?;
    let completion = turn(&mut guest.sandbox()?, guest.call(b"")).await?;
    is(
        status(&completion)?,
        &Status::Exit { code: 7 },
        "the status of an exit",
    )
}

/// Endless recursion ends its own call.
pub async fn recursion(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    let guest = load_plain(backend, &fixtures.infinite_recursion).await?;
    let mut sandbox = guest.sandbox()?;
    for _ in 0..3 {
        let completion = turn(&mut sandbox, guest.call(b"")).await?;
        let status = status(&completion)?;
        let overflow = matches!(
            status,
            Status::Trap {
                kind: TrapKind::StackOverflow,
                ..
            }
        );
        holds(overflow, || {
            format!("endless recursion ended as {status:?}")
        })?;
    }
    Ok(())
}

/// A guest that computes past its deadline is ended, again and again.
pub async fn deadline(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    let guest = load(backend, &fixtures.infinite_loop, |l| l.deadline_ms = 20).await?;
    let mut sandbox = guest.sandbox()?;
    for _ in 0..3 {
        let completion = turn(&mut sandbox, guest.call(b"")).await?;
        is(
            status(&completion)?,
            &Status::Timeout,
            "the status past the deadline",
        )?;
    }
    Ok(())
}

/// A guest that holds its thread past its budget is given back to be repeated.
pub async fn budget(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    let guest = load(backend, &fixtures.infinite_loop, |l| l.deadline_ms = 50).await?;
    let mut sandbox = guest.sandbox()?;
    let mut call = guest.call(b"");
    call.budget = Some(Duration::from_millis(1));
    let completion = turn(&mut sandbox, call).await?;
    let expected = match guest.program.cooperative() {
        true => End::Done(Status::Timeout),
        false => End::OverBudget,
    };
    is(completion.end, expected, "the end over the budget")?;
    let repeated = turn(&mut sandbox, guest.call(b"")).await?;
    is(
        status(&repeated)?,
        &Status::Timeout,
        "the status of the repeated call",
    )?;
    // Who keeps to its budget does not notice it.
    let guest = load_plain(backend, &fixtures.echo).await?;
    let mut call = guest.call(b"quick");
    call.budget = Some(Duration::from_secs(10));
    let completion = turn(&mut guest.sandbox()?, call).await?;
    is(
        completion.reply,
        "quick".into(),
        "the reply within the budget",
    )
}

/// Memory over the cap is refused, and what the guest had is gone with the reset.
pub async fn memory_cap(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    let cap = 8 << 20;
    let guest = load(backend, &fixtures.memory_hog, |l| l.memory_bytes_max = cap).await?;
    let mut sandbox = guest.sandbox()?;
    for _ in 0..3 {
        let completion = turn(&mut sandbox, guest.call(b"")).await?;
        is(
            status(&completion)?,
            &Status::OutOfMemory,
            "the status at the cap",
        )?;
        let peak = completion.memory_peak_bytes;
        holds(peak > 0 && peak <= cap, || {
            format!("a peak of {peak} under a cap of {cap}")
        })?;
    }
    Ok(())
}

/// Growth is undone by the reset.
pub async fn growth(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    let guest = load_plain(backend, &fixtures.grow).await?;
    let mut sandbox = guest.sandbox()?;
    let first = reply(&guest, &mut sandbox, b"").await?;
    for _ in 0..10 {
        let next = reply(&guest, &mut sandbox, b"").await?;
        is(next, first.clone(), "the size of a fresh guest's memory")?;
    }
    Ok(())
}

/// A reply over its limit is cut off and said to be.
pub async fn output_cap(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    let guest = load(backend, &fixtures.output_flood, |l| {
        l.output_bytes_max = 1000
    })
    .await?;
    let mut sandbox = guest.sandbox()?;
    for _ in 0..3 {
        let completion = turn(&mut sandbox, guest.call(b"")).await?;
        is(
            status(&completion)?,
            &Status::OutputLimit,
            "the status of a flood",
        )?;
        let length = completion.reply.len();
        holds(length <= 1000, || {
            format!("{length} bytes passed a limit of 1000")
        })?;
    }
    Ok(())
}

/// What is printed over the limit is dropped, and the call goes on.
pub async fn log_cap(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    let guest = load(backend, &fixtures.log_flood, |l| l.log_bytes_max = 1000).await?;
    let call = guest.call(b"");
    let log = call.log.clone();
    let completion = turn(&mut guest.sandbox()?, call).await?;
    is(
        status(&completion)?,
        &Status::Ok,
        "the status of a guest that prints",
    )?;
    is(log.written(), 1000, "the bytes that were let through")?;
    holds(log.dropped() > 0, || "no byte was dropped".to_owned())
}

/// A guest that wrote much is reset as one that wrote little.
pub async fn dirty_pages(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    let guest = load_plain(backend, &fixtures.dirty_pages).await?;
    let mut sandbox = guest.sandbox()?;
    for _ in 0..20 {
        let reply = reply(&guest, &mut sandbox, b"pages").await?;
        is(reply, "pages".into(), "the reply")?;
    }
    Ok(())
}

/// A call may be dropped, before its first step or while it waits: the sandbox is spent, and can be
/// reset, or retired.
pub async fn dropped_calls(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    let guest = load_plain(backend, &fixtures.echo).await?;
    let mut sandbox = guest.sandbox()?;
    drop(sandbox.invoke(guest.call(b"dropped")));
    settle(&mut sandbox)?;
    if sandbox.state() == State::Fresh {
        is(
            reply(&guest, &mut sandbox, b"next").await?,
            "next".into(),
            "the reply",
        )?;
    }
    let Some(wait) = &fixtures.wait else {
        return Ok(());
    };
    let guest = load_plain(backend, wait).await?;
    let mut sandbox = guest.sandbox()?;
    for _ in 0..3 {
        let mut call = sandbox.invoke(guest.call(b""));
        let ended = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await;
        holds(!ended, || "a guest that waits ended at once".to_owned())?;
        drop(call);
        settle(&mut sandbox)?;
        if sandbox.state() == State::Retired {
            sandbox = guest.sandbox()?;
        }
    }
    // And a sandbox may be dropped while it is spent.
    drop(sandbox);
    Ok(())
}

fn settle(sandbox: &mut Box<dyn Sandbox>) -> Checked {
    match sandbox.state() {
        State::Running => Err("a dropped call left its sandbox running".to_owned()),
        State::Spent => freshen(sandbox),
        State::Fresh | State::Kept | State::Retired => Ok(()),
    }
}

/// What is no artifact is refused at deploy, and refused again.
pub async fn bad_artifacts(backend: &dyn Backend, fixtures: &Fixtures) -> Checked {
    let bad = |artifact: Bytes| Fixture {
        kind: fixtures.echo.kind,
        artifact,
    };
    for _ in 0..2 {
        let text = bad(Bytes::from_static(b"this is no program"));
        let spec = spec_of(&text, Limits::default());
        let refused = backend.prepare(&spec, text.artifact, Vec::new()).await;
        let not_wasm = matches!(
            refused,
            Err(PrepareError::NotWasm { .. } | PrepareError::NotExecutable { .. })
        );
        holds(not_wasm, || {
            format!("a text was taken for a program: {refused:?}")
        })?;
        let whole = &fixtures.echo.artifact;
        let half = bad(whole.slice(..whole.len() / 2));
        let spec = spec_of(&half, Limits::default());
        let refused = backend.prepare(&spec, half.artifact, Vec::new()).await;
        holds(refused.is_err(), || {
            "half an artifact was prepared".to_owned()
        })?;
    }
    Ok(())
}
