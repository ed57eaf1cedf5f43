//! Runs a process on a machine: the only part that knows a clock and a processor.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use files::Files;

use super::frame;
use super::maps::Touch;
use super::memory::GuestMemory;
use super::numbers;
use super::process::{Beginning, Clocks, Exit, Flow, Guest, Process, Turn};
use super::program::Program;
use super::signal::{Info, SI_KERNEL, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};
use super::stack;
use super::thread::{FIRST, Request, Tid};
use super::world::World;
use crate::fault::Fault;
use crate::kvm::{KvmError, XSAVE_WORDS, kvm_regs};
use crate::layout::{PAGE, SYSCALL_STUB, USER_END};
use crate::machine::{Machine, Stop};
use crate::space::Protection;

/// How long a thread runs while others could.
const SLICE: Duration = Duration::from_millis(4);
/// How often links are looked at while a thread runs.
const LOOK: Duration = Duration::from_millis(2);
/// What the monotonic clock shows at the start.
const MONOTONIC_START_NS: u64 = 1_000_000_000;

/// What a program begins with.
pub struct Start<'a> {
    /// The program, which the machine holds.
    pub program: &'a Program,
    /// Its arguments, its own name first.
    pub args: Vec<Vec<u8>>,
    /// Its environment, as `NAME=VALUE`.
    pub env: Vec<Vec<u8>>,
    /// What it reads from descriptor 0.
    pub input: Bytes,
    /// Its files.
    pub files: Files,
    /// Everything else that it reaches.
    pub world: Box<dyn World>,
    /// When it ends at the latest.
    pub deadline: Instant,
}

/// How a program came to its end.
#[derive(Debug)]
pub enum End {
    /// As a process does.
    Exit(Exit),
    /// By a fault that it did not handle.
    Fault(Fault),
    /// At its deadline.
    Deadline,
    /// The machine is not to be used again.
    Broken(String),
}

/// A program that has ended.
pub struct Ended {
    /// How.
    pub end: End,
    /// Calls that it made and that are not offered, with how often.
    pub unknown: Vec<(String, u64)>,
    /// Whether it was refused memory.
    pub refused_memory: bool,
    /// What it reached.
    pub world: Box<dyn World>,
    /// Its files, as it left them.
    pub files: Files,
}

impl Guest for Machine {
    fn vectors(&mut self) -> Result<Box<[u32; XSAVE_WORDS]>, KvmError> {
        self.cpu.vectors()
    }

    fn set_vectors(&mut self, vectors: &[u32; XSAVE_WORDS]) -> Result<(), KvmError> {
        self.cpu.set_vectors(vectors)
    }

    fn base(&mut self) -> Result<u64, KvmError> {
        self.cpu.thread_base()
    }

    fn set_base(&mut self, base: u64) -> Result<(), KvmError> {
        self.cpu.set_thread_base(base)
    }

    fn vector_mask(&self) -> u64 {
        self.cpu.vector_mask()
    }
}

/// Runs the program that `machine` holds from its first instruction to its end. It holds its thread
/// while the program computes, and yields it while all its threads wait; until the deadline at the
/// longest.
pub async fn run(machine: &mut Machine, start: Start<'_>) -> Ended {
    let mut runner = match Runner::new(machine, start) {
        Ok(runner) => runner,
        Err(ended) => return *ended,
    };
    let end = match runner.run().await {
        Ok(end) => end,
        Err(error) => {
            tracing::warn!(%error, "a micro-VM failed");
            End::Broken(error.to_string())
        }
    };
    ended(runner.process, end)
}

fn ended(process: Process, end: End) -> Ended {
    let name = |number: u64| match numbers::name(number) {
        Some(name) => name.to_owned(),
        None => format!("call {number}"),
    };
    let unknown = process.unknown.into_iter();
    Ended {
        end,
        unknown: unknown
            .map(|(number, count)| (name(number), count))
            .collect(),
        refused_memory: process.refused_memory,
        world: process.world,
        files: process.files,
    }
}

/// How the thread that has the processor goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// With the registers that its thread has.
    Registers,
    /// From a call, with this result.
    Result(u64),
    /// As it was.
    Same,
}

struct Runner<'a> {
    machine: &'a mut Machine,
    process: Process,
    begin: Instant,
    deadline: Instant,
    looked: Instant,
    /// Who has the processor.
    loaded: Tid,
    entry: Entry,
}

impl<'a> Runner<'a> {
    fn new(machine: &'a mut Machine, start: Start<'_>) -> Result<Self, Box<Ended>> {
        let now = Instant::now();
        let mut process = Process::new(Beginning {
            segments: start.program.segments(),
            args: start.args,
            input: start.input,
            files: start.files,
            world: start.world,
            memory_bytes_max: machine.bytes_max(),
        });
        if let Err(errno) = set_up(&mut process, machine, start.program, &start.env) {
            let reason = format!("its arguments and environment do not fit: {errno:?}");
            let exit = process.exit.clone().unwrap_or(Exit::Host(reason));
            return Err(Box::new(ended(process, End::Exit(exit))));
        }
        Ok(Self {
            machine,
            process,
            begin: now,
            deadline: start.deadline,
            looked: now,
            loaded: FIRST,
            entry: Entry::Registers,
        })
    }

    async fn run(&mut self) -> Result<End, KvmError> {
        self.machine.cpu.begin(0, 0)?;
        self.machine.cpu.set_thread_base(0)?;
        loop {
            let now = Instant::now();
            if now >= self.deadline {
                return Ok(End::Deadline);
            }
            self.process.tick(self.clocks(now));
            self.look_at_links(now);
            let turn = self.process.turn(self.machine);
            if let Some(exit) = self.process.exit.take() {
                return Ok(End::Exit(exit));
            }
            let tid = match turn {
                Turn::Run(tid) => tid,
                Turn::Idle(until) => {
                    self.idle(until).await;
                    continue;
                }
            };
            self.switch(tid)?;
            if self.process.has_signal(tid) {
                self.process.deliver_signals(self.machine, tid);
                self.entry = Entry::Registers;
                if self.process.exit.is_some() {
                    continue;
                }
            }
            self.enter(tid)?;
            let stop = self.machine.cpu.run(self.until(now))?;
            if let Some(end) = self.handle(tid, stop) {
                return Ok(end);
            }
        }
    }

    fn clocks(&self, now: Instant) -> Clocks {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let running = nanoseconds(now.saturating_duration_since(self.begin));
        Clocks {
            monotonic_ns: MONOTONIC_START_NS.saturating_add(running),
            realtime_ns: since.map_or(0, nanoseconds),
            cpu_ns: running,
        }
    }

    /// A time of the process's monotonic clock.
    fn instant(&self, monotonic_ns: u64) -> Instant {
        let since = monotonic_ns.saturating_sub(MONOTONIC_START_NS);
        let at = self.begin.checked_add(Duration::from_nanos(since));
        at.unwrap_or(self.deadline).min(self.deadline)
    }

    /// When the thread that runs is looked at again.
    fn until(&self, now: Instant) -> Instant {
        let event = self.process.next_event();
        let mut until = event.map_or(self.deadline, |event| self.instant(event));
        if self.process.threads.is_contended() {
            until = until.min(now + SLICE);
        } else if !self.process.sockets.links().is_empty() && self.process.threads.count() > 1 {
            until = until.min(now + LOOK);
        }
        // A time that has come already still lets the guest make a step.
        until
            .max(now + Duration::from_micros(200))
            .min(self.deadline)
    }

    fn look_at_links(&mut self, now: Instant) {
        if now - self.looked >= LOOK && !self.process.sockets.links().is_empty() {
            self.looked = now;
            if self.process.world.network().look() {
                self.process.stir();
            }
        }
    }

    async fn idle(&mut self, until: Option<u64>) {
        let until = until.map_or(self.deadline, |until| self.instant(until));
        if self.process.world.network().wait(until).await {
            self.process.stir();
        }
    }

    /// Gives the processor to a thread.
    fn switch(&mut self, tid: Tid) -> Result<(), KvmError> {
        if tid == self.loaded {
            return Ok(());
        }
        let cpu = &mut self.machine.cpu;
        let (vectors, base) = (cpu.vectors()?, cpu.thread_base()?);
        if let Some(old) = self.process.threads.find_mut(self.loaded) {
            (old.vectors, old.base) = (Some(vectors), base);
        }
        if let Some(new) = self.process.threads.find_mut(tid) {
            if let Some(vectors) = new.vectors.take() {
                cpu.set_vectors(&vectors)?;
            }
            cpu.set_thread_base(new.base)?;
        }
        self.loaded = tid;
        self.entry = Entry::Registers;
        Ok(())
    }

    fn enter(&mut self, tid: Tid) -> Result<(), KvmError> {
        let cpu = &mut self.machine.cpu;
        match self.entry {
            Entry::Same => Ok(()),
            Entry::Result(result) => cpu.finish_syscall(result),
            Entry::Registers => {
                let Some(thread) = self.process.threads.find(tid) else {
                    return Ok(());
                };
                let regs = thread.regs;
                *cpu.regs_mut() = regs;
                cpu.resume(regs.rip, regs.rsp, regs.rflags)
            }
        }
    }

    fn handle(&mut self, tid: Tid, stop: Stop) -> Option<End> {
        self.entry = Entry::Registers;
        let mut regs = *self.machine.cpu.regs();
        match stop {
            Stop::Syscall => {
                (regs.rip, regs.rflags) = (regs.rcx, regs.r11);
                self.keep(tid, regs);
                self.process.tick(self.clocks(Instant::now()));
                let request = Request {
                    number: regs.rax,
                    args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
                };
                if let Flow::Return(result) = self.process.call(self.machine, tid, request) {
                    self.entry = Entry::Result(result);
                }
            }
            Stop::Fault(fault) => {
                (regs.rip, regs.rsp, regs.rflags) = (fault.rip, fault.rsp, fault.rflags);
                self.keep(tid, regs);
                return self.fault(tid, &fault);
            }
            Stop::Deadline => {
                if (SYSCALL_STUB + 1..SYSCALL_STUB + PAGE).contains(&regs.rip) {
                    // It was about to return from its call.
                    (regs.rip, regs.rflags) = (regs.rcx, regs.r11);
                    self.keep(tid, regs);
                } else {
                    self.keep(tid, regs);
                    self.entry = Entry::Same;
                }
                self.process.threads.rotate();
            }
            Stop::HostCall(_) => {
                self.keep(tid, regs);
                // What Linux makes of a port instruction.
                self.process.fault(tid, Info::sent(SIGSEGV, SI_KERNEL));
            }
            Stop::Broken(why) => return Some(End::Broken(why)),
        }
        None
    }

    fn keep(&mut self, tid: Tid, regs: kvm_regs) {
        if let Some(thread) = self.process.threads.find_mut(tid) {
            thread.regs = regs;
        }
    }

    fn fault(&mut self, tid: Tid, fault: &Fault) -> Option<End> {
        let touched = fault.is_page().then(|| {
            let needed = match (fault.is_fetch(), fault.is_write()) {
                (true, _) => Protection::READ_EXECUTE,
                (_, true) => Protection::READ_WRITE,
                _ => Protection::READ,
            };
            self.process
                .maps
                .touch(self.machine, fault.address, 1, needed)
        });
        match touched {
            Some(Touch::Fine) => return None,
            Some(Touch::NoMemory) => return Some(End::Exit(Exit::OutOfMemory)),
            _ => {}
        }
        let (signal, code) = signal_of(fault, touched);
        let info = Info {
            signal,
            code,
            address: Some(if fault.is_page() {
                fault.address
            } else {
                fault.rip
            }),
            trap: (fault.vector.into(), fault.code),
        };
        self.process.fault(tid, info);
        // No handler takes it: the fault itself says more than the signal.
        self.process.exit.take().map(|_| End::Fault(*fault))
    }
}

/// What Linux makes of a fault: the signal, and its code.
fn signal_of(fault: &Fault, touched: Option<Touch>) -> (u8, i32) {
    const NOT_MAPPED: i32 = 1;
    const DENIED: i32 = 2;
    const DIVISION: i32 = 1;
    const FLOAT: i32 = 7;
    const OPERAND: i32 = 2;
    const ALIGNMENT: i32 = 1;
    match fault.vector {
        0 => (SIGFPE, DIVISION),
        1 | 3 => (SIGTRAP, SI_KERNEL),
        6 => (SIGILL, OPERAND),
        11 | 12 => (SIGBUS, SI_KERNEL),
        14 if touched == Some(Touch::Denied) => (SIGSEGV, DENIED),
        14 => (SIGSEGV, NOT_MAPPED),
        16 | 19 => (SIGFPE, FLOAT),
        17 => (SIGBUS, ALIGNMENT),
        _ => (SIGSEGV, SI_KERNEL),
    }
}

/// Puts the program's stack in place, and its first thread at its entry.
fn set_up(
    process: &mut Process,
    machine: &mut Machine,
    program: &Program,
    env: &[Vec<u8>],
) -> Result<(), super::errno::Errno> {
    let mut random = [0; 16];
    process.world.random(&mut random);
    let args = process.args.clone();
    let (bytes, rsp) = stack::build(
        &stack::Start {
            args: &args,
            env,
            program,
            random,
            signal_bytes: frame::BYTES_MAX,
        },
        USER_END,
    )?;
    process.write(machine, rsp, &bytes)?;
    if let Some(thread) = process.threads.find_mut(FIRST) {
        (thread.regs.rip, thread.regs.rsp) = (program.entry, rsp);
    }
    Ok(())
}
