//! Runs a process on a machine, one thread at a time; several at once where it may have as many
//! processors: see [`super::party`].

use std::time::{Duration, Instant};

use super::party::{self, Over};
use super::process::{Clocks, Guest, Process, Turn};
use super::request_loop::{Awaits, NotFrozen};
use super::saved::Saved;
use super::seat::{Entry, Seat, Times};
use super::start::End;
use super::thread::{FIRST, Tid, Wait};
use crate::kvm::{KvmError, XSAVE_WORDS};
use crate::machine::Machine;

/// How long a thread runs while others could.
const SLICE: Duration = Duration::from_millis(4);
/// How often links are looked at while a thread runs.
pub(super) const LOOK: Duration = Duration::from_millis(2);
/// The shortest run of a thread: a time that has come already still lets it make a step.
const STEP: Duration = Duration::from_micros(200);
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

/// A process on a machine.
pub struct Runner<'a> {
    machine: &'a mut Machine,
    /// The process.
    pub process: Box<Process>,
    /// Processor time that its threads have used on other threads of the host's than this one.
    pub elsewhere: Duration,
    times: Times,
    looked: Instant,
    seat: Seat,
}

impl<'a> Runner<'a> {
    fn new(
        machine: &'a mut Machine,
        process: Box<Process>,
        (shown, seat): (Clocks, Seat),
        deadline: Instant,
    ) -> Self {
        let now = Instant::now();
        Self {
            machine,
            process,
            elsewhere: Duration::ZERO,
            times: Times::new(now, shown, deadline),
            looked: now,
            seat,
        }
    }

    /// For a process whose first thread is at its entry.
    pub fn at_entry(machine: &'a mut Machine, process: Box<Process>, deadline: Instant) -> Self {
        let shown = Clocks {
            monotonic_ns: MONOTONIC_START_NS,
            ..Clocks::default()
        };
        let seat = Seat::of(FIRST, Entry::First);
        Self::new(machine, process, (shown, seat), deadline)
    }

    /// For a copy of a process that was frozen, on a machine that holds it.
    pub fn resumed(
        machine: &'a mut Machine,
        process: Box<Process>,
        saved: &Saved,
        deadline: Instant,
    ) -> Self {
        let seat = Seat::of(saved.loaded(), Entry::Registers);
        Self::new(machine, process, (saved.clocks(), seat), deadline)
    }

    /// Runs the process as far as it goes.
    pub async fn run(&mut self) -> Result<Left, KvmError> {
        loop {
            let now = Instant::now();
            if now >= self.times.deadline {
                return Ok(Left::End(End::Deadline));
            }
            self.process.tick(self.times.clocks(now));
            look_at_links(&mut self.process, &mut self.looked, now);
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
            if self.process.processors > 1 && self.process.threads.is_contended() {
                match self.run_at_once()? {
                    Over::Idle => continue,
                    Over::End(end) => return Ok(Left::End(end)),
                    Over::Unfit(reason) => return Ok(Left::Unfit(reason)),
                }
            }
            if let Some(end) = self.step(tid, now)? {
                return Ok(Left::End(end));
            }
        }
    }

    /// Lets a thread run, on the first processor; its end, if it is the process's.
    fn step(&mut self, tid: Tid, now: Instant) -> Result<Option<End>, KvmError> {
        let Self {
            machine,
            process,
            seat,
            times,
            ..
        } = self;
        seat.switch(process, *machine, tid)?;
        if process.has_signal(tid) {
            process.deliver_signals(*machine, tid);
            seat.entry = Entry::Registers;
            if process.exit.is_some() {
                return Ok(None);
            }
        }
        seat.enter(process, &mut machine.cpu, tid)?;
        if let Err(error) = seat.offer(process, machine.memory(), tid) {
            return Ok(Some(End::Broken(error.to_string())));
        }
        let contended = process.threads.is_contended();
        let stop = machine.cpu.run(until(process, times, now, contended))?;
        Ok(seat.handle(process, *machine, times, (tid, stop)))
    }

    /// Lets its threads run at once, until all of them wait or the process ends.
    fn run_at_once(&mut self) -> Result<Over, KvmError> {
        self.seat.leave(&mut self.process, self.machine)?;
        let (over, elsewhere) = party::run(self.machine, &mut self.process, self.times)?;
        self.elsewhere += elsewhere;
        Ok(over)
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
        self.seat.switch(&mut self.process, self.machine, next)?;
        self.seat.entry = Entry::Registers;
        self.seat
            .enter(&self.process, &mut self.machine.cpu, next)?;
        Ok(next)
    }

    async fn idle(&mut self, until: Option<u64>) {
        let until = self.times.instant(until);
        if self.process.world.network().wait(until).await {
            self.process.stir();
        }
    }
}

/// When a thread that begins to run is looked at again; `contended` says that others could.
pub(super) fn until(process: &Process, times: &Times, now: Instant, contended: bool) -> Instant {
    let mut until = times.instant(process.next_event());
    if contended {
        until = until.min(now + SLICE);
    } else if !process.sockets.links().is_empty() && process.threads.count() > 1 {
        until = until.min(now + LOOK);
    }
    until.max(now + STEP).min(times.deadline)
}

/// Looks whether something can be done with a link, if that was not looked at a moment ago.
pub(super) fn look_at_links(process: &mut Process, looked: &mut Instant, now: Instant) {
    if now - *looked >= LOOK && !process.sockets.links().is_empty() {
        *looked = now;
        if process.world.network().look() {
            process.stir();
        }
    }
}
