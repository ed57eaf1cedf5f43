//! Where a process is frozen, to be called from there: its request loop. That is where it waits,
//! for the first time, for what only a call of the function brings.
//!
//! ```text
//!  first instruction ── Stage::Init ─▶ all threads wait, one of them for a call ─▶ frozen
//!                          └─ asked what no two calls may share, replied, ended, … ─▶ not frozen
//!
//!  frozen ─ copied, with an input: Stage::Call ─▶ the system call that waited is made again ─▶ …
//! ```
//!
//! What a process would see of its input before there is one, it does not see: whoever looks waits.

use bytes::Bytes;

use super::process::{Exit, Process};
use super::thread::Wait;

/// Bytes of its log that a process may have written before it is frozen.
pub const SAID_BYTES_MAX: usize = 1 << 20;

/// What a process has asked, or done, that an image would freeze.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Random bytes that may have become a key.
    pub random: bool,
    /// The time of day.
    pub time: bool,
    /// A way past its loopback, which it was not given.
    pub outside: bool,
    /// That bytes are replied.
    pub replied: bool,
}

/// What a process runs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A call of the function.
    Call,
    /// Its deploy: up to its request loop.
    Init {
        /// Whether it is frozen despite what it has asked, and may go past its loopback.
        despite: bool,
    },
}

impl Stage {
    /// Whether it is a call.
    pub fn is_call(self) -> bool {
        self == Self::Call
    }
}

/// What a process waits for at its request loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// What it reads from descriptor 0.
    Input,
    /// Its next invocation, of the Runtime API.
    Invocation,
}

/// What a process reads from descriptor 0.
#[derive(Clone, Debug)]
pub enum Input {
    /// What a call will bring: nobody has seen any of it.
    Awaited,
    /// These bytes, from the place where it has come to.
    Here(Bytes, usize),
}

impl Input {
    /// All of `bytes`.
    pub fn of(bytes: Bytes) -> Self {
        Self::Here(bytes, 0)
    }

    /// Whether only a call brings it.
    pub fn is_awaited(&self) -> bool {
        matches!(self, Self::Awaited)
    }

    /// Takes up to `most` bytes, and none at the end; no answer before there is a call.
    pub fn take(&mut self, most: usize) -> Option<Vec<u8>> {
        let Self::Here(bytes, at) = self else {
            return None;
        };
        let rest = &bytes[(*at).min(bytes.len())..];
        let data = rest[..rest.len().min(most)].to_vec();
        *at += data.len();
        Some(data)
    }

    /// Bytes that are left; no answer before there is a call.
    pub fn left(&self) -> Option<usize> {
        match self {
            Self::Awaited => None,
            Self::Here(bytes, at) => Some(bytes.len().saturating_sub(*at)),
        }
    }
}

/// Why a process is not frozen: each call begins at its first instruction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFrozen {
    /// Its settings say so.
    #[error("its `snapshot` is `never`")]
    Never,
    /// Random bytes would be the same for all calls.
    #[error("it asks for random bytes before it waits for its input")]
    Random,
    /// The time of day would be that of the deploy.
    #[error("it asks what time of day it is before it waits for its input")]
    Time,
    /// A connection cannot be frozen, and a deploy shall have no effects.
    #[error("it goes past its loopback before it waits for its input")]
    Outside,
    /// A connection cannot be frozen.
    #[error("it holds a connection past its loopback while it waits for its input")]
    Connected,
    /// A reply belongs to one call.
    #[error("it begins its reply before it waits for its input")]
    Replied,
    /// There would be too much to repeat.
    #[error("it writes more than {SAID_BYTES_MAX} bytes to its log before it waits for its input")]
    Said,
    /// It says why it cannot begin.
    #[error("its initialisation failed: {0}")]
    Reported(String),
    /// There is no request loop.
    #[error("it ends before it waits for its input: {0}")]
    Ended(String),
    /// There may be none.
    #[error("it has not waited for its input after {0} ms")]
    Deadline(u64),
    /// The host failed.
    #[error("the platform failed: {0}")]
    Platform(String),
}

impl NotFrozen {
    /// It came to an end.
    pub fn ended(exit: &Exit) -> Self {
        match exit {
            Exit::Code(code) => Self::Ended(format!("its exit code is {code}")),
            Exit::Signal(signal) => Self::Ended(format!("by signal {signal}")),
            Exit::OutOfMemory => Self::Ended("it has no memory left".into()),
            Exit::ReplyTooLong | Exit::LogTooLong => Self::Ended("it said too much".into()),
            Exit::Host(reason) => Self::Platform(reason.clone()),
        }
    }
}

impl Process {
    /// What it waits for that only a call brings, if it does; asked while none of its threads runs.
    pub fn awaits(&mut self) -> Option<Awaits> {
        // Who is given invocations may have said half of something while a thread reads its input.
        if let Some(api) = &self.lambda {
            return api.is_waiting().then_some(Awaits::Invocation);
        }
        let mut waiting = self.threads.waiting();
        waiting
            .any(|(_, wait, _)| wait == Wait::Input)
            .then_some(Awaits::Input)
    }

    /// Whether it has connections that end with its world.
    pub fn is_connected(&self) -> bool {
        !self.sockets.links().is_empty()
    }

    /// Why it is not going to be frozen, as far as that is known by now.
    pub fn unfit(&self) -> Option<NotFrozen> {
        let Stage::Init { despite } = self.stage else {
            return None;
        };
        let asked = self.asked;
        match () {
            () if asked.replied => Some(NotFrozen::Replied),
            () if self.said.len() > SAID_BYTES_MAX => Some(NotFrozen::Said),
            () if despite => None,
            () if asked.outside => Some(NotFrozen::Outside),
            () if asked.random => Some(NotFrozen::Random),
            () if asked.time => Some(NotFrozen::Time),
            () => None,
        }
    }

    /// Whether a connection past its loopback may be made. At its deploy it may not where that
    /// would lead anywhere, unless it is frozen in any case.
    pub fn may_go_out(&mut self) -> bool {
        let kept_in = self.stage == (Stage::Init { despite: false });
        let refused = kept_in && self.world.network().leads_out();
        self.asked.outside |= refused;
        !refused
    }

    /// Lets a process that stands at its request loop go on, for a call.
    pub fn begin_call(&mut self, input: Bytes) {
        self.stage = Stage::Call;
        self.input = Input::of(input);
        self.stirred = true;
        let waiting = self.threads.waiting();
        let for_input: Vec<_> = waiting
            .filter(|(_, wait, _)| *wait == Wait::Input)
            .map(|(tid, ..)| tid)
            .collect();
        for tid in for_input {
            self.threads.retry(tid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_read_to_its_end_and_not_before_there_is_one() {
        let mut input = Input::Awaited;
        assert_eq!((input.take(1), input.left()), (None, None));
        input = Input::of(Bytes::from_static(b"abc"));
        assert_eq!(input.take(2).as_deref(), Some(&b"ab"[..]));
        assert_eq!(input.left(), Some(1));
        assert_eq!(input.take(2).as_deref(), Some(&b"c"[..]));
        assert_eq!((input.take(2), input.left()), (Some(Vec::new()), Some(0)));
    }
}
