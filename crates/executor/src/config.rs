//! What a node says about its executor.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use model::Outcome;
use sandbox::host::{Host, NoHost};

use crate::Job;

/// Takes the one outcome of each admitted job. Called where the job ended: it must not block.
pub type OnOutcome = Arc<dyn Fn(&Job, &Outcome) + Send + Sync>;

/// The executor's limits and times.
#[derive(Clone)]
pub struct Config {
    /// Invocations that run at once on this node.
    pub node_running_max: u32,
    /// Invocations that wait on this node.
    pub node_queued_max: u32,
    /// Invocations that run at once of one app.
    pub app_running_max: u32,
    /// Invocations that wait of one app.
    pub app_queued_max: u32,
    /// Longest wait in a queue.
    pub queue_wait_max: Duration,
    /// Longest that an uninterruptible guest may hold a worker of the caller's runtime.
    pub inline_budget: Duration,
    /// How far past its deadline a call is given up, should its sandbox not have ended it.
    pub deadline_grace: Duration,
    /// Idle sandboxes on this node, over all versions.
    pub idle_sandboxes_max: usize,
    /// How long a loaded program outlives its last sandbox.
    pub program_keep_alive: Duration,
    /// How often idle things are looked for.
    pub reap_interval: Duration,
    /// Artifacts that are prepared at once.
    pub prepares_max: usize,
    /// Takes the one outcome of each admitted job.
    pub on_outcome: OnOutcome,
    /// Answers what guests ask of the platform.
    pub host: Arc<dyn Host>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_running_max: 1024,
            node_queued_max: 8192,
            app_running_max: 512,
            app_queued_max: 4096,
            queue_wait_max: Duration::from_secs(30),
            inline_budget: Duration::from_millis(1),
            deadline_grace: Duration::from_secs(2),
            idle_sandboxes_max: 4096,
            program_keep_alive: Duration::from_secs(300),
            reap_interval: Duration::from_secs(1),
            prepares_max: 2,
            on_outcome: Arc::new(|_, _| {}),
            host: Arc::new(NoHost),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("node_running_max", &self.node_running_max)
            .field("node_queued_max", &self.node_queued_max)
            .field("app_running_max", &self.app_running_max)
            .field("app_queued_max", &self.app_queued_max)
            .field("queue_wait_max", &self.queue_wait_max)
            .field("inline_budget", &self.inline_budget)
            .field("deadline_grace", &self.deadline_grace)
            .field("idle_sandboxes_max", &self.idle_sandboxes_max)
            .field("program_keep_alive", &self.program_keep_alive)
            .field("reap_interval", &self.reap_interval)
            .field("prepares_max", &self.prepares_max)
            .finish_non_exhaustive()
    }
}
