//! What the invoker refuses, and what can go wrong in it.

use model::{Digest, FunctionPath, InvocationId, LimitsError};
use storage::StorageError;

use crate::{AliasName, InvocationState};

/// A refusal or failure of the invoker; each says what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvokerError {
    /// No such function is deployed.
    #[error("there is no function `{0}`")]
    UnknownFunction(FunctionPath),
    /// The function has no such alias.
    #[error("`{path}` has no alias `{alias}`")]
    UnknownAlias {
        /// The function.
        path: FunctionPath,
        /// What was asked for.
        alias: AliasName,
    },
    /// The function has no such version.
    #[error("`{path}` has no version {version}")]
    UnknownVersion {
        /// The function.
        path: FunctionPath,
        /// What was asked for.
        version: Digest,
    },
    /// A text is not the name of an alias.
    #[error("not the name of an alias")]
    AliasName(#[from] model::NameError),
    /// An alias cannot point so.
    #[error("an alias cannot point so: {0}")]
    AliasTargets(&'static str),
    /// `live` cannot be deleted: a function always has one.
    #[error("the alias `live` of `{0}` cannot be deleted")]
    LiveIsNeeded(FunctionPath),
    /// Two functions cannot have one route.
    #[error("the route `{route}` leads to `{taken_by}` already")]
    RouteTaken {
        /// The route.
        route: String,
        /// The function that has it.
        taken_by: FunctionPath,
    },
    /// The function has as many of these as it may.
    #[error("`{path}` has {max} {what} already")]
    TooMany {
        /// The function.
        path: FunctionPath,
        /// What there are too many of.
        what: &'static str,
        /// The most.
        max: usize,
    },
    /// Nothing was live before what is live now.
    #[error("`{0}` has no earlier live version to go back to")]
    NothingToRollBackTo(FunctionPath),
    /// A limit is out of range.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// Others changed the function again and again meanwhile; try again.
    #[error("`{path}` was changed by others {tries} times in a row")]
    Contended {
        /// The function.
        path: FunctionPath,
        /// How often it was tried.
        tries: u32,
    },
    /// The request's body is over the function's limit.
    #[error("the body has {bytes} bytes: `{path}` takes at most {max}")]
    BodyTooLarge {
        /// The function.
        path: FunctionPath,
        /// The body's size.
        bytes: u64,
        /// The most that is accepted.
        max: u64,
    },
    /// The request's head is over the platform's limit.
    #[error("the request's head has {bytes} bytes: at most {max}")]
    HeadTooLarge {
        /// The head's size.
        bytes: usize,
        /// The most that is accepted.
        max: usize,
    },
    /// An idempotency key is empty or too long.
    #[error("an idempotency key of {bytes} bytes: it must have between 1 and {max}")]
    IdempotencyKeySize {
        /// The key's size.
        bytes: usize,
        /// The most that is accepted.
        max: usize,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request, invocation {id}")]
    IdempotencyConflict {
        /// The invocation that has the key.
        id: InvocationId,
    },
    /// Too many invocations are waiting; try later.
    #[error("{max} invocations are waiting already")]
    Overloaded {
        /// The most.
        max: u64,
    },
    /// This node is no member of its cluster at present; another one can do it.
    #[error("this node is no member of its cluster at present: try another one, or later")]
    NotMember,
    /// Too many invocations that other nodes run are waited for here; try later.
    #[error("{max} invocations that other nodes run are waited for already")]
    TooManyWatches {
        /// The most.
        max: usize,
    },
    /// No such invocation, or its retention is over.
    #[error("there is no invocation {0}, or it is past its retention")]
    UnknownInvocation(InvocationId),
    /// Only dead letters, and failed invocations, are redriven.
    #[error("invocation {id} is {state}: only a dead or failed one can be redriven")]
    NotRedrivable {
        /// The invocation.
        id: InvocationId,
        /// The state that it is in.
        state: InvocationState,
    },
    /// The invocation's request or reply is gone or unreadable.
    #[error("the record `{key}` is unreadable: {reason}")]
    Damaged {
        /// The key or blob.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The node's memory of functions did not follow the store; the change itself is durable.
    #[error("the change was made, but this node has not seen it yet")]
    Behind,
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StorageError),
}

impl InvokerError {
    /// Whether the cause is a full disk.
    pub fn is_full(&self) -> bool {
        matches!(self, InvokerError::Store(error) if error.is_full())
    }

    pub(crate) fn damaged(key: impl Into<String>, reason: impl ToString) -> Self {
        Self::Damaged {
            key: key.into(),
            reason: reason.to_string(),
        }
    }
}
