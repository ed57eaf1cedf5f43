//! `Connection`: what callers hold of a connection to another node.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::NodeId;
use tokio::sync::{Semaphore, watch};

use crate::body::{Body, Sender};
use crate::call::{Call, Command, Landing, Target};
use crate::code::{Open, Priority, Reset, Status};
use crate::driver::Commands;
use crate::error::{CallError, Close};
use crate::hello::Features;

/// What is asked of another node.
#[derive(Clone, Debug)]
pub struct Request {
    method: u16,
    priority: Priority,
    timeout: Timeout,
    body: Bytes,
    reply_bytes: usize,
    reply_bytes_max: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Timeout {
    Configured,
    Of(Duration),
    Never,
}

impl Request {
    /// A prompt request with the configured timeout.
    pub fn new(method: u16, body: impl Into<Bytes>) -> Self {
        Self {
            method,
            priority: Priority::Prompt,
            timeout: Timeout::Configured,
            body: body.into(),
            reply_bytes: 0,
            reply_bytes_max: None,
        }
    }

    /// Lets others go first.
    #[must_use]
    pub fn bulk(mut self) -> Self {
        self.priority = Priority::Bulk;
        self
    }

    /// Time until the call is cut, on both sides.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Timeout::Of(timeout);
        self
    }

    /// For streams that live as long as their connection.
    #[must_use]
    pub fn without_timeout(mut self) -> Self {
        self.timeout = Timeout::Never;
        self
    }

    /// Bytes of the reply that there is room for here, so that they may come without being asked
    /// for little by little.
    #[must_use]
    pub fn reply_bytes(mut self, bytes: usize) -> Self {
        self.reply_bytes = bytes;
        self
    }

    /// The most bytes of a reply that `Connection::call` collects.
    #[must_use]
    pub fn reply_bytes_max(mut self, bytes: usize) -> Self {
        self.reply_bytes_max = Some(bytes);
        self
    }

    fn open(&self, configured: Duration) -> Open {
        let timeout = match self.timeout {
            Timeout::Configured => configured,
            Timeout::Of(timeout) => timeout,
            Timeout::Never => Duration::ZERO,
        };
        let us = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        let timed = !matches!(self.timeout, Timeout::Never);
        Open {
            method: self.method,
            priority: self.priority,
            // Zero means that there is none.
            timeout_us: if timed { us.max(1) } else { 0 },
        }
    }
}

/// A reply whose body is a stream.
pub struct Reply {
    /// How it went.
    pub status: Status,
    /// The body; dropping it before its end cancels the call.
    pub body: Body,
}

/// A reply that is expected; dropping it cancels the call.
pub struct Answer(Body);

impl Answer {
    /// Waits for the reply to begin.
    pub async fn reply(self) -> Result<Reply, CallError> {
        let call = Arc::clone(self.0.call());
        let status = poll_fn(|cx| call.poll_status(cx)).await?;
        let body = self.0;
        Ok(Reply { status, body })
    }
}

/// A connection to another node; clones are of the same. When the last is dropped, it is drained.
#[derive(Clone)]
pub struct Connection(pub(crate) Arc<Link>);

/// What all handles of a connection share.
pub(crate) struct Link {
    pub(crate) peer: NodeId,
    pub(crate) version: u16,
    pub(crate) features: Features,
    pub(crate) commands: Commands,
    /// One permit for each call that may be under way; closed when no more may be opened.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) permits_max: usize,
    pub(crate) waiting: AtomicUsize,
    pub(crate) closed: watch::Receiver<Option<Arc<Close>>>,
    pub(crate) waiting_max: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) reply_bytes_max: usize,
    pub(crate) send_buffer_bytes: usize,
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Drain);
    }
}

impl Connection {
    /// The node at the other end.
    pub fn peer(&self) -> &NodeId {
        &self.0.peer
    }

    /// The version of the protocol that both speak.
    pub fn version(&self) -> u16 {
        self.0.version
    }

    /// What both nodes can do.
    pub fn features(&self) -> Features {
        self.0.features
    }

    /// Whether calls may be opened.
    pub fn is_open(&self) -> bool {
        !self.0.permits.is_closed()
    }

    /// Calls that are under way or wait.
    pub fn calls(&self) -> usize {
        let free = self.0.permits.available_permits().min(self.0.permits_max);
        self.0.permits_max - free + self.0.waiting.load(Ordering::Relaxed)
    }

    /// Asks and waits for all of the reply.
    pub async fn call(&self, request: Request) -> Result<(Status, Bytes), CallError> {
        let bytes_max = request.reply_bytes_max.unwrap_or(self.0.reply_bytes_max);
        let reply = self.ask(request).await?.reply().await?;
        Ok((reply.status, reply.body.collect(bytes_max).await?))
    }

    /// Asks, with all of the request's body.
    pub async fn ask(&self, request: Request) -> Result<Answer, CallError> {
        Ok(Answer(self.begin(request, true).await?))
    }

    /// Asks, with all of the request's body. The reply's body goes straight to `buffer`; see
    /// [`Body::landed`].
    pub async fn ask_into<L: Landing>(
        &self,
        request: Request,
        buffer: L,
    ) -> Result<Answer, CallError> {
        let mut target = Target::new(Box::new(buffer));
        let request = request.reply_bytes(target.missing());
        let call = Call::new(0, self.0.send_buffer_bytes);
        call.aim(target);
        Ok(Answer(self.begin_call(call, request, true).await?))
    }

    /// Asks, with more of the request's body to come.
    pub async fn stream(&self, request: Request) -> Result<(Sender, Answer), CallError> {
        let body = self.begin(request, false).await?;
        let commands = self.0.commands.clone();
        let sender = Sender::new(Arc::clone(body.call()), commands, Reset::Cancelled);
        Ok((sender, Answer(body)))
    }

    /// Lets the calls under way finish and opens no more.
    pub fn drain(&self) {
        let _ = self.0.commands.send(Command::Drain);
    }

    /// Waits until the connection has ended; says why.
    pub async fn closed(&self) -> Arc<Close> {
        let mut closed = self.0.closed.clone();
        match closed.wait_for(Option::is_some).await {
            Ok(close) => match &*close {
                Some(close) => Arc::clone(close),
                None => Arc::new(Close::Stopped),
            },
            // The task was stopped together with its runtime.
            Err(_) => Arc::new(Close::Stopped),
        }
    }

    async fn begin(&self, request: Request, end: bool) -> Result<Body, CallError> {
        let call = Call::new(0, self.0.send_buffer_bytes);
        self.begin_call(call, request, end).await
    }

    async fn begin_call(
        &self,
        call: Arc<Call>,
        request: Request,
        end: bool,
    ) -> Result<Body, CallError> {
        let permit = match Arc::clone(&self.0.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(tokio::sync::TryAcquireError::Closed) => return Err(CallError::Draining),
            Err(tokio::sync::TryAcquireError::NoPermits) => {
                let _waiting = self.wait()?;
                let permit = Arc::clone(&self.0.permits).acquire_owned();
                let permit = match request.open(self.0.request_timeout).timeout_us {
                    0 => permit.await,
                    us => tokio::time::timeout(Duration::from_micros(us), permit)
                        .await
                        .map_err(|_| CallError::Deadline)?,
                };
                permit.map_err(|_| CallError::Draining)?
            }
        };
        let open = request.open(self.0.request_timeout);
        let command = Command::Open {
            call: Arc::clone(&call),
            open,
            body: request.body,
            end,
            reply_bytes: request.reply_bytes,
            permit,
        };
        let sent = self.0.commands.send(command);
        sent.map_err(|_| CallError::Draining)?;
        Ok(Body::new(call, self.0.commands.clone(), true))
    }

    /// A place among those that wait, if there is one.
    fn wait(&self) -> Result<Waiting<'_>, CallError> {
        let waiting = self.0.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Waiting(&self.0.waiting);
        if waiting >= self.0.waiting_max {
            let peer = self.0.peer.clone();
            return Err(CallError::Busy { peer, waiting });
        }
        Ok(place)
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
