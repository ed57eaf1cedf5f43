//! How far ahead of the peer what is sent is decided on.
//!
//! What is decided on can no longer be overtaken by a call that matters more. So that is little on
//! a slow way. On a fast one more of it spares both sides waits and wake-ups: it is about as much
//! as goes in [`AHEAD`].

use std::time::{Duration, Instant};

/// The time that a call may have to wait for what is ahead of it, in each of two places: here, and
/// in the kernel.
const AHEAD: Duration = Duration::from_micros(250);
/// How long the way is watched before that is reckoned anew.
const WATCHED: Duration = Duration::from_millis(1);

const AHEAD_BYTES_MIN: usize = 64 << 10;
pub(crate) const AHEAD_BYTES_MAX: usize = 512 << 10;

pub(super) struct Pace {
    bytes: usize,
    /// Since when there was always something to be sent.
    since: Option<Instant>,
    /// Time in which there was, and what went meanwhile.
    busy: Duration,
    sent_bytes: usize,
}

impl Default for Pace {
    /// A way is fast until it is seen not to be.
    fn default() -> Self {
        Self {
            bytes: AHEAD_BYTES_MAX,
            since: None,
            busy: Duration::ZERO,
            sent_bytes: 0,
        }
    }
}

impl Pace {
    /// Bytes to be ahead by: a power of two.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes were sent, and whether there are more; gives how far to be ahead if that is new.
    pub fn sent(&mut self, now: Instant, bytes: usize, more: bool) -> Option<usize> {
        if let Some(since) = self.since {
            self.busy += now.saturating_duration_since(since);
        }
        self.since = more.then_some(now);
        self.sent_bytes += bytes;
        if self.busy < WATCHED {
            return None;
        }
        let per_time = self.sent_bytes as u128 * AHEAD.as_nanos() / self.busy.as_nanos();
        (self.busy, self.sent_bytes) = (Duration::ZERO, 0);
        let bytes = usize::try_from(per_time).unwrap_or(AHEAD_BYTES_MAX);
        let bytes = bytes
            .clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX)
            .next_power_of_two();
        let was = std::mem::replace(&mut self.bytes, bytes);
        (was != bytes).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `bytes` every `step` for `times`; how far ahead it is then.
    fn ahead(pace: &mut Pace, bytes: usize, step: Duration, times: u32) -> usize {
        let begun = Instant::now();
        for time in 0..times {
            pace.sent(begun + step * time, bytes, true);
        }
        pace.sent(begun + step * times, bytes, false);
        pace.bytes()
    }

    #[test]
    fn it_is_as_far_ahead_as_the_way_is_fast() {
        let mut pace = Pace::default();
        assert_eq!(pace.bytes(), AHEAD_BYTES_MAX);
        // 1 Gbit/s: 125 bytes in a microsecond.
        let step = Duration::from_micros(500);
        assert_eq!(ahead(&mut pace, 62_500, step, 20), AHEAD_BYTES_MIN);
        // 5 Gbit/s.
        assert_eq!(ahead(&mut pace, 312_500, step, 20), 256 << 10);
        // 40 Gbit/s.
        assert_eq!(ahead(&mut pace, 2_500_000, step, 20), AHEAD_BYTES_MAX);
    }

    #[test]
    fn time_in_which_nothing_is_to_be_sent_says_nothing_of_the_way() {
        let mut pace = Pace::default();
        let begun = Instant::now();
        for second in 0..100 {
            let told = pace.sent(begun + Duration::from_secs(second), 100, false);
            assert_eq!(told, None);
        }
        assert_eq!(pace.bytes(), AHEAD_BYTES_MAX);
    }
}
