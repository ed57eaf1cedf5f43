//! What a node does for functions that call functions.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{FunctionPath, InvocationId};
use sandbox::Branch;
use sandbox::host::Guest;

/// A call of one function by another.
#[derive(Debug)]
pub struct Request {
    /// The function that is called.
    pub callee: FunctionPath,
    /// The request body.
    pub input: Bytes,
    /// Its place among the calls that led to it.
    pub branch: Branch,
    /// Whether it goes on when its caller has ended.
    pub detached: bool,
    /// What its caller may still keep.
    pub room: Arc<PayloadRoom>,
}

/// Bytes of requests and replies of its calls that one invocation may still keep.
#[derive(Debug)]
pub struct PayloadRoom {
    left: AtomicUsize,
    bytes_max: usize,
}

impl PayloadRoom {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            left: bytes_max.into(),
            bytes_max,
        })
    }

    /// The reply, if there is room to keep it; else what its caller is told.
    pub fn keep(&self, reply: Bytes) -> Result<Bytes, String> {
        if self.take(reply.len()) {
            return Ok(reply);
        }
        Err(format!(
            "the caller would keep more than {} bytes of its calls: it must close some first",
            self.bytes_max
        ))
    }

    pub(crate) fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// How a call ended.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The invocation.
    pub id: InvocationId,
    /// The reply, or why there is none.
    pub result: Result<Bytes, String>,
}

/// Why a call did not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such function.
    #[error("there is no such function")]
    NotFound,
    /// The input is over the function's limit.
    #[error("the input is too large: {0}")]
    TooLarge(String),
    /// No room: queues are full.
    #[error("there is no room: {0}")]
    Exhausted(String),
    /// The platform could not run it.
    #[error("it could not be run: {0}")]
    Unavailable(String),
}

/// A call that runs beside its caller. Dropping it cancels the call, unless it is detached.
pub struct Spawned {
    /// The invocation.
    pub id: InvocationId,
    /// Its end.
    pub reply: BoxFuture<'static, Result<Reply, Refused>>,
}

impl fmt::Debug for Spawned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawned")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Runs functions for functions.
pub trait Chain: Send + Sync + 'static {
    /// The way to functions for one invocation.
    fn caller(&self, guest: &Guest) -> Box<dyn Caller>;
}

/// Runs functions for one invocation.
pub trait Caller: Send + Sync {
    /// Runs a call to its end, in the stead of its caller, which waits.
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, Refused>>;

    /// Starts a call beside its caller.
    fn spawn(&self, request: Request) -> Result<Spawned, Refused>;

    /// The caller waits for these, until what is returned is dropped: meanwhile one of them that
    /// still queues may run in its stead.
    fn lend(&self, to: &[InvocationId]) -> Box<dyn Send>;
}
