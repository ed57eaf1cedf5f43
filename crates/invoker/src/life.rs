//! The life of an asynchronous invocation: what follows from how an attempt ended. Pure.
//!
//! ```text
//!           start                 ok
//!  queued ────────▶ running ─────────────▶ succeeded
//!    ▲                 │ failed, overloaded, cancelled, cut short
//!    └─────────────────┤
//!      backoff, jitter │ attempts, interruptions or age used up
//!                      ├─────────────────▶ dead ──redrive──▶ (a new invocation)
//!                      │ the version is gone
//!                      └─────────────────▶ failed
//! ```

use std::fmt;

use model::Status;
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::clock::millis;

/// Where an asynchronous invocation is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InvocationState {
    /// It waits for its first or next attempt.
    Queued,
    /// An attempt is running.
    Running,
    /// Final: the function replied.
    Succeeded,
    /// Final: it cannot be run, however often it is tried.
    Failed,
    /// Final: its attempts are used up. A dead letter, which can be redriven.
    Dead,
}

impl InvocationState {
    /// Whether nothing follows.
    pub const fn is_final(self) -> bool {
        !matches!(self, InvocationState::Queued | InvocationState::Running)
    }

    /// The state as records, metrics and the API spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            InvocationState::Queued => "queued",
            InvocationState::Running => "running",
            InvocationState::Succeeded => "succeeded",
            InvocationState::Failed => "failed",
            InvocationState::Dead => "dead",
        }
    }
}

impl fmt::Display for InvocationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What counts towards an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Attempts that ran to an end and failed.
    pub failures: u32,
    /// Attempts that the node's death cut short.
    pub interruptions: u32,
    /// Times it was refused a place, since it last had one.
    pub refusals: u32,
}

/// How an attempt ended, as far as its invocation's life goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd<'a> {
    /// It ran to an end.
    Ended(&'a Status),
    /// It had no place; there may be one in this many milliseconds.
    Overloaded(u64),
    /// The node died under it.
    Interrupted,
    /// Its version is gone.
    Gone,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This final state.
    Final(InvocationState),
    /// Another attempt at this time.
    Retry {
        /// In milliseconds since 1970.
        due_ms: u64,
    },
}

/// What bounds an invocation's life.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The function's `attempts_max`.
    pub attempts_max: u32,
    /// See [`Config::interruptions_max`].
    pub interruptions_max: u32,
    /// The first retry's longest delay.
    pub backoff_base_ms: u64,
    /// Any retry's longest delay.
    pub backoff_max_ms: u64,
    /// When the invocation is too old for another attempt, in milliseconds since 1970.
    pub dies_ms: u64,
}

impl Bounds {
    /// The bounds of an invocation that was accepted at `accepted_ms`.
    pub fn new(config: &Config, attempts_max: u32, accepted_ms: u64) -> Self {
        Self {
            attempts_max,
            interruptions_max: config.interruptions_max,
            backoff_base_ms: millis(config.backoff_base),
            backoff_max_ms: millis(config.backoff_max),
            dies_ms: accepted_ms.saturating_add(millis(config.age_max)),
        }
    }

    /// A delay drawn from all up to base × 2^(nth − 1), at most the maximum ("full jitter":
    /// Brooker, Exponential Backoff And Jitter, 2015). `chance` is any number.
    fn backoff(&self, nth: u32, chance: u64) -> u64 {
        let doublings = nth.saturating_sub(1).min(63);
        let ceiling = self
            .backoff_base_ms
            .saturating_mul(1 << doublings)
            .min(self.backoff_max_ms);
        chance % (ceiling + 1)
    }
}

/// What follows from an attempt's end; `counts` is brought up to date.
pub fn next(
    now_ms: u64,
    counts: &mut Counts,
    end: AttemptEnd<'_>,
    bounds: &Bounds,
    chance: u64,
) -> Next {
    let delay = match end {
        AttemptEnd::Ended(Status::Ok) => return Next::Final(InvocationState::Succeeded),
        AttemptEnd::Gone => return Next::Final(InvocationState::Failed),
        AttemptEnd::Ended(Status::Cancelled) => bounds.backoff_base_ms,
        AttemptEnd::Ended(_) => {
            (counts.failures, counts.refusals) = (counts.failures + 1, 0);
            bounds.backoff(counts.failures, chance)
        }
        AttemptEnd::Interrupted => {
            counts.interruptions += 1;
            0
        }
        AttemptEnd::Overloaded(retry_after_ms) => {
            counts.refusals = counts.refusals.saturating_add(1);
            let delay = retry_after_ms.saturating_add(bounds.backoff(counts.refusals, chance));
            delay.min(bounds.backoff_max_ms)
        }
    };
    let due_ms = now_ms.saturating_add(delay);
    let used_up = counts.failures >= bounds.attempts_max
        || counts.interruptions > bounds.interruptions_max
        || due_ms > bounds.dies_ms;
    match used_up {
        true => Next::Final(InvocationState::Dead),
        false => Next::Retry { due_ms },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bounds() -> Bounds {
        Bounds {
            attempts_max: 3,
            interruptions_max: 2,
            backoff_base_ms: 100,
            backoff_max_ms: 1000,
            dies_ms: 1_000_000,
        }
    }

    #[test]
    fn each_end_leads_where_it_should() {
        use InvocationState::{Dead, Failed, Succeeded};
        let check = |failures, end, expected| {
            let mut counts = Counts {
                failures,
                ..Counts::default()
            };
            assert_eq!(next(0, &mut counts, end, &bounds(), 0), expected, "{end:?}");
        };
        let exit = Status::Exit { code: 1 };
        check(0, AttemptEnd::Ended(&Status::Ok), Next::Final(Succeeded));
        check(0, AttemptEnd::Gone, Next::Final(Failed));
        check(1, AttemptEnd::Ended(&exit), Next::Retry { due_ms: 0 });
        check(2, AttemptEnd::Ended(&exit), Next::Final(Dead));
        check(
            2,
            AttemptEnd::Ended(&Status::Cancelled),
            Next::Retry { due_ms: 100 },
        );
        check(2, AttemptEnd::Overloaded(50), Next::Retry { due_ms: 50 });
        check(2, AttemptEnd::Interrupted, Next::Retry { due_ms: 0 });
    }

    #[test]
    fn an_invocation_that_is_too_old_dies_whatever_the_reason() {
        for end in [AttemptEnd::Overloaded(1), AttemptEnd::Interrupted] {
            let late = bounds().dies_ms + 1;
            let next = next(late, &mut Counts::default(), end, &bounds(), 0);
            assert_eq!(next, Next::Final(InvocationState::Dead));
        }
    }

    fn any_end() -> impl Strategy<Value = Option<AttemptEnd<'static>>> {
        prop_oneof![
            Just(Some(AttemptEnd::Ended(&Status::Timeout))),
            Just(Some(AttemptEnd::Ended(&Status::Cancelled))),
            Just(Some(AttemptEnd::Interrupted)),
            (0u64..5000).prop_map(|ms| Some(AttemptEnd::Overloaded(ms))),
            Just(None),
        ]
    }

    proptest! {
        /// Whatever happens: at most so many failures, each delay within its ceiling, and an
        /// end when the attempts are used up.
        #[test]
        fn a_life_is_bounded(ends in prop::collection::vec((any_end(), any::<u64>()), 1..50)) {
            let (bounds, mut counts, mut now) = (bounds(), Counts::default(), 0);
            let (mut failures, mut interruptions) = (0, 0);
            for (end, chance) in ends {
                let end = end.unwrap_or(AttemptEnd::Ended(&Status::Ok));
                let after = next(now, &mut counts, end, &bounds, chance);
                failures += u32::from(end == AttemptEnd::Ended(&Status::Timeout));
                interruptions += u32::from(end == AttemptEnd::Interrupted);
                let used_up = failures >= 3 || interruptions > 2;
                match after {
                    Next::Retry { due_ms } => {
                        prop_assert!(!used_up && end != AttemptEnd::Ended(&Status::Ok));
                        let ceiling = match end {
                            AttemptEnd::Ended(Status::Timeout) => 100 << (failures - 1),
                            AttemptEnd::Overloaded(_) => 1000,
                            AttemptEnd::Ended(Status::Cancelled) => 100,
                            _ => 0,
                        };
                        prop_assert!(due_ms - now <= ceiling);
                        now = due_ms;
                    }
                    Next::Final(InvocationState::Dead) => {
                        prop_assert!(used_up);
                        break;
                    }
                    Next::Final(state) => {
                        prop_assert_eq!(state, InvocationState::Succeeded);
                        break;
                    }
                }
            }
        }
    }
}
