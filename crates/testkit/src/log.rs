//! Log sinks for tests.

use model::InvocationId;
use parking_lot::Mutex;
use sandbox::{LogSink, LogStream};

/// Keeps what guests print.
#[derive(Debug, Default)]
pub struct KeptLog(Mutex<Vec<(InvocationId, LogStream, Vec<u8>)>>);

impl KeptLog {
    /// Everything that was printed, in order.
    pub fn entries(&self) -> Vec<(InvocationId, LogStream, Vec<u8>)> {
        self.0.lock().clone()
    }

    /// How many bytes were printed.
    pub fn bytes(&self) -> usize {
        self.0.lock().iter().map(|(_, _, bytes)| bytes.len()).sum()
    }
}

impl LogSink for KeptLog {
    fn write(&self, id: InvocationId, stream: LogStream, bytes: &[u8]) {
        self.0.lock().push((id, stream, bytes.to_vec()));
    }
}

/// Drops what guests print.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLog;

impl LogSink for NoLog {
    fn write(&self, _: InvocationId, _: LogStream, _: &[u8]) {}
}
