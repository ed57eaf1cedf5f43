//! A processor as the threads of a process use it: who has it, how that one goes on, and what
//! follows from where it stopped.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use memory::{MemoryError, Range};

use super::maps::Touch;
use super::process::{Clocks, Exit, Flow, Guest, Process};
use super::signal::{Info, SI_KERNEL, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};
use super::start::End;
use super::thread::{Request, Tid};
use crate::fault::Fault;
use crate::kvm::{KvmError, kvm_regs};
use crate::machine::{Cpu, Machine, Stop};
use crate::space::Protection;
use crate::stub::{Halted, Noted, Offers};

/// `exit_group`.
const EXIT_GROUP: u64 = 231;

/// A guest, with the processor that one of its threads has.
pub trait Seated: Guest {
    /// The processor.
    fn cpu(&mut self) -> &mut Cpu;

    /// The machine's memory.
    fn range(&self) -> &Arc<Range>;
}

impl Seated for Machine {
    fn cpu(&mut self) -> &mut Cpu {
        &mut self.cpu
    }

    fn range(&self) -> &Arc<Range> {
        self.memory()
    }
}

/// What the clocks of a process show, and when it ends at the latest.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When it began to run.
    pub begin: Instant,
    /// What its clocks showed then.
    shown: Clocks,
    /// When it ends at the latest.
    pub deadline: Instant,
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Times {
    /// Of a process that begins to run at `begin`, whose clocks have shown `shown`: the one of the
    /// time of day shows what it is.
    pub fn new(begin: Instant, shown: Clocks, deadline: Instant) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            begin,
            shown: Clocks {
                realtime_ns: since.map_or(0, nanoseconds),
                ..shown
            },
            deadline,
        }
    }

    /// The clocks at `now`.
    pub fn clocks(&self, now: Instant) -> Clocks {
        let running = nanoseconds(now.saturating_duration_since(self.begin));
        Clocks {
            monotonic_ns: self.shown.monotonic_ns.saturating_add(running),
            realtime_ns: self.shown.realtime_ns.saturating_add(running),
            cpu_ns: self.shown.cpu_ns.saturating_add(running),
        }
    }

    /// A time of the process's monotonic clock; the deadline for none, and for what comes later.
    pub fn instant(&self, monotonic_ns: Option<u64>) -> Instant {
        let Some(monotonic_ns) = monotonic_ns else {
            return self.deadline;
        };
        let since = monotonic_ns.saturating_sub(self.shown.monotonic_ns);
        let at = self.begin.checked_add(Duration::from_nanos(since));
        at.unwrap_or(self.deadline).min(self.deadline)
    }
}

/// How the thread that has the processor goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// The first of the process, with nothing of another in its registers.
    First,
    /// With the registers that its thread has.
    #[default]
    Registers,
    /// From a call, with this result.
    Result(u64),
    /// As it was.
    Same,
}

/// See above.
#[derive(Debug, Default)]
pub struct Seat {
    /// Who has the processor, as far as vector registers go.
    pub loaded: Option<Tid>,
    /// How that one goes on.
    pub entry: Entry,
    /// What it was told last that it may be answered where it is.
    offered: Offers,
}

impl Seat {
    /// The processor whose registers are those of `loaded`.
    pub fn of(loaded: Tid, entry: Entry) -> Self {
        Self {
            loaded: Some(loaded),
            entry,
            offered: Offers::default(),
        }
    }

    /// Takes what the processor holds of its thread.
    pub fn leave(&mut self, process: &mut Process, guest: &mut dyn Guest) -> Result<(), KvmError> {
        let Some(loaded) = self.loaded.take() else {
            return Ok(());
        };
        if let Some(old) = process.threads.find_mut(loaded) {
            (old.vectors, old.base) = (Some(guest.vectors()?), guest.base()?);
        }
        self.entry = Entry::Registers;
        Ok(())
    }

    /// Gives the processor to a thread.
    pub fn switch(
        &mut self,
        process: &mut Process,
        guest: &mut dyn Guest,
        tid: Tid,
    ) -> Result<(), KvmError> {
        if self.loaded == Some(tid) {
            return Ok(());
        }
        self.leave(process, guest)?;
        if let Some(new) = process.threads.find_mut(tid) {
            if let Some(vectors) = new.vectors.take() {
                guest.set_vectors(&vectors)?;
            }
            guest.set_base(new.base)?;
        }
        (self.loaded, self.entry) = (Some(tid), Entry::Registers);
        Ok(())
    }

    /// Sets the registers that a thread goes on with.
    pub fn enter(&mut self, process: &Process, cpu: &mut Cpu, tid: Tid) -> Result<(), KvmError> {
        match self.entry {
            Entry::Same => Ok(()),
            Entry::Result(result) => cpu.finish_syscall(result),
            Entry::First | Entry::Registers => {
                if self.entry == Entry::First {
                    cpu.begin(0, 0)?;
                    cpu.set_thread_base(0)?;
                }
                let Some(thread) = process.threads.find(tid) else {
                    return Ok(());
                };
                let regs = thread.regs;
                *cpu.regs_mut() = regs;
                cpu.resume(regs.rip, regs.rsp, regs.rflags)
            }
        }
    }

    /// Tells the guest what it may be answered without leaving its machine.
    pub fn offer(&mut self, process: &Process, range: &Range, tid: Tid) -> Result<(), MemoryError> {
        let offers = process.offers(tid);
        if offers != self.offered {
            offers.write(range)?;
            self.offered = offers;
        }
        Ok(())
    }

    /// Takes what the guest was answered so.
    fn take_noted(
        &mut self,
        process: &mut Process,
        guest: &mut dyn Seated,
        tid: Tid,
        stop: &Stop,
    ) -> Result<(), MemoryError> {
        if self.offered == Offers::default() {
            return Ok(());
        }
        let Some(noted) = Noted::take(guest.range())? else {
            return Ok(());
        };
        // A process that ends needs no order in its memory.
        let ends = *stop == Stop::Syscall && guest.cpu().regs().rax == EXIT_GROUP;
        let mapping = self.offered.stack.filter(|_| !ends);
        process.make_good(guest, tid, &noted, mapping);
        Ok(())
    }

    /// Does what follows from where a thread stopped; its end, if it is the process's.
    pub fn handle(
        &mut self,
        process: &mut Process,
        guest: &mut dyn Seated,
        times: &Times,
        (tid, stop): (Tid, Stop),
    ) -> Option<End> {
        self.entry = Entry::Registers;
        let mut regs = *guest.cpu().regs();
        if let Stop::Fault(fault) = stop {
            (regs.rip, regs.rsp, regs.rflags) = (fault.rip, fault.rsp, fault.rflags);
        }
        let taken = self.take_noted(process, guest, tid, &stop);
        let halted = taken.and_then(|()| match stop {
            Stop::Syscall => Ok(Halted::Calling),
            _ => Halted::at(guest.range(), &mut regs),
        });
        let halted = match halted {
            Ok(halted) => halted,
            Err(error) => return Some(End::Broken(error.to_string())),
        };
        if process.exit.is_some() {
            return None;
        }
        if halted != Halted::Outside {
            (regs.rip, regs.rflags) = (regs.rcx, regs.r11);
        }
        if let Some(thread) = process.threads.find_mut(tid) {
            thread.regs = regs;
        }
        match (halted, stop) {
            (_, Stop::Broken(why)) => return Some(End::Broken(why)),
            (Halted::Calling, stop) => {
                // One that ends asks for no time.
                if regs.rax != EXIT_GROUP {
                    process.tick(times.clocks(Instant::now()));
                }
                self.call(process, guest, tid, &regs, &stop);
            }
            (_, Stop::Fault(fault)) => return self::fault(process, guest, tid, &fault),
            (Halted::Returning, _) => process.threads.rotate(),
            (_, Stop::HostCall(_)) => {
                // What Linux makes of a port instruction.
                process.fault(tid, Info::sent(SIGSEGV, SI_KERNEL));
            }
            (Halted::Outside, _) => {
                self.entry = Entry::Same;
                process.threads.rotate();
            }
        }
        None
    }

    /// Makes the call that a thread stopped for, or was about to stop for.
    fn call(
        &mut self,
        process: &mut Process,
        guest: &mut dyn Guest,
        tid: Tid,
        regs: &kvm_regs,
        stop: &Stop,
    ) {
        let request = Request {
            number: regs.rax,
            args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
        };
        let flow = process.call(guest, tid, request);
        match (flow, stop) {
            (Flow::Return(result), Stop::Syscall) => self.entry = Entry::Result(result),
            (_, Stop::Deadline) => process.threads.rotate(),
            _ => {}
        }
    }
}

fn fault(process: &mut Process, guest: &mut dyn Guest, tid: Tid, fault: &Fault) -> Option<End> {
    let touched = fault.is_page().then(|| {
        let needed = match (fault.is_fetch(), fault.is_write()) {
            (true, _) => Protection::READ_EXECUTE,
            (_, true) => Protection::READ_WRITE,
            _ => Protection::READ,
        };
        process.maps.touch(guest, fault.address, 1, needed)
    });
    match touched {
        Some(Touch::Fine) => return None,
        Some(Touch::NoMemory) => return Some(End::Exit(Exit::OutOfMemory)),
        _ => {}
    }
    let (signal, code) = signal_of(fault, touched);
    let address = match fault.is_page() {
        true => fault.address,
        false => fault.rip,
    };
    let info = Info {
        signal,
        code,
        address: Some(address),
        trap: (fault.vector.into(), fault.code),
    };
    process.fault(tid, info);
    // No handler takes it: the fault itself says more than the signal.
    process.exit.take().map(|_| End::Fault(*fault))
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
