//! Contents by digest, held once however many layers have them.

use std::collections::HashMap;
use std::fmt;

use std::sync::{Arc, Weak};

use model::{Digest, FileEntry, FileList, FileListError};
use parking_lot::Mutex;

use crate::contents::WeakContents;
use crate::{Contents, Layer, LayerBuilder, LayerError, Standard};

/// Where contents come from. It may block.
pub trait Source: Send + Sync {
    /// The contents named `digest`.
    fn open(&self, digest: &Digest) -> std::io::Result<Contents>;
}

/// Finds contents by digest: those that someone holds are found again, and not opened twice.
pub struct Library {
    source: Box<dyn Source>,
    held: Mutex<HashMap<Digest, WeakContents>>,
    /// By their own digest.
    layers: Mutex<HashMap<Digest, Weak<Layer>>>,
}

/// Why a list of files gives no layer.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// Contents, or the list itself, cannot be had.
    #[error("{digest} of the files could not be opened")]
    Contents {
        /// Their name.
        digest: Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The list cannot be read.
    #[error("the list of the files {digest} cannot be used")]
    List {
        /// Its name.
        digest: Digest,
        /// Why.
        #[source]
        source: FileListError,
    },
    /// The list is not one of a tree.
    #[error("the list of the files {digest} cannot be used")]
    Layer {
        /// Its name.
        digest: Digest,
        /// Why.
        #[source]
        source: LayerError,
    },
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").finish_non_exhaustive()
    }
}

impl Library {
    /// Contents of this source.
    pub fn new(source: impl Source + 'static) -> Self {
        Self {
            source: Box::new(source),
            held: Mutex::default(),
            layers: Mutex::default(),
        }
    }

    /// A library that has nothing.
    pub fn empty() -> Self {
        Self::new(Nothing)
    }

    /// The layer that the list named `digest` describes; the same one for all who ask while someone
    /// has it. It may block.
    pub fn layer(&self, digest: &Digest) -> Result<Arc<Layer>, LibraryError> {
        self.layer_with(digest, &[])
    }

    /// The same, with what is to be there unless the list has something else in its place.
    pub fn layer_with(
        &self,
        list: &Digest,
        standard: &[Standard],
    ) -> Result<Arc<Layer>, LibraryError> {
        let parts = [*list, Standard::digest(standard)];
        let digest = Digest::of_parts(parts.iter().map(|part| part.as_bytes().as_slice()));
        let found = |layers: &HashMap<_, Weak<Layer>>| layers.get(&digest)?.upgrade();
        if let Some(layer) = found(&self.layers.lock()) {
            return Ok(layer);
        }
        let layer = Arc::new(self.build(list, standard)?.build_as(digest));
        let mut layers = self.layers.lock();
        if let Some(layer) = found(&layers) {
            return Ok(layer);
        }
        layers.retain(|_, layer| layer.strong_count() > 0);
        layers.insert(digest, Arc::downgrade(&layer));
        Ok(layer)
    }

    fn build(&self, list: &Digest, standard: &[Standard]) -> Result<LayerBuilder, LibraryError> {
        let open = |digest: &Digest| {
            self.contents(digest)
                .map_err(|source| LibraryError::Contents {
                    digest: *digest,
                    source,
                })
        };
        let contents = open(list)?;
        let mut bytes = vec![0; usize::try_from(contents.bytes()).unwrap_or(usize::MAX)];
        contents.read(0, &mut bytes);
        let parsed = FileList::parse(&bytes).map_err(|source| LibraryError::List {
            digest: *list,
            source,
        })?;
        let unfit = |source| LibraryError::Layer {
            digest: *list,
            source,
        };
        let mut builder = LayerBuilder::default();
        for (path, entry) in &parsed.entries {
            let added = match entry {
                FileEntry::File {
                    digest, executable, ..
                } => builder.file(path, open(digest)?, *executable),
                FileEntry::Link(target) => builder.symlink(path, target),
                FileEntry::Directory => builder.directory(path),
            };
            added.map_err(unfit)?;
        }
        builder.fill(standard).map_err(unfit)?;
        Ok(builder)
    }

    /// The contents named `digest`. It may block.
    pub fn contents(&self, digest: &Digest) -> std::io::Result<Contents> {
        let found = |held: &HashMap<_, WeakContents>| held.get(digest)?.upgrade();
        if let Some(contents) = found(&self.held.lock()) {
            return Ok(contents);
        }
        let opened = self.source.open(digest)?;
        let mut held = self.held.lock();
        // Another may have opened it meanwhile: one copy is enough.
        if let Some(contents) = found(&held) {
            return Ok(contents);
        }
        if held.len() == held.capacity() {
            held.retain(|_, contents| !contents.is_gone());
        }
        held.insert(*digest, opened.downgrade());
        Ok(opened)
    }
}

/// The source of a library that has nothing.
struct Nothing;

impl Source for Nothing {
    fn open(&self, _: &Digest) -> std::io::Result<Contents> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// Whether a list describes a tree, without its contents.
pub fn check_list(list: &FileList) -> Result<(), LayerError> {
    let mut builder = LayerBuilder::default();
    let nothing = Contents::of(*b"");
    for (path, entry) in &list.entries {
        match entry {
            FileEntry::File { .. } => builder.file(path, nothing.clone(), false)?,
            FileEntry::Link(target) => builder.symlink(path, target)?,
            FileEntry::Directory => builder.directory(path)?,
        }
    }
    Ok(())
}
