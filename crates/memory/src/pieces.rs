//! Where the pages of an image are: runs of pages of files, laid over one another, so that images
//! of one origin hold what is common to them once, in memory and on disk.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags};

use crate::pager::watch;
use crate::{Arriving, Image, MemoryError, PAGE_BYTES, Presence};

/// Runs of pages that a difference from another image has at most: each is a mapping or two of
/// every range, and a process has some 65,000 of them.
pub const RUNS_MAX: usize = 160;
/// The same, of a difference from nothing: between its runs are only zeros, which cost little.
const ROOT_RUNS_MAX: usize = 8;

/// A file of pages.
#[derive(Debug)]
pub enum Pages {
    /// All of it is there, and stays as it is.
    Whole(OwnedFd),
    /// Its pages come while it is in use.
    Arriving(Arc<Arriving>),
}

impl Pages {
    /// Its length.
    pub fn bytes(&self) -> Result<u64, MemoryError> {
        let stat = rustix::fs::fstat(self.as_fd())
            .map_err(MemoryError::kernel("look at a file of pages"))?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// How much of it is there.
    pub fn presence(&self) -> Presence {
        match self {
            Self::Whole(_) => Presence::Whole,
            Self::Arriving(arriving) => arriving.presence(),
        }
    }
}

impl AsFd for Pages {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Whole(file) => file.as_fd(),
            Self::Arriving(arriving) => arriving.file(),
        }
    }
}

/// A run of pages of an image, and the file that holds them. A later piece hides an earlier one.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The file.
    pub file: Arc<Pages>,
    /// Number of the first page in the image.
    pub page: usize,
    /// How many.
    pub pages: usize,
    /// Number of the first page in the file.
    pub file_page: usize,
}

/// A run of pages of a [`Difference`], which its file holds one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// Number of the first page in the image.
    pub page: usize,
    /// How many.
    pub pages: usize,
}

/// In what a memory differs from what it began as.
#[derive(Debug)]
pub struct Difference {
    /// Which pages, ascending and apart.
    pub runs: Vec<PageRun>,
    /// Their contents.
    pub bytes: Vec<u8>,
}

impl Difference {
    /// The pages of `memory` that are not as in `base`, or not zero if there is none. A few equal
    /// pages are among them, where that saves a run.
    pub fn of(memory: &[u8], base: Option<&Image>) -> Self {
        let most = base.map_or(ROOT_RUNS_MAX, |_| RUNS_MAX);
        let base = base.map_or(&[][..], Image::contents);
        let page_of = |bytes: &'_ [u8], number: usize| -> [u8; PAGE_BYTES] {
            let mut page = [0; PAGE_BYTES];
            let rest = bytes.get(number * PAGE_BYTES..).unwrap_or(&[]);
            let length = rest.len().min(PAGE_BYTES);
            page[..length].copy_from_slice(&rest[..length]);
            page
        };
        let mut runs: Vec<PageRun> = Vec::new();
        for number in 0..memory.len().div_ceil(PAGE_BYTES) {
            if page_of(memory, number) == page_of(base, number) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.page + run.pages == number => run.pages += 1,
                _ => runs.push(PageRun {
                    page: number,
                    pages: 1,
                }),
            }
        }
        merge(&mut runs, most);
        let pages = runs.iter().flat_map(|run| run.page..run.page + run.pages);
        let bytes = pages.flat_map(|number| page_of(memory, number)).collect();
        Self { runs, bytes }
    }

    /// The pieces of it that lie in `file`.
    pub fn pieces(runs: &[PageRun], file: &Arc<Pages>) -> Vec<Piece> {
        let mut file_page = 0;
        let mut piece = |run: &PageRun| {
            let at = file_page;
            file_page += run.pages;
            Piece {
                file: file.clone(),
                page: run.page,
                pages: run.pages,
                file_page: at,
            }
        };
        runs.iter().map(&mut piece).collect()
    }
}

/// Closes the narrowest gaps until there are `most` runs.
fn merge(runs: &mut Vec<PageRun>, most: usize) {
    let gap = |pair: &[PageRun]| pair[1].page - pair[0].page - pair[0].pages;
    let mut gaps: Vec<_> = runs.windows(2).map(gap).collect();
    let excess = runs.len().saturating_sub(most);
    if excess == 0 {
        return;
    }
    gaps.sort_unstable();
    let (widest, mut left) = (gaps[excess - 1], excess);
    let mut merged: Vec<PageRun> = Vec::with_capacity(most);
    for run in runs.drain(..) {
        match merged.last_mut() {
            Some(last) if left > 0 && run.page - last.page - last.pages <= widest => {
                last.pages = run.page + run.pages - last.page;
                left -= 1;
            }
            _ => merged.push(run),
        }
    }
    *runs = merged;
}

impl Piece {
    /// Whether its file holds it, and a memory of `bytes` has room for it.
    pub(crate) fn check(&self, bytes: usize) -> Result<(), MemoryError> {
        let held = usize::try_from(self.file.bytes()?).unwrap_or(0) / PAGE_BYTES;
        let fits = |first: usize, room: usize| {
            first.checked_add(self.pages).is_some_and(|end| end <= room)
        };
        if fits(self.page, bytes / PAGE_BYTES) && fits(self.file_page, held) {
            return Ok(());
        }
        Err(MemoryError::BadImage {
            reason: "a piece lies outside of its file or of the memory".into(),
        })
    }

    /// Maps it privately into the memory at `base`.
    ///
    /// # Safety
    ///
    /// The memory is the caller's, reaches as far as the piece, and nobody refers to what is there.
    pub(crate) unsafe fn map(&self, base: usize, access: ProtFlags) -> Result<(), MemoryError> {
        if self.pages == 0 {
            return Ok(());
        }
        let (start, bytes) = (base + self.page * PAGE_BYTES, self.pages * PAGE_BYTES);
        // SAFETY: the caller vouches for the addresses; `check` has seen that the file is as long.
        unsafe {
            rustix::mm::mmap(
                start as *mut _,
                bytes,
                access,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                self.file.as_fd(),
                (self.file_page * PAGE_BYTES) as u64,
            )
        }
        .map_err(MemoryError::kernel("map pages of an image"))?;
        match &*self.file {
            Pages::Arriving(arriving) if arriving.presence() != Presence::Whole => {
                watch(arriving, start, bytes, self.file_page)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::ImageBuilder;

    fn page(fill: u8) -> Vec<u8> {
        vec![fill; PAGE_BYTES]
    }

    fn memory(pages: &[u8]) -> Vec<u8> {
        pages.iter().flat_map(|fill| page(*fill)).collect()
    }

    fn file(bytes: &[u8]) -> Arc<Pages> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pages");
        std::fs::write(&path, bytes).unwrap();
        Arc::new(Pages::Whole(File::open(&path).unwrap().into()))
    }

    #[test]
    fn a_difference_laid_over_its_base_gives_the_memory_back() {
        let before = memory(&[1, 2, 0, 4, 5]);
        let after = memory(&[1, 9, 3, 0, 5, 0, 7]);
        let root = Difference::of(&before, None);
        let run = |page, pages| PageRun { page, pages };
        assert_eq!(root.runs, [run(0, 2), run(3, 2)]);
        let mut pieces = Difference::pieces(&root.runs, &file(&root.bytes));
        let base = Image::of_pieces(before.len(), pieces.clone(), &[], model::Digest::of(b"1"));
        let base = base.unwrap();
        assert_eq!(base.contents(), before);
        let delta = Difference::of(&after, Some(&base));
        assert_eq!(delta.runs, [run(1, 3), run(6, 1)]);
        pieces.extend(Difference::pieces(&delta.runs, &file(&delta.bytes)));
        let image = Image::of_pieces(after.len(), pieces, &[], model::Digest::of(b"2"));
        assert_eq!(image.unwrap().contents(), after);
    }

    #[test]
    fn a_difference_of_many_runs_closes_its_narrowest_gaps() {
        let mut before = vec![0; 600 * PAGE_BYTES];
        let base = ImageBuilder::of_memory(&before).freeze().unwrap();
        for number in (0..400).step_by(2).chain([500, 599]) {
            before[number * PAGE_BYTES] = 1;
        }
        let delta = Difference::of(&before, Some(&base));
        assert!(delta.runs.len() <= RUNS_MAX, "{}", delta.runs.len());
        let run = |page, pages| PageRun { page, pages };
        assert_eq!(
            delta.runs[delta.runs.len() - 2..],
            [run(500, 1), run(599, 1)]
        );
        let pieces = Difference::pieces(&delta.runs, &file(&delta.bytes));
        let image = Image::of_pieces(before.len(), pieces, &[], model::Digest::of(b""));
        assert_eq!(image.unwrap().contents(), before);
    }

    #[test]
    fn a_piece_outside_of_its_file_or_memory_is_refused() {
        let held = file(&memory(&[1, 2]));
        let piece = |page, pages, file_page| Piece {
            file: held.clone(),
            page,
            pages,
            file_page,
        };
        for bad in [piece(3, 2, 0), piece(0, 2, 1), piece(usize::MAX, 2, 0)] {
            let image = Image::of_pieces(4 * PAGE_BYTES, vec![bad], &[], model::Digest::of(b""));
            assert!(matches!(image, Err(MemoryError::BadImage { .. })));
        }
    }
}
