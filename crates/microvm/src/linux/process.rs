//! A process: everything that the system keeps for a program, and what each call does to it.
//!
//! It decides and keeps no clock, waits for nothing and reads no device: time comes in with
//! [`Process::tick`], and what it asks of the world goes through [`World`].

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use files::{Files, Ino};
use serde::{Deserialize, Serialize};

pub use super::call::Call;
use super::descriptor::Descriptors;
use super::errno::Errno;
use super::futex;
use super::kept::Kept;
use super::lambda::RuntimeApi;
use super::maps::{Maps, Touch};
use super::memory::GuestMemory;
use super::pipe::Pipes;
use super::request_loop::{Asked, Input, Stage};
use super::signal::Signals;
use super::sockets::Sockets;
use super::stack::Places;
use super::table;
use super::thread::{Request, State, Thread, Threads, Tid, Wait};
use super::world::World;
use crate::kvm::{KvmError, XSAVE_WORDS, kvm_regs};
use crate::space::Protection;

/// The user and group that a program runs as.
pub const USER: u32 = 1000;
/// Numbers of calls that are not offered and are counted one by one.
const UNKNOWN_MAX: usize = 64;
/// The number under which all others are counted.
pub const OTHERS: u64 = u64::MAX;
/// Most bytes that one call reads or writes; more is done in part, as Linux may.
pub const IO_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a path, with its zero.
pub const PATH_BYTES_MAX: usize = 4096;

/// The registers of a guest's processor that a system call may have to do with.
pub trait Guest: GuestMemory {
    /// The vector registers.
    fn vectors(&mut self) -> Result<Box<[u32; XSAVE_WORDS]>, KvmError>;

    /// Sets them.
    fn set_vectors(&mut self, vectors: &[u32; XSAVE_WORDS]) -> Result<(), KvmError>;

    /// The base of the running thread's own data.
    fn base(&mut self) -> Result<u64, KvmError>;

    /// Sets it.
    fn set_base(&mut self, base: u64) -> Result<(), KvmError>;

    /// The most that a guest may have in its vector registers, as a mask of components.
    fn vector_mask(&self) -> u64;

    /// Sees to it that nothing of the guest's runs until the call is over: for what reads memory
    /// and writes it again.
    fn alone(&mut self) {}
}

/// What time it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// Nanoseconds since the process's machine began.
    pub monotonic_ns: u64,
    /// Nanoseconds since 1970.
    pub realtime_ns: u64,
    /// Processor time of the process, in nanoseconds.
    pub cpu_ns: u64,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(u8),
    /// By a signal that it did not handle.
    Signal(u8),
    /// It touched memory that the host would not give it.
    OutOfMemory,
    /// The reply passed its limit.
    ReplyTooLong,
    /// It said more than can be held back.
    LogTooLong,
    /// The host failed.
    Host(String),
}

/// Why a call has no result yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// It failed, which is a result as well.
    Failed(Errno),
    /// It waits, until this time of the monotonic clock at the latest.
    Wait(Wait, Option<u64>),
    /// The thread's registers are as they shall be.
    Resume,
    /// The thread is no more.
    Over,
}

impl From<Errno> for Halt {
    fn from(errno: Errno) -> Self {
        Halt::Failed(errno)
    }
}

impl From<files::Errno> for Halt {
    fn from(errno: files::Errno) -> Self {
        Halt::Failed(errno.into())
    }
}

/// What a call comes to.
pub type Answer = Result<u64, Halt>;

/// What follows from a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The thread goes on with this result.
    Return(u64),
    /// It goes on with the registers that it has now.
    Reload,
    /// It does not go on now.
    Switch,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// This thread's.
    Run(Tid),
    /// Nobody's, until this time of the monotonic clock or a change in the world.
    Idle(Option<u64>),
}

/// A process.
pub struct Process {
    /// Its addresses.
    pub maps: Kept<Maps>,
    /// Its threads.
    pub threads: Threads,
    /// Its signals.
    pub signals: Kept<Signals>,
    /// Its descriptors.
    pub descriptors: Kept<Descriptors>,
    /// Its pipes.
    pub pipes: Kept<Pipes>,
    /// Its sockets.
    pub sockets: Kept<Sockets>,
    /// Its files.
    pub files: Files,
    /// Its working directory.
    pub directory: Ino,
    /// Permission bits that files it makes do not get.
    pub umask: u16,
    /// What it reads from descriptor 0.
    pub input: Input,
    /// What time it is.
    pub now: Clocks,
    /// Its arguments, for /proc.
    pub args: Kept<Vec<Vec<u8>>>,
    /// What it asks for goes here.
    pub world: Box<dyn World>,
    /// Calls that are not offered, by number, with how often they were made.
    pub unknown: Kept<BTreeMap<u64, u64>>,
    /// Most memory that it may have, in bytes.
    pub memory_bytes_max: u64,
    /// Threads of it that may run at once.
    pub processors: u32,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Whether it was refused memory.
    pub refused_memory: bool,
    /// Whether what a thread waits for may have come.
    pub stirred: bool,
    /// What it runs for.
    pub stage: Stage,
    /// What it asked that must not be the same for two calls.
    pub asked: Asked,
    /// What it has written to its log before there was a call.
    pub said: Vec<u8>,
    /// Where the random bytes are that it began with.
    pub random_at: Option<u64>,
    /// Places in its environment for the variables of a call.
    pub places: Option<Places>,
    /// What serves on its loopback, if it asks for invocations.
    pub lambda: Option<RuntimeApi>,
}

/// What a process begins with.
pub struct Beginning {
    /// The segments of its program.
    pub segments: Vec<(Range<u64>, Protection)>,
    /// Its arguments.
    pub args: Vec<Vec<u8>>,
    /// What it runs for.
    pub stage: Stage,
    /// What it reads from descriptor 0, if that is a call.
    pub input: Bytes,
    /// Its files.
    pub files: Files,
    /// What it asks for goes here.
    pub world: Box<dyn World>,
    /// Most memory that it may have, in bytes.
    pub memory_bytes_max: u64,
    /// Threads of it that may run at once.
    pub processors: u32,
    /// What serves on its loopback, if it asks for invocations.
    pub lambda: Option<RuntimeApi>,
}

impl Process {
    /// A process with one thread, whose registers are zero.
    pub fn new(beginning: Beginning) -> Self {
        Self {
            maps: Maps::new(&beginning.segments).into(),
            threads: Threads::new(Thread::new(kvm_regs::default(), 0)),
            signals: Kept::default(),
            descriptors: Descriptors::standard(beginning.lambda.is_none()).into(),
            pipes: Kept::default(),
            sockets: Kept::default(),
            files: beginning.files,
            directory: Ino::ROOT,
            umask: 0o022,
            input: match beginning.stage {
                Stage::Call => Input::of(beginning.input),
                Stage::Init { .. } => Input::Awaited,
            },
            now: Clocks::default(),
            args: beginning.args.into(),
            world: beginning.world,
            unknown: Kept::default(),
            memory_bytes_max: beginning.memory_bytes_max,
            processors: beginning.processors,
            exit: None,
            refused_memory: false,
            stirred: false,
            stage: beginning.stage,
            asked: Asked::default(),
            said: Vec::new(),
            random_at: None,
            places: None,
            lambda: beginning.lambda,
        }
    }

    /// Answers a call of `tid`, whose registers are in its thread.
    pub fn call(&mut self, guest: &mut dyn Guest, tid: Tid, request: Request) -> Flow {
        let answer = self.dispatch(guest, tid, request, None);
        self.settle(tid, request, answer)
    }

    /// Makes a call, or makes it again.
    pub fn dispatch(
        &mut self,
        guest: &mut dyn Guest,
        tid: Tid,
        request: Request,
        retried: Option<Option<u64>>,
    ) -> Answer {
        let Some(row) = table::find(request.number) else {
            let number = match self.unknown.len() < UNKNOWN_MAX {
                false if !self.unknown.contains_key(&request.number) => OTHERS,
                _ => request.number,
            };
            let count = self.unknown.entry(number).or_default();
            *count = count.saturating_add(1);
            return Err(Errno::ENOSYS.into());
        };
        (row.handler)(&mut Call {
            process: self,
            guest,
            tid,
            request,
            retried,
        })
    }

    fn settle(&mut self, tid: Tid, request: Request, answer: Answer) -> Flow {
        let result = match answer {
            Ok(result) => result,
            Err(Halt::Failed(errno)) => errno.result(),
            Err(Halt::Wait(wait, until)) => {
                self.threads.wait(tid, wait, until, request);
                return Flow::Switch;
            }
            Err(Halt::Resume) => return Flow::Reload,
            Err(Halt::Over) => return Flow::Switch,
        };
        if let Some(thread) = self.threads.find_mut(tid) {
            thread.regs.rax = result;
        }
        if self.exit.is_some() {
            return Flow::Switch;
        }
        Flow::Return(result)
    }

    /// What time it is now: wakes who has waited for that.
    pub fn tick(&mut self, now: Clocks) {
        self.now = now;
        if self
            .signals
            .next_alarm()
            .is_some_and(|at| at <= now.monotonic_ns)
        {
            self.signals.run_alarm(now);
        }
        let due: Vec<_> = self
            .threads
            .waiting()
            .filter(|(.., until)| until.is_some_and(|until| until <= now.monotonic_ns))
            .collect();
        for (tid, wait, _) in due {
            match wait {
                Wait::Futex { .. } => self.threads.wake(tid, Errno::ETIMEDOUT.result()),
                Wait::Sleep => self.threads.wake(tid, 0),
                Wait::Signal(_) => self.threads.wake(tid, Errno::EAGAIN.result()),
                Wait::Change | Wait::Input => self.threads.retry(tid),
            }
        }
    }

    /// Whose turn it is; calls that wait for what has changed are made again first.
    pub fn turn(&mut self, guest: &mut dyn Guest) -> Turn {
        loop {
            self.interrupt_waiting();
            if std::mem::take(&mut self.stirred) {
                self.retry_waiting();
            }
            let Some(tid) = self.threads.first() else {
                return Turn::Idle(self.next_event());
            };
            let Some(thread) = self.threads.find(tid) else {
                return Turn::Idle(None);
            };
            if thread.state != State::Retrying {
                return Turn::Run(tid);
            }
            let (request, until) = (thread.request, thread.until);
            self.threads.resume(tid);
            let answer = self.dispatch(guest, tid, request, Some(until));
            match self.settle(tid, request, answer) {
                Flow::Return(_) | Flow::Reload => return Turn::Run(tid),
                Flow::Switch if self.exit.is_some() => return Turn::Idle(None),
                Flow::Switch => {}
            }
        }
    }

    fn retry_waiting(&mut self) {
        let waiting: Vec<_> = self
            .threads
            .waiting()
            .filter(|(_, wait, _)| matches!(wait, Wait::Change | Wait::Input))
            .map(|(tid, ..)| tid)
            .collect();
        for tid in waiting {
            self.threads.retry(tid);
        }
    }

    /// When something happens by itself, in nanoseconds of the monotonic clock.
    pub fn next_event(&self) -> Option<u64> {
        let ends = self.threads.waiting().filter_map(|(.., until)| until);
        let timers = self.descriptors.next_timer();
        ends.chain(timers).chain(self.signals.next_alarm()).min()
    }

    /// Notes that what threads wait for may have come.
    pub fn stir(&mut self) {
        self.stirred = true;
    }

    /// Ends a thread, and the process with its last.
    pub fn end_thread(&mut self, guest: &mut dyn Guest, tid: Tid, code: u8) {
        let Some(thread) = self.threads.remove(tid) else {
            return;
        };
        futex::leave(self, guest, tid, &thread);
        if self.threads.count() == 0 {
            self.exit.get_or_insert(Exit::Code(code));
        }
    }

    /// Makes sure that the guest's bytes can be used so.
    pub fn touch(
        &mut self,
        guest: &mut dyn Guest,
        at: u64,
        bytes: u64,
        needed: Protection,
    ) -> Result<(), Errno> {
        if self.maps.is_there(at, bytes, needed) {
            return Ok(());
        }
        match self.maps.touch(guest, at, bytes, needed) {
            Touch::Fine => Ok(()),
            Touch::Nothing | Touch::Denied => Err(Errno::EFAULT),
            Touch::NoMemory => {
                self.exit.get_or_insert(Exit::OutOfMemory);
                Err(Errno::ENOMEM)
            }
        }
    }

    /// Copies from the guest.
    pub fn read(&mut self, guest: &mut dyn Guest, at: u64, out: &mut [u8]) -> Result<(), Errno> {
        self.touch(guest, at, out.len() as u64, Protection::READ)?;
        guest.read(at, out)
    }

    /// Copies to the guest.
    pub fn write(&mut self, guest: &mut dyn Guest, at: u64, data: &[u8]) -> Result<(), Errno> {
        self.touch(guest, at, data.len() as u64, Protection::READ_WRITE)?;
        guest.write(at, data)
    }

    /// The 32-bit number at `at`.
    pub fn read_u32(&mut self, guest: &mut dyn Guest, at: u64) -> Result<u32, Errno> {
        let mut bytes = [0; 4];
        self.read(guest, at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// The 64-bit number at `at`.
    pub fn read_u64(&mut self, guest: &mut dyn Guest, at: u64) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        self.read(guest, at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
