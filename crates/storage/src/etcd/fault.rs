//! What a member's failure means: whether to ask another one, and what the caller is told.

use std::sync::Arc;

use tonic::{Code, ConnectError, Status};

use crate::StorageError;
use crate::error::Cause;

/// A request that got no answer that counts.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The member did not begin: it is dead, has no leader, or is full of work.
    NotTaken(Cause),
    /// The member may have done it.
    Unanswered(Cause),
    /// The token that said who we are no longer holds; nothing was done.
    TokenStale(Cause),
    /// No member will do it.
    Refused(Cause),
    /// There is no such lease.
    LeaseNotFound,
    /// The database has no space; nothing was done.
    Full(Cause),
    /// The revision that was asked for is forgotten.
    Compacted,
    /// The answer is larger than we read.
    TooLarge(Cause),
}

impl Fault {
    /// By status, and where that says too little by etcd's message, which is part of its API.
    pub fn of(status: Status) -> Self {
        let (code, text) = (status.code(), status.message().to_owned());
        let is_connect = came_from_connecting(&status);
        let has = |part: &str| text.contains(part);
        let cause: Cause = Arc::new(status);
        match code {
            _ if is_connect => Fault::NotTaken(cause),
            Code::Unavailable if has("no leader") || has("not capable") => Fault::NotTaken(cause),
            Code::ResourceExhausted if has("too many requests") => Fault::NotTaken(cause),
            Code::ResourceExhausted if has("space exceeded") => Fault::Full(cause),
            Code::NotFound if has("lease not found") => Fault::LeaseNotFound,
            Code::OutOfRange if has("compacted") => Fault::Compacted,
            Code::OutOfRange if has("message length too large") => Fault::TooLarge(cause),
            Code::Unauthenticated => Fault::TokenStale(cause),
            Code::InvalidArgument if has("auth store is old") => Fault::TokenStale(cause),
            // A member that is catching up.
            Code::FailedPrecondition if has("learner") => Fault::NotTaken(cause),
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::ResourceExhausted
            | Code::NotFound => Fault::Refused(cause),
            _ => Fault::Unanswered(cause),
        }
    }

    /// What a caller is told.
    pub fn told(self, doing: &'static str) -> StorageError {
        match self {
            Fault::NotTaken(source) | Fault::TokenStale(source) => {
                StorageError::Unavailable { doing, source }
            }
            Fault::Unanswered(source) => StorageError::Unanswered { doing, source },
            Fault::Refused(source) => StorageError::Refused { doing, source },
            Fault::Full(source) => StorageError::Full { doing, source },
            Fault::TooLarge(source) => StorageError::Io { doing, source },
            // Only asked of where these are answers, and looked at before.
            fault @ (Fault::LeaseNotFound | Fault::Compacted) => StorageError::Refused {
                doing,
                source: Arc::new(Told(format!("{fault:?}"))),
            },
        }
    }
}

/// A cause of our own.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Told(pub String);

/// Whether nothing was sent, since there was no connection.
fn came_from_connecting(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        if error.is::<ConnectError>() {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_to_do() {
        let check = |code: Code, text: &str, expected: fn(&Fault) -> bool| {
            let fault = Fault::of(Status::new(code, text));
            assert!(expected(&fault), "{code:?} {text}: {fault:?}");
        };
        let unanswered = |fault: &Fault| matches!(fault, Fault::Unanswered(_));
        let not_taken = |fault: &Fault| matches!(fault, Fault::NotTaken(_));
        let stale = |fault: &Fault| matches!(fault, Fault::TokenStale(_));
        let refused = |fault: &Fault| matches!(fault, Fault::Refused(_));
        check(Code::Unavailable, "etcdserver: no leader", not_taken);
        check(
            Code::ResourceExhausted,
            "etcdserver: too many requests",
            not_taken,
        );
        check(
            Code::Unavailable,
            "etcdserver: request timed out",
            unanswered,
        );
        check(Code::Unavailable, "etcdserver: leader changed", unanswered);
        check(Code::Unavailable, "error trying to read", unanswered);
        check(Code::Unknown, "connection reset", unanswered);
        check(
            Code::Unauthenticated,
            "etcdserver: invalid auth token",
            stale,
        );
        check(
            Code::InvalidArgument,
            "etcdserver: revision of auth store is old",
            stale,
        );
        check(
            Code::PermissionDenied,
            "etcdserver: permission denied",
            refused,
        );
        check(
            Code::InvalidArgument,
            "etcdserver: request is too large",
            refused,
        );
        let full = |fault: &Fault| matches!(fault, Fault::Full(_));
        let space = "etcdserver: mvcc: database space exceeded";
        check(Code::ResourceExhausted, space, full);
        let lease = "etcdserver: requested lease not found";
        check(Code::NotFound, lease, |fault| {
            matches!(fault, Fault::LeaseNotFound)
        });
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        check(Code::OutOfRange, compacted, |fault| {
            matches!(fault, Fault::Compacted)
        });
    }
}
