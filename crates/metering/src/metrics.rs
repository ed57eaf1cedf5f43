//! The names of metering's metrics.

/// Log lines that were captured.
pub const LOG_LINES_TOTAL: &str = "dunlin_log_lines_total";
/// Usage totals that were written to the store.
pub const USAGE_WRITES_TOTAL: &str = "dunlin_usage_writes_total";
/// Flushes of usage that failed.
pub const USAGE_FLUSH_FAILURES_TOTAL: &str = "dunlin_usage_flush_failures_total";
/// Invocations that were left out of their graphs, as there were too many.
pub const GRAPH_NODES_LEFT_OUT_TOTAL: &str = "dunlin_graph_nodes_left_out_total";
/// Graphs that made room for others.
pub const GRAPHS_DROPPED_TOTAL: &str = "dunlin_graphs_dropped_total";

/// Tells the recorder what each metric means.
pub fn describe() {
    use metrics::describe_counter;
    describe_counter!(LOG_LINES_TOTAL, "Log lines that were captured.");
    describe_counter!(USAGE_WRITES_TOTAL, "Usage totals written to the store.");
    describe_counter!(USAGE_FLUSH_FAILURES_TOTAL, "Flushes of usage that failed.");
    describe_counter!(
        GRAPH_NODES_LEFT_OUT_TOTAL,
        "Invocations left out of their graphs."
    );
    describe_counter!(GRAPHS_DROPPED_TOTAL, "Graphs that made room for others.");
}
