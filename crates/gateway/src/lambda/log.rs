//! The end of an invocation's log, as Lambda's clients ask for it.

use metering::{LogBook, LogFilter};
use model::{FunctionPath, InvocationId, Outcome};

/// Bytes of the log that a client gets.
const BYTES_MAX: usize = 4096;
/// Lines that may be in so many bytes.
const LINES_MAX: usize = BYTES_MAX;

/// The last bytes of what an invocation said, between the lines that Lambda adds.
pub(super) fn tail(
    logs: &LogBook,
    path: &FunctionPath,
    id: InvocationId,
    outcome: &Outcome,
) -> String {
    logs.finish(path, id);
    let filter = LogFilter {
        app: Some(path.app.clone()),
        function: Some(path.function.clone()),
        invocation: Some(id),
    };
    let mut text = format!("START RequestId: {id} Version: $LATEST\n");
    for record in logs.tail(&filter, LINES_MAX) {
        text.push_str(&record.text);
        text.push('\n');
    }
    let usage = &outcome.usage;
    let (wall_ms, used_mb) = (usage.wall_ms, usage.memory_peak_bytes.div_ceil(1 << 20));
    text.push_str(&format!("END RequestId: {id}\n"));
    text.push_str(&format!(
        "REPORT RequestId: {id}\tDuration: {:.2} ms\tBilled Duration: {wall_ms} ms\t\
         Max Memory Used: {used_mb} MB\n",
        usage.cpu_us.max(wall_ms.saturating_mul(1000)) as f64 / 1000.0,
    ));
    let from = text.len().saturating_sub(BYTES_MAX);
    text.split_off(text.ceil_char_boundary(from))
}
