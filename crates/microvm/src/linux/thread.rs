//! Threads of a process, and whose turn it is.
//!
//! ```text
//!            its turn                  waits
//!   Ready ───────────▶ (on the CPU) ───────────▶ Waiting(what, until)
//!     ▲  ▲                 │ slice over              │        │ what it waits for may be there
//!     │  └─────────────────┘                         │        ▼
//!     └────────── woken with a result ───────────────┘     Retrying ── its call is made again
//! ```
//!
//! Threads share the processors of their process. One that runs while others do is lent: it is
//! ready, and not in the queue. A thread that waits costs its registers only.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::signal::ThreadSignals;
use crate::kvm::{XSAVE_WORDS, kvm_regs};

/// The first thread's number, and the process's.
pub const FIRST: Tid = Tid(2);
/// Most threads of a process.
pub const THREADS_MAX: usize = 512;

/// A thread's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tid(pub u32);

/// A system call: its number, and its arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Which.
    pub number: u64,
    /// What is passed.
    pub args: [u64; 6],
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// A wake-up of this word that has one of these bits.
    Futex {
        /// The word's address.
        address: u64,
        /// The bits.
        bits: u32,
    },
    /// Its time.
    Sleep,
    /// One of these signals.
    Signal(u64),
    /// That making the call again may have another result.
    Change,
    /// The input that only a call of the function brings: see [`super::request_loop`].
    Input,
}

/// Where a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It can run.
    Ready,
    /// It is in a call that waits.
    Waiting(Wait),
    /// Its call is to be made again.
    Retrying,
}

/// A thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Thread {
    /// Its registers at CPL 3, while it is not running.
    #[serde(with = "super::form::registers")]
    pub regs: kvm_regs,
    /// The base of its own data.
    pub base: u64,
    /// Its vector registers, while another thread has the processor.
    #[serde(with = "super::form::vectors")]
    pub vectors: Option<Box<[u32; XSAVE_WORDS]>>,
    /// Where it is.
    pub state: State,
    /// The call that it waits in.
    pub request: Request,
    /// When it ends waiting at the latest, in nanoseconds of the monotonic clock.
    pub until: Option<u64>,
    /// Its signals.
    pub signals: ThreadSignals,
    /// A word that is cleared, and woken, when it ends.
    pub clear_tid: u64,
    /// Its list of locks that are to be given up when it ends.
    pub robust_list: u64,
    /// Its name.
    pub name: [u8; 16],
}

impl Thread {
    /// A thread that begins with these registers.
    pub fn new(regs: kvm_regs, base: u64) -> Self {
        Self {
            regs,
            base,
            vectors: None,
            state: State::Ready,
            request: Request::default(),
            until: None,
            signals: ThreadSignals::default(),
            clear_tid: 0,
            robust_list: 0,
            name: *b"function\0\0\0\0\0\0\0\0",
        }
    }
}

/// The threads of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Threads {
    all: BTreeMap<Tid, Thread>,
    /// Those that are ready or retrying, in the order of their turns.
    queue: VecDeque<Tid>,
    next: Tid,
}

impl Threads {
    /// A process with this thread.
    pub fn new(first: Thread) -> Self {
        Self {
            all: BTreeMap::from([(FIRST, first)]),
            queue: VecDeque::from([FIRST]),
            next: Tid(FIRST.0 + 1),
        }
    }

    /// A thread.
    pub fn find(&self, tid: Tid) -> Option<&Thread> {
        self.all.get(&tid)
    }

    /// The same, to be changed.
    pub fn find_mut(&mut self, tid: Tid) -> Option<&mut Thread> {
        self.all.get_mut(&tid)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (Tid, &Thread)> {
        self.all.iter().map(|(tid, thread)| (*tid, thread))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Whether more than one could run now.
    pub fn is_contended(&self) -> bool {
        self.queue.len() > 1
    }

    /// Whether one could run now, besides those that do.
    pub fn is_ready(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes a thread that is ready out of the queue, to run it beside others.
    pub fn lend(&mut self, tid: Tid) {
        self.queue.retain(|other| *other != tid);
    }

    /// Puts it back, if it is still ready: behind the others if its turn is over.
    pub fn take_back(&mut self, tid: Tid, turn_over: bool) {
        let ready = self
            .find(tid)
            .is_some_and(|thread| thread.state == State::Ready);
        match turn_over {
            _ if !ready => {}
            true => self.queue.push_back(tid),
            false => self.queue.push_front(tid),
        }
    }

    /// Adds a thread; none if there are as many as may be.
    pub fn add(&mut self, thread: Thread) -> Option<Tid> {
        if self.all.len() >= THREADS_MAX {
            return None;
        }
        let tid = self.next;
        self.next = Tid(tid.0.checked_add(1)?);
        self.all.insert(tid, thread);
        self.queue.push_back(tid);
        Some(tid)
    }

    /// Ends a thread.
    pub fn remove(&mut self, tid: Tid) -> Option<Thread> {
        self.queue.retain(|other| *other != tid);
        self.all.remove(&tid)
    }

    /// Whose turn it is.
    pub fn first(&self) -> Option<Tid> {
        self.queue.front().copied()
    }

    /// Ends the turn of the first.
    pub fn rotate(&mut self) {
        if self.queue.len() > 1 {
            self.queue.rotate_left(1);
        }
    }

    /// Makes a thread wait.
    pub fn wait(&mut self, tid: Tid, wait: Wait, until: Option<u64>, request: Request) {
        self.queue.retain(|other| *other != tid);
        if let Some(thread) = self.all.get_mut(&tid) {
            thread.state = State::Waiting(wait);
            thread.until = until;
            thread.request = request;
        }
    }

    /// Ends a thread's wait with the result of its call.
    pub fn wake(&mut self, tid: Tid, result: u64) {
        if let Some(thread) = self.all.get_mut(&tid)
            && thread.state != State::Ready
        {
            let queued = thread.state == State::Retrying;
            thread.state = State::Ready;
            thread.until = None;
            thread.regs.rax = result;
            if !queued {
                self.queue.push_back(tid);
            }
        }
    }

    /// Has a waiting thread make its call again.
    pub fn retry(&mut self, tid: Tid) {
        if let Some(thread) = self.all.get_mut(&tid)
            && matches!(thread.state, State::Waiting(_))
        {
            thread.state = State::Retrying;
            self.queue.push_back(tid);
        }
    }

    /// Begins to make a call again.
    pub fn resume(&mut self, tid: Tid) {
        if let Some(thread) = self.all.get_mut(&tid) {
            thread.state = State::Ready;
        }
    }

    /// Those that wait, with what for and until when.
    pub fn waiting(&self) -> impl Iterator<Item = (Tid, Wait, Option<u64>)> {
        self.all
            .iter()
            .filter_map(|(tid, thread)| match thread.state {
                State::Waiting(wait) => Some((*tid, wait, thread.until)),
                State::Ready | State::Retrying => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread() -> Thread {
        Thread::new(kvm_regs::default(), 0)
    }

    #[test]
    fn turns_go_round_and_who_waits_has_none() {
        let mut threads = Threads::new(thread());
        let second = threads.add(thread()).unwrap();
        assert_eq!(threads.first(), Some(FIRST));
        threads.rotate();
        assert_eq!(threads.first(), Some(second));
        threads.wait(second, Wait::Sleep, Some(5), Request::default());
        threads.rotate();
        assert_eq!(threads.first(), Some(FIRST));
        assert!(!threads.is_contended());
        threads.wake(second, 7);
        threads.wake(second, 8);
        assert!(threads.is_contended());
        assert_eq!(threads.find(second).unwrap().regs.rax, 7);
        threads.remove(FIRST);
        assert_eq!(threads.first(), Some(second));
    }

    #[test]
    fn a_thread_that_is_lent_has_no_turn_until_it_is_back() {
        let mut threads = Threads::new(thread());
        let second = threads.add(thread()).unwrap();
        threads.lend(FIRST);
        assert_eq!(
            (threads.first(), threads.is_contended()),
            (Some(second), false)
        );
        threads.wake(FIRST, 1);
        threads.lend(second);
        assert!(!threads.is_ready());
        threads.take_back(second, true);
        threads.take_back(FIRST, false);
        assert_eq!(threads.first(), Some(FIRST));
        threads.lend(FIRST);
        threads.take_back(FIRST, true);
        assert_eq!(threads.first(), Some(second));
        threads.lend(second);
        threads.wait(second, Wait::Sleep, None, Request::default());
        threads.take_back(second, false);
        assert_eq!(threads.first(), Some(FIRST));
        threads.lend(FIRST);
        threads.remove(FIRST);
        threads.take_back(FIRST, true);
        assert!(!threads.is_ready());
    }

    #[test]
    fn a_process_has_as_many_threads_as_it_may_and_no_more() {
        let mut threads = Threads::new(thread());
        for _ in 1..THREADS_MAX {
            threads.add(thread()).unwrap();
        }
        assert_eq!(threads.add(thread()), None);
        let last = threads.all().last().unwrap().0;
        threads.remove(last);
        assert!(threads.add(thread()).unwrap() > last);
    }
}
