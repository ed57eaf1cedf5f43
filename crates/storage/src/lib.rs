//! Durable storage: an ordered, transactional key-value [`Store`] and content-addressed [`Blobs`].
//!
//! ```text
//!  callers ──transact──▶ bounded queue ──▶ writer thread ──one fsync a batch──▶ file
//!     │                                        │
//!     │◀──────────── watch (bounded) ──────────┘ publishes after the fsync
//!     └──get, range──▶ snapshot reads, never behind the writer
//! ```
//!
//! Invariants, as absences:
//! - No acknowledgement goes out before the bytes are on the disk.
//! - No transaction is half applied, and none takes effect when one of its compares fails.
//! - No two committed transactions that changed something have the same revision; revisions only
//!   grow, and a key carries the revision of its last change.
//! - No watcher misses an event silently: one that cannot keep up is told
//!   [`WatchItem::Lagged`], after which it reads the range again.
//! - No failure of the disk needs a restart: a full disk is [`StorageError::Full`], and the store
//!   works on once there is space.
//!
//! An error from [`Store::transact`] other than a refusal (a size, a duplicate key, a lease that
//! is gone, a full disk) leaves open whether the transaction took effect: read before retrying.

mod blobs;
pub mod conformance;
mod error;
mod redb;
mod store;
mod txn;
mod watch;

pub use blobs::{BlobInfo, Blobs};
pub use error::StorageError;
pub use redb::{Config, RedbStore};
pub use store::{Entry, LeaseId, Page, Range, Revision, Store, Versioned};
pub use txn::{Compare, Op, Txn, TxnOutcome};
pub use watch::{Change, Event, Watch, WatchItem};
