//! Figures out of samples, and the clocks that samples come from.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// The middle of `samples`; the mean of the two middle ones where their number is even.
pub fn median(samples: &[f64]) -> f64 {
    let sorted = sorted(samples);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The smallest sample that `percent` of all samples do not exceed.
pub fn percentile(samples: &[f64], percent: usize) -> f64 {
    let sorted = sorted(samples);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// The geometric mean of `samples`.
pub fn geometric_mean(samples: &[f64]) -> f64 {
    let logs: f64 = samples.iter().map(|sample| sample.ln()).sum();
    (logs / samples.len() as f64).exp()
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Microseconds of wall time that `what` takes.
pub fn wall_us(what: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    what()?;
    Ok(micros(start.elapsed()))
}

/// Microseconds of a duration.
pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Microseconds of processor time that this process has used, over all its threads.
pub fn process_cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Microseconds of processor time that process `pid` has used, in steps of a clock tick (10 ms).
pub fn cpu_of_us(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    ticks(&text)
        .map(|ticks| ticks * TICK_US)
        .with_context(|| format!("{path} is not understood"))
}

/// Linux counts processor time for user space in hundredths of a second on every architecture.
const TICK_US: f64 = 10_000.0;

/// User and system time of a `/proc/PID/stat` line: fields 14 and 15 of proc(5). The name, field 2,
/// may hold anything, so counting starts after its closing parenthesis.
fn ticks(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// KiB that a field of `/proc/self/status` counts.
pub fn status_kib(field: &str) -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("/proc/self/status has no {field}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_few_samples_are_exact() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(percentile(&[3.0, 1.0, 2.0, 4.0], 50), 2.0);
        assert_eq!(percentile(&[3.0, 1.0, 2.0, 4.0], 99), 4.0);
        assert!((geometric_mean(&[1.0, 4.0]) - 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_process_name_with_spaces_and_parentheses_is_skipped() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15";
        assert_eq!(ticks(stat), Some(11.0 + 12.0));
    }
}
