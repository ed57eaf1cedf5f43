//! What guests print: captured per invocation, bounded, and handed on as it comes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::InvocationId;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// The guest's standard output, where it is not the reply.
    Stdout,
    /// The guest's standard error.
    Stderr,
    /// The `log_write` host call, with its level: 0 error, 1 warn, 2 info, 3 debug.
    Log(u8),
}

/// Takes what guests print.
pub trait LogSink: Send + Sync {
    /// `bytes` that invocation `id` printed. Called on the guest's thread: it must not block.
    fn write(&self, id: InvocationId, stream: LogStream, bytes: &[u8]);
}

/// The log of one call: hands what the guest prints to a sink until its limit is reached.
pub struct CallLog {
    id: InvocationId,
    sink: Arc<dyn LogSink>,
    bytes_max: u64,
    offered: AtomicU64,
}

impl CallLog {
    /// A log for `id` that lets `bytes_max` bytes through.
    pub fn new(id: InvocationId, sink: Arc<dyn LogSink>, bytes_max: u64) -> Self {
        Self {
            id,
            sink,
            bytes_max,
            offered: AtomicU64::new(0),
        }
    }

    /// Hands `bytes` on, cut at the limit.
    pub fn write(&self, stream: LogStream, bytes: &[u8]) {
        let before = self
            .offered
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let left = usize::try_from(self.bytes_max.saturating_sub(before)).unwrap_or(usize::MAX);
        let kept = &bytes[..bytes.len().min(left)];
        if !kept.is_empty() {
            self.sink.write(self.id, stream, kept);
        }
    }

    /// Bytes that were handed on.
    pub fn written(&self) -> u64 {
        self.offered.load(Ordering::Relaxed).min(self.bytes_max)
    }

    /// Bytes that were over the limit.
    pub fn dropped(&self) -> u64 {
        self.offered
            .load(Ordering::Relaxed)
            .saturating_sub(self.bytes_max)
    }
}

impl fmt::Debug for CallLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallLog")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[derive(Default)]
    struct Kept(Mutex<Vec<u8>>);

    impl LogSink for Kept {
        fn write(&self, _: InvocationId, _: LogStream, bytes: &[u8]) {
            self.0.lock().extend_from_slice(bytes);
        }
    }

    #[test]
    fn what_passes_the_limit_is_dropped_and_counted() {
        let kept = Arc::new(Kept::default());
        let log = CallLog::new(InvocationId::new(0), kept.clone(), 5);
        log.write(LogStream::Stdout, b"abc");
        log.write(LogStream::Stderr, b"defg");
        assert_eq!(*kept.0.lock(), b"abcde");
        assert_eq!((log.written(), log.dropped()), (5, 2));
    }
}
