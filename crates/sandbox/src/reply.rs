//! What a guest replies and logs in one call, on its way out.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::{CallLog, LogStream};

/// The error that ends a guest whose reply passes its limit.
#[derive(Debug, thiserror::Error)]
#[error("the reply passes its limit")]
pub struct ReplyTooLong;

/// Takes a reply until its limit.
#[derive(Clone, Default)]
pub struct Reply(Arc<Mutex<ReplyBytes>>);

#[derive(Default)]
struct ReplyBytes {
    bytes: BytesMut,
    bytes_max: u64,
    over: bool,
}

impl Reply {
    /// A reply of at most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Mutex::new(ReplyBytes {
            bytes: BytesMut::new(),
            bytes_max,
            over: false,
        })))
    }

    /// Adds `data`; none of it if it would pass the limit.
    pub fn write(&self, data: &[u8]) -> Result<(), ReplyTooLong> {
        let mut reply = self.0.lock();
        if (reply.bytes.len() + data.len()) as u64 > reply.bytes_max {
            reply.over = true;
            return Err(ReplyTooLong);
        }
        reply.bytes.extend_from_slice(data);
        Ok(())
    }

    /// Most bytes that it takes.
    pub fn bytes_max(&self) -> u64 {
        self.0.lock().bytes_max
    }

    /// Whether a write was refused: what was taken is not the whole reply.
    pub fn is_over(&self) -> bool {
        self.0.lock().over
    }

    /// What was taken so far; the reply is empty afterwards.
    pub fn take(&self) -> Bytes {
        std::mem::take(&mut self.0.lock().bytes).freeze()
    }
}

/// Takes log lines, and holds them back while the call may yet be repeated from its start.
#[derive(Clone)]
pub struct HeldLog(Arc<LogInner>);

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

impl HeldLog {
    /// Over `log`; holds lines back if asked to.
    pub fn new(log: Arc<CallLog>, hold: bool) -> Self {
        Self(Arc::new(LogInner {
            log,
            held: Mutex::new(hold.then(Held::default)),
        }))
    }

    /// Takes a line.
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
