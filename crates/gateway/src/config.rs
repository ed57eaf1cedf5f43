//! Limits of the two listeners, each with its unit and its default.

use std::time::Duration;

/// What one listener accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Open connections; the next one waits in the kernel's backlog until one closes.
    pub connections_max: usize,
    /// Bytes of one request's line and headers.
    pub head_bytes_max: usize,
    /// Headers of one HTTP/1.1 request.
    pub headers_max: usize,
    /// Time from the first byte of a request to the end of its headers.
    pub head_timeout: Duration,
    /// Time between two requests on a connection, and before its first.
    pub idle_timeout: Duration,
    /// Time without a byte in the middle of a request body.
    pub body_idle_timeout: Duration,
    /// Time for a whole request body that is collected before it is used.
    pub body_timeout: Duration,
    /// Time for which the client may leave a reply unread.
    pub write_timeout: Duration,
    /// Concurrent streams of one HTTP/2 connection.
    pub streams_max: u32,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            head_bytes_max: 64 << 10,
            headers_max: 128,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_idle_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(60),
            streams_max: 256,
        }
    }
}

/// The gateway's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The listener that functions are called on.
    pub data: ListenerConfig,
    /// The listener of the admin API.
    pub admin: ListenerConfig,
    /// Base of host names: `FUNCTION.APP.HOST` calls a function.
    pub host: String,
    /// Whether every request needs a token, on both listeners.
    pub require_token: bool,
    /// Bytes of one artifact.
    pub artifact_bytes_max: u64,
    /// Bytes of one JSON body of the admin API.
    pub json_bytes_max: usize,
    /// Longest `?wait=` of one request.
    pub wait_max: Duration,
    /// Most entries of one page of a list.
    pub page_max: usize,
    /// Bytes that values of state hold together while they are being sent.
    pub state_upload_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: ListenerConfig::default(),
            admin: ListenerConfig {
                connections_max: 1024,
                // An artifact over a slow link.
                body_timeout: Duration::from_secs(1800),
                ..ListenerConfig::default()
            },
            host: "localhost".to_owned(),
            require_token: false,
            artifact_bytes_max: 256 << 20,
            json_bytes_max: 1 << 20,
            wait_max: Duration::from_secs(60),
            page_max: 1000,
            state_upload_bytes_max: 2 << 30,
        }
    }
}
