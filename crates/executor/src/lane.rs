//! Where a call runs: on the caller's own worker, or on the guest runtime. Pure.
//!
//! A guest of a non-cooperative program cannot be interrupted for others. It runs inline, which
//! saves two thread switches, only while its version is known to be quick; the budget of the call
//! bounds what a wrong guess costs. Slow and unknown versions run on the guest runtime, whose many
//! threads the kernel shares the cores between: that, and the epoch yields of cooperative guests,
//! is what keeps guests fair to each other. No instruction is counted for it.
//!
//! ```text
//!            QUICK_RUNS runs, mean below QUICK_CPU
//!   Guest ◀────────────────────────────────────────▶ Inline
//!     ▲      mean above QUICK_CPU                       │ over budget
//!     └──────────── exile, doubling each time ──────────┘
//! ```

use std::time::Duration;

/// Where a call runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// On the worker that took the request.
    Inline,
    /// On the guest runtime.
    Guest,
}

/// Runs on the guest runtime before a version may be called quick.
const QUICK_RUNS: u32 = 3;
/// A version is quick while its mean processor time is below this.
const QUICK_CPU: Duration = Duration::from_micros(200);
/// Calls on the guest runtime after the first that went over budget.
const EXILE_CALLS_MIN: u32 = 32;
/// Most calls of an exile.
const EXILE_CALLS_MAX: u32 = 4096;
/// Inline calls within budget after which the next exile is a short one again.
const FORGIVEN_AFTER: u32 = 1024;

/// What is known of how quick a version is.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    runs: u32,
    mean_ns: u64,
    exile_left: u32,
    exile_next: u32,
    inline_runs: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            runs: 0,
            mean_ns: 0,
            exile_left: 0,
            exile_next: EXILE_CALLS_MIN,
            inline_runs: 0,
        }
    }
}

impl Pace {
    /// Where the next call runs.
    pub(crate) fn lane(&self) -> Lane {
        let quick = u128::from(self.mean_ns) < QUICK_CPU.as_nanos();
        if quick && self.runs >= QUICK_RUNS && self.exile_left == 0 {
            Lane::Inline
        } else {
            Lane::Guest
        }
    }

    /// A call ended after this much processor time.
    pub(crate) fn ran(&mut self, lane: Lane, cpu_ns: u64) {
        self.mean_ns = mean(self.mean_ns, cpu_ns, self.runs);
        self.runs = self.runs.saturating_add(1);
        match lane {
            Lane::Guest => self.exile_left = self.exile_left.saturating_sub(1),
            Lane::Inline => self.inline_runs += 1,
        }
        if self.inline_runs >= FORGIVEN_AFTER {
            self.inline_runs = 0;
            self.exile_next = EXILE_CALLS_MIN;
        }
    }

    /// An inline call went over its budget.
    pub(crate) fn went_over(&mut self) {
        self.inline_runs = 0;
        // The repeated call counts down by one: it is no part of the exile.
        self.exile_left = self.exile_next + 1;
        self.exile_next = (self.exile_next * 2).min(EXILE_CALLS_MAX);
    }
}

/// The exponentially weighted mean after one more `sample`: the newest counts an eighth.
pub(crate) fn mean(mean: u64, sample: u64, samples: u32) -> u64 {
    if samples == 0 {
        return sample;
    }
    mean - mean / 8 + sample / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK_NS: u64 = 5_000;
    const SLOW_NS: u64 = 3_000_000;

    fn quick() -> Pace {
        let mut pace = Pace::default();
        for _ in 0..QUICK_RUNS {
            assert_eq!(pace.lane(), Lane::Guest);
            pace.ran(Lane::Guest, QUICK_NS);
        }
        pace
    }

    #[test]
    fn a_version_runs_inline_once_it_is_known_to_be_quick() {
        assert_eq!(quick().lane(), Lane::Inline);
    }

    #[test]
    fn a_slow_version_stays_on_the_guest_runtime() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.ran(Lane::Guest, SLOW_NS);
            assert_eq!(pace.lane(), Lane::Guest);
        }
    }

    #[test]
    fn a_version_that_becomes_slow_leaves_the_inline_lane() {
        let mut pace = quick();
        pace.ran(Lane::Inline, SLOW_NS);
        assert_eq!(pace.lane(), Lane::Guest);
    }

    fn calls_in_exile(pace: &mut Pace) -> u32 {
        pace.went_over();
        pace.ran(Lane::Guest, QUICK_NS);
        let mut calls = 0;
        while pace.lane() == Lane::Guest {
            pace.ran(Lane::Guest, QUICK_NS);
            calls += 1;
        }
        calls
    }

    #[test]
    fn each_exile_is_twice_as_long_up_to_a_limit() {
        let mut pace = quick();
        let calls: Vec<u32> = (0..10).map(|_| calls_in_exile(&mut pace)).collect();
        assert_eq!(calls, [32, 64, 128, 256, 512, 1024, 2048, 4096, 4096, 4096]);
    }

    #[test]
    fn a_long_good_time_inline_makes_the_next_exile_short() {
        let mut pace = quick();
        calls_in_exile(&mut pace);
        for _ in 0..FORGIVEN_AFTER {
            pace.ran(Lane::Inline, QUICK_NS);
        }
        assert_eq!(calls_in_exile(&mut pace), EXILE_CALLS_MIN);
    }
}
