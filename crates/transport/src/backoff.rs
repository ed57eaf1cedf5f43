//! How long to leave a node alone that was not reached.

use std::time::{Duration, Instant};

/// Doubling waits with jitter, so that nodes which lost a peer together do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            failures: 0,
            until: None,
        }
    }

    /// An attempt failed; `fraction` from 0 to 1 is drawn at random.
    pub(crate) fn failed(&mut self, now: Instant, fraction: f64) {
        let doubled = self.min.saturating_mul(1 << self.failures.min(20));
        let wait = doubled.min(self.max);
        self.failures += 1;
        self.until = Some(now + wait.mul_f64(0.5 + 0.5 * fraction.clamp(0.0, 1.0)));
    }

    /// An attempt succeeded.
    pub(crate) fn reached(&mut self) {
        self.failures = 0;
        self.until = None;
    }

    /// Time until the next attempt, if it is not yet time.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let wait = self.until?.checked_duration_since(now)?;
        (!wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waits_double_up_to_the_longest_and_keep_half_to_chance() {
        let now = Instant::now();
        let mut backoff = Backoff::new(50 * MS, 300 * MS);
        assert_eq!(backoff.wait(now), None);
        for (fraction, wait) in [(0.0, 25), (1.0, 100), (0.0, 100), (1.0, 300), (0.0, 150)] {
            backoff.failed(now, fraction);
            assert_eq!(backoff.wait(now), Some(wait * MS));
        }
        assert_eq!(backoff.wait(now + 150 * MS), None);
        backoff.reached();
        assert_eq!(backoff.wait(now), None);
        backoff.failed(now, 1.0);
        assert_eq!(backoff.wait(now), Some(50 * MS));
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let now = Instant::now();
        let mut backoff = Backoff::new(50 * MS, Duration::from_secs(5));
        for _ in 0..1000 {
            backoff.failed(now, 1.0);
        }
        assert_eq!(backoff.wait(now), Some(Duration::from_secs(5)));
    }
}
