//! The limits of state.

use std::time::Duration;

/// The largest [`Config::value_bytes_max`] that is taken; what is above is cut to it.
pub const VALUE_BYTES_MOST: usize = 2 << 30;

/// The limits of a node's state. Bytes are those of allocated regions: whole units of 64 KiB for
/// each value that is mapped or has more than a page, and the value's own size else.
#[derive(Clone, Debug)]
pub struct Config {
    /// Longest value, in bytes.
    pub value_bytes_max: usize,
    /// Most bytes that the values of one app hold in memory.
    pub app_bytes_max: usize,
    /// Most keys of one app that are in memory, those that are only locked among them.
    pub app_keys_max: usize,
    /// Most bytes that all values hold in memory.
    pub node_bytes_max: usize,
    /// Most regions: each takes a file descriptor, and addresses for the longest value.
    pub node_regions_max: usize,
    /// Longest time that a lock is held; longer requests are cut to it.
    pub lock_hold_max: Duration,
    /// Longest time that is waited for a lock; longer requests are cut to it.
    pub lock_wait_max: Duration,
    /// Most requests that wait for the locks of one key.
    pub lock_waiters_max: usize,
    /// Longest time to live.
    pub ttl_max: Duration,
    /// How often expired values are looked for.
    pub sweep_interval: Duration,
    /// Most expired values that are freed at once.
    pub sweep_keys_max: usize,
    /// Events that a watcher may be behind before it misses some.
    pub watch_events_max: usize,
    /// Most watchers of one app.
    pub watchers_max: usize,
    /// In a cluster: how long a request looks for its key's owner, while that is being replaced.
    pub owner_wait_max: Duration,
    /// In a cluster: how long an owner has for one request, besides what the request waits for by
    /// itself.
    pub ask_timeout: Duration,
    /// In a cluster: most requests of other nodes that are answered at a time, those that wait for
    /// locks and changes among them.
    pub asks_max: usize,
    /// In a cluster: in the memory of how many nodes a replicated value is, its owner among them.
    pub copies: usize,
    /// In a cluster: how long it is told that values may have been lost with their node, instead
    /// of that there are none.
    pub loss_told: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            value_bytes_max: 1 << 30,
            app_bytes_max: 4 << 30,
            app_keys_max: 100_000,
            node_bytes_max: 16 << 30,
            node_regions_max: 8192,
            lock_hold_max: Duration::from_secs(300),
            lock_wait_max: Duration::from_secs(300),
            lock_waiters_max: 1024,
            ttl_max: Duration::from_secs(366 * 24 * 3600),
            sweep_interval: Duration::from_secs(1),
            sweep_keys_max: 1024,
            watch_events_max: 1024,
            watchers_max: 256,
            owner_wait_max: Duration::from_secs(20),
            ask_timeout: Duration::from_secs(10),
            asks_max: 4096,
            copies: 2,
            loss_told: Duration::from_secs(600),
        }
    }
}
