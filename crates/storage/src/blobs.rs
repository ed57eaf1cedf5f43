//! Blobs: immutable bytes named by their SHA-256 digest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use model::Digest;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::cached::{Cached, Fetch, Pinned};
use crate::{S3Config, StorageError, s3};

/// One blob of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// The blob's name.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// A set of blobs; cheap to clone.
///
/// A blob is there whole or not at all, durable once [`Blobs::put`] returns, and checked against
/// its name each time it is read.
#[derive(Clone, Debug)]
pub struct Blobs {
    objects: Arc<dyn ObjectStore>,
    /// Where they are files, to be mapped; none when they are not on this machine.
    folder: Option<Arc<Path>>,
    /// What these are a cache of, if they are.
    origin: Option<Arc<Cached>>,
}

/// A blob that is larger goes over the network in parts of this size, each tried again by itself.
/// A server takes 10,000 of them, and none but the last may be below 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// Parts that are on their way at once.
const PARTS_MAX: usize = 4;

impl Blobs {
    /// The blobs in a directory, which is made when it is not there; one process at a time owns
    /// it. What a crash left half written is removed. This blocks.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        let doing = "opening the blobs";
        std::fs::create_dir_all(folder).map_err(|e| StorageError::of_disk(doing, e))?;
        remove_staged(folder).map_err(|e| StorageError::of_disk(doing, e))?;
        Self::open_shared(folder)
    }

    /// The blobs in a directory that any number of processes use, as over a network: what one of
    /// them left half written stays until somebody removes it. This blocks.
    pub fn open_shared(folder: &Path) -> Result<Self, StorageError> {
        let doing = "opening the blobs";
        std::fs::create_dir_all(folder).map_err(|e| StorageError::of_disk(doing, e))?;
        let objects = LocalFileSystem::new_with_prefix(folder);
        let objects = objects
            .map_err(|e| StorageError::of_disk(doing, e))?
            .with_fsync(true);
        Ok(Self {
            objects: Arc::new(objects),
            folder: Some(folder.into()),
            origin: None,
        })
    }

    /// Blobs in memory, which are gone with the last clone: for tests and simulations.
    pub fn in_memory() -> Self {
        Self {
            objects: Arc::new(InMemory::new()),
            folder: None,
            origin: None,
        }
    }

    /// The blobs in a bucket: `s3://bucket[/prefix][?endpoint=URL][&region=NAME][&style=path]`.
    ///
    /// Any number of processes may use them. `endpoint` names a server other than Amazon's, which
    /// is asked with the bucket in the path unless `style=virtual`. A bucket that does not answer
    /// is an error. Parts of a blob whose sender died stay until the bucket's own rules end them.
    pub async fn open_s3(address: &str, config: &S3Config) -> Result<Self, StorageError> {
        Ok(Self {
            objects: s3::open(address, config).await?,
            folder: None,
            origin: None,
        })
    }

    /// The blobs in a directory as a cache of those of `origin`, of at most `bytes_max`: what is
    /// not here is looked for there and then kept, and what is put is there before it is here. The
    /// least recently used go first, but for what is pinned. One process at a time owns it. This
    /// blocks.
    pub fn open_cache(folder: &Path, origin: Blobs, bytes_max: u64) -> Result<Self, StorageError> {
        let mut blobs = Self::open(folder)?;
        let cached = Cached::open(folder, origin, bytes_max);
        let failed = |e| StorageError::of_disk("opening a cache of blobs", e);
        blobs.origin = Some(Arc::new(cached.map_err(failed)?));
        Ok(blobs)
    }

    /// Has a cache get what it lacks from there, from now on, and not from its origin; it asks
    /// the first that was named.
    pub fn fetch_by(&self, fetch: Arc<dyn Fetch>) {
        if let Some(cached) = &self.origin {
            let _first_stays = cached.fetch.set(fetch);
        }
    }

    /// What these are a cache of, if they are.
    pub fn origin(&self) -> Option<&Blobs> {
        self.origin.as_ref().map(|cached| &cached.origin)
    }

    /// Keeps these blobs in the cache, or once they come there, as long as the pin lives.
    pub fn pin(&self, digests: Vec<Digest>) -> Pinned {
        Pinned::new(self.origin.clone(), digests)
    }

    /// Bytes that a cache has; none of what is no cache.
    pub fn cached_bytes(&self) -> Option<u64> {
        self.origin.as_ref().map(|cached| cached.bytes())
    }

    /// Whether there may be blobs elsewhere that are not here yet.
    pub fn is_cache(&self) -> bool {
        self.origin.is_some()
    }

    /// Stores `bytes`; what is already there, undamaged, is not written again.
    pub async fn put(&self, bytes: Bytes) -> Result<Digest, StorageError> {
        if let Some(cached) = &self.origin {
            Box::pin(cached.origin.put(bytes.clone())).await?;
        }
        self.put_here(bytes).await
    }

    /// Stores `bytes` here only, also where these are a cache; see [`Blobs::put`].
    pub async fn put_here(&self, bytes: Bytes) -> Result<Digest, StorageError> {
        let (digest, length) = (Digest::of(&bytes), bytes.len() as u64);
        let write = self.write(digest, bytes);
        match &self.origin {
            Some(cached) => cached.place(digest, length, write).await?,
            None => write.await?,
        }
        Ok(digest)
    }

    async fn write(&self, digest: Digest, bytes: Bytes) -> Result<(), StorageError> {
        let location = location(&digest);
        if self.size(&location).await? == Some(bytes.len() as u64)
            && matches!(self.read(&digest).await, Ok(Some(_)))
        {
            return Ok(());
        }
        let put = match self.folder.is_none() && bytes.len() > PART_BYTES {
            true => self.put_parts(&location, &bytes).await,
            false => self.objects.put(&location, bytes.into()).await.map(drop),
        };
        put.map_err(|e| StorageError::of_objects("writing a blob", e))
    }

    /// In parts; the blob is there when the last one is.
    async fn put_parts(&self, location: &Location, bytes: &Bytes) -> object_store::Result<()> {
        let mut upload = self.objects.put_multipart(location).await?;
        let starts = (0..bytes.len()).step_by(PART_BYTES);
        let part = |start| bytes.slice(start..bytes.len().min(start + PART_BYTES));
        let parts: Vec<_> = starts.map(|s| upload.put_part(part(s).into())).collect();
        let sent = futures::stream::iter(parts).buffer_unordered(PARTS_MAX);
        let put = match sent.try_collect::<()>().await {
            Ok(()) => upload.complete().await.map(drop),
            Err(error) => Err(error),
        };
        if put.is_err()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(%error, "the parts of a blob that failed stay in the bucket");
        }
        put
    }

    /// The blob's bytes; damaged ones are [`StorageError::BlobDamaged`].
    pub async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StorageError> {
        let Some(cached) = &self.origin else {
            return self.get_here(digest).await;
        };
        match self.get_here(digest).await {
            Ok(Some(bytes)) => return Ok(Some(bytes)),
            Ok(None) => (),
            // What is damaged here is written anew.
            Err(error) => tracing::warn!(%error, "a cached blob cannot be read"),
        }
        let found = cached.get(digest).await?;
        if let Some(bytes) = &found
            && let Err(error) = self.put_here(bytes.clone()).await
        {
            tracing::warn!(%error, "a blob cannot be cached");
        }
        Ok(found)
    }

    /// The blob's bytes if they are here, also where these are a cache; see [`Blobs::get`].
    pub async fn get_here(&self, digest: &Digest) -> Result<Option<Bytes>, StorageError> {
        let found = self.read(digest).await?;
        if let Some(cached) = &self.origin {
            match &found {
                Some(_) => cached.used(digest).await,
                None => cached.missing(digest),
            }
        }
        Ok(found)
    }

    async fn read(&self, digest: &Digest) -> Result<Option<Bytes>, StorageError> {
        let failed = |e| StorageError::of_objects("reading a blob", e);
        let found = match self.objects.get(&location(digest)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(failed)?,
        };
        let bytes = found.bytes().await.map_err(failed)?;
        let found = Digest::of(&bytes);
        match found == *digest {
            true => Ok(Some(bytes)),
            false => Err(StorageError::BlobDamaged {
                digest: *digest,
                found,
            }),
        }
    }

    /// Where the blob's file is, if it is there and the blobs are on this machine; of a cache,
    /// only what it has. It never
    /// changes; its bytes are not looked at.
    pub fn file(&self, digest: &Digest) -> Option<PathBuf> {
        let file = self.folder.as_ref()?.join(location(digest).as_ref());
        file.is_file().then_some(file)
    }

    /// The blob's length, if it is there; its bytes are not looked at.
    pub async fn length(&self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        match (self.size(&location(digest)).await?, &self.origin) {
            (None, Some(cached)) => Box::pin(cached.origin.length(digest)).await,
            (found, _) => Ok(found),
        }
    }

    /// Whether the blob is there; its bytes are not looked at.
    pub async fn contains(&self, digest: &Digest) -> Result<bool, StorageError> {
        Ok(self.length(digest).await?.is_some())
    }

    /// Removes the blob, if it is there.
    pub async fn delete(&self, digest: &Digest) -> Result<(), StorageError> {
        if let Some(cached) = &self.origin {
            Box::pin(cached.origin.delete(digest)).await?;
            cached.missing(digest);
        }
        match self.objects.delete(&location(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(StorageError::of_objects("deleting a blob", error)),
        }
    }

    /// Every blob, in no order.
    pub fn list(&self) -> BoxStream<'static, Result<BlobInfo, StorageError>> {
        if let Some(cached) = &self.origin {
            return cached.origin.list();
        }
        let all = self.objects.list(Some(&Location::from(ROOT)));
        all.map_err(|e| StorageError::of_objects("listing blobs", e))
            .try_filter_map(async |meta| {
                let digest = digest_of(meta.location.filename().unwrap_or_default());
                Ok(digest.map(|digest| BlobInfo {
                    digest,
                    bytes: meta.size,
                }))
            })
            .boxed()
    }

    async fn size(&self, location: &Location) -> Result<Option<u64>, StorageError> {
        match self.objects.head(location).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StorageError::of_objects("looking for a blob", error)),
        }
    }
}

pub(crate) const ROOT: &str = "sha256";

/// `sha256/ab/ab…`: 256 folders keep each directory short.
pub(crate) fn file_of(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{ROOT}/{}/{hex}", &hex[..2])
}

/// The blob that a file's name is.
pub(crate) fn digest_of(name: &str) -> Option<Digest> {
    format!("sha256:{name}").parse().ok()
}

fn location(digest: &Digest) -> Location {
    Location::from(file_of(digest))
}

/// Removes files that an interrupted write left: the object store stages as `NAME#N`.
fn remove_staged(folder: &Path) -> std::io::Result<()> {
    let root = folder.join(ROOT);
    if !root.try_exists()? {
        return Ok(());
    }
    for shard in std::fs::read_dir(root)? {
        let shard = shard?.path();
        if !shard.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(shard)? {
            let file = file?;
            if file.file_name().to_string_lossy().contains('#') {
                std::fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}
