//! The way to a node: a runtime, a client, and failures in words that say what to do.

use std::future::Future;

use api::{Code, Problem};
use client::{Client, ClientError, Config};

use crate::args::Node;
use crate::exit::{Exit, Failure, Outcome};

/// Runs `work` with a client of `node`, on a runtime of its own.
pub fn with<F>(node: &Node, work: impl FnOnce(Client) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let mut config = Config::new(&node.admin);
    config.token = node.token.clone().filter(|token| !token.is_empty());
    let client = Client::new(&config)?;
    block_on(work(client))
}

/// Runs `work` to its end on this thread.
pub fn block_on<F: Future<Output = Outcome>>(work: F) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(Failure::caused(Exit::Failure, error)),
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let (exit, next) = match &error {
            ClientError::Address { .. } => (Exit::Usage, "set --admin or DUNLIN_ADMIN"),
            ClientError::Unsendable { .. } => (Exit::Usage, "correct it and try again"),
            ClientError::Unreachable { .. } => (
                Exit::Unreachable,
                "start a node with `dunlin up`, or point --admin or DUNLIN_ADMIN at one",
            ),
            ClientError::Silent { .. } => (
                Exit::TimedOut,
                "look at the node's log, and at `dunlin doctor`",
            ),
            ClientError::Protocol { .. } => (
                Exit::Failure,
                "`dunlin doctor` tells whether that is a node's admin listener",
            ),
            ClientError::Broken { .. } => (
                Exit::Unreachable,
                "see whether the node still runs, and try again",
            ),
            ClientError::Problem(problem) => {
                let failure = Self::new(exit_of(problem.code), told(problem));
                return failure.next(next_of(problem));
            }
        };
        Self::caused(exit, error).next(next)
    }
}

/// The problem's own words. What is said in `next` is not said here.
fn told(problem: &Problem) -> String {
    if problem.detail.is_empty() {
        problem.title.clone()
    } else {
        problem.detail.clone()
    }
}

/// The exit code of a problem, by what the caller should do about it.
pub fn exit_of(code: Code) -> Exit {
    match code {
        Code::RouteNotFound
        | Code::AppNotFound
        | Code::FunctionNotFound
        | Code::VersionNotFound
        | Code::AliasNotFound
        | Code::ArtifactNotFound
        | Code::InvocationNotFound
        | Code::StateNotFound
        | Code::NodeNotFound
        | Code::DecisionNotFound
        | Code::StateLost
        | Code::TokenNotFound => Exit::NotFound,
        Code::FunctionTrapped
        | Code::FunctionExited
        | Code::NoResponse
        | Code::OutOfMemory
        | Code::OutputLimit => Exit::FunctionFailed,
        Code::FunctionTimeout | Code::RequestTimeout => Exit::TimedOut,
        Code::QueueFull
        | Code::Draining
        | Code::SandboxesFull
        | Code::NoNode
        | Code::StoreUnavailable
        | Code::StateBusy
        | Code::StateFull
        | Code::StorageFull => Exit::Busy,
        Code::PlatformFailed | Code::NodeLost => Exit::Failure,
        _ => Exit::Refused,
    }
}

fn next_of(problem: &Problem) -> String {
    match problem.code {
        Code::Unauthorized => {
            "pass a token with --token or DUNLIN_TOKEN; `dunlin token create` makes one".into()
        }
        Code::AppNotFound | Code::FunctionNotFound => {
            "`dunlin functions` lists what is deployed".into()
        }
        Code::VersionNotFound => "`dunlin versions APP/FUNCTION` lists the versions".into(),
        Code::AliasNotFound => "`dunlin alias list APP/FUNCTION` lists the aliases".into(),
        Code::InvocationNotFound | Code::NotADeadLetter => {
            "`dunlin invocations list` shows what is kept".into()
        }
        Code::NodeNotFound | Code::NoNode => "`dunlin nodes` shows the nodes".into(),
        Code::TokenNotFound => "`dunlin token list` shows the tokens".into(),
        Code::StateNotFound => "`dunlin state ls APP` lists the keys that have values".into(),
        Code::StateLost => "`dunlin state put APP KEY VALUE` makes it anew".into(),
        Code::PreconditionFailed => "read the value again, and decide anew".into(),
        Code::StateFull => "`dunlin state rm APP KEY` removes what is not needed".into(),
        Code::StoreUnavailable => "look at etcd and at the bucket; then try again".into(),
        Code::QueueFull | Code::Draining | Code::SandboxesFull | Code::StateBusy => {
            "try again in a moment".into()
        }
        Code::FunctionTrapped
        | Code::FunctionExited
        | Code::NoResponse
        | Code::OutOfMemory
        | Code::OutputLimit
        | Code::FunctionTimeout => match &problem.invocation {
            Some(id) => format!("`dunlin logs --invocation {id}` shows what it printed"),
            None => "`dunlin logs APP/FUNCTION` shows what it printed".into(),
        },
        Code::PlatformFailed => "look at the node's log, and at `dunlin doctor`".into(),
        code => format!("docs/errors/{code}.md says what to do"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_an_exit_code_and_a_next_step() {
        for code in Code::ALL {
            let problem = Problem::new(*code, "detail");
            let failure = Failure::from(ClientError::Problem(Box::new(problem)));
            assert_ne!(failure.exit, Exit::Ok, "{code}");
            let text = failure.to_string();
            assert!(text.starts_with("detail\nnext: "), "{text}");
        }
    }

    #[test]
    fn problems_of_each_family_end_alike() {
        let cases = [
            (Code::FunctionNotFound, Exit::NotFound),
            (Code::UnknownImports, Exit::Refused),
            (Code::Unauthorized, Exit::Refused),
            (Code::FunctionTrapped, Exit::FunctionFailed),
            (Code::FunctionTimeout, Exit::TimedOut),
            (Code::QueueFull, Exit::Busy),
            (Code::StateNotFound, Exit::NotFound),
            (Code::PreconditionFailed, Exit::Refused),
            (Code::StateFull, Exit::Busy),
            (Code::PlatformFailed, Exit::Failure),
        ];
        for (code, exit) in cases {
            assert_eq!(exit_of(code), exit, "{code}");
        }
    }
}
