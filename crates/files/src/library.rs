//! Contents by digest, held once however many layers have them.

use std::collections::HashMap;
use std::fmt;

use model::Digest;
use parking_lot::Mutex;

use crate::Contents;
use crate::contents::WeakContents;

/// Where contents come from. It may block.
pub trait Source: Send + Sync {
    /// The contents named `digest`.
    fn open(&self, digest: &Digest) -> std::io::Result<Contents>;
}

/// Finds contents by digest: those that someone holds are found again, and not opened twice.
pub struct Library {
    source: Box<dyn Source>,
    held: Mutex<HashMap<Digest, WeakContents>>,
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
        }
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
