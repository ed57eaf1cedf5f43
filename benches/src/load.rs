//! wrk: load from outside of the server's process.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::measure::cpu_of_us;

/// What a server did under load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Replies in a second.
    pub per_second: f64,
    /// Processor time of the server for each reply, in microseconds.
    pub cpu_us: f64,
}

/// Loads `url`, which process `pid` serves, for some seconds over 32 connections.
pub fn load(url: &str, pid: u32, seconds: u32) -> Result<Load> {
    let before = cpu_of_us(pid)?;
    let duration = format!("-d{seconds}s");
    let output = Command::new("wrk")
        .args(["-c32", "-t2", &duration, url])
        .output();
    let output = output.context("starting wrk (apt-get install wrk)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || faulty(&text) {
        bail!(
            "wrk {url}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let (requests, per_second) = figures(&text).with_context(|| format!("wrk said {text}"))?;
    Ok(Load {
        per_second,
        cpu_us: (cpu_of_us(pid)? - before) / requests,
    })
}

/// Whether wrk saw anything but replies of status 2xx and 3xx.
fn faulty(text: &str) -> bool {
    text.contains("Non-2xx") || text.contains("Socket errors")
}

/// How many requests were answered, and how many in a second.
fn figures(text: &str) -> Option<(f64, f64)> {
    let mut requests = None;
    let mut per_second = None;
    for line in text.lines().map(str::trim) {
        if let Some((count, _)) = line.split_once(" requests in ") {
            requests = count.parse().ok();
        } else if let Some(rate) = line.strip_prefix("Requests/sec:") {
            per_second = rate.trim().parse().ok();
        }
    }
    Some((requests?, per_second?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 1s test @ http://127.0.0.1:1/\n  2 threads and 32 connections\n  \
        117211 requests in 1.00s, 13.75MB read\nRequests/sec: 116830.44\nTransfer/sec: 13.71MB\n";

    #[test]
    fn the_figures_of_wrk_are_read() {
        assert_eq!(figures(SAID), Some((117_211.0, 116_830.44)));
        assert!(!faulty(SAID));
    }

    #[test]
    fn a_run_with_errors_is_no_measurement() {
        assert!(faulty("  Non-2xx or 3xx responses: 3\n"));
        assert!(faulty(
            "  Socket errors: connect 0, read 3, write 0, timeout 0\n"
        ));
    }
}
