//! Bounds and times of the invoker.

use std::sync::Arc;
use std::time::Duration;

use crate::{Machine, Surroundings};

/// Bounds of an [`crate::Invoker`] and its [`crate::Service`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Asynchronous invocations of this node that are accepted and not final; one more is refused.
    pub pending_max: u64,
    /// Ids held in memory for dispatch; the rest wait in the store.
    pub ready_max: usize,
    /// Attempts that run at once, over all functions.
    pub running_max: usize,
    /// Largest request or reply that is kept in the store; a larger one is a blob.
    pub inline_bytes_max: usize,
    /// The first retry comes after at most this long.
    pub backoff_base: Duration,
    /// Each further retry may take twice as long, up to this.
    pub backoff_max: Duration,
    /// An invocation that is not final this long after it was accepted becomes a dead letter.
    pub age_max: Duration,
    /// Attempts that the node's own death may cut short, beyond the function's `attempts_max`.
    pub interruptions_max: u32,
    /// How long a final invocation, its reply and its idempotency key are kept.
    pub retention: Duration,
    /// Time between two sweeps of what is past its retention.
    pub sweep_interval: Duration,
    /// Invocations that other nodes run and that somebody here waits for; one more is refused.
    pub watches_max: usize,
    /// Time before a record that could not be written, or read, is tried again.
    pub store_pause: Duration,
    /// How long running attempts may go on after the service was told to stop.
    pub drain: Duration,
    /// Where time and chance come from.
    pub surroundings: Arc<dyn Surroundings>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pending_max: 1_000_000,
            ready_max: 4096,
            running_max: 256,
            inline_bytes_max: 64 << 10,
            backoff_base: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
            age_max: Duration::from_secs(6 * 3600),
            interruptions_max: 10,
            retention: Duration::from_secs(24 * 3600),
            sweep_interval: Duration::from_secs(60),
            watches_max: 1024,
            store_pause: Duration::from_secs(1),
            drain: Duration::from_secs(30),
            surroundings: Arc::new(Machine),
        }
    }
}
