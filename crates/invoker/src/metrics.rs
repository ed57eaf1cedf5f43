//! The invoker's metrics, by name, with their units.

/// Asynchronous invocations accepted (count).
pub const ACCEPTED: &str = "dunlin_invoker_accepted_total";
/// Accepts answered with an earlier invocation's id because of their idempotency key (count).
pub const REPEATED: &str = "dunlin_invoker_repeated_total";
/// Attempts that ended, by `result`: ok, failed, overloaded, cancelled (count).
pub const ATTEMPTS: &str = "dunlin_invoker_attempts_total";
/// Asynchronous invocations that became final, by `state`: succeeded, failed, dead (count).
pub const FINAL: &str = "dunlin_invoker_final_total";
/// Asynchronous invocations taken over from nodes that are gone (count).
pub const TAKEN_OVER: &str = "dunlin_invoker_taken_over_total";
/// Asynchronous invocations of this node, accepted and not final (gauge).
pub const PENDING: &str = "dunlin_invoker_pending";
/// Attempts running (gauge).
pub const RUNNING: &str = "dunlin_invoker_running";
/// Time from acceptance to the final record (histogram, seconds).
pub const LIFE_SECONDS: &str = "dunlin_invoker_life_seconds";
/// Final invocations removed after their retention (count).
pub const EXPIRED: &str = "dunlin_invoker_expired_total";
