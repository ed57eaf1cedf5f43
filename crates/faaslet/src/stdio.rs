//! Where a guest's standard streams go: into its reply, or into its log.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use sandbox::{CallLog, LogStream};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// Bytes that a guest may write at a time.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// The error that ends a guest whose reply passes its limit.
#[derive(Debug, thiserror::Error)]
#[error("the reply passes its limit")]
pub(crate) struct ReplyTooLong;

/// Takes a reply until its limit.
#[derive(Clone, Default)]
pub(crate) struct Reply(Arc<Mutex<ReplyBytes>>);

#[derive(Default)]
struct ReplyBytes {
    bytes: BytesMut,
    bytes_max: u64,
    over: bool,
}

impl Reply {
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Mutex::new(ReplyBytes {
            bytes: BytesMut::new(),
            bytes_max,
            over: false,
        })))
    }

    pub fn write(&self, data: &[u8]) -> Result<(), ReplyTooLong> {
        let mut reply = self.0.lock();
        if (reply.bytes.len() + data.len()) as u64 > reply.bytes_max {
            reply.over = true;
            return Err(ReplyTooLong);
        }
        reply.bytes.extend_from_slice(data);
        Ok(())
    }

    /// Whether a write was refused: what was taken is not the whole reply.
    pub fn is_over(&self) -> bool {
        self.0.lock().over
    }

    pub fn take(&self) -> Bytes {
        std::mem::take(&mut self.0.lock().bytes).freeze()
    }
}

/// Takes log lines, and holds them back while the call may yet be repeated from its start.
#[derive(Clone)]
pub(crate) struct Log(Arc<LogInner>);

struct LogInner {
    log: Arc<CallLog>,
    /// What is held back; None once lines are handed on as they come.
    held: Mutex<Option<Held>>,
}

#[derive(Default)]
struct Held {
    lines: Vec<(LogStream, Bytes)>,
    bytes: usize,
}

impl Log {
    pub fn new(log: Arc<CallLog>, hold: bool) -> Self {
        Self(Arc::new(LogInner {
            log,
            held: Mutex::new(hold.then(Held::default)),
        }))
    }

    pub fn write(&self, stream: LogStream, data: &[u8]) {
        let mut held = self.0.held.lock();
        if let Some(held) = held.as_mut() {
            held.bytes += data.len();
            held.lines.push((stream, Bytes::copy_from_slice(data)));
            return;
        }
        drop(held);
        self.0.log.write(stream, data);
    }

    /// Hands on what was held back, and everything from now on: the call is final.
    pub fn release(&self) {
        for (stream, line) in self.0.held.lock().take().unwrap_or_default().lines {
            self.0.log.write(stream, &line);
        }
    }

    /// Bytes that are held back; None once lines are handed on as they come.
    pub fn held_bytes(&self) -> Option<usize> {
        self.0.held.lock().as_ref().map(|held| held.bytes)
    }
}

/// A standard stream of the guest's.
#[derive(Clone)]
pub(crate) enum Stdio {
    /// Its bytes are the reply.
    Reply(Reply),
    /// Its bytes are log lines.
    Log(LogStream, Log),
}

impl Stdio {
    fn take(&self, data: &[u8]) -> Result<(), ReplyTooLong> {
        match self {
            Stdio::Reply(reply) => reply.write(data),
            Stdio::Log(stream, log) => {
                log.write(*stream, data);
                Ok(())
            }
        }
    }
}

impl IsTerminal for Stdio {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stdio {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Stdio {
    async fn ready(&mut self) {}
}

impl OutputStream for Stdio {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes)
            .map_err(|error| StreamError::Trap(error.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let taken = self.take(data).map(|()| data.len());
        Poll::Ready(taken.map_err(std::io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
