//! How long idle sandboxes are kept: learned from how long a version was idle before. Pure.
//!
//! After the histogram policy of "Serverless in the Wild" (Shahrad et al., USENIX ATC 2020): keep
//! for nearly all of the idle times seen, and no longer. The function's own limit is the most, and
//! the answer while too little is known.

use std::time::Duration;

/// Idle times are counted by the power of two of their milliseconds: up to 2^31 ms, 24 days.
const BUCKETS: usize = 32;
/// Idle times needed before the histogram is believed.
const SAMPLES_MIN: u32 = 16;
/// At this many the counts are halved, so that old habits fade.
const SAMPLES_MAX: u32 = 1024;
/// Kept at least so long, unless the function asks for less.
const KEEP_MIN: Duration = Duration::from_secs(2);

/// The idle times of one version.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdleTimes {
    counts: [u16; BUCKETS],
    total: u32,
}

impl IdleTimes {
    /// The version was idle for `gap` before a call came.
    pub(crate) fn saw(&mut self, gap: Duration) {
        let ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - ms.leading_zeros()) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.total += 1;
        if self.total >= SAMPLES_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|&count| u32::from(count)).sum();
        }
    }

    /// How long to keep an idle sandbox: past 99 of 100 idle times seen, at most `most`.
    pub(crate) fn keep_for(&self, most: Duration) -> Duration {
        if self.total < SAMPLES_MIN {
            return most;
        }
        let mut rest = self.total - self.total / 100;
        for (bucket, &count) in self.counts.iter().enumerate() {
            rest = rest.saturating_sub(count.into());
            if rest == 0 {
                // The bucket's upper end.
                return Duration::from_millis(1 << bucket).max(KEEP_MIN).min(most);
            }
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(600);

    #[track_caller]
    fn check(gaps: &[(u64, u32)], expected: Duration) {
        let mut times = IdleTimes::default();
        for &(ms, count) in gaps {
            (0..count).for_each(|_| times.saw(Duration::from_millis(ms)));
        }
        assert_eq!(times.keep_for(MOST), expected);
    }

    #[test]
    fn the_limit_holds_until_enough_is_known() {
        check(&[], MOST);
        check(&[(10, 15)], MOST);
    }

    #[test]
    fn sandboxes_are_kept_past_nearly_all_idle_times() {
        check(&[(5_000, 100)], Duration::from_millis(8192));
        check(&[(5_000, 100), (40_000, 3)], Duration::from_millis(65_536));
        check(&[(5_000, 200), (40_000, 1)], Duration::from_millis(8192));
    }

    #[test]
    fn busy_versions_are_kept_a_little_and_rare_ones_to_the_limit() {
        check(&[(0, 100)], KEEP_MIN);
        check(&[(900_000, 100)], MOST);
    }

    #[test]
    fn old_habits_fade() {
        check(
            &[(300_000, 1000), (5_000, 30_000)],
            Duration::from_millis(8192),
        );
    }
}
