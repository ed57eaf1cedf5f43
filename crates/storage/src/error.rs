//! What can go wrong in storage.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use model::Digest;

use crate::LeaseId;

/// A failure of the store or the blobs; cheap to clone, since one failed commit fails a batch.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// A value over the limit; bigger things are blobs.
    #[error("the value of `{key}` has {bytes} bytes: at most {max} (bigger things are blobs)")]
    ValueTooLarge {
        /// The key, as text.
        key: String,
        /// The value's size.
        bytes: usize,
        /// The most that is accepted.
        max: usize,
    },
    /// A key that is empty or over the limit.
    #[error("a key of {bytes} bytes: it must have between 1 and {max}")]
    KeySize {
        /// The key's size.
        bytes: usize,
        /// The most that is accepted.
        max: usize,
    },
    /// Too many operations, or too many bytes, in one transaction.
    #[error(
        "a transaction of {ops} operations and {bytes} bytes: at most {ops_max} and {bytes_max}"
    )]
    TxnTooLarge {
        /// Compares and operations.
        ops: usize,
        /// Bytes of all keys and values.
        bytes: usize,
        /// The most operations.
        ops_max: usize,
        /// The most bytes.
        bytes_max: usize,
    },
    /// One transaction changes a key twice.
    #[error("the transaction changes `{key}` twice")]
    DuplicateKey {
        /// The key, as text.
        key: String,
    },
    /// The lease has expired, was revoked, or never was.
    #[error("{0} has expired or never was")]
    LeaseNotFound(LeaseId),
    /// A lease's time to live is out of range.
    #[error("a lease of {ms} ms: it must be between 1 and {max_ms} ms")]
    LeaseTtl {
        /// What was asked.
        ms: u128,
        /// The most that is accepted.
        max_ms: u128,
    },
    /// There is no space left (or no quota); nothing was written.
    #[error("no space left while {doing}")]
    Full {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: Cause,
    },
    /// Another process has the store open.
    #[error("`{}` is in use by another process", path.display())]
    Locked {
        /// The store's file.
        path: PathBuf,
    },
    /// The file is not a store, or is damaged.
    #[error("`{}` is not a readable store: {detail}", path.display())]
    Corrupted {
        /// The store's file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file was written by a version of the store that this one does not know.
    #[error("`{}` has format {found}; this version reads format {known}", path.display())]
    Format {
        /// The store's file.
        path: PathBuf,
        /// The format of the file.
        found: u64,
        /// The format that is understood.
        known: u64,
    },
    /// A blob's bytes do not match its name.
    #[error("blob {digest} is damaged: its bytes have the digest {found}")]
    BlobDamaged {
        /// The blob's name.
        digest: Digest,
        /// The digest of what was read.
        found: Digest,
    },
    /// The disk failed.
    #[error("input or output failed while {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: Cause,
    },
    /// An address of a store or of blobs that cannot be meant.
    #[error("`{address}` is no address of storage: {why}")]
    Address {
        /// The address, without its password.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store's servers were not reached, or would not begin; nothing was changed.
    #[error("the store cannot be reached: {doing} did not begin")]
    Unavailable {
        /// What was to be done.
        doing: &'static str,
        /// The last cause.
        source: Cause,
    },
    /// The store's servers were asked and did not answer in time: it is open whether they did it.
    #[error("the store did not answer while {doing}")]
    Unanswered {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: Cause,
    },
    /// The store's servers will not do it, now or later; nothing was changed.
    #[error("the store refuses {doing}")]
    Refused {
        /// What was to be done.
        doing: &'static str,
        /// Why.
        source: Cause,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// The cause of a failure, shared by all the transactions that it failed.
pub type Cause = Arc<dyn std::error::Error + Send + Sync + 'static>;

impl StorageError {
    /// Whether the cause is a full disk, which passes once there is space.
    pub fn is_full(&self) -> bool {
        matches!(self, StorageError::Full { .. })
    }

    /// Sorts an error of the disk into [`StorageError::Full`] and [`StorageError::Io`].
    pub(crate) fn of_disk(
        doing: &'static str,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let source: Cause = Arc::new(error);
        match is_full(source.as_ref()) {
            true => StorageError::Full { doing, source },
            false => StorageError::Io { doing, source },
        }
    }
}

impl StorageError {
    /// Sorts an error of an object store: what it will not do, and what went wrong.
    pub(crate) fn of_objects(doing: &'static str, error: object_store::Error) -> Self {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        match error {
            PermissionDenied { .. } | Unauthenticated { .. } => {
                let source = Arc::new(error);
                StorageError::Refused { doing, source }
            }
            error if is_refusal(&error) => {
                let source = Arc::new(error);
                StorageError::Refused { doing, source }
            }
            // A bucket is not a disk: what it did not answer may pass.
            object_store::Error::Generic { store: "S3", .. } => {
                let source = Arc::new(error);
                StorageError::Unanswered { doing, source }
            }
            error => StorageError::of_disk(doing, error),
        }
    }
}

/// Whether S3 will not do it, by the code in its answer: of a list, the kind of the error does not
/// say so.
fn is_refusal(error: &object_store::Error) -> bool {
    const CODES: [&str; 4] = [
        "NoSuchBucket",
        "AccessDenied",
        "SignatureDoesNotMatch",
        "InvalidAccessKeyId",
    ];
    let text = error.to_string();
    CODES
        .iter()
        .any(|code| text.contains(&format!("<Code>{code}</Code>")))
}

/// Whether an I/O error that says "no space" or "no quota" is among the causes.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = match error.downcast_ref::<::redb::Error>() {
            Some(::redb::Error::Io(io)) => Some(io),
            _ => error.downcast_ref::<io::Error>(),
        };
        let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        if io.is_some_and(|io| kinds.contains(&io.kind())) {
            return true;
        }
        next = error.source();
    }
    false
}

/// A key as people read it.
pub(crate) fn show(key: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 120;
    key[..key.len().min(SHOWN_BYTES_MAX)]
        .escape_ascii()
        .to_string()
}
