//! Counts of what guests ask.

use metrics::{Counter, counter, describe_counter};
use sandbox::host::Errno;

use crate::TABLE;

/// Calls of guests to the platform, by call and by how they ended.
pub const CALLS: &str = "dunlin_host_calls_total";

/// The counters of one row.
struct Row {
    ok: Counter,
    denied: Counter,
    failed: Counter,
}

/// The counters of the table.
pub(crate) struct Counts(Vec<Row>);

impl Counts {
    pub fn new() -> Self {
        describe_counter!(CALLS, "Calls of guests to the platform");
        let row = |name: &'static str| {
            let of = |result: &'static str| counter!(CALLS, "call" => name, "result" => result);
            Row {
                ok: of("ok"),
                denied: of("denied"),
                failed: of("error"),
            }
        };
        Self(TABLE.iter().map(|call| row(call.name)).collect())
    }

    pub fn count(&self, index: usize, answer: &Result<u64, Errno>) {
        let Some(row) = self.0.get(index) else { return };
        let counter = match answer {
            Ok(_) => &row.ok,
            Err(Errno::Denied) => &row.denied,
            Err(_) => &row.failed,
        };
        counter.increment(1);
    }
}
