//! All members of a cluster: a request goes to the one that answered last, and on to the next
//! one when it fails, until the request's time is over.
//!
//! ```text
//!  ask ──▶ member ──answer──────────────────────────────▶ done
//!            │ not taken ─────────────▶ next member ─▶ …    (after a round of all: a pause)
//!            │ unanswered, repeatable ─▶ next member ─▶ …
//!            │ unanswered, else ──────────────────────────▶ Unanswered
//!            └ refused ───────────────────────────────────▶ Refused
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Config;
use super::fault::{Fault, Told};
use super::member::Member;
use crate::StorageError;
use crate::address::EtcdAddress;

/// Pauses after a round in which no member took the request: an election lasts about a second.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Whether a request whose outcome is open may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It reads, or twice is as good as once.
    Free,
    /// Twice is not once.
    Never,
}

/// An answer.
#[derive(Debug)]
pub struct Answer<A> {
    pub reply: A,
    /// Whether an earlier try of the same request may have been done as well.
    pub repeated: bool,
}

/// The cluster as its client sees it.
#[derive(Debug)]
pub struct Members {
    all: Vec<Member>,
    /// Where to begin: the member that answered last.
    first: AtomicUsize,
    request_timeout: Duration,
    try_timeout: Duration,
}

impl Members {
    pub fn new(address: &EtcdAddress, config: &Config) -> Result<Self, StorageError> {
        Ok(Self {
            all: Member::all(address, config)?,
            first: AtomicUsize::new(0),
            request_timeout: config.request_timeout,
            try_timeout: config.try_timeout,
        })
    }

    /// Asks until there is an answer, a refusal, or no more time.
    pub async fn ask<'m, A, F>(
        &'m self,
        repeat: Repeat,
        call: impl Fn(&'m Member) -> F,
    ) -> Result<Answer<A>, Fault>
    where
        F: Future<Output = Result<A, Fault>>,
    {
        let deadline = Instant::now() + self.request_timeout;
        let (mut repeated, mut pause) = (false, PAUSE_MIN);
        loop {
            for left in (0..self.all.len()).rev() {
                let at = self.first.load(Ordering::Relaxed);
                let until = match repeat {
                    Repeat::Free => deadline.min(Instant::now() + self.try_timeout),
                    Repeat::Never => deadline,
                };
                let called = timeout_at(until, call(&self.all[at % self.all.len()]));
                let last = match called.await.unwrap_or_else(|_| Err(self.no_answer())) {
                    Ok(reply) => return Ok(Answer { reply, repeated }),
                    Err(fault @ (Fault::NotTaken(_) | Fault::TokenStale(_))) => fault,
                    Err(fault @ Fault::Unanswered(_)) if repeat == Repeat::Free => {
                        repeated = true;
                        fault
                    }
                    Err(fault) => {
                        if matches!(fault, Fault::Unanswered(_)) {
                            self.leave(at);
                        }
                        return Err(fault);
                    }
                };
                self.leave(at);
                let again = Instant::now() + if left == 0 { pause } else { Duration::ZERO };
                if again >= deadline {
                    return Err(told(last, repeated));
                }
                tokio::time::sleep_until(again).await;
            }
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    /// The member at `at` failed: others are asked from now on, unless somebody has seen to it.
    fn leave(&self, at: usize) {
        let next = at.wrapping_add(1);
        let (seen, kept) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.first.compare_exchange(at, next, seen, kept);
    }

    fn no_answer(&self) -> Fault {
        let text = "the member did not answer in time";
        Fault::Unanswered(Arc::new(Told(text.into())))
    }
}

/// The last fault says less than the worst one: what may have been done stays open.
fn told(last: Fault, repeated: bool) -> Fault {
    match last {
        Fault::NotTaken(cause) | Fault::TokenStale(cause) if repeated => Fault::Unanswered(cause),
        last => last,
    }
}
