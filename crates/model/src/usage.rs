//! What an invocation used, in the units that are billed.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Resources of one invocation, or the sum over many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// Wall-clock time, in milliseconds, rounded up: the billed time.
    pub wall_ms: u64,
    /// Largest linear memory, in bytes; in a sum, the largest of all.
    pub memory_peak_bytes: u64,
    /// Billed memory × billed time, in KiB-milliseconds (memory is rounded up to a KiB).
    pub memory_kib_ms: u64,
    /// Request bytes.
    pub input_bytes: u64,
    /// Reply bytes.
    pub output_bytes: u64,
    /// Captured log bytes.
    pub log_bytes: u64,
}

/// KiB-milliseconds in a GB-second (GB = 2^30 bytes, as AWS Lambda counts).
const KIB_MS_PER_GB_S: f64 = (1u64 << 20) as f64 * 1000.0;

impl Usage {
    /// Billed memory × time in GB-seconds.
    pub fn gb_s(&self) -> f64 {
        self.memory_kib_ms as f64 / KIB_MS_PER_GB_S
    }

    /// Sets the billed time from a duration, rounding up to a whole millisecond, and with it the
    /// memory × time of `memory_peak_bytes`.
    pub fn bill(&mut self, wall: std::time::Duration) {
        self.wall_ms = u64::try_from(wall.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.memory_kib_ms = self
            .wall_ms
            .saturating_mul(self.memory_peak_bytes.div_ceil(1024));
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.cpu_us += other.cpu_us;
        self.wall_ms += other.wall_ms;
        self.memory_peak_bytes = self.memory_peak_bytes.max(other.memory_peak_bytes);
        self.memory_kib_ms += other.memory_kib_ms;
        self.input_bytes += other.input_bytes;
        self.output_bytes += other.output_bytes;
        self.log_bytes += other.log_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn billed_time_rounds_up_to_a_millisecond() {
        let mut usage = Usage {
            memory_peak_bytes: 1 << 30,
            ..Usage::default()
        };
        usage.bill(Duration::from_micros(1001));
        assert_eq!(usage.wall_ms, 2);
        assert!((usage.gb_s() - 0.002).abs() < 1e-12);
    }
}
