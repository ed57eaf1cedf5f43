//! What the gateway answers when it cannot answer otherwise: a problem, and how it becomes HTTP.

use api::{Code, PROBLEM_JSON, Problem};
use axum::response::{IntoResponse, Response as AdminResponse};
use bytes::Bytes;
use executor::Rejected;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use model::Status;
use sandbox::{LoadError, PrepareError, SandboxError};
use state::{GlobalError, Quota, StateError};
use storage::StorageError;

use crate::cluster::{NodesError, NotRun};

/// A problem on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) problem: Box<Problem>,
    retry_after_s: Option<u64>,
}

impl Failure {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            problem: Box::new(Problem::new(code, detail)),
            retry_after_s: None,
        }
    }

    pub(crate) fn retry_after(mut self, after: std::time::Duration) -> Self {
        self.retry_after_s = Some(after.as_secs() + u64::from(after.subsec_nanos() > 0));
        self
    }

    /// How long the client is told to wait.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        self.retry_after_s
    }

    pub(crate) fn of_status(status: &Status) -> Self {
        let code = match status {
            Status::Ok | Status::NoResponse { .. } => Code::NoResponse,
            Status::Exit { .. } => Code::FunctionExited,
            Status::Trap { .. } => Code::FunctionTrapped,
            Status::Error { .. } => Code::FunctionError,
            Status::Timeout => Code::FunctionTimeout,
            Status::OutOfMemory => Code::OutOfMemory,
            Status::OutputLimit => Code::OutputLimit,
            Status::Cancelled => Code::Cancelled,
            Status::Platform { .. } => Code::PlatformFailed,
        };
        let mut failure = Self::new(code, status.to_string());
        if let Status::Exit { code } = status {
            failure.problem.exit_code = Some(*code);
        }
        failure
    }

    /// The reply, with a body of whatever type the listener sends.
    pub(crate) fn response<B>(&self, body: impl FnOnce(Bytes) -> B) -> Response<B> {
        let json = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response = Response::new(body(Bytes::from(json)));
        *response.status_mut() =
            StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.problem.code == Code::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(code) = self.problem.exit_code {
            headers.insert("dunlin-exit-code", HeaderValue::from(code));
        }
        response
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> AdminResponse {
        self.response(axum::body::Body::from)
    }
}

/// How long a client is told to wait when the node is at a cap, as of sandboxes.
const FULL_RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// How long a client is told to wait when etcd or the bucket does not answer: an election's time.
const AWAY_RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(3);

impl From<Rejected> for Failure {
    fn from(rejected: Rejected) -> Self {
        let detail = rejected.to_string();
        match rejected {
            Rejected::QueueFull { retry_after, .. } => {
                Self::new(Code::QueueFull, detail).retry_after(retry_after)
            }
            Rejected::Draining => Self::new(Code::Draining, detail),
            Rejected::Load(error) => Self::of_load(&error),
            Rejected::Sandbox(error @ SandboxError::Full { .. }) => {
                Self::new(Code::SandboxesFull, error.to_string()).retry_after(FULL_RETRY_AFTER)
            }
            Rejected::Sandbox(error) => Self::platform(&error),
            Rejected::InputTooLarge { .. } => Self::new(Code::BodyTooLarge, detail),
        }
    }
}

impl From<NotRun> for Failure {
    fn from(not_run: NotRun) -> Self {
        match not_run {
            NotRun::Rejected(rejected) => rejected.into(),
            NotRun::NoNode(why) => Self::new(Code::NoNode, why).retry_after(FULL_RETRY_AFTER),
            lost @ NotRun::Lost { .. } => Self::new(Code::NodeLost, lost.to_string()),
        }
    }
}

impl From<NodesError> for Failure {
    fn from(error: NodesError) -> Self {
        match error {
            NodesError::Unknown(_) => Self::new(Code::NodeNotFound, error.to_string()),
            NodesError::Store(_) => Self::platform(&error),
        }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let detail = error.to_string();
        match error {
            StateError::NotFound => Self::new(Code::StateNotFound, detail),
            StateError::Lost => Self::new(Code::StateLost, detail),
            // Nothing was done, and another node is about to be the owner.
            StateError::Unreached(_) | StateError::Elsewhere => {
                Self::new(Code::StateBusy, detail).retry_after(FULL_RETRY_AFTER)
            }
            StateError::Conflict { .. } => Self::new(Code::Conflict, detail),
            StateError::TooLarge { .. } => Self::new(Code::BodyTooLarge, detail),
            StateError::Outside { .. } | StateError::Ttl { .. } => {
                Self::new(Code::BadRequest, detail)
            }
            StateError::Full {
                quota: Quota::Watchers | Quota::LockWaiters,
                ..
            }
            | StateError::Global(GlobalError::Busy | GlobalError::Conflict { .. }) => {
                Self::new(Code::StateBusy, detail).retry_after(FULL_RETRY_AFTER)
            }
            StateError::Full { .. } => Self::new(Code::StateFull, detail),
            StateError::Global(GlobalError::Store(error)) => Self::of_storage(&error),
            error => Self::platform(&error),
        }
    }
}

impl Failure {
    fn of_load(error: &LoadError) -> Self {
        match error {
            LoadError::Prepare(error) => Self::of_prepare(error),
            LoadError::Artifact { .. } => Self::platform(error),
        }
    }

    pub(crate) fn of_prepare(error: &PrepareError) -> Self {
        let code = match error {
            PrepareError::NotWasm { .. } => Code::NotWasm,
            PrepareError::NotExecutable { .. } => Code::NotExecutable,
            PrepareError::NoMicroVms { .. } => Code::NoMicroVms,
            PrepareError::Invalid { .. } => Code::InvalidWasm,
            PrepareError::WrongKind { .. } => Code::WrongKind,
            PrepareError::Unsupported { .. } => Code::InvalidSettings,
            PrepareError::UnknownImports { .. } => Code::UnknownImports,
            PrepareError::Init { .. } => Code::InitFailed,
            PrepareError::TooLarge { .. } => Code::ArtifactTooLarge,
            PrepareError::DiskFull => Code::StorageFull,
            PrepareError::Platform { .. } => return Self::platform(error),
        };
        let mut failure = Self::new(code, error.to_string());
        if let PrepareError::UnknownImports { names } = error {
            failure.problem.imports.clone_from(names);
        }
        failure
    }

    /// A fault of the node's own: the log has the causes, the client the first sentence.
    pub(crate) fn platform(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a request failed by a fault of the node");
        Self::new(Code::PlatformFailed, error.to_string())
    }

    pub(crate) fn of_storage(error: &StorageError) -> Self {
        match error {
            StorageError::Unavailable { .. } | StorageError::Unanswered { .. } => {
                tracing::warn!(
                    error = error as &(dyn std::error::Error + 'static),
                    "storage is away"
                );
                let failure = Self::new(Code::StoreUnavailable, error.to_string());
                failure.retry_after(AWAY_RETRY_AFTER)
            }
            error if error.is_full() => Self::new(Code::StorageFull, error.to_string()),
            error => Self::platform(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_store_that_does_not_answer_is_no_fault_of_the_node() {
        let source: Arc<dyn std::error::Error + Send + Sync> =
            Arc::new(std::io::Error::other("refused"));
        let doing = "a transaction";
        for error in [
            StorageError::Unavailable {
                doing,
                source: source.clone(),
            },
            StorageError::Unanswered { doing, source },
        ] {
            let failure = Failure::of_storage(&error);
            assert_eq!(failure.problem.code, Code::StoreUnavailable);
            assert_eq!(failure.problem.status, 503);
            assert_eq!(failure.retry_after_s(), Some(3));
        }
        let failure = Failure::of_storage(&StorageError::Closed);
        assert_eq!(failure.problem.code, Code::PlatformFailed);
    }

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let rejected = Rejected::QueueFull {
            scope: executor::Scope::Function,
            retry_after: Duration::from_millis(1200),
        };
        let response = Failure::from(rejected).response(|bytes| bytes);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
    }

    #[test]
    fn every_status_has_a_problem() {
        let check = |status: Status, code: u16| {
            let failure = Failure::of_status(&status);
            assert_eq!(failure.problem.status, code, "{status}");
        };
        check(Status::Exit { code: 3 }, 500);
        check(Status::Timeout, 504);
        check(Status::OutOfMemory, 500);
        check(Status::OutputLimit, 502);
        check(Status::Cancelled, 409);
    }

    #[test]
    fn refused_imports_are_listed() {
        let names = vec!["env.fork".to_owned(), "env.exec".to_owned()];
        let error = PrepareError::UnknownImports {
            names: names.clone(),
        };
        assert_eq!(Failure::of_prepare(&error).problem.imports, names);
    }
}
