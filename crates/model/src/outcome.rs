//! How an invocation ended: exactly one outcome each.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Usage;

/// How the sandbox of an invocation came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartKind {
    /// Its program had to be loaded, or compiled, first.
    Cold,
    /// A fresh sandbox from an already-initialised image.
    Restored,
    /// A sandbox that keeps what earlier invocations of its app left (`reuse = "app"`).
    Reused,
}

impl StartKind {
    /// Every start kind.
    pub const ALL: [StartKind; 3] = [StartKind::Cold, StartKind::Restored, StartKind::Reused];

    /// The start kind as metrics and headers spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            StartKind::Cold => "cold",
            StartKind::Restored => "restored",
            StartKind::Reused => "reused",
        }
    }
}

/// What stopped a guest that did not stop by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrapKind {
    /// `unreachable`: what abort and panics compile to.
    Unreachable,
    /// An access outside of linear memory or a table.
    OutOfBounds,
    /// The guest's call stack is used up.
    StackOverflow,
    /// Integer division by zero, overflow or a bad conversion.
    Arithmetic,
    /// An indirect call through a null or wrongly typed entry.
    BadCall,
    /// Anything else that the engine reports.
    Other,
}

/// How an invocation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Status {
    /// The guest replied.
    Ok,
    /// The guest ended itself with this code, not 0.
    Exit {
        /// The guest's code.
        code: i32,
    },
    /// The guest was stopped by the wall.
    Trap {
        /// What kind of fault.
        kind: TrapKind,
        /// The engine's words, with the guest's function names where it has them.
        message: String,
    },
    /// The guest reported an error in place of a reply.
    Error {
        /// The guest's name for such errors.
        kind: String,
        /// The guest's words.
        message: String,
    },
    /// The deadline passed.
    Timeout,
    /// The guest failed after it was refused memory over its cap.
    OutOfMemory,
    /// The reply passed its limit.
    OutputLimit,
    /// A guest ended without its response, or with an error for one.
    NoResponse {
        /// What it said.
        message: String,
    },
    /// The caller went away, or the node is stopping.
    Cancelled,
    /// The platform could not run it: no fault of the guest's.
    Platform {
        /// What went wrong.
        message: String,
    },
}

impl Status {
    /// The status as records, metrics and headers spell it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Exit { .. } => "exit",
            Status::Trap { .. } => "trap",
            Status::Error { .. } => "error",
            Status::Timeout => "timeout",
            Status::OutOfMemory => "out-of-memory",
            Status::OutputLimit => "output-limit",
            Status::NoResponse { .. } => "no-response",
            Status::Cancelled => "cancelled",
            Status::Platform { .. } => "platform",
        }
    }

    /// Whether the guest replied.
    pub const fn is_ok(&self) -> bool {
        matches!(self, Status::Ok)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Ok => f.write_str("the function replied"),
            Status::Exit { code } => write!(f, "the function exited with code {code}"),
            Status::Trap { message, .. } => write!(f, "the function trapped: {message}"),
            Status::Error { kind, message } if kind.is_empty() => {
                write!(f, "the function reported an error: {message}")
            }
            Status::Error { kind, message } => {
                write!(f, "the function reported an error: {kind}: {message}")
            }
            Status::Timeout => f.write_str("the function ran past its deadline"),
            Status::OutOfMemory => f.write_str("the function ran out of its memory limit"),
            Status::OutputLimit => f.write_str("the function's reply passed its limit"),
            Status::NoResponse { message } => write!(f, "the function gave no reply: {message}"),
            Status::Cancelled => f.write_str("the invocation was cancelled"),
            Status::Platform { message } => write!(f, "the platform failed: {message}"),
        }
    }
}

/// The one record of how an invocation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    #[serde(flatten)]
    pub status: Status,
    /// How its sandbox came to be.
    pub start: StartKind,
    /// What it used.
    pub usage: Usage,
}
