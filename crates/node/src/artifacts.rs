//! Artifacts and files for the engines, out of the blobs.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use files::Contents;
use model::Digest;
use parking_lot::Mutex;
use sandbox::{Artifacts, BodyError};
use storage::Blobs;
use tokio::runtime::Handle;

#[derive(Debug)]
pub(crate) struct BlobArtifacts(pub(crate) Blobs);

#[async_trait]
impl Artifacts for BlobArtifacts {
    async fn artifact(&self, digest: &Digest) -> Result<Bytes, BodyError> {
        let found = self.0.get(digest).await?;
        found.ok_or_else(|| "it is not among the blobs".into())
    }
}

/// Bytes that are hashed at a time.
const HASHED_BYTES: usize = 1 << 20;

/// Contents of files: mapped where the blobs are, and compared with their digest once.
#[derive(Debug)]
pub(crate) struct BlobFiles {
    blobs: Blobs,
    checked: Mutex<HashSet<Digest>>,
}

impl BlobFiles {
    pub(crate) fn new(blobs: Blobs) -> Self {
        Self {
            blobs,
            checked: Mutex::default(),
        }
    }
}

impl BlobFiles {
    /// Has a blob brought here that lies elsewhere, or is damaged here. It happens when a version
    /// with files is loaded on a node for the first time, on a thread that may wait.
    fn fetch(&self, digest: &Digest) -> io::Result<PathBuf> {
        if !self.blobs.is_cache() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let got = tokio::task::block_in_place(|| runtime.block_on(self.blobs.get(digest)));
        got.map_err(io::Error::other)?;
        self.blobs
            .file(digest)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl BlobFiles {
    /// The contents of a file, if they are those of the digest.
    fn checked(&self, digest: &Digest, file: &Path) -> io::Result<Option<Contents>> {
        let contents = Contents::open(file).map_err(io::Error::other)?;
        if !self.checked.lock().contains(digest) {
            if digest_of(&contents) != *digest {
                return Ok(None);
            }
            self.checked.lock().insert(*digest);
        }
        Ok(Some(contents))
    }
}

impl files::Source for BlobFiles {
    fn open(&self, digest: &Digest) -> io::Result<Contents> {
        // What is mapped stays as it is; until then its file must.
        let _pinned = self.blobs.pin(vec![*digest]);
        if let Some(file) = self.blobs.file(digest)
            && let Some(contents) = self.checked(digest, &file)?
        {
            return Ok(contents);
        }
        if self.blobs.is_cache() {
            self.checked.lock().remove(digest);
            let file = self.fetch(digest)?;
            if let Some(contents) = self.checked(digest, &file)? {
                return Ok(contents);
            }
        } else if self.blobs.file(digest).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the blob is damaged: deploy its files again",
        ))
    }
}

fn digest_of(contents: &Contents) -> Digest {
    let mut buffer = vec![0; HASHED_BYTES];
    let (mut offset, mut hasher) = (0, model::Hasher::default());
    loop {
        match contents.read(offset, &mut buffer) {
            0 => return hasher.finish(),
            count => {
                hasher.update(&buffer[..count]);
                offset += count as u64;
            }
        }
    }
}
