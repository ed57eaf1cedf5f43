//! Artifacts held in memory.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use model::Digest;
use parking_lot::Mutex;
use sandbox::{Artifacts, BodyError};

/// A store of artifacts for tests.
#[derive(Debug, Default)]
pub struct MemoryArtifacts(Mutex<HashMap<Digest, Bytes>>);

impl MemoryArtifacts {
    /// Keeps `bytes`, and names them.
    pub fn put(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.0.lock().insert(digest, bytes);
        digest
    }
}

#[async_trait]
impl Artifacts for MemoryArtifacts {
    async fn artifact(&self, digest: &Digest) -> Result<Bytes, BodyError> {
        let found = self.0.lock().get(digest).cloned();
        found.ok_or_else(|| format!("no artifact {digest} is kept").into())
    }
}
