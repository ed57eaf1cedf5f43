//! What one invocation may have of the platform at once.

use std::time::Duration;

use sandbox::TreeLimits;

/// Limits on what invocations ask.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Calls that a tree of invocations may make, and how deep.
    pub tree: TreeLimits,
    /// Calls that one invocation has a handle on at once.
    pub handles_max: usize,
    /// Bytes of requests and replies of its calls that one invocation keeps at once.
    pub payload_bytes_max: usize,
    /// How long a detached call may go on.
    pub detached_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tree: TreeLimits {
                calls_max: 10_000,
                depth_max: 32,
            },
            handles_max: 1024,
            payload_bytes_max: 64 << 20,
            detached_max: Duration::from_secs(24 * 3600),
        }
    }
}
