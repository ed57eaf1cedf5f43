//! Signals: who gets which, and what happens then.
//!
//! ```text
//!  sent ─▶ ignored? gone
//!       ─▶ pending for a thread or the process ─▶ not blocked ─▶ handler: a frame on the stack
//!                                                            └─▶ default: the process ends
//! ```
//!
//! A signal that is pending already is not queued again, also one of the real-time signals. Signals
//! that would stop a process do nothing: nobody could let it go on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::errno::Errno;
use super::frame;
use super::process::{Clocks, Exit, Guest, Process, USER};
use super::thread::{State, Tid, Wait};

pub const SIGILL: u8 = 4;
pub const SIGTRAP: u8 = 5;
pub const SIGBUS: u8 = 7;
pub const SIGFPE: u8 = 8;
pub const SIGKILL: u8 = 9;
pub const SIGSEGV: u8 = 11;
pub const SIGPIPE: u8 = 13;
pub const SIGALRM: u8 = 14;
const SIGCHLD: u8 = 17;
const SIGCONT: u8 = 18;
pub const SIGSTOP: u8 = 19;
const SIGTSTP: u8 = 20;
const SIGTTIN: u8 = 21;
const SIGTTOU: u8 = 22;
const SIGURG: u8 = 23;
const SIGWINCH: u8 = 28;
/// The last signal.
pub const LAST: u8 = 64;

/// Handlers that are none.
const DEFAULT: u64 = 0;
const IGNORE: u64 = 1;

/// Run the handler on the thread's other stack.
pub const SA_ONSTACK: u64 = 0x0800_0000;
const SA_RESTART: u64 = 0x1000_0000;
const SA_NODEFER: u64 = 0x4000_0000;
const SA_RESETHAND: u64 = 0x8000_0000;

/// The thread has no other stack.
pub const SS_DISABLE: u32 = 2;
/// It is on it.
pub const SS_ONSTACK: u32 = 1;

/// Why a signal was sent: by a program, by the system, or by one thread to another.
pub const SI_USER: i32 = 0;
pub const SI_KERNEL: i32 = 0x80;
pub const SI_TKILL: i32 = -6;

/// The bit of a signal in a set.
pub const fn bit(signal: u8) -> u64 {
    1 << (signal - 1)
}

/// Signals that cannot be blocked.
const UNBLOCKABLE: u64 = bit(SIGKILL) | bit(SIGSTOP);

/// What a process does with a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// The handler's address, or 0 or 1.
    pub handler: u64,
    /// SA_ flags.
    pub flags: u64,
    /// Where a handler returns to.
    pub restorer: u64,
    /// Signals that are blocked in the handler.
    pub mask: u64,
}

/// What a handler is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The signal.
    pub signal: u8,
    /// Why it was sent.
    pub code: i32,
    /// The address of a fault.
    pub address: Option<u64>,
    /// The processor's number for a fault, and its error code.
    pub trap: (u64, u64),
}

impl Info {
    /// A signal that a program sent.
    pub fn sent(signal: u8, code: i32) -> Self {
        Self {
            signal,
            code,
            address: None,
            trap: (0, 0),
        }
    }

    /// As `siginfo_t`.
    pub fn bytes(&self) -> [u8; 128] {
        let mut bytes = [0; 128];
        bytes[..4].copy_from_slice(&u32::from(self.signal).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.code.to_le_bytes());
        match self.address {
            Some(address) => bytes[16..24].copy_from_slice(&address.to_le_bytes()),
            None => {
                bytes[16..20].copy_from_slice(&super::thread::FIRST.0.to_le_bytes());
                bytes[20..24].copy_from_slice(&USER.to_le_bytes());
            }
        }
        bytes
    }
}

/// Signals that wait to be delivered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pending(Vec<Info>);

impl Pending {
    /// As a set.
    pub fn set(&self) -> u64 {
        self.0.iter().fold(0, |set, info| set | bit(info.signal))
    }

    fn add(&mut self, info: Info) {
        if self.set() & bit(info.signal) == 0 {
            self.0.push(info);
        }
    }

    /// Takes the lowest one of `set`.
    fn take(&mut self, set: u64) -> Option<Info> {
        let within = |info: &&Info| bit(info.signal) & set != 0;
        let lowest = self.0.iter().filter(within).map(|info| info.signal).min()?;
        let at = self.0.iter().position(|info| info.signal == lowest)?;
        Some(self.0.remove(at))
    }
}

/// A thread's other stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherStack {
    /// Its lowest address.
    pub start: u64,
    /// Its bytes.
    pub bytes: u64,
    /// SS_ flags.
    pub flags: u32,
}

impl OtherStack {
    /// Whether `rsp` is on it.
    pub fn holds(&self, rsp: u64) -> bool {
        self.flags & SS_DISABLE == 0 && rsp > self.start && rsp - self.start <= self.bytes
    }
}

/// A thread's part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ThreadSignals {
    /// Those that are blocked.
    pub mask: u64,
    /// Those that wait.
    pub pending: Pending,
    /// Its other stack.
    pub other_stack: OtherStack,
    /// What is blocked again after a call that blocks others while it waits.
    pub mask_after: Option<u64>,
}

impl Default for ThreadSignals {
    fn default() -> Self {
        Self {
            mask: 0,
            pending: Pending::default(),
            other_stack: OtherStack {
                start: 0,
                bytes: 0,
                flags: SS_DISABLE,
            },
            mask_after: None,
        }
    }
}

impl ThreadSignals {
    /// Blocks `mask`, and nothing else.
    pub fn block(&mut self, mask: u64) {
        self.mask = mask & !UNBLOCKABLE;
    }

    /// Blocks `mask` until the call is over.
    pub fn block_for_call(&mut self, mask: u64) {
        if self.mask_after.is_none() {
            self.mask_after = Some(self.mask);
        }
        self.block(mask);
    }
}

/// A process's part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Signals {
    /// What is done with signals, where that is not the default.
    actions: BTreeMap<u8, Action>,
    pending: Pending,
    /// When SIGALRM comes next, and how often after, in nanoseconds.
    alarm: Option<(u64, u64)>,
}

impl Signals {
    /// What is done with `signal`, which is 1 to [`LAST`].
    pub fn action(&self, signal: u8) -> Action {
        self.actions.get(&signal).copied().unwrap_or_default()
    }

    /// Sets it; the one before.
    pub fn set_action(&mut self, signal: u8, action: Action) -> Action {
        let old = self.actions.insert(signal, action).unwrap_or_default();
        if self.is_ignored(signal) {
            self.pending.take(bit(signal));
        }
        old
    }

    fn is_ignored(&self, signal: u8) -> bool {
        const BY_DEFAULT: [u8; 8] = [
            SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH,
        ];
        match self.action(signal).handler {
            IGNORE => true,
            DEFAULT => BY_DEFAULT.contains(&signal),
            _ => false,
        }
    }

    /// Sets when SIGALRM comes: at a time of the monotonic clock, and then every so often; when it
    /// would have, before.
    pub fn set_alarm(&mut self, alarm: Option<(u64, u64)>) -> Option<(u64, u64)> {
        std::mem::replace(&mut self.alarm, alarm)
    }

    /// When it comes.
    pub fn alarm(&self) -> Option<(u64, u64)> {
        self.alarm
    }

    /// When it comes, as a time only.
    pub fn next_alarm(&self) -> Option<u64> {
        self.alarm.map(|(at, _)| at)
    }

    pub(super) fn run_alarm(&mut self, now: Clocks) {
        let Some((at, interval)) = self.alarm else {
            return;
        };
        if at > now.monotonic_ns {
            return;
        }
        let missed = (now.monotonic_ns - at).checked_div(interval);
        self.alarm = missed.map(|missed| {
            let next = at.saturating_add(interval.saturating_mul(missed.saturating_add(1)));
            (next, interval)
        });
        if !self.is_ignored(SIGALRM) {
            self.pending.add(Info::sent(SIGALRM, SI_KERNEL));
        }
    }
}

impl Process {
    /// Sends a signal to a thread, or to the process.
    pub fn send_signal(&mut self, to: Option<Tid>, info: Info) {
        if info.signal == SIGKILL {
            self.exit.get_or_insert(Exit::Signal(SIGKILL));
        }
        let awaited = self.is_awaited(info.signal);
        if self.signals.is_ignored(info.signal) && !awaited {
            return;
        }
        match to.and_then(|tid| self.threads.find_mut(tid)) {
            Some(thread) => thread.signals.pending.add(info),
            None => self.signals.pending.add(info),
        }
        self.stir();
    }

    fn is_awaited(&self, signal: u8) -> bool {
        let waits = |wait| matches!(wait, Wait::Signal(set) if set & bit(signal) != 0);
        self.threads.waiting().any(|(_, wait, _)| waits(wait))
    }

    /// Signals that wait for this thread, blocked or not.
    pub fn pending_signals(&self, tid: Tid) -> u64 {
        let thread = self.threads.find(tid);
        thread.map_or(0, |thread| thread.signals.pending.set()) | self.signals.pending.set()
    }

    /// Takes one of `set` that waits for this thread.
    pub fn take_signal(&mut self, tid: Tid, set: u64) -> Option<Info> {
        let thread = self.threads.find_mut(tid)?;
        let own = thread.signals.pending.take(set);
        own.or_else(|| self.signals.pending.take(set))
    }

    /// Whether something is to be done before the thread goes on.
    pub fn has_signal(&self, tid: Tid) -> bool {
        self.threads.find(tid).is_some_and(|thread| {
            thread.signals.mask_after.is_some()
                || self.pending_signals(tid) & !thread.signals.mask != 0
        })
    }

    /// Ends the waits of threads that have a signal to handle.
    pub(super) fn interrupt_waiting(&mut self) {
        let waiting: Vec<_> = self.threads.waiting().collect();
        let mut shared = self.signals.pending.set();
        for (tid, wait, until) in waiting {
            let Some(thread) = self.threads.find(tid) else {
                continue;
            };
            let pending = thread.signals.pending.set() | shared;
            if let Wait::Signal(set) = wait
                && pending & set != 0
            {
                self.threads.retry(tid);
                continue;
            }
            let deliverable = pending & !thread.signals.mask;
            if deliverable == 0 {
                continue;
            }
            // One thread is enough for what is sent to the process.
            shared &= !deliverable;
            let signal = deliverable.trailing_zeros() as u8 + 1;
            self.interrupt(tid, signal, until.is_some());
        }
    }

    fn interrupt(&mut self, tid: Tid, signal: u8, timed: bool) {
        let restarts = self.signals.action(signal).flags & SA_RESTART != 0;
        let Some(thread) = self.threads.find_mut(tid) else {
            return;
        };
        let number = thread.request.number;
        if restarts && !timed && super::table::restarts(number) {
            // The instruction is made again after the handler.
            thread.regs.rip = thread.regs.rip.wrapping_sub(2);
            self.threads.wake(tid, number);
        } else {
            self.threads.wake(tid, Errno::EINTR.result());
        }
    }

    /// Has a thread handle what waits for it, before it goes on: its registers change. Ends the
    /// process if that is what a signal does.
    pub fn deliver_signals(&mut self, guest: &mut dyn Guest, tid: Tid) {
        // As many as there are signals at the most: each delivery blocks its own or takes it away.
        for _ in 0..LAST {
            let Some(thread) = self.threads.find(tid) else {
                return;
            };
            if thread.state != State::Ready {
                return;
            }
            let open = !thread.signals.mask;
            let Some(info) = self.take_signal(tid, open) else {
                break;
            };
            let action = self.signals.action(info.signal);
            if self.signals.is_ignored(info.signal) {
                continue;
            }
            if action.handler == DEFAULT {
                self.exit.get_or_insert(Exit::Signal(info.signal));
                return;
            }
            if self.enter_handler(guest, tid, info, action).is_err() {
                self.exit.get_or_insert(Exit::Signal(SIGSEGV));
                return;
            }
        }
        if let Some(thread) = self.threads.find_mut(tid)
            && let Some(mask) = thread.signals.mask_after.take()
        {
            thread.signals.mask = mask;
        }
    }

    fn enter_handler(
        &mut self,
        guest: &mut dyn Guest,
        tid: Tid,
        info: Info,
        action: Action,
    ) -> Result<(), Errno> {
        frame::push(self, guest, tid, info, action)?;
        let thread = self.threads.find_mut(tid).ok_or(Errno::ESRCH)?;
        thread.signals.mask_after = None;
        let mut mask = thread.signals.mask | action.mask;
        if action.flags & SA_NODEFER == 0 {
            mask |= bit(info.signal);
        }
        thread.signals.block(mask);
        if action.flags & SA_RESETHAND != 0 {
            self.signals.set_action(info.signal, Action::default());
        }
        Ok(())
    }

    /// Has a thread handle a fault of its own; one that it cannot handle ends the process.
    pub fn fault(&mut self, tid: Tid, info: Info) {
        let action = self.signals.action(info.signal);
        let Some(thread) = self.threads.find_mut(tid) else {
            return;
        };
        let blocked = thread.signals.mask & bit(info.signal) != 0;
        if blocked || action.handler == DEFAULT || action.handler == IGNORE {
            self.exit.get_or_insert(Exit::Signal(info.signal));
            return;
        }
        thread.signals.pending.add(info);
    }
}
