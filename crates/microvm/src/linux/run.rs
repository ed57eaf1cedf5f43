//! Runs a process on a machine: the only part that knows a clock and a processor.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use memory::MemoryError;

use super::maps::Touch;
use super::process::{Clocks, Exit, Flow, Guest, Process, Turn};
use super::request_loop::{Awaits, NotFrozen};
use super::saved::Saved;
use super::signal::{Info, SI_KERNEL, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};
use super::start::End;
use super::thread::{FIRST, Request, Tid, Wait};
use crate::fault::Fault;
use crate::kvm::{KvmError, XSAVE_WORDS, kvm_regs};
use crate::machine::{Machine, Stop};
use crate::space::Protection;
use crate::stub::{Halted, Noted, Offers};

/// How long a thread runs while others could.
const SLICE: Duration = Duration::from_millis(4);
/// How often links are looked at while a thread runs.
const LOOK: Duration = Duration::from_millis(2);
/// `exit_group`.
const EXIT_GROUP: u64 = 231;
/// What the monotonic clock shows at the start.
const MONOTONIC_START_NS: u64 = 1_000_000_000;

/// Why a process runs no further.
pub enum Left {
    /// It came to its end.
    End(End),
    /// It is at its request loop, at its deploy.
    Loop(Awaits),
    /// It is not going to be frozen there.
    Unfit(NotFrozen),
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

/// How the thread that has the processor goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// The first of the process, with nothing of another in its registers.
    First,
    /// With the registers that its thread has.
    Registers,
    /// From a call, with this result.
    Result(u64),
    /// As it was.
    Same,
}

/// A process on a machine.
pub struct Runner<'a> {
    machine: &'a mut Machine,
    /// The process.
    pub process: Process,
    begin: Instant,
    /// What its clocks showed then.
    shown: Clocks,
    deadline: Instant,
    looked: Instant,
    /// Who has the processor.
    loaded: Tid,
    entry: Entry,
    /// What it was told last that it may be answered where it is.
    offered: Offers,
}

impl<'a> Runner<'a> {
    fn new(
        machine: &'a mut Machine,
        process: Process,
        (shown, loaded): (Clocks, Tid),
        deadline: Instant,
    ) -> Self {
        let now = Instant::now();
        Self {
            machine,
            process,
            begin: now,
            shown,
            deadline,
            looked: now,
            loaded,
            entry: Entry::Registers,
            offered: Offers::default(),
        }
    }

    /// For a process whose first thread is at its entry.
    pub fn at_entry(machine: &'a mut Machine, process: Process, deadline: Instant) -> Self {
        let shown = Clocks {
            monotonic_ns: MONOTONIC_START_NS,
            ..Clocks::default()
        };
        let mut runner = Self::new(machine, process, (shown, FIRST), deadline);
        runner.entry = Entry::First;
        runner
    }

    /// For a copy of a process that was frozen, on a machine that holds it.
    pub fn resumed(
        machine: &'a mut Machine,
        process: Process,
        saved: &Saved,
        deadline: Instant,
    ) -> Self {
        let before = (saved.clocks(), saved.loaded());
        Self::new(machine, process, before, deadline)
    }

    /// Runs the process as far as it goes.
    pub async fn run(&mut self) -> Result<Left, KvmError> {
        loop {
            let now = Instant::now();
            if now >= self.deadline {
                return Ok(Left::End(End::Deadline));
            }
            self.process.tick(self.clocks(now));
            self.look_at_links(now);
            let turn = self.process.turn(self.machine);
            if let Some(exit) = self.process.exit.take() {
                return Ok(Left::End(End::Exit(exit)));
            }
            if let Some(reason) = self.process.unfit() {
                return Ok(Left::Unfit(reason));
            }
            let tid = match turn {
                Turn::Run(tid) => tid,
                Turn::Idle(until) => {
                    if !self.process.stage.is_call()
                        && let Some(awaits) = self.process.awaits()
                    {
                        return Ok(Left::Loop(awaits));
                    }
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
            if let Err(error) = self.offer(tid) {
                return Ok(Left::End(End::Broken(error.to_string())));
            }
            let stop = self.machine.cpu.run(self.until(now))?;
            if let Some(end) = self.handle(tid, stop) {
                return Ok(Left::End(end));
            }
        }
    }

    /// Puts a process none of whose threads runs into a state that can be frozen: one of them has
    /// the processor, as it will go on. Which one that is.
    pub fn settle(&mut self) -> Result<Tid, KvmError> {
        let first = self.process.threads.all().next().map(|(tid, _)| tid);
        let waits = |wait: Wait| wait == Wait::Input;
        let for_input = self
            .process
            .threads
            .waiting()
            .find(|(_, wait, _)| waits(*wait));
        let next = for_input.map(|(tid, ..)| tid).or(first).unwrap_or(FIRST);
        self.switch(next)?;
        self.entry = Entry::Registers;
        self.enter(next)?;
        Ok(next)
    }

    fn clocks(&self, now: Instant) -> Clocks {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let running = nanoseconds(now.saturating_duration_since(self.begin));
        Clocks {
            monotonic_ns: self.shown.monotonic_ns.saturating_add(running),
            realtime_ns: since.map_or(0, nanoseconds),
            cpu_ns: self.shown.cpu_ns.saturating_add(running),
        }
    }

    /// A time of the process's monotonic clock.
    fn instant(&self, monotonic_ns: u64) -> Instant {
        let since = monotonic_ns.saturating_sub(self.shown.monotonic_ns);
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
            Entry::First | Entry::Registers => {
                if self.entry == Entry::First {
                    cpu.begin(0, 0)?;
                    cpu.set_thread_base(0)?;
                }
                let Some(thread) = self.process.threads.find(tid) else {
                    return Ok(());
                };
                let regs = thread.regs;
                *cpu.regs_mut() = regs;
                cpu.resume(regs.rip, regs.rsp, regs.rflags)
            }
        }
    }

    /// Tells the guest what it may be answered without leaving its machine.
    fn offer(&mut self, tid: Tid) -> Result<(), MemoryError> {
        let offers = self.process.offers(tid);
        if offers != self.offered {
            offers.write(self.machine.memory())?;
            self.offered = offers;
        }
        Ok(())
    }

    /// Takes what the guest was answered so.
    fn take_noted(&mut self, tid: Tid, stop: &Stop) -> Result<(), MemoryError> {
        let Some(noted) = Noted::take(self.machine.memory())? else {
            return Ok(());
        };
        // A process that ends needs no order in its memory.
        let ends = *stop == Stop::Syscall && self.machine.cpu.regs().rax == EXIT_GROUP;
        let mapping = self.offered.stack.filter(|_| !ends);
        self.process.make_good(self.machine, tid, &noted, mapping);
        Ok(())
    }

    fn handle(&mut self, tid: Tid, stop: Stop) -> Option<End> {
        self.entry = Entry::Registers;
        let mut regs = *self.machine.cpu.regs();
        if let Stop::Fault(fault) = stop {
            (regs.rip, regs.rsp, regs.rflags) = (fault.rip, fault.rsp, fault.rflags);
        }
        let taken = self.take_noted(tid, &stop);
        let halted = taken.and_then(|()| match stop {
            Stop::Syscall => Ok(Halted::Calling),
            _ => Halted::at(self.machine.memory(), &mut regs),
        });
        let halted = match halted {
            Ok(halted) => halted,
            Err(error) => return Some(End::Broken(error.to_string())),
        };
        if self.process.exit.is_some() {
            return None;
        }
        if halted != Halted::Outside {
            (regs.rip, regs.rflags) = (regs.rcx, regs.r11);
        }
        self.keep(tid, regs);
        match (halted, stop) {
            (_, Stop::Broken(why)) => return Some(End::Broken(why)),
            (Halted::Calling, stop) => self.call(tid, &regs, &stop),
            (_, Stop::Fault(fault)) => return self.fault(tid, &fault),
            (Halted::Returning, _) => self.process.threads.rotate(),
            (_, Stop::HostCall(_)) => {
                // What Linux makes of a port instruction.
                self.process.fault(tid, Info::sent(SIGSEGV, SI_KERNEL));
            }
            (Halted::Outside, _) => {
                self.entry = Entry::Same;
                self.process.threads.rotate();
            }
        }
        None
    }

    /// Makes the call that a thread stopped for, or was about to stop for.
    fn call(&mut self, tid: Tid, regs: &kvm_regs, stop: &Stop) {
        self.process.tick(self.clocks(Instant::now()));
        let request = Request {
            number: regs.rax,
            args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
        };
        let flow = self.process.call(self.machine, tid, request);
        match (flow, stop) {
            (Flow::Return(result), Stop::Syscall) => self.entry = Entry::Result(result),
            (_, Stop::Deadline) => self.process.threads.rotate(),
            _ => {}
        }
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
