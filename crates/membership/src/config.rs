//! Times and bounds of membership.

use std::time::Duration;

use crate::session::Terms;

/// What membership takes its time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Time that a node's lease lasts without a word: what a dead node's work waits for.
    pub lease_ttl: Duration,
    /// Time by which a node stops before its lease ends: what its clock may lose meanwhile.
    pub lease_margin: Duration,
    /// From one successful word to the next.
    pub renew_every: Duration,
    /// After a word that failed, until the next.
    pub retry_after: Duration,
    /// Time that the store has for one request.
    pub request_timeout: Duration,
    /// The least time between two reports of one node.
    pub report_every_min: Duration,
    /// The most reports a second of all nodes together: each waits longer as there are more.
    pub reports_per_sec_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_ttl: Duration::from_secs(10),
            lease_margin: Duration::from_secs(2),
            renew_every: Duration::from_secs(2),
            retry_after: Duration::from_millis(500),
            request_timeout: Duration::from_secs(2),
            report_every_min: Duration::from_secs(1),
            reports_per_sec_max: 500,
        }
    }
}

impl Config {
    pub(crate) fn terms(&self) -> Terms {
        Terms {
            ttl: self.lease_ttl,
            margin: self.lease_margin,
            renew_every: self.renew_every,
            retry_after: self.retry_after,
        }
    }

    /// The time between two reports of one node when there are `nodes`.
    pub(crate) fn report_every(&self, nodes: usize) -> Duration {
        // More nodes than 32 bits count are not held in memory either.
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        let share = Duration::from_secs(1) * nodes / self.reports_per_sec_max.max(1);
        share.max(self.report_every_min)
    }
}
