//! The executor's metrics: names, and the handles that each pool keeps.
//!
//! Handles are taken from the recorder once, when a pool is made: the node installs its recorder
//! before it makes an executor.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram};
use model::{Digest, FunctionPath, Outcome, StartKind, Status};

/// Invocations that ended, by app, function, version, start and status.
pub const INVOCATIONS_TOTAL: &str = "dunlin_invocations_total";
/// Wall-clock seconds of invocations, by app and function.
pub const INVOCATION_SECONDS: &str = "dunlin_invocation_duration_seconds";
/// Processor seconds of invocations, by app and function.
pub const INVOCATION_CPU_SECONDS: &str = "dunlin_invocation_cpu_seconds";
/// Invocations that were not run, by app, function and reason.
pub const REJECTED_TOTAL: &str = "dunlin_invocations_rejected_total";
/// Inline calls that went over their budget and were repeated, by app and function.
pub const OVER_BUDGET_TOTAL: &str = "dunlin_invocations_over_budget_total";
/// Sandboxes that were given up after an error, by app and function.
pub const RETIRED_TOTAL: &str = "dunlin_sandboxes_retired_total";
/// Programs that were loaded, by app and function.
pub const LOADS_TOTAL: &str = "dunlin_program_loads_total";
/// Invocations that run, on the whole node.
pub const RUNNING: &str = "dunlin_invocations_running";
/// Invocations that wait for a place, on the whole node.
pub const QUEUED: &str = "dunlin_invocations_queued";
/// Idle sandboxes, on the whole node.
pub const IDLE: &str = "dunlin_sandboxes_idle";

/// Tells the recorder what each metric means.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(INVOCATIONS_TOTAL, "Invocations that ended.");
    describe_histogram!(INVOCATION_SECONDS, Unit::Seconds, "Wall-clock time.");
    describe_histogram!(INVOCATION_CPU_SECONDS, Unit::Seconds, "Processor time.");
    describe_counter!(REJECTED_TOTAL, "Invocations that were not run.");
    describe_counter!(OVER_BUDGET_TOTAL, "Inline calls that were repeated.");
    describe_counter!(RETIRED_TOTAL, "Sandboxes given up after an error.");
    describe_counter!(LOADS_TOTAL, "Programs that were loaded.");
    describe_gauge!(RUNNING, "Invocations that run.");
    describe_gauge!(QUEUED, "Invocations that wait for a place.");
    describe_gauge!(IDLE, "Idle sandboxes.");
}

const STATUSES: usize = 10;

const fn index(status: &Status) -> usize {
    match status {
        Status::Ok => 0,
        Status::Exit { .. } => 1,
        Status::Trap { .. } => 2,
        Status::Timeout => 3,
        Status::OutOfMemory => 4,
        Status::OutputLimit => 5,
        Status::NoResponse { .. } => 6,
        Status::Cancelled => 7,
        Status::Platform { .. } => 8,
        Status::Error { .. } => 9,
    }
}

/// The handles of one pool.
pub(crate) struct PoolMetrics {
    version: Label,
    function: Vec<Label>,
    ended: [[OnceLock<Counter>; STATUSES]; StartKind::ALL.len()],
    wall: Histogram,
    cpu: Histogram,
    pub over_budget: Counter,
    pub retired: Counter,
    pub loads: Counter,
}

impl PoolMetrics {
    pub(crate) fn new(path: &FunctionPath, version: &Digest) -> Self {
        let function = vec![
            Label::new("app", path.app.as_str().to_owned()),
            Label::new("function", path.function.as_str().to_owned()),
        ];
        Self {
            version: Label::new("version", version.short()),
            wall: histogram!(INVOCATION_SECONDS, function.clone()),
            cpu: histogram!(INVOCATION_CPU_SECONDS, function.clone()),
            over_budget: counter!(OVER_BUDGET_TOTAL, function.clone()),
            retired: counter!(RETIRED_TOTAL, function.clone()),
            loads: counter!(LOADS_TOTAL, function.clone()),
            ended: Default::default(),
            function,
        }
    }

    pub(crate) fn ended(&self, outcome: &Outcome, wall: Duration) {
        let counter = &self.ended[outcome.start as usize][index(&outcome.status)];
        let register = || {
            let mut labels = self.function.clone();
            labels.push(self.version.clone());
            labels.push(Label::from_static_parts("start", outcome.start.as_str()));
            labels.push(Label::from_static_parts("status", outcome.status.as_str()));
            counter!(INVOCATIONS_TOTAL, labels)
        };
        counter.get_or_init(register).increment(1);
        self.wall.record(wall.as_secs_f64());
        self.cpu.record(outcome.usage.cpu_us as f64 / 1e6);
    }

    pub(crate) fn rejected(&self, reason: &'static str) {
        let mut labels = self.function.clone();
        labels.push(Label::from_static_parts("reason", reason));
        counter!(REJECTED_TOTAL, labels).increment(1);
    }
}

/// The handles of the node.
pub(crate) struct NodeMetrics {
    pub running: Gauge,
    pub queued: Gauge,
    pub idle: Gauge,
}

impl NodeMetrics {
    pub(crate) fn new() -> Self {
        describe();
        Self {
            running: gauge!(RUNNING),
            queued: gauge!(QUEUED),
            idle: gauge!(IDLE),
        }
    }
}
