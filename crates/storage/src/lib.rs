//! Durable storage: an ordered, transactional key-value [`Store`] and content-addressed [`Blobs`].
//!
//! ```text
//!  RedbStore, one node:
//!  callers ──transact──▶ bounded queue ──▶ writer thread ──one fsync a batch──▶ file
//!     │                                        │
//!     │◀──────────── watch (bounded) ──────────┘ publishes after the fsync
//!     └──get, range──▶ snapshot reads, never behind the writer
//!
//!  EtcdStore, many nodes:
//!  callers ──any request──▶ member, or the next one, within a deadline ──▶ a majority's disks
//!     │◀──────────── watch (bounded) ──────────┘ goes on at another member
//!
//!  Blobs: a folder, or a bucket of S3; each read is compared with the blob's name
//! ```
//!
//! Invariants, as absences:
//! - No acknowledgement goes out before the bytes are on the disk, or on those of a majority.
//! - No transaction is half applied, and none takes effect when one of its compares fails.
//! - No two committed transactions that changed something have the same revision; revisions only
//!   grow, and a key carries the revision of its last change.
//! - No watcher misses an event silently: one that cannot keep up, or whose past is forgotten, is
//!   told [`WatchItem::Lagged`], after which it reads the range again.
//! - No failure of the disk needs a restart: a full disk is [`StorageError::Full`], and the store
//!   works on once there is space.
//! - No request to a cluster waits without end, and no failure of a member is one of the store
//!   while a majority lives, but for what that member may have done: see below.
//!
//! An error from [`Store::transact`] other than a refusal (a size, a duplicate key, a lease that
//! is gone, a full disk, [`StorageError::Unavailable`], [`StorageError::Refused`]) leaves open
//! whether the transaction took effect: read before retrying.

mod address;
mod blobs;
mod cached;
pub mod conformance;
mod error;
mod etcd;
mod redb;
mod s3;
mod shelf;
mod store;
mod txn;
mod watch;

pub use blobs::{BlobInfo, Blobs};
pub use cached::{Fetch, Pinned};
pub use error::{Cause, StorageError};
pub use etcd::{EtcdConfig, EtcdStore};
pub use redb::{Config, RedbStore};
pub use s3::{S3Config, S3Keys};
pub use store::{
    Entry, LEASE_TTL_MAX, LeaseId, PAGE_BYTES_MAX, PAGE_ENTRIES_MAX, Page, Range, Revision, Store,
    Versioned,
};
pub use txn::{Compare, Op, Txn, TxnOutcome};
pub use watch::{Change, Event, Watch, WatchItem};
