//! What a deploy made, as something that other machines can be given.

use std::sync::Arc;

use model::{Digest, VersionSpec};

use crate::{Cache, CacheError, EntryKind};

/// A back-end that keeps what its deploys make as entries of a cache, which are as good on another
/// machine where the same is named the same.
pub trait Portable: Send + Sync {
    /// Names what a deploy of `spec` makes on this machine: the same wherever engine, settings and
    /// processor are such that what one made can be used by the other, and different elsewhere.
    fn product(&self, spec: &VersionSpec) -> Digest;

    /// The entries that hold it; `None` if not all of them are there. Their bytes are not looked
    /// at. This blocks.
    fn entries(&self, spec: &VersionSpec) -> Result<Option<Vec<(Digest, EntryKind)>>, CacheError>;

    /// Where they are.
    fn cache(&self) -> &Arc<Cache>;
}

/// These entries, if all of them are there; their bytes are not looked at.
pub fn all_there(
    cache: &Cache,
    entries: Vec<(Digest, EntryKind)>,
) -> Result<Option<Vec<(Digest, EntryKind)>>, CacheError> {
    for (key, kind) in &entries {
        if !cache.has(key, *kind)? {
            return Ok(None);
        }
    }
    Ok(Some(entries))
}
