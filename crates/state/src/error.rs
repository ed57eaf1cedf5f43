//! What can go wrong with state.

use std::fmt;

use memory::MemoryError;
use storage::StorageError;

use crate::tier::ClusterError;

/// A bound that is shared by several values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// [`crate::Config::app_bytes_max`].
    AppBytes,
    /// [`crate::Config::app_keys_max`].
    AppKeys,
    /// [`crate::Config::node_bytes_max`].
    NodeBytes,
    /// [`crate::Config::node_regions_max`].
    NodeRegions,
    /// [`crate::Config::lock_waiters_max`].
    LockWaiters,
    /// [`crate::Config::watchers_max`].
    Watchers,
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Quota::AppBytes => "bytes of state in an app",
            Quota::AppKeys => "keys in an app",
            Quota::NodeBytes => "bytes of state on the node",
            Quota::NodeRegions => "shared regions on the node",
            Quota::LockWaiters => "requests that wait for one lock",
            Quota::Watchers => "watchers of an app",
        })
    }
}

/// Why an operation on state was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// There is no value of this key.
    #[error("there is no value of this key")]
    NotFound,
    /// The value's version is another.
    #[error("the value has version {version}, which is not the expected one")]
    Conflict {
        /// The version; 0 when there is no value.
        version: u64,
    },
    /// The value would be longer than is allowed.
    #[error("a value of {asked} bytes is too long: at most {max}")]
    TooLarge {
        /// The length.
        asked: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// A shared bound is reached.
    #[error("too many {quota}: at most {max}")]
    Full {
        /// Which bound.
        quota: Quota,
        /// The bound.
        max: u64,
    },
    /// Bytes that the value does not have.
    #[error("{length} bytes at {offset} are outside of a value of {size}")]
    Outside {
        /// The first byte.
        offset: u64,
        /// How many.
        length: u64,
        /// The value's size.
        size: u64,
    },
    /// A number that does not begin at a multiple of 8.
    #[error("a number of 8 bytes cannot be at {offset}: it must be at a multiple of 8")]
    Misaligned {
        /// Where it would begin.
        offset: u64,
    },
    /// A time to live that is out of range.
    #[error("a time to live of {ms} ms: it must be between 1 and {max_ms} ms")]
    Ttl {
        /// What was asked.
        ms: u64,
        /// The most that is accepted.
        max_ms: u64,
    },
    /// The time to wait for a lock was over.
    #[error("the lock was not free in time")]
    LockTimedOut,
    /// Others share the lock that was to become exclusive.
    #[error("a shared lock cannot become exclusive while others share it: unlock it first")]
    LockUpgrade,
    /// A lock that the owner does not hold, or no longer.
    #[error("the lock is not held, or its time was over")]
    NotLocked,
    /// The node that held the key's value in memory is gone, and whatever was not durable with it.
    #[error(
        "the key's value may have been lost with its node: set or remove the key to begin anew"
    )]
    Lost,
    /// The key is another node's: ask by [`crate::AppState::run`].
    #[error("the key belongs to another node")]
    Elsewhere,
    /// The key's owner was not found or not reached in time. Nothing was done.
    #[error("the node that owns the key was not reached")]
    Unreached(#[source] Option<ClusterError>),
    /// The key's owner did not answer. Whether it was done is not known.
    #[error("the node that owns the key did not answer")]
    Unanswered(#[source] ClusterError),
    /// The key's owner could not do it.
    #[error("the node that owns the key refused: {0}")]
    Refused(String),
    /// The kernel refused memory.
    #[error("memory of a value could not be had")]
    Memory(#[from] MemoryError),
    /// The global tier failed. What was changed is changed on this node, and not yet durable.
    #[error("the durable state could not be reached")]
    Global(#[from] GlobalError),
}

/// Why the global tier did not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GlobalError {
    /// The value's version there is another.
    #[error("the durable value has version {version}, which is not the expected one")]
    Conflict {
        /// The version; 0 when there is no value.
        version: u64,
    },
    /// The value changed whenever it was read.
    #[error("the durable value changes too often to be read")]
    Busy,
    /// What is stored is not what was written.
    #[error("the durable value is damaged: {0}")]
    Damaged(&'static str),
    /// The node no longer owns the key: the store refused what it wrote.
    #[error("the value belongs to another node by now")]
    Fenced,
    /// A node that keeps copies could not take a change.
    #[error("a copy on another node was refused: {0}")]
    Copy(String),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StorageError),
}
