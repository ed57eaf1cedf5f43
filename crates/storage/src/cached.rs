//! What a folder of blobs is when it is a cache: where the rest is, what stays, and for whom.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use model::Digest;
use parking_lot::Mutex;
use tokio::sync::RwLock;

use crate::StorageError;
use crate::blobs::{Blobs, digest_of, file_of};
use crate::shelf::Shelf;

/// Gets a blob that a cache does not have, from wherever that is best.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// The blob's bytes, compared with its name; none where nobody has it.
    async fn fetch(&self, digest: &Digest) -> Result<Option<Bytes>, StorageError>;
}

/// The cache's side of a folder of blobs.
pub(crate) struct Cached {
    pub origin: Blobs,
    /// Asked instead of the origin, once it is known.
    pub fetch: OnceLock<Arc<dyn Fetch>>,
    folder: PathBuf,
    shelf: Mutex<Shelf>,
    /// Shared by those that write, so that what deletes is alone: a blob that comes back while its
    /// file is being deleted would be on the books and not on the disk.
    placing: RwLock<()>,
}

impl Cached {
    /// The books of what is in `folder`, which this brings within `bytes_max`. This blocks.
    pub fn open(folder: &Path, origin: Blobs, bytes_max: u64) -> std::io::Result<Self> {
        let mut found = found_in(folder)?;
        found.sort_unstable();
        let mut shelf = Shelf::new(bytes_max);
        for (_, digest, bytes) in found {
            for given_up in shelf.put(digest, bytes) {
                std::fs::remove_file(folder.join(file_of(&given_up)))?;
            }
        }
        Ok(Self {
            origin,
            fetch: OnceLock::new(),
            folder: folder.to_owned(),
            shelf: Mutex::new(shelf),
            placing: RwLock::default(),
        })
    }

    /// What is not here.
    pub async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StorageError> {
        let Some(fetch) = self.fetch.get() else {
            return Box::pin(self.origin.get(digest)).await;
        };
        let found = fetch.fetch(digest).await?;
        match found.as_ref().map(|bytes| Digest::of(bytes)) {
            Some(found) if found != *digest => Err(StorageError::BlobDamaged {
                digest: *digest,
                found,
            }),
            _ => Ok(found),
        }
    }

    /// A blob was read: it is the last to go, also after a restart.
    pub async fn used(&self, digest: &Digest) {
        self.shelf.lock().used(digest);
        let file = self.folder.join(file_of(digest));
        let touch = move || File::open(file)?.set_modified(SystemTime::now());
        // Only the order in which blobs go, after a restart, hangs on it.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(touch).await {
            tracing::debug!(%error, "the time of a blob's use is not kept");
        }
    }

    /// Blobs on the books that turn out not to be there.
    pub fn missing(&self, digest: &Digest) {
        self.shelf.lock().remove(digest);
    }

    /// Has `write` put a blob in its place, and makes room for it.
    pub async fn place(
        &self,
        digest: Digest,
        bytes: u64,
        write: impl Future<Output = Result<(), StorageError>>,
    ) -> Result<(), StorageError> {
        let given_up = {
            let _placing = self.placing.read().await;
            write.await?;
            self.shelf.lock().put(digest, bytes)
        };
        if !given_up.is_empty() {
            self.delete(given_up).await;
        }
        Ok(())
    }

    async fn delete(&self, given_up: Vec<Digest>) {
        let _alone = self.placing.write().await;
        let files: Vec<_> = {
            let mut shelf = self.shelf.lock();
            let mut all = given_up.clone();
            // What was pinned since is there still, and counts again.
            for digest in given_up {
                let file = self.folder.join(file_of(&digest));
                if shelf.keeps(&digest)
                    && let Ok(metadata) = file.metadata()
                {
                    all.extend(shelf.put(digest, metadata.len()));
                }
            }
            all.retain(|digest| !shelf.keeps(digest));
            all.iter().map(|d| self.folder.join(file_of(d))).collect()
        };
        let remove = move || {
            for file in files {
                if let Err(error) = std::fs::remove_file(&file)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(file = %file.display(), %error, "a cached blob stays");
                }
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(remove).await {
            tracing::warn!(%error, "cached blobs were not removed");
        }
    }

    /// Bytes that are here.
    pub fn bytes(&self) -> u64 {
        self.shelf.lock().bytes()
    }
}

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("origin", &self.origin)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// Blobs of a cache that stay while this lives.
#[derive(Debug)]
#[must_use = "dropped, it lets them go"]
pub struct Pinned {
    cached: Option<Arc<Cached>>,
    digests: Vec<Digest>,
}

impl Pinned {
    pub(crate) fn new(cached: Option<Arc<Cached>>, digests: Vec<Digest>) -> Self {
        if let Some(cached) = &cached {
            let mut shelf = cached.shelf.lock();
            digests.iter().for_each(|digest| shelf.pin(*digest));
        }
        Self { cached, digests }
    }
}

impl Drop for Pinned {
    /// What is too much now goes when the next blob comes.
    fn drop(&mut self) {
        if let Some(cached) = &self.cached {
            let mut shelf = cached.shelf.lock();
            self.digests.iter().for_each(|digest| shelf.unpin(digest));
        }
    }
}

/// When each blob was used last, its name and its size.
fn found_in(folder: &Path) -> std::io::Result<Vec<(SystemTime, Digest, u64)>> {
    let mut found = Vec::new();
    let root = folder.join(crate::blobs::ROOT);
    if !root.try_exists()? {
        return Ok(found);
    }
    for shard in std::fs::read_dir(root)? {
        let shard = shard?.path();
        if !shard.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(shard)? {
            let file = file?;
            let Some(digest) = digest_of(&file.file_name().to_string_lossy()) else {
                continue;
            };
            let metadata = file.metadata()?;
            found.push((metadata.modified()?, digest, metadata.len()));
        }
    }
    Ok(found)
}
