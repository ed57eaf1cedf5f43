//! Limits and waits of the transport, each with a unit.

use std::time::Duration;

use crate::hello::{Features, Versions};

/// What a connection may hold and wait for. Both ends may differ: each tells the other its limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// Versions of the protocol to speak.
    pub versions: Versions,
    /// What this node can do besides.
    pub features: Features,
    /// Calls under way on one connection.
    pub requests_max: u32,
    /// Calls that wait for their turn on one connection, before more are refused.
    pub requests_waiting_max: usize,
    /// Time that a call may take unless it says otherwise.
    pub request_timeout: Duration,
    /// Bytes of a reply that is collected into one piece.
    pub reply_bytes_max: usize,
    /// Bytes of a body accepted in one frame; larger ones are streamed.
    pub body_bytes_max: u32,
    /// Bytes of one frame of a stream: what a small call may have to wait for.
    pub chunk_bytes: u32,
    /// Bytes that a peer may send on a stream that nobody has read from yet. With `requests_max`
    /// this bounds what a member of the cluster can make this node hold.
    pub window_bytes: u32,
    /// Bytes that it may send ahead of a reader that keeps up.
    pub window_bytes_max: u32,
    /// What all windows of a connection may have grown by together.
    pub window_growth_bytes_max: u64,
    /// Bytes that a sender may have queued before it must wait.
    pub send_buffer_bytes: usize,
    /// Silence after which a sign of life is asked for.
    pub ping_after: Duration,
    /// Silence after which a peer is taken for dead.
    pub dead_after: Duration,
    /// Time without calls after which a dialled connection is closed.
    pub idle_after: Duration,
    /// Time that calls get to finish when a connection is drained.
    pub drain_max: Duration,
    /// Time that a connection's last frames may take.
    pub close_max: Duration,
    /// Time for connecting, TLS and the first frames.
    pub handshake_max: Duration,
    /// Connections that a server has at once, handshakes among them.
    pub connections_max: usize,
    /// Connections that a server has at once from one node. With `requests_max` this bounds the
    /// calls of one node.
    pub connections_per_peer_max: usize,
    /// Connections that a pool keeps to one node.
    pub pool_connections_max: usize,
    /// Calls on each of them from which on the pool dials another.
    pub pool_busy_calls: usize,
    /// The first wait after a node was not reached.
    pub backoff_min: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            versions: Versions::KNOWN,
            features: Features::default(),
            requests_max: 1024,
            requests_waiting_max: 4096,
            request_timeout: Duration::from_secs(30),
            reply_bytes_max: 64 << 20,
            body_bytes_max: 64 << 10,
            chunk_bytes: 64 << 10,
            window_bytes: 256 << 10,
            window_bytes_max: 2 << 20,
            window_growth_bytes_max: 64 << 20,
            send_buffer_bytes: 1 << 20,
            ping_after: Duration::from_secs(5),
            dead_after: Duration::from_secs(15),
            idle_after: Duration::from_secs(120),
            drain_max: Duration::from_secs(30),
            close_max: Duration::from_secs(1),
            handshake_max: Duration::from_secs(5),
            connections_max: 4096,
            connections_per_peer_max: 8,
            pool_connections_max: 2,
            pool_busy_calls: 256,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
        }
    }
}
