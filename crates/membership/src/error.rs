//! What can go wrong in membership.

use storage::StorageError;

use crate::Resource;

/// Why something that takes membership was not done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// The node has no tenure now: it does not own, claim or reserve anything.
    #[error("this node is not a member of the cluster now")]
    NotMember,
    /// Others claimed and released the resource all the time meanwhile.
    #[error("{resource} changed hands {tries} times while it was claimed")]
    Contended {
        /// What was claimed.
        resource: Resource,
        /// How often.
        tries: usize,
    },
    /// The store failed.
    #[error("the store failed while {doing}")]
    Storage {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: StorageError,
    },
    /// A record in the store is not of a kind that this node knows.
    #[error("the record `{key}` cannot be read: {why}")]
    Unreadable {
        /// The record's key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

impl MembershipError {
    /// For `map_err`.
    pub(crate) fn of_store(doing: &'static str) -> impl FnOnce(StorageError) -> Self {
        move |source| Self::Storage { doing, source }
    }
}
