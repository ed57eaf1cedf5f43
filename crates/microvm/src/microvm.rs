//! A micro-VM as a sandbox: one call, then a reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{Kind, Status, TrapKind};
use sandbox::host::HostCall;
use sandbox::{Call, Completion, End, HeldLog, Payload, Reply, Sandbox, SandboxError, State};

use crate::asks::Numbers;
use crate::fault::Fault;
use crate::freestanding;
use crate::linux::{self, command, lambda};
use crate::machine::Machine;
use crate::program::{From, Parts, failed};

/// A guest in a machine.
pub(crate) struct MicroVm {
    parts: Arc<Parts>,
    machine: Option<Machine>,
    /// Whose image the machine is over.
    from: From,
    state: State,
    /// Whether a call broke off, so that what it left cannot be kept.
    broken_off: bool,
}

/// When a guest is to be stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    pub deadline: Instant,
    pub budget: Option<Duration>,
}

impl Until {
    /// The end of a run that begins now.
    pub fn of_run(self) -> Instant {
        let budget = self.budget.map(|budget| Instant::now() + budget);
        budget.map_or(self.deadline, |end| end.min(self.deadline))
    }

    /// How a call ends that was stopped.
    pub fn end(self) -> Ended {
        if self.budget.is_some() && Instant::now() < self.deadline {
            Ended::OverBudget
        } else {
            Ended::Timeout
        }
    }
}

/// How the guest's part of a call ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// With a code of its own.
    Code(i32),
    /// By a fault.
    Fault(Fault),
    /// By the host, for what it did; in words.
    Killed(String),
    /// By itself, as a trap; in words.
    Trapped(TrapKind, String),
    /// At its deadline.
    Timeout,
    /// At its budget.
    OverBudget,
    /// As what serves the guest says.
    Told(Status),
    /// By a failure of the platform's.
    Platform(String),
}

/// What a guest gets in one call.
pub(crate) struct Given<'a> {
    pub table: &'static [HostCall],
    pub numbers: &'a Numbers,
    pub input: Bytes,
    pub reply: &'a Reply,
    pub log: &'a HeldLog,
    pub until: Until,
    pub asks: Option<Box<sandbox::Asks>>,
    /// Nanoseconds that the guest used on other threads than the one that runs it.
    pub elsewhere_ns: &'a AtomicU64,
}

impl Given<'_> {
    /// Counts what the guest used on other threads.
    pub fn used_elsewhere(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.elsewhere_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

impl MicroVm {
    pub fn new(parts: Arc<Parts>) -> Result<Self, SandboxError> {
        let from = parts.usual();
        let machine = Some(parts.machine(from)?);
        Ok(Self {
            parts,
            machine,
            from,
            state: State::Fresh,
            broken_off: false,
        })
    }

    async fn run(&mut self, call: Call) -> Completion {
        if let Err(error) = self.state.step(State::Running) {
            return platform(error.to_string());
        }
        // Nobody can look while the call borrows the sandbox; when its future is dropped, the state
        // is right already.
        self.state = State::Spent;
        self.broken_off = true;
        let Payload::Bytes { body, args, env } = call.payload else {
            return platform("a micro-VM takes bytes, not an http request".to_owned());
        };
        if let Err(error) = self.go_to(self.parts.begins(&args, &env)) {
            return platform(error.to_string());
        }
        let Some(machine) = self.machine.as_mut() else {
            return platform("the sandbox has no machine".to_owned());
        };
        let log = HeldLog::new(call.log.clone(), call.budget.is_some());
        let reply = Reply::new(call.limits.output_bytes_max);
        let elsewhere_ns = AtomicU64::new(0);
        let given = Given {
            table: self.parts.table,
            numbers: &self.parts.numbers,
            input: body,
            reply: &reply,
            log: &log,
            until: Until {
                deadline: Instant::now() + Duration::from_millis(call.limits.deadline_ms),
                budget: call.budget,
            },
            asks: call.asks,
            elsewhere_ns: &elsewhere_ns,
        };
        let guest = &self.parts.entry.frozen.guest;
        let saved = self.parts.request_loop.as_ref().map(|(_, saved)| saved);
        let saved = saved.filter(|_| self.from == From::Loop);
        let passed = command::Passed {
            settings: &self.parts.settings,
            layer: &self.parts.layer,
            args: &args,
            env: &env,
        };
        let (ended, refused) = match self.parts.kind {
            Kind::Command => match saved {
                Some(saved) => command::resume(machine, given, &passed, saved).await,
                None => command::call(machine, given, &passed, guest).await,
            },
            Kind::Lambda => match saved {
                Some(saved) => lambda::resume(machine, given, &passed, saved).await,
                None => lambda::call(machine, given, &passed, guest).await,
            },
            Kind::Reactor | Kind::Http => freestanding::call(machine, given, guest).await,
        };
        self.broken_off = !matches!(ended, Ended::Code(_));
        let end = match end_of(ended, refused, &self.parts) {
            End::Done(_) if reply.is_over() => End::Done(Status::OutputLimit),
            End::Done(Status::Ok) if machine.wrote_read_only() => End::Done(stray_write()),
            end => end,
        };
        if end != End::OverBudget {
            log.release();
        }
        Completion {
            end,
            reply: reply.take(),
            memory_peak_bytes: machine.space.bytes_peak(),
            cpu_elsewhere_ns: elsewhere_ns.into_inner(),
            ..Completion::without_reply(Status::Ok)
        }
    }

    /// Puts the machine over the image that a call begins from.
    fn go_to(&mut self, from: From) -> Result<(), SandboxError> {
        if from == self.from {
            return Ok(());
        }
        if let Some(machine) = self.machine.as_mut() {
            let changed = self.parts.change(machine, from);
            if let Err(error) = changed {
                self.machine = None;
                return Err(failed("put over another image", &error));
            }
        }
        self.from = from;
        Ok(())
    }

    /// The machine as its image has it, or another one where it is not fit for that.
    fn try_reset(&mut self) -> Result<(), SandboxError> {
        if let Some(machine) = self.machine.as_mut()
            && !machine.is_broken()
        {
            let frozen = &self.parts.beginning(self.from).frozen;
            let reset = machine.reset(&frozen.space, &frozen.cpu);
            return reset.map_err(|error| failed("reset", &error));
        }
        self.retire();
        self.machine = Some(self.parts.machine(self.from)?);
        Ok(())
    }

    fn retire(&mut self) {
        if let Some(machine) = self.machine.take() {
            self.parts.shells.give_back(machine);
            self.parts.shells.make_up();
        }
    }
}

impl Sandbox for MicroVm {
    fn invoke(&mut self, call: Call) -> BoxFuture<'_, Completion> {
        Box::pin(self.run(call))
    }

    fn reset(&mut self) -> Result<(), SandboxError> {
        self.parts.shells.make_up();
        let mut next = self.state;
        next.step(State::Fresh)?;
        let done = self.try_reset();
        self.state = if done.is_ok() {
            self.broken_off = false;
            State::Fresh
        } else {
            State::Retired
        };
        done
    }

    fn keep(&mut self) -> bool {
        let can = self.parts.kind == Kind::Reactor && !self.broken_off;
        can && self.state.step(State::Kept).is_ok()
    }

    fn state(&self) -> State {
        self.state
    }
}

impl Drop for MicroVm {
    fn drop(&mut self) {
        self.retire();
    }
}

fn end_of(ended: Ended, refused_memory: bool, parts: &Parts) -> End {
    let trap = |kind, message| match refused_memory {
        true => Status::OutOfMemory,
        false => Status::Trap { kind, message },
    };
    End::Done(match ended {
        Ended::Code(0) => Status::Ok,
        Ended::Code(code) => Status::Exit { code },
        Ended::Fault(fault) => {
            let message = format!("{fault} {}", parts.place(fault.rip));
            let guard = match parts.kind {
                Kind::Command | Kind::Lambda => linux::Program::stack_guard(),
                Kind::Reactor | Kind::Http => freestanding::STACK_GUARD,
            };
            trap(fault.kind(&guard), message)
        }
        Ended::Killed(message) => trap(TrapKind::Other, message),
        Ended::Trapped(kind, message) => trap(kind, message),
        Ended::Timeout => Status::Timeout,
        Ended::OverBudget => return End::OverBudget,
        Ended::Told(status) => status,
        Ended::Platform(message) => Status::Platform { message },
    })
}

fn platform(message: String) -> Completion {
    Completion::without_reply(Status::Platform { message })
}

/// What a guest wrote there would be lost without a word.
fn stray_write() -> Status {
    Status::Trap {
        kind: TrapKind::OutOfBounds,
        message: "it wrote to state that it mapped to read".to_owned(),
    }
}
