//! The names of the transport's metrics.

/// Connections that are open, dialled and accepted.
pub const CONNECTIONS: &str = "dunlin_transport_connections";
/// Handshakes that failed, by side.
pub const HANDSHAKE_FAILURES_TOTAL: &str = "dunlin_transport_handshake_failures_total";
/// Connections that ended otherwise than by a drain.
pub const CONNECTIONS_LOST_TOTAL: &str = "dunlin_transport_connections_lost_total";
/// Calls that began, by side.
pub const CALLS_TOTAL: &str = "dunlin_transport_calls_total";
/// Calls that were cut before their reply was over, by side.
pub const CALLS_CUT_TOTAL: &str = "dunlin_transport_calls_cut_total";
/// Bytes of frames that were sent.
pub const SENT_BYTES_TOTAL: &str = "dunlin_transport_sent_bytes_total";
/// Bytes of frames that were received.
pub const RECEIVED_BYTES_TOTAL: &str = "dunlin_transport_received_bytes_total";

/// Tells the recorder what each metric means.
pub fn describe() {
    use metrics::{describe_counter, describe_gauge};
    describe_gauge!(CONNECTIONS, "Open connections between nodes.");
    describe_counter!(HANDSHAKE_FAILURES_TOTAL, "Handshakes that failed.");
    describe_counter!(
        CONNECTIONS_LOST_TOTAL,
        "Connections that ended otherwise than by a drain."
    );
    describe_counter!(CALLS_TOTAL, "Calls between nodes that began.");
    describe_counter!(
        CALLS_CUT_TOTAL,
        "Calls between nodes cut before their reply was over."
    );
    describe_counter!(SENT_BYTES_TOTAL, "Bytes of frames sent to other nodes.");
    describe_counter!(
        RECEIVED_BYTES_TOTAL,
        "Bytes of frames received from other nodes."
    );
}
