//! What can go wrong with the ledger.

use storage::StorageError;

/// Why usage could not be kept or read back.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store refused to write; the totals are kept and written again.
    #[error("usage could not be written to the store")]
    Flush(#[source] StorageError),
    /// The store could not be read.
    #[error("usage could not be read from the store")]
    Restore(#[source] StorageError),
}
