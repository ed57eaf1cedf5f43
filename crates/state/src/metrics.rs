//! The names of state's metrics.

/// Bytes that values hold in memory.
pub const BYTES: &str = "dunlin_state_bytes";
/// Regions that values hold.
pub const REGIONS: &str = "dunlin_state_regions";
/// Operations refused because a quota was used up.
pub const REFUSED_TOTAL: &str = "dunlin_state_refused_total";
/// Bytes of chunks read from the global tier.
pub const PULLED_BYTES_TOTAL: &str = "dunlin_state_pulled_bytes_total";
/// Bytes of chunks written to the global tier.
pub const PUSHED_BYTES_TOTAL: &str = "dunlin_state_pushed_bytes_total";
/// Pushes that failed.
pub const PUSH_FAILURES_TOTAL: &str = "dunlin_state_push_failures_total";
/// Values that were freed after their time to live.
pub const EXPIRED_TOTAL: &str = "dunlin_state_expired_total";
/// Durable values that left memory to make room.
pub const EVICTED_TOTAL: &str = "dunlin_state_evicted_total";
/// Locks that were not free in time.
pub const LOCK_TIMEOUTS_TOTAL: &str = "dunlin_state_lock_timeouts_total";
/// Events that watchers missed.
pub const WATCH_MISSED_TOTAL: &str = "dunlin_state_watch_missed_total";
/// Requests to other nodes.
pub const ASKED_TOTAL: &str = "dunlin_state_asked_total";
/// Requests of other nodes.
pub const SERVED_TOTAL: &str = "dunlin_state_served_total";

/// Tells the recorder what each metric means.
pub fn describe() {
    use metrics::{describe_counter, describe_gauge};
    describe_gauge!(BYTES, "Bytes that values hold in memory.");
    describe_gauge!(REGIONS, "Regions that values hold.");
    describe_counter!(REFUSED_TOTAL, "State operations refused by a quota.");
    describe_counter!(
        PULLED_BYTES_TOTAL,
        "Bytes of chunks read from the global tier."
    );
    describe_counter!(
        PUSHED_BYTES_TOTAL,
        "Bytes of chunks written to the global tier."
    );
    describe_counter!(PUSH_FAILURES_TOTAL, "Pushes that failed.");
    describe_counter!(EXPIRED_TOTAL, "Values freed after their time to live.");
    describe_counter!(
        EVICTED_TOTAL,
        "Durable values that left memory to make room."
    );
    describe_counter!(LOCK_TIMEOUTS_TOTAL, "Locks that were not free in time.");
    describe_counter!(WATCH_MISSED_TOTAL, "Events that watchers missed.");
    describe_counter!(ASKED_TOTAL, "Requests to nodes that own keys, by outcome.");
    describe_counter!(
        SERVED_TOTAL,
        "Requests of other nodes for keys, by outcome."
    );
}
