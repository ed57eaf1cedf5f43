//! Why a job was not run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sandbox::{LoadError, SandboxError};

/// Whose queue had no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The function's: `queue_max` of its limits.
    Function,
    /// The app's.
    App,
    /// The node's.
    Node,
    /// There was room in the queue, but no place came free within the longest wait.
    Wait,
}

impl Scope {
    /// The scope as metrics and problems spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Function => "function",
            Scope::App => "app",
            Scope::Node => "node",
            Scope::Wait => "wait",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a job was not run: it has no outcome, and may be asked again.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// Too many wait already.
    #[error("too many invocations wait ({scope}): try again in {} ms", .retry_after.as_millis())]
    QueueFull {
        /// Whose queue.
        scope: Scope,
        /// When a place is likely to be free, by the time that recent invocations took.
        retry_after: Duration,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Draining,
    /// The version could not be loaded.
    #[error("the function's version could not be loaded")]
    Load(#[source] Arc<LoadError>),
    /// No sandbox could be made.
    #[error("no sandbox could be made for the function")]
    Sandbox(#[source] SandboxError),
    /// The request body is over the function's limit.
    #[error("the request body of {bytes} bytes is over the function's limit of {bytes_max}")]
    InputTooLarge {
        /// The body's length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
}
