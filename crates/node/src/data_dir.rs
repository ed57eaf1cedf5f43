//! The data directory: one node owns it, and everything that survives is in it.
//!
//! ```text
//! DATA/lock         held while a node, or a command that needs no node, uses the directory
//! DATA/store.redb   versions, aliases, queue, usage, tokens
//! DATA/blobs/       artifacts and files, by digest
//! DATA/payloads/    large bodies of asynchronous invocations; the invoker's own
//! DATA/cache/       compiled code and images; may be deleted at any time
//! ```
//!
//! In a cluster store, blobs and payloads are elsewhere; in `DATA/cluster-blobs/` is what this node
//! has of the blobs, within a bound, which may be deleted while it does not run.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::{Blobs, RedbStore, Store};

use crate::cluster::{Bucket, Shared};
use crate::{ClusterConfig, NodeError};

/// An open data directory; nobody else has it until this is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Blobs,
    /// None for a node that stands alone.
    pub(crate) bucket: Option<Bucket>,
    pub(crate) payloads: Blobs,
    /// Locked; the kernel lets go of it however the process ends. Declared last, so that it is
    /// dropped after the store.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is not there, locks it and opens what is in it. This blocks.
    pub(crate) fn open(path: &Path) -> Result<Self, NodeError> {
        let lock = lock(path)?;
        let store = RedbStore::open(&path.join("store.redb"), storage::Config::default())?;
        Ok(Self {
            path: path.to_owned(),
            store: Arc::new(store),
            blobs: Blobs::open(&path.join("blobs"))?,
            bucket: None,
            payloads: Blobs::open(&path.join("payloads"))?,
            _lock: lock,
        })
    }

    /// The directory of a node in a cluster, whose stores are elsewhere: what is in it is a cache.
    pub(crate) async fn open_among(
        path: &Path,
        cluster: &ClusterConfig,
    ) -> Result<Self, NodeError> {
        let folder = path.to_owned();
        let lock = crate::node::blocking(move || lock(&folder)).await?;
        let shared = Shared::open(cluster, &path.join("cluster-blobs")).await?;
        Ok(Self {
            path: path.to_owned(),
            store: shared.store,
            blobs: shared.blobs,
            bucket: Some(shared.bucket),
            payloads: shared.payloads,
            _lock: lock,
        })
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }
}

/// Makes the directory if it is not there, and locks it.
fn lock(path: &Path) -> Result<File, NodeError> {
    let failed = |doing: &'static str| {
        move |source: std::io::Error| NodeError::DataDir {
            doing,
            path: path.to_owned(),
            source,
        }
    };
    // Environments of functions and digests of tokens are nobody else's business.
    let mut folder = DirBuilder::new();
    folder.recursive(true).mode(0o700);
    folder.create(path).map_err(failed("made"))?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join("lock"))
        .map_err(failed("locked"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(NodeError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed("locked")(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cannot_share_a_data_directory() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = DataDir::open(folder.path()).expect("it opens");
        assert!(matches!(
            DataDir::open(folder.path()),
            Err(NodeError::InUse(_))
        ));
        drop(first);
        assert!(DataDir::open(folder.path()).is_ok());
    }
}
