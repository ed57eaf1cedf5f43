//! What `dunlin ps` shows.

use std::time::Duration;

use model::{Digest, FunctionPath, Kind, StartKind};

use crate::Lane;

/// Invocations by the way their sandboxes came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartCounts {
    /// The program had to be loaded first.
    pub cold: u64,
    /// From an image.
    pub restored: u64,
    /// With what earlier invocations left.
    pub reused: u64,
}

impl StartCounts {
    pub(crate) fn add(&mut self, start: StartKind) {
        match start {
            StartKind::Cold => self.cold += 1,
            StartKind::Restored => self.restored += 1,
            StartKind::Reused => self.reused += 1,
        }
    }
}

/// One version of one function on this node.
#[derive(Clone, Debug)]
pub struct PoolView {
    /// The function.
    pub path: FunctionPath,
    /// Its version.
    pub version: Digest,
    /// Its kind.
    pub kind: Kind,
    /// Whether its program is loaded.
    pub loaded: bool,
    /// Where its next call runs, if it is loaded.
    pub lane: Option<Lane>,
    /// Idle sandboxes.
    pub idle: usize,
    /// Invocations that run.
    pub running: usize,
    /// Invocations that wait for a place; of all versions of the function.
    pub queued: usize,
    /// Invocations that ran to their end since the pool was made.
    pub starts: StartCounts,
    /// Largest linear memory that an invocation had.
    pub memory_peak_bytes: u64,
    /// Mean wall-clock time of recent invocations.
    pub service_time: Duration,
    /// How long an idle sandbox is kept at present.
    pub keep_alive: Duration,
}
