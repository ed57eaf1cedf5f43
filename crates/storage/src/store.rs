//! The store's trait and its words. The meaning is etcd's, so that etcd can stand behind it.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{StorageError, Txn, TxnOutcome, Watch};

/// Longest key.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// Longest value; bigger things are blobs.
pub const VALUE_BYTES_MAX: usize = 512 << 10;
/// Most entries in one [`Page`].
pub const PAGE_ENTRIES_MAX: usize = 10_000;
/// A page ends early once it holds this many bytes.
pub const PAGE_BYTES_MAX: usize = 8 << 20;
/// Longest time to live of a lease.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// A point in the store's history: each transaction that changes something takes the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// Names a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {:016x}", self.0)
    }
}

/// A value and the revision at which it was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes.
    pub value: Bytes,
    /// The revision of the key's last change.
    pub revision: Revision,
}

/// One key of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The revision of the key's last change.
    pub revision: Revision,
}

/// Part of a range, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries, in key order (descending when the range is reversed).
    pub entries: Vec<Entry>,
    /// Whether the range holds more than this page.
    pub more: bool,
    /// The store's revision that the page shows; watch from here to miss nothing.
    pub revision: Revision,
}

/// Which keys to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first key.
    pub start: Vec<u8>,
    /// The first key that is no longer meant; none means up to the last.
    pub end: Option<Vec<u8>>,
    /// Most entries in the page; [`PAGE_ENTRIES_MAX`] caps it.
    pub limit: usize,
    /// From the last key to the first.
    pub reverse: bool,
}

impl Range {
    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let start = prefix.into();
        let end = after_prefix(&start);
        Self {
            start,
            end,
            limit: PAGE_ENTRIES_MAX,
            reverse: false,
        }
    }

    /// The keys from `start` up to, not including, `end`.
    pub fn between(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        let end = Some(end.into());
        Self {
            start: start.into(),
            end,
            limit: PAGE_ENTRIES_MAX,
            reverse: false,
        }
    }

    /// At most `limit` entries.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// From the last key to the first.
    pub fn reversed(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// What is left of this range after `page`; none when the page was the last.
    pub fn rest(&self, page: &Page) -> Option<Range> {
        let last = page.entries.last().filter(|_| page.more)?;
        let mut rest = self.clone();
        if self.reverse {
            rest.end = Some(last.key.to_vec());
        } else {
            rest.start = last.key.to_vec();
            rest.start.push(0);
        }
        Some(rest)
    }
}

/// The first key after all those that begin with `prefix`.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// An ordered, transactional, durable map from keys to values, with etcd's meaning.
///
/// Every implementation passes [`crate::conformance`].
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// The value of `key` and its revision.
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StorageError>;

    /// A page of a range, as of one moment.
    async fn range(&self, range: Range) -> Result<Page, StorageError>;

    /// Applies all of `txn`, durably, if all its compares hold; else nothing of it.
    ///
    /// Dropping the future does not take the transaction back.
    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, StorageError>;

    /// The changes under `prefix` after `from`, or from now on.
    ///
    /// When `from` is further back than the store remembers, the first item is
    /// [`crate::WatchItem::Lagged`].
    async fn watch(&self, prefix: &[u8], from: Option<Revision>) -> Result<Watch, StorageError>;

    /// A lease: keys put with it are deleted unless it is kept alive at least every `ttl`.
    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StorageError>;

    /// Starts the lease's time to live anew.
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StorageError>;

    /// Ends the lease and deletes its keys, in one transaction.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StorageError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_prefix() {
        let check = |prefix: &[u8], end: Option<&[u8]>| {
            assert_eq!(after_prefix(prefix).as_deref(), end, "{prefix:?}");
        };
        check(b"a/", Some(b"a0"));
        check(b"a\xff", Some(b"b"));
        check(b"\xff\xff", None);
        check(b"", None);
    }
}
