//! What the invoker needs of whoever runs functions; the node wires it to the executor.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::{InvocationId, Outcome};
use serde::{Deserialize, Serialize};

use crate::Target;

/// What a function is called with, beside its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum RequestHead {
    /// For commands and reactors.
    Plain {
        /// Arguments of this call, after those of the version.
        args: Vec<String>,
        /// Environment of this call, over that of the version.
        env: Vec<(String, String)>,
    },
    /// For http components.
    Http {
        /// The method.
        method: String,
        /// The absolute URI.
        uri: String,
        /// Names and values, in order.
        headers: Vec<(String, Vec<u8>)>,
    },
}

/// What a function is called with. The invoker stores it and does not look into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// All but the body.
    pub head: RequestHead,
    /// The body, whole.
    pub body: Bytes,
}

impl Request {
    /// A call of a command or reactor with `body` and nothing else.
    pub fn plain(body: impl Into<Bytes>) -> Self {
        let head = RequestHead::Plain {
            args: Vec::new(),
            env: Vec::new(),
        };
        Self {
            head,
            body: body.into(),
        }
    }
}

/// What a function replied, beside the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ReplyHead {
    /// Of commands and reactors.
    Plain,
    /// Of http components.
    Http {
        /// The status code.
        status: u16,
        /// Names and values, in order.
        headers: Vec<(String, Vec<u8>)>,
    },
}

/// What a function replied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// All but the body.
    pub head: ReplyHead,
    /// The body, whole.
    pub body: Bytes,
}

impl Reply {
    /// The reply of a command or reactor.
    pub fn plain(body: impl Into<Bytes>) -> Self {
        Self {
            head: ReplyHead::Plain,
            body: body.into(),
        }
    }
}

/// One attempt to run an asynchronous invocation.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The invocation.
    pub id: InvocationId,
    /// The attempt's number, from 1; it counts those that a restart cut short too.
    pub number: u32,
    /// What to run: the version that was chosen when the invocation was accepted.
    pub target: Target,
    /// What to run it with.
    pub request: Request,
    /// The W3C `traceparent` that the invocation was accepted with.
    pub traceparent: Option<String>,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Ran {
    /// It ran. Any status but `Ok` is a failed attempt; `Cancelled` (the node stops) counts as
    /// none.
    Ended {
        /// How it ended, and what it used.
        outcome: Outcome,
        /// What it replied; kept whatever the status.
        reply: Reply,
    },
    /// It was not started, since the function or the node has no place: it is tried again later
    /// and does not count.
    Overloaded {
        /// When there may be a place.
        retry_after: Duration,
    },
}

/// Runs functions.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// Runs one attempt to its end. Faults of the platform are outcomes too
    /// (`Status::Platform`), so that they are recorded and retried. When the future is dropped,
    /// the attempt is to end.
    async fn run(&self, attempt: Attempt) -> Ran;
}
