//! A large memory, kept as a file of its pages: it is mapped as it is, and may be in use before all
//! of it has come from another node.

use memory::{Difference, Image, PageRun};
use model::Digest;
use sandbox::{BodyError, Cache, EntryKind};
use serde::{Deserialize, Serialize};

/// Bytes of pages from which on a memory is kept so; a smaller one is sooner read than mapped again
/// and again in pieces.
const FROM_BYTES: usize = 8 << 20;

/// Where the pages of a memory are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeptPages {
    /// Digest of the file, by which the cache has it.
    pub file: Digest,
    /// Bytes of memory.
    bytes: usize,
    /// First page and number of pages of each run in the file.
    runs: Vec<(usize, usize)>,
}

impl KeptPages {
    /// Keeps the pages of an image, if they are many.
    pub fn keep(cache: &Cache, image: &Image) -> Result<Option<Self>, BodyError> {
        if image.stored_bytes() < FROM_BYTES {
            return Ok(None);
        }
        let Difference { runs, bytes } = Difference::of(image.contents(), None);
        image.forget_contents()?;
        let file = Digest::of(&bytes);
        if cache.load(&file, EntryKind::Pages)?.is_none() {
            cache.store(&file, EntryKind::Pages, &bytes)?;
        }
        Ok(Some(Self {
            file,
            bytes: image.bytes(),
            runs: runs.iter().map(|run| (run.page, run.pages)).collect(),
        }))
    }

    /// The image, by the name of `digest`; none if the cache has not all of its pages, and none of
    /// them is on the way.
    pub fn image(&self, cache: &Cache, digest: Digest) -> Result<Option<Image>, BodyError> {
        let Some(file) = cache.pages(&self.file)? else {
            return Ok(None);
        };
        let run = |&(page, pages): &(usize, usize)| PageRun { page, pages };
        let runs: Vec<_> = self.runs.iter().map(run).collect();
        let pieces = Difference::pieces(&runs, &file);
        Ok(Some(Image::of_pieces(self.bytes, pieces, &[], digest)?))
    }
}
