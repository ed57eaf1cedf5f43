//! The last lines of one function. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::LogRecord;

/// Bytes that a record counts beside its text.
const RECORD_BYTES: usize = 128;

/// The most recent records, bounded in count and in bytes.
#[derive(Debug)]
pub(crate) struct Ring {
    records: VecDeque<Arc<LogRecord>>,
    bytes: usize,
    records_max: usize,
    bytes_max: usize,
}

fn size(record: &LogRecord) -> usize {
    RECORD_BYTES + record.text.len()
}

impl Ring {
    pub(crate) fn new(records_max: usize, bytes_max: usize) -> Self {
        Self {
            records: VecDeque::new(),
            bytes: 0,
            records_max,
            bytes_max,
        }
    }

    /// Keeps `record`; the oldest make room for it.
    pub(crate) fn push(&mut self, record: Arc<LogRecord>) {
        self.bytes += size(&record);
        self.records.push_back(record);
        while self.records.len() > self.records_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.records.pop_front() else {
                return;
            };
            self.bytes -= size(&oldest);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.records = VecDeque::new();
        self.bytes = 0;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Order of the newest record.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.records.back().map(|record| record.order)
    }

    /// Records from the newest to the oldest.
    pub(crate) fn backwards(&self) -> impl Iterator<Item = &Arc<LogRecord>> {
        self.records.iter().rev()
    }
}
