//! One call into a sandbox, and how it ended.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{InvocationId, Limits, Status};
use tokio::sync::oneshot;

use crate::host::{Guest, Host};
use crate::{Body, CallLog};

/// One call.
#[derive(Debug)]
pub struct Call {
    /// The invocation that the call is made for.
    pub id: InvocationId,
    /// What the guest gets.
    pub payload: Payload,
    /// What the guest may use; the deadline counts from the start of the call.
    pub limits: Arc<Limits>,
    /// If the guest computes longer than this in one go, the call ends [`End::OverBudget`] so that
    /// the caller can repeat it where it may block. Only non-cooperative programs look at it.
    pub budget: Option<Duration>,
    /// Where stdout, stderr and log lines go.
    pub log: Arc<CallLog>,
    /// Who answers what the guest asks of the platform; none if its program asks nothing.
    pub asks: Option<Box<Asks>>,
}

/// The way from a guest to its host.
#[derive(Clone)]
pub struct Asks {
    /// Who answers.
    pub host: Arc<dyn Host>,
    /// Who asks.
    pub guest: Guest,
}

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asks")
            .field("guest", &self.guest)
            .finish_non_exhaustive()
    }
}

/// What the guest gets.
#[derive(Debug)]
pub enum Payload {
    /// For commands and reactors.
    Bytes {
        /// The request body.
        body: Bytes,
        /// Arguments of this call, after those of the version.
        args: Vec<String>,
        /// Environment of this call, over that of the version.
        env: Vec<(String, String)>,
    },
    /// For http components.
    Http(Box<HttpCall>),
}

/// A request for an http component, and where its response goes.
#[derive(Debug)]
pub struct HttpCall {
    /// The request; its URI is absolute (scheme and authority set).
    pub request: http::Request<Body>,
    /// Takes the response as soon as the guest has set its head; the body streams after it.
    pub respond: oneshot::Sender<http::Response<Body>>,
}

/// Why a call came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest is done, in this way.
    Done(Status),
    /// The guest computed past [`Call::budget`] and had no effect outside of its sandbox.
    OverBudget,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Why it ended.
    pub end: End,
    /// The reply of a command or reactor; empty for http components, whose reply was streamed.
    pub reply: Bytes,
    /// Largest linear memory of the guest, in bytes, over all its memories.
    pub memory_peak_bytes: u64,
    /// Processor time of the guest on threads other than those that polled the call, in
    /// nanoseconds.
    pub cpu_elsewhere_ns: u64,
    /// Request body bytes that an http guest was sent; commands and reactors leave it 0.
    pub input_bytes: u64,
    /// Reply body bytes that an http guest sent; commands and reactors leave it 0.
    pub output_bytes: u64,
}

impl Completion {
    /// The completion of a call that ended so and replied nothing.
    pub fn without_reply(status: Status) -> Self {
        Self {
            end: End::Done(status),
            reply: Bytes::new(),
            memory_peak_bytes: 0,
            cpu_elsewhere_ns: 0,
            input_bytes: 0,
            output_bytes: 0,
        }
    }
}
