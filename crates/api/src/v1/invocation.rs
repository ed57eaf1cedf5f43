//! Invocations: how they stand and how they ended.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An asynchronous invocation was accepted: it is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// Its id: 32 hexadecimal digits that sort by time.
    pub id: String,
    /// Where it is looked at, on the admin listener.
    pub location: String,
    /// Whether this id was given before, for the same `Idempotency-Key`.
    pub repeated: bool,
}

/// Where an asynchronous invocation is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InvocationState {
    /// Accepted; it waits for a place, or for its next attempt.
    Waiting,
    /// It runs.
    Running,
    /// It ended with a reply.
    Succeeded,
    /// It ended without one, and is not tried again.
    Failed,
    /// It used up its attempts, and is kept to be sent again.
    DeadLetter,
}

impl InvocationState {
    /// Whether it has its outcome.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

/// How a sandbox came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartKind {
    /// Its program had to be loaded first.
    Cold,
    /// A fresh sandbox from an already-initialised image.
    Restored,
    /// A sandbox that keeps what earlier invocations left.
    Reused,
}

impl From<model::StartKind> for StartKind {
    fn from(kind: model::StartKind) -> Self {
        match kind {
            model::StartKind::Cold => Self::Cold,
            model::StartKind::Restored => Self::Restored,
            model::StartKind::Reused => Self::Reused,
        }
    }
}

/// What an invocation used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageView {
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// Billed wall-clock time, in milliseconds.
    pub wall_ms: u64,
    /// Largest linear memory, in bytes.
    pub memory_peak_bytes: u64,
    /// Billed memory × time, in GB-seconds.
    pub gb_s: f64,
    /// Request bytes.
    pub input_bytes: u64,
    /// Reply bytes.
    pub output_bytes: u64,
    /// Captured log bytes.
    pub log_bytes: u64,
}

impl From<&model::Usage> for UsageView {
    fn from(usage: &model::Usage) -> Self {
        Self {
            cpu_us: usage.cpu_us,
            wall_ms: usage.wall_ms,
            memory_peak_bytes: usage.memory_peak_bytes,
            gb_s: usage.gb_s(),
            input_bytes: usage.input_bytes,
            output_bytes: usage.output_bytes,
            log_bytes: usage.log_bytes,
        }
    }
}

/// How an invocation ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OutcomeView {
    /// `ok`, `exit`, `trap`, `error`, `timeout`, `out-of-memory`, `output-limit`, `no-response`,
    /// `cancelled` or `platform`.
    pub status: String,
    /// The same as a sentence.
    pub detail: String,
    /// The guest's exit code, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How its sandbox came to be.
    pub start: StartKind,
    /// What it used.
    pub usage: UsageView,
}

impl From<&model::Outcome> for OutcomeView {
    fn from(outcome: &model::Outcome) -> Self {
        let exit_code = match outcome.status {
            model::Status::Exit { code } => Some(code),
            _ => None,
        };
        Self {
            status: outcome.status.as_str().to_owned(),
            detail: outcome.status.to_string(),
            exit_code,
            start: outcome.start.into(),
            usage: (&outcome.usage).into(),
        }
    }
}

/// An asynchronous invocation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Invocation {
    /// Its id.
    pub id: String,
    /// App.
    pub app: String,
    /// Function.
    pub function: String,
    /// Digest of the version that it runs on.
    pub version: String,
    /// Where it is in its life.
    pub state: InvocationState,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_unix_ms: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried next, in milliseconds since 1970, if it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_unix_ms: Option<u64>,
    /// When it ended, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_unix_ms: Option<u64>,
    /// How it ended, or how its last attempt did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeView>,
    /// What went wrong outside of the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The invocation that a redrive made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redriven_as: Option<String>,
}

/// A page of invocations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Invocations {
    /// The invocations, the latest first.
    pub invocations: Vec<Invocation>,
    /// Pass it as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which dead letters are sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Redrive {
    /// Ids of dead letters.
    pub ids: Vec<String>,
}

/// Which dead letters were sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Redriven {
    /// Their ids.
    pub ids: Vec<String>,
}
