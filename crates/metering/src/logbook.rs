//! The logs of all functions of a node: rings in memory, and followers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::Stream;
use metrics::{Counter, counter};
use model::{FunctionPath, InvocationId};
use parking_lot::{Mutex, RwLock};
use sandbox::{LogSink, LogStream};
use tokio::sync::broadcast;

use crate::follow::{LogFilter, LogItem, follow};
use crate::metrics::LOG_LINES_TOTAL;
use crate::ring::Ring;

/// Most records that one look back gives.
const TAIL_MAX: usize = 10_000;

/// The log book's limits.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Records kept of a function.
    pub records_max: usize,
    /// Bytes kept of a function.
    pub bytes_max: usize,
    /// Bytes kept of all functions; the function that has been silent for longest is dropped.
    pub node_bytes_max: usize,
    /// Longest line; what is longer becomes several records.
    pub line_bytes_max: usize,
    /// Half lines kept of a function; past it, what a write brings is a record at once.
    pub half_lines_max: usize,
    /// Records that a follower may be behind before it is told that it lags.
    pub follow_max: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            records_max: 4096,
            bytes_max: 1 << 20,
            node_bytes_max: 64 << 20,
            line_bytes_max: 16 << 10,
            half_lines_max: 1024,
            follow_max: 4096,
        }
    }
}

/// One line that a guest printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Its place among all records of the node.
    pub order: u64,
    /// When its line ended, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The function.
    pub path: FunctionPath,
    /// The invocation.
    pub invocation: InvocationId,
    /// Where it was printed.
    pub stream: LogStream,
    /// The line, without its end; bytes that are no UTF-8 are replaced. It may hold control
    /// characters: who shows it on a terminal escapes them.
    pub text: String,
}

/// The logs of a node. Cheap to clone.
#[derive(Clone)]
pub struct LogBook(Arc<Book>);

struct Book {
    config: LogConfig,
    functions: RwLock<HashMap<FunctionPath, Arc<FunctionLog>>>,
    order: AtomicU64,
    bytes: AtomicUsize,
    followers: broadcast::Sender<Arc<LogRecord>>,
}

/// The log of one function: the sink of its invocations.
pub struct FunctionLog {
    path: FunctionPath,
    book: Arc<Book>,
    lines: Counter,
    /// How many half lines there are, so that most ends of invocations need no lock.
    half_lines: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    ring: Ring,
    half_lines: HashMap<(InvocationId, LogStream), Vec<u8>>,
}

impl fmt::Debug for LogBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogBook").finish_non_exhaustive()
    }
}

impl LogBook {
    /// A log book without a line.
    pub fn new(config: LogConfig) -> Self {
        let (followers, _) = broadcast::channel(config.follow_max.max(1));
        Self(Arc::new(Book {
            config,
            functions: RwLock::new(HashMap::new()),
            order: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            followers,
        }))
    }

    /// The log of a function: the sink to give to its jobs.
    pub fn function(&self, path: &FunctionPath) -> Arc<FunctionLog> {
        if let Some(log) = self.0.functions.read().get(path) {
            return log.clone();
        }
        let mut functions = self.0.functions.write();
        let new = || Arc::new(FunctionLog::new(path.clone(), self.0.clone()));
        functions.entry(path.clone()).or_insert_with(new).clone()
    }

    /// An invocation has ended: what it left of a line becomes a record.
    pub fn finish(&self, path: &FunctionPath, id: InvocationId) {
        let log = self.0.functions.read().get(path).cloned();
        if let Some(log) = log {
            log.finish(id);
        }
    }

    /// Drops the log of a function that is gone.
    pub fn forget(&self, path: &FunctionPath) {
        if let Some(log) = self.0.functions.write().remove(path) {
            log.clear();
        }
    }

    /// The last `count` records that pass `filter`, oldest first.
    pub fn tail(&self, filter: &LogFilter, count: usize) -> Vec<Arc<LogRecord>> {
        let count = count.min(TAIL_MAX);
        let functions: Vec<_> = self.0.functions.read().values().cloned().collect();
        let mut records = Vec::new();
        for log in functions
            .iter()
            .filter(|log| filter.takes_function(&log.path))
        {
            let state = log.state.lock();
            let newest = state.ring.backwards().filter(|record| filter.takes(record));
            records.extend(newest.take(count).cloned());
        }
        records.sort_by_key(|record| record.order);
        records.split_off(records.len().saturating_sub(count))
    }

    /// The last `count` records that pass `filter`, and each new one. None is missed or given
    /// twice, but those that a lagging reader is told of.
    pub fn follow(
        &self,
        filter: LogFilter,
        count: usize,
    ) -> (
        Vec<Arc<LogRecord>>,
        impl Stream<Item = LogItem> + Send + use<>,
    ) {
        // First the new ones, then the old: what falls between is in both, and is given once.
        let new = self.0.followers.subscribe();
        let old = self.tail(&filter, count);
        let new = follow(&old, new, filter);
        (old, new)
    }
}

impl FunctionLog {
    fn new(path: FunctionPath, book: Arc<Book>) -> Self {
        let config = &book.config;
        let state = State {
            ring: Ring::new(config.records_max, config.bytes_max),
            half_lines: HashMap::new(),
        };
        let labels = [
            ("app", path.app.as_str().to_owned()),
            ("function", path.function.as_str().to_owned()),
        ];
        Self {
            lines: counter!(LOG_LINES_TOTAL, &labels),
            half_lines: AtomicUsize::new(0),
            state: Mutex::new(state),
            path,
            book,
        }
    }

    /// An invocation has ended: what it left of a line becomes a record.
    pub fn finish(&self, id: InvocationId) {
        if self.half_lines.load(Ordering::Acquire) == 0 {
            return;
        }
        let streams = [
            LogStream::Stdout,
            LogStream::Stderr,
            LogStream::Log(0),
            LogStream::Log(1),
            LogStream::Log(2),
            LogStream::Log(3),
        ];
        let mut state = self.state.lock();
        for stream in streams {
            if let Some(line) = state.half_lines.remove(&(id, stream)) {
                self.record(&mut state, id, stream, &line);
            }
        }
        self.half_lines
            .store(state.half_lines.len(), Ordering::Release);
    }

    fn clear(&self) {
        let mut state = self.state.lock();
        self.book
            .bytes
            .fetch_sub(state.ring.bytes(), Ordering::Relaxed);
        state.ring.clear();
    }

    /// Under the lock, so that followers see a function's records in their order.
    fn record(&self, state: &mut State, id: InvocationId, stream: LogStream, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let record = Arc::new(LogRecord {
            order: self.book.order.fetch_add(1, Ordering::Relaxed),
            unix_ms: now.map_or(0, |now| now.as_millis() as u64),
            path: self.path.clone(),
            invocation: id,
            stream,
            text: String::from_utf8_lossy(line).into_owned(),
        });
        let before = state.ring.bytes();
        state.ring.push(record.clone());
        let after = state.ring.bytes();
        if after >= before {
            self.book.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.book.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
        self.lines.increment(1);
        if self.book.followers.receiver_count() > 0 {
            // It fails only when the last follower has just left.
            let _ = self.book.followers.send(record);
        }
    }

    fn take(&self, state: &mut State, id: InvocationId, stream: LogStream, bytes: &[u8]) {
        let config = &self.book.config;
        let line_bytes_max = config.line_bytes_max.max(1);
        let half = state.half_lines.remove(&(id, stream));
        let joined;
        let mut rest = match half {
            Some(mut half) => {
                half.extend_from_slice(bytes);
                joined = half;
                joined.as_slice()
            }
            None => bytes,
        };
        while !rest.is_empty() {
            let window = &rest[..rest.len().min(line_bytes_max)];
            match window.iter().position(|&byte| byte == b'\n') {
                Some(end) => {
                    self.record(state, id, stream, &rest[..end]);
                    rest = &rest[end + 1..];
                }
                None if rest.len() >= line_bytes_max => {
                    self.record(state, id, stream, window);
                    rest = &rest[line_bytes_max..];
                }
                None if state.half_lines.len() >= config.half_lines_max => {
                    self.record(state, id, stream, rest);
                    return;
                }
                None => {
                    state.half_lines.insert((id, stream), rest.to_vec());
                    return;
                }
            }
        }
    }
}

impl LogSink for FunctionLog {
    fn write(&self, id: InvocationId, stream: LogStream, bytes: &[u8]) {
        let mut state = self.state.lock();
        self.take(&mut state, id, stream, bytes);
        self.half_lines
            .store(state.half_lines.len(), Ordering::Release);
        drop(state);
        if self.book.bytes.load(Ordering::Relaxed) > self.book.config.node_bytes_max {
            self.book.relieve();
        }
    }
}

impl Book {
    /// Drops the records of the function that has been silent for longest.
    fn relieve(&self) {
        let functions = self.functions.read();
        let newest = |log: &&Arc<FunctionLog>| log.state.lock().ring.newest();
        let silent = functions
            .values()
            .filter_map(|log| Some((newest(&log)?, log)));
        if let Some((_, log)) = silent.min_by_key(|(newest, _)| *newest) {
            log.clear();
        }
    }
}

#[cfg(test)]
#[path = "logbook_tests.rs"]
mod tests;
