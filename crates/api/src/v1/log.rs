//! What guests print.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output, where it is not the reply.
    Stdout,
    /// Standard error.
    Stderr,
    /// The `log_write` host call, level error.
    Error,
    /// The `log_write` host call, level warn.
    Warn,
    /// The `log_write` host call, level info.
    Info,
    /// The `log_write` host call, level debug.
    Debug,
    /// Not of a guest: so many records were dropped because the reader was too slow.
    Dropped,
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// App.
    pub app: String,
    /// Function.
    pub function: String,
    /// The invocation that printed it; empty for `dropped`.
    pub invocation: String,
    /// Where it came from.
    pub stream: LogStream,
    /// The text.
    pub text: String,
    /// The node that it ran on; none if that stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// The last records of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Logs {
    /// The records, the latest last.
    pub lines: Vec<LogLine>,
    /// Nodes of the cluster that did not answer: what ran there is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<String>,
}
