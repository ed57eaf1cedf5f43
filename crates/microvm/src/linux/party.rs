//! Runs threads of a process at once, each on a processor and a thread of the host's own.
//!
//! ```text
//!            lock                     unlock                  lock
//!  parked ─────────▶ takes a thread ─────────▶ in the guest ─────────▶ does what follows
//!    ▲   changed          │ none ready             │ told to stop           │
//!    └────────────────────┘                        └────────▶ ──────────────┤
//!                                                 all wait, or an end ◀─────┘ over: all leave
//! ```
//!
//! Whatever the process decides, it decides under one lock: a system call is a step of it, as where
//! one thread runs at a time. Only guest code runs beside it. What would change pages that others
//! may be using stops those first, and so does every end: nobody is in the guest when it is told.
//!
//! Its threads of the host's begin and end with it. They are begun by the thread that runs the
//! process, so that they may do no more than that one: see [`crate::confine`].

use std::ops::Range as Span;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memory::Range;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::time::{ClockId, clock_gettime};

use super::errno::Errno;
use super::memory::{GuestMemory, NoMemory};
use super::process::{Guest, Process, Turn};
use super::request_loop::NotFrozen;
use super::run::{LOOK, look_at_links, until};
use super::seat::{Entry, Seat, Seated, Times};
use super::start::End;
use super::thread::Tid;
use crate::kvm::{KvmError, XSAVE_WORDS};
use crate::machine::{Cpu, Machine, MachineError, Stop};
use crate::space::Protection;
use crate::watchdog::{self, Stopper};

/// `sched_yield`.
const YIELD: u64 = 24;

/// Why its threads run at once no longer.
pub enum Over {
    /// All of them wait.
    Idle,
    /// The process came to its end.
    End(End),
    /// It is not going to be frozen.
    Unfit(NotFrozen),
}

/// One of its processors, as the others see it.
#[derive(Default)]
struct Place {
    /// Whether it is in its guest, or about to be.
    inside: AtomicBool,
    stopper: Mutex<Option<Stopper>>,
}

struct Shared<'p> {
    process: &'p mut Process,
    machine: &'p mut Machine,
    looked: Instant,
    /// Which thread each processor runs.
    running: Vec<Option<Tid>>,
    over: Option<Result<Over, KvmError>>,
}

struct Party<'p> {
    shared: Mutex<Shared<'p>>,
    /// A thread is ready, or it is over.
    changed: Condvar,
    places: Vec<Place>,
    times: Times,
}

/// What a processor does next.
enum Next {
    /// It runs a thread until then.
    Run(Tid, Instant),
    /// It has nothing to do until then.
    Park(Instant),
    /// All is over.
    Over(Over),
}

/// Runs the threads of `process` on as many processors as it may have, until all of them wait or it
/// ends. Gives why, and the processor time that was used on other threads than this one.
pub fn run(
    machine: &mut Machine,
    process: &mut Process,
    times: Times,
) -> Result<(Over, Duration), KvmError> {
    let count = process.processors as usize;
    let mut cpus = machine.lend_cpus(count).map_err(|error| match error {
        MachineError::Hypervisor(error) => error,
        other => KvmError {
            doing: "give a machine its processors",
            source: std::io::Error::other(other),
        },
    })?;
    let party = Party {
        shared: Mutex::new(Shared {
            process,
            machine,
            looked: times.begin,
            running: vec![None; count],
            over: None,
        }),
        changed: Condvar::new(),
        places: (0..count).map(|_| Place::default()).collect(),
        times,
    };
    let elsewhere = party.run_on(&mut cpus);
    let shared = party.shared.into_inner();
    shared.machine.take_cpus_back(cpus);
    let over = shared.over.unwrap_or(Ok(Over::Idle))?;
    Ok((over, elsewhere))
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Party<'_> {
    /// Runs all of it, on this thread and on one more for each processor but one.
    fn run_on(&self, cpus: &mut [Cpu]) -> Duration {
        let mut numbered = cpus.iter_mut().enumerate();
        let Some((own, own_cpu)) = numbered.next() else {
            return Duration::ZERO;
        };
        thread::scope(|scope| {
            let crew: Vec<_> = numbered
                .filter_map(|(number, cpu)| {
                    let work = move || {
                        self.work(number, cpu);
                        thread_time()
                    };
                    let spawned = thread::Builder::new()
                        .name("vm-thread".into())
                        .spawn_scoped(scope, work);
                    // With fewer of them, threads of the guest take turns on those.
                    spawned
                        .inspect_err(|error| tracing::warn!(%error, "a guest lacks a thread"))
                        .ok()
                })
                .collect();
            self.work(own, own_cpu);
            crew.into_iter().filter_map(|one| one.join().ok()).sum()
        })
    }

    /// What one processor does until all is over.
    fn work(&self, number: usize, cpu: &mut Cpu) {
        let place = &self.places[number];
        *place.stopper.lock() = Some(watchdog::stopper());
        let mut seat = Seat::default();
        let mut shared = self.shared.lock();
        while shared.over.is_none() {
            match self.next(&mut shared, number, cpu, &mut seat) {
                Ok(Next::Run(tid, until)) => {
                    shared.running[number] = Some(tid);
                    place.inside.store(true, Ordering::Release);
                    if shared.process.threads.is_ready() {
                        self.changed.notify_one();
                    }
                    let stop = MutexGuard::unlocked(&mut shared, || {
                        let stop = cpu.run(until);
                        place.inside.store(false, Ordering::Release);
                        stop
                    });
                    shared.running[number] = None;
                    let done = stop.map(|stop| {
                        self.stopped(&mut shared, number, cpu, &mut seat, (tid, stop));
                    });
                    if let Err(error) = done {
                        self.finish(&mut shared, number, Err(error));
                    }
                }
                Ok(Next::Park(_)) if shared.running.iter().all(Option::is_none) => {
                    self.finish(&mut shared, number, Ok(Over::Idle));
                }
                Ok(Next::Park(until)) => {
                    self.changed.wait_until(&mut shared, until);
                }
                Ok(Next::Over(over)) => self.finish(&mut shared, number, Ok(over)),
                Err(error) => self.finish(&mut shared, number, Err(error)),
            }
        }
    }

    /// Ends all of it.
    fn finish(&self, shared: &mut Shared<'_>, number: usize, over: Result<Over, KvmError>) {
        shared.over.get_or_insert(over);
        stop_all_but(&self.places, number);
        self.changed.notify_all();
    }

    /// Finds out what a processor does next, and prepares it for that.
    fn next(
        &self,
        shared: &mut Shared<'_>,
        number: usize,
        cpu: &mut Cpu,
        seat: &mut Seat,
    ) -> Result<Next, KvmError> {
        let now = Instant::now();
        if now >= self.times.deadline {
            return Ok(Next::Over(Over::End(End::Deadline)));
        }
        let Shared {
            process,
            machine,
            looked,
            running,
            ..
        } = shared;
        process.tick(self.times.clocks(now));
        look_at_links(process, looked, now);
        let mut hands = Hands {
            machine,
            cpu,
            places: &self.places,
            number,
        };
        let turn = process.turn(&mut hands);
        if let Some(exit) = process.exit.take() {
            return Ok(Next::Over(Over::End(End::Exit(exit))));
        }
        if let Some(reason) = process.unfit() {
            return Ok(Next::Over(Over::Unfit(reason)));
        }
        let Turn::Run(tid) = turn else {
            // Whoever takes the thread up next may be another processor.
            seat.leave(process, &mut hands)?;
            let mut until = self.times.instant(process.next_event());
            if !process.sockets.links().is_empty() {
                until = until.min(now + LOOK);
            }
            return Ok(Next::Park(until));
        };
        seat.switch(process, &mut hands, tid)?;
        process.threads.lend(tid);
        if process.has_signal(tid) {
            process.deliver_signals(&mut hands, tid);
            seat.entry = Entry::Registers;
            if let Some(exit) = process.exit.take() {
                return Ok(Next::Over(Over::End(End::Exit(exit))));
            }
        }
        for (other, tid) in running.iter().enumerate() {
            // It is to handle a signal when it goes on.
            if tid.is_some_and(|tid| process.has_signal(tid)) {
                self.places[other].stop();
            }
        }
        seat.enter(process, hands.cpu, tid)?;
        let contended = process.threads.is_ready();
        Ok(Next::Run(tid, until(process, &self.times, now, contended)))
    }

    /// Does what follows from where a thread stopped.
    fn stopped(
        &self,
        shared: &mut Shared<'_>,
        number: usize,
        cpu: &mut Cpu,
        seat: &mut Seat,
        (tid, stop): (Tid, Stop),
    ) {
        let turn_over = match stop {
            Stop::Deadline => true,
            Stop::Syscall => cpu.regs().rax == YIELD,
            _ => false,
        };
        let Shared {
            process, machine, ..
        } = shared;
        let mut hands = Hands {
            machine,
            cpu,
            places: &self.places,
            number,
        };
        let end = seat.handle(process, &mut hands, &self.times, (tid, stop));
        process.threads.take_back(tid, turn_over);
        if let Some(end) = end {
            self.finish(shared, number, Ok(Over::End(end)));
        }
    }
}

/// Sees to it that no processor but `number`, whose thread has the lock, is in its guest.
fn stop_all_but(places: &[Place], number: usize) {
    let others = places.iter().enumerate();
    for (_, place) in others.filter(|(other, _)| *other != number) {
        place.stop();
    }
}

impl Place {
    /// Sees to it that the processor is not in its guest. Whoever asks has the lock, without which
    /// it does not enter again.
    fn stop(&self) {
        let mut told = false;
        while self.inside.load(Ordering::Acquire) {
            // It may be just about to enter, when there is nothing yet to be stopped.
            if !told && let Some(stopper) = self.stopper.lock().as_ref() {
                told = stopper.stop();
            }
            thread::yield_now();
        }
    }
}

/// The guest as a call of one thread has it, while other threads run.
struct Hands<'h> {
    machine: &'h mut Machine,
    cpu: &'h mut Cpu,
    places: &'h [Place],
    number: usize,
}

impl Hands<'_> {
    /// Stops the others if there is anything in `pages` that they may be using.
    fn vacate(&self, pages: Span<u64>) {
        let space = &self.machine.space;
        let taken = space.area(pages.start).is_some();
        if taken
            || space
                .next_area(pages.start)
                .is_some_and(|next| next < pages.end)
        {
            stop_all_but(self.places, self.number);
        }
    }
}

impl GuestMemory for Hands<'_> {
    fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Errno> {
        GuestMemory::read(self.machine, at, out)
    }

    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Errno> {
        GuestMemory::write(self.machine, at, data)
    }

    fn map(&mut self, at: u64, bytes: u64, protection: Protection) -> Result<(), NoMemory> {
        self.vacate(at..at.saturating_add(bytes));
        GuestMemory::map(self.machine, at, bytes, protection)
    }

    fn protect(&mut self, at: u64, bytes: u64, protection: Protection) -> Result<(), NoMemory> {
        self.vacate(at..at.saturating_add(bytes));
        GuestMemory::protect(self.machine, at, bytes, protection)
    }

    fn unmap(&mut self, at: u64, bytes: u64) -> Result<(), NoMemory> {
        self.vacate(at..at.saturating_add(bytes));
        GuestMemory::unmap(self.machine, at, bytes)
    }

    fn bytes(&self) -> u64 {
        GuestMemory::bytes(self.machine)
    }

    fn bytes_max(&self) -> u64 {
        GuestMemory::bytes_max(self.machine)
    }
}

impl Guest for Hands<'_> {
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

    fn alone(&mut self) {
        stop_all_but(self.places, self.number);
    }
}

impl Seated for Hands<'_> {
    fn cpu(&mut self) -> &mut Cpu {
        self.cpu
    }

    fn range(&self) -> &Arc<Range> {
        self.machine.memory()
    }
}
