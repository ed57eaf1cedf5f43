//! Chunks that are too large for a store that nodes share: they are blobs in a bucket, and the
//! store has their names.
//!
//! A blob is of one chunk of one version only, which its bytes say first: whoever removes that
//! version removes the blob. Its name is in the store before it is in the bucket, so that a crash
//! leaves none that nobody knows.

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use model::Digest;
use storage::{Blobs, Store};

use crate::GlobalError;

/// Bytes up to which a chunk is in the store itself, where a small value is changed at once.
pub(super) const INLINE_BYTES_MAX: usize = 4 << 10;
/// Requests that are under way at a time.
pub(super) const REQUESTS_MAX: usize = 16;

/// Large chunks of durable values.
#[derive(Clone, Debug)]
pub(super) struct Bucket(pub Blobs);

/// A chunk on its way to the bucket.
pub(super) struct Parcel {
    /// What the store keeps: the blob's name.
    pub name: Bytes,
    blob: Bytes,
}

impl Parcel {
    /// Of the chunk whose blob's name is to be at `key`.
    pub fn new(key: &Bytes, chunk: &Bytes) -> Self {
        let blob = Bytes::from([key.as_ref(), chunk].concat());
        let name = Bytes::copy_from_slice(Digest::of(&blob).as_bytes());
        Self { name, blob }
    }
}

impl Bucket {
    /// Returns after all of them are durable.
    pub async fn put(&self, parcels: Vec<Parcel>) -> Result<(), GlobalError> {
        let puts = parcels.into_iter().map(|parcel| self.0.put(parcel.blob));
        let puts = stream::iter(puts).buffer_unordered(REQUESTS_MAX);
        Ok(puts.try_for_each(|_| async { Ok(()) }).await?)
    }

    /// The chunk that `key` names; none if it, or its name, is not there.
    pub async fn get(&self, store: &dyn Store, key: &Bytes) -> Result<Option<Bytes>, GlobalError> {
        let Some(digest) = digest_at(store, key).await? else {
            return Ok(None);
        };
        let Some(mut blob) = self.0.get(&digest).await? else {
            return Ok(None);
        };
        if !blob.starts_with(key) {
            return Err(GlobalError::Damaged("a chunk in the bucket"));
        }
        Ok(Some(blob.split_off(key.len())))
    }

    /// Removes the blobs that `keys` name; the names stay.
    pub async fn remove(&self, store: &dyn Store, keys: &[Bytes]) -> Result<(), GlobalError> {
        let remove = async |key: &Bytes| match digest_at(store, key).await? {
            Some(digest) => Ok::<_, GlobalError>(self.0.delete(&digest).await?),
            None => Ok(()),
        };
        let removals = stream::iter(keys).map(remove);
        let removals = removals.buffer_unordered(REQUESTS_MAX);
        removals.try_for_each(|()| async { Ok(()) }).await
    }
}

async fn digest_at(store: &dyn Store, key: &Bytes) -> Result<Option<Digest>, GlobalError> {
    let Some(found) = store.get(key).await? else {
        return Ok(None);
    };
    let digest = <[u8; 32]>::try_from(found.value.as_ref()).map(Digest::from_bytes);
    let damaged = |_| GlobalError::Damaged("the name of a chunk in the bucket");
    digest.map(Some).map_err(damaged)
}
