//! Artifacts for the engines, out of the blobs.

use async_trait::async_trait;
use bytes::Bytes;
use model::Digest;
use sandbox::{Artifacts, BodyError};
use storage::Blobs;

#[derive(Debug)]
pub(crate) struct BlobArtifacts(pub(crate) Blobs);

#[async_trait]
impl Artifacts for BlobArtifacts {
    async fn artifact(&self, digest: &Digest) -> Result<Bytes, BodyError> {
        let found = self.0.get(digest).await?;
        found.ok_or_else(|| "it is not among the blobs".into())
    }
}
