//! A core module behind the wall: one call, then a reset.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use memory::Range;
use model::{Limits, Status, TrapKind};
use sandbox::{Call, CallLog, Completion, End, LogStream, Payload, Sandbox, SandboxError, State};

use super::creator::WASM_PAGE_BYTES;
use super::host::HostCall;
use super::preview1::{Input, Preview1};
use super::program::{CoreParts, Live, failed};
use super::{asks, interrupt};
use crate::lost;
use crate::status::status_of;
use crate::stdio::{Log, Reply, Stdio};

/// Log bytes that are held back while a guest waits; with more the call is not repeated any more.
const HELD_BYTES_MAX: usize = 64 << 10;

/// A guest over a range of the slab.
pub(super) struct Faaslet {
    parts: Arc<CoreParts>,
    range: Arc<Range>,
    live: Option<Live>,
    state: State,
    /// Whether a call broke off in a way that its instance may not outlive.
    broken: bool,
}

/// How the guest's code came to its end.
enum Ran {
    Returned(i32),
    Failed(wasmtime::Error),
    /// Stopped by the watchdog, or still waiting at its deadline.
    Stopped,
}

/// When a guest is to be stopped.
#[derive(Clone, Copy)]
struct Until {
    deadline: Instant,
    budget: Option<Duration>,
}

impl Until {
    /// The end of a run that begins at `now`.
    fn of_run(self, now: Instant) -> Instant {
        self.budget
            .map_or(self.deadline, |budget| self.deadline.min(now + budget))
    }
}

impl Faaslet {
    pub fn new(parts: Arc<CoreParts>) -> Result<Self, SandboxError> {
        let range = parts.range()?;
        let live = Some(parts.instantiate(&range)?);
        Ok(Self {
            parts,
            range,
            live,
            state: State::Fresh,
            broken: false,
        })
    }

    pub fn parts(&self) -> &Arc<CoreParts> {
        &self.parts
    }

    pub fn range(&self) -> &Arc<Range> {
        &self.range
    }

    /// The instance, for freezing it.
    pub fn live_mut(&mut self) -> Option<&mut Live> {
        self.live.as_mut()
    }

    async fn run(&mut self, call: Call) -> Completion {
        if let Err(error) = self.state.step(State::Running) {
            let message = error.to_string();
            return Completion::without_reply(Status::Platform { message });
        }
        // Nobody can look while the call borrows the sandbox; when its future is dropped, the state
        // is right already, and the instance is one that broke off.
        self.state = State::Spent;
        self.broken = true;
        self.run_fresh(call).await
    }

    async fn run_fresh(&mut self, call: Call) -> Completion {
        let Some(live) = self.live.as_mut() else {
            let message = "the sandbox has no instance".to_owned();
            return Completion::without_reply(Status::Platform { message });
        };
        let Payload::Bytes { body, args, env } = call.payload else {
            let message = "a core module takes bytes, not an http request".to_owned();
            return Completion::without_reply(Status::Platform { message });
        };
        let log = Log::new(call.log.clone(), call.budget.is_some());
        let reply = Reply::new(call.limits.output_bytes_max);
        let parts = &self.parts;
        if parts.frozen.wasi {
            let stdout = match parts.entry {
                "_start" => Stdio::Reply(reply.clone()),
                _ => Stdio::Log(LogStream::Stdout, log.clone()),
            };
            let input = Input {
                stdin: body.clone(),
                args,
                env,
                stdout,
                stderr: Stdio::Log(LogStream::Stderr, log.clone()),
            };
            live.store.data_mut().wasi = Some(Box::new(Preview1::new(parts, input)));
        }
        let host = live.store.data_mut();
        host.limiter.refused = false;
        host.asks = call.asks;
        host.call = Some(HostCall {
            input: body,
            reply: reply.clone(),
            log: log.clone(),
        });

        let until = Until::of_call(&call.limits, call.budget);
        let ran = if parts.frozen.waits {
            run_waiting(live, &self.range, until, &log).await
        } else {
            run_straight(live, &self.range, until)
        };
        let host = live.store.data_mut();
        let refused = host.limiter.refused;
        let stray = asks::wrote_read_only(host, &self.range);
        let mapped_bytes = host.limiter.mapped_bytes;
        let heap_bytes = host
            .limiter
            .bytes
            .saturating_sub(self.range.bytes() + WASM_PAGE_BYTES);
        host.end_call();
        self.broken = matches!(ran, Ran::Stopped);
        let end = match end_of(ran, refused, until) {
            _ if lost::is_lost(&self.range.image()) => End::Done(lost::status()),
            End::Done(_) if reply.is_over() => End::Done(Status::OutputLimit),
            End::Done(Status::Ok) if stray => End::Done(stray_write()),
            end => end,
        };
        if end != End::OverBudget {
            log.release();
        }
        Completion {
            memory_peak_bytes: (self.range.peak_bytes().saturating_sub(mapped_bytes) + heap_bytes)
                as u64,
            reply: reply.take(),
            ..Completion {
                end,
                ..Completion::without_reply(Status::Ok)
            }
        }
    }

    fn try_reset(&mut self) -> Result<(), SandboxError> {
        lost::check("reset", &self.range.image())?;
        let new_instance = self.broken || self.parts.frozen.new_instance;
        if new_instance {
            self.live = None;
        }
        let grown = self
            .range
            .reset()
            .map_err(|error| failed("reset")(&error))?;
        match self.live.as_mut() {
            Some(live) => {
                let host = live.store.data_mut();
                host.unmapped();
                host.limiter.bytes = self.range.bytes() + WASM_PAGE_BYTES;
                rewind(live, grown).map_err(|error| failed("reset")(&error))?;
            }
            None => self.live = Some(self.parts.instantiate(&self.range)?),
        }
        self.broken = false;
        Ok(())
    }
}

impl Until {
    fn of_call(limits: &Limits, budget: Option<Duration>) -> Self {
        Self {
            deadline: Instant::now() + Duration::from_millis(limits.deadline_ms),
            budget,
        }
    }
}

impl Sandbox for Faaslet {
    fn invoke(&mut self, call: Call) -> BoxFuture<'_, Completion> {
        Box::pin(self.run(call))
    }

    fn reset(&mut self) -> Result<(), SandboxError> {
        let mut next = self.state;
        next.step(State::Fresh)?;
        let done = self.try_reset();
        self.state = if done.is_ok() {
            State::Fresh
        } else {
            State::Retired
        };
        done
    }

    fn keep(&mut self) -> bool {
        // What a call broke off may stand in the middle of anything.
        !self.broken && self.state.step(State::Kept).is_ok()
    }

    fn state(&self) -> State {
        self.state
    }
}

/// Brings an instance whose memory was reset back to its image.
fn rewind(live: &mut Live, grown: bool) -> wasmtime::Result<()> {
    if grown && let Some(memory) = live.memory {
        // Growing by nothing makes the instance look up the size again, which shrank.
        memory.grow(&mut live.store, 0)?;
    }
    for (global, value) in &live.globals {
        global.set(&mut live.store, *value)?;
    }
    Ok(())
}

/// Runs a guest that never waits, on this thread's stack.
fn run_straight(live: &mut Live, range: &Range, until: Until) -> Ran {
    let entered = interrupt::enter(range, until.of_run(Instant::now()));
    let result = live.enter();
    ran_of(result, entered.leave())
}

/// Runs a guest that may wait, on a stack of its own.
async fn run_waiting(live: &mut Live, range: &Range, mut until: Until, log: &Log) -> Ran {
    let mut running = pin!(live.enter_async());
    let mut alarm = None;
    poll_fn(|context| {
        if log.held_bytes().is_none_or(|bytes| bytes > HELD_BYTES_MAX) {
            // What was handed on cannot be taken back: no repetition from here.
            log.release();
            until.budget = None;
        }
        poll_run(running.as_mut(), range, until, &mut alarm, context)
    })
    .await
}

fn poll_run(
    running: Pin<&mut impl Future<Output = wasmtime::Result<i32>>>,
    range: &Range,
    until: Until,
    alarm: &mut Option<Pin<Box<tokio::time::Sleep>>>,
    context: &mut Context<'_>,
) -> Poll<Ran> {
    let entered = interrupt::enter(range, until.of_run(Instant::now()));
    let polled = running.poll(context);
    let stopped = entered.leave();
    if let Poll::Ready(result) = polled {
        return Poll::Ready(ran_of(result, stopped));
    }
    if stopped {
        return Poll::Ready(Ran::Stopped);
    }
    let sleep = || Box::pin(tokio::time::sleep_until(until.deadline.into()));
    alarm
        .get_or_insert_with(sleep)
        .as_mut()
        .poll(context)
        .map(|()| Ran::Stopped)
}

fn ran_of(result: wasmtime::Result<i32>, stopped: bool) -> Ran {
    match result {
        Ok(code) => Ran::Returned(code),
        Err(_) if stopped => Ran::Stopped,
        Err(error) => Ran::Failed(error),
    }
}

fn end_of(ran: Ran, refused_memory: bool, until: Until) -> End {
    End::Done(match ran {
        Ran::Returned(0) => Status::Ok,
        Ran::Returned(code) => Status::Exit { code },
        Ran::Failed(error) => status_of(&error, refused_memory),
        Ran::Stopped if Instant::now() < until.deadline => return End::OverBudget,
        Ran::Stopped => Status::Timeout,
    })
}

/// What a guest wrote there would be lost without a word.
fn stray_write() -> Status {
    Status::Trap {
        kind: TrapKind::OutOfBounds,
        message: "it wrote to state that it mapped to read".to_owned(),
    }
}

/// What a guest sees of the system while it is initialised: its settings, and no input.
pub(super) fn wasi_for_init(parts: &Arc<CoreParts>, log: &Log) -> Box<Preview1> {
    Box::new(Preview1::new(
        parts,
        Input {
            stdin: Bytes::new(),
            args: Vec::new(),
            env: Vec::new(),
            stdout: Stdio::Log(LogStream::Stdout, log.clone()),
            stderr: Stdio::Log(LogStream::Stderr, log.clone()),
        },
    ))
}

/// A log that goes nowhere, for guest code that runs at deploy.
pub(crate) fn discard() -> Arc<CallLog> {
    struct Nowhere;
    impl sandbox::LogSink for Nowhere {
        fn write(&self, _: model::InvocationId, _: LogStream, _: &[u8]) {}
    }
    Arc::new(CallLog::new(
        model::InvocationId::new(0),
        Arc::new(Nowhere),
        0,
    ))
}
