//! A frozen guest memory: a sealed memfd that any number of ranges map copy-on-write, and a file
//! that brings it back after a restart.
//!
//! File: magic (8), bytes of memory (8), stored pages (8), then each stored page's number (8), then
//! the pages' contents in the same order. Pages of zeros are not stored. The file is named by the
//! SHA-256 of all of it. Integers are little-endian.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use model::Digest;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::pieces::{Pages, Piece};
use crate::{ANNEX_BYTES, Arriving, MemoryError, PAGE_BYTES, Presence};

const MAGIC: &[u8; 8] = b"DUNIMG01";
const HEADER_BYTES: usize = 24;

/// Guest memory being put together.
#[derive(Debug, Default)]
pub struct ImageBuilder {
    bytes: usize,
    pages: std::collections::BTreeMap<usize, Box<[u8; PAGE_BYTES]>>,
}

impl ImageBuilder {
    /// Memory of `bytes` zeros, rounded up to whole pages.
    pub fn new(bytes: usize) -> Self {
        Self {
            bytes: bytes.next_multiple_of(PAGE_BYTES),
            pages: Default::default(),
        }
    }

    /// Writes `data` at `offset`; false, and nothing written, if it does not fit.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> bool {
        if offset
            .checked_add(data.len())
            .is_none_or(|end| end > self.bytes)
        {
            return false;
        }
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let within = at % PAGE_BYTES;
            let (now, later) = rest.split_at(rest.len().min(PAGE_BYTES - within));
            let page = self.pages.entry(at / PAGE_BYTES).or_insert_with(zero_page);
            page[within..within + now.len()].copy_from_slice(now);
            at += now.len();
            rest = later;
        }
        true
    }

    /// The image of all bytes of a memory.
    pub fn of_memory(memory: &[u8]) -> Self {
        let mut builder = Self::new(memory.len());
        for (number, chunk) in memory.chunks(PAGE_BYTES).enumerate() {
            if chunk.iter().any(|byte| *byte != 0) {
                builder.write(number * PAGE_BYTES, chunk);
            }
        }
        builder
    }

    /// The file's contents.
    pub fn encode(&self) -> Vec<u8> {
        let kept = self.kept();
        let mut file = Vec::with_capacity(HEADER_BYTES + kept.len() * (8 + PAGE_BYTES));
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&(self.bytes as u64).to_le_bytes());
        file.extend_from_slice(&(kept.len() as u64).to_le_bytes());
        for (number, _) in &kept {
            file.extend_from_slice(&(*number as u64).to_le_bytes());
        }
        for (_, page) in &kept {
            file.extend_from_slice(page.as_slice());
        }
        file
    }

    fn kept(&self) -> Vec<(usize, &[u8; PAGE_BYTES])> {
        let filled = |page: &&[u8; PAGE_BYTES]| page.iter().any(|byte| *byte != 0);
        let all = self
            .pages
            .iter()
            .map(|(number, page)| (*number, page.as_ref()));
        all.filter(|(_, page)| filled(page)).collect()
    }

    /// Reads a file's contents back.
    pub fn decode(file: &[u8]) -> Result<Self, MemoryError> {
        let bad = |reason: &str| MemoryError::BadImage {
            reason: reason.into(),
        };
        let number_at = |at: usize| -> Option<usize> {
            let bytes = file.get(at..at.checked_add(8)?)?.try_into().ok()?;
            usize::try_from(u64::from_le_bytes(bytes)).ok()
        };
        if file.get(..8) != Some(MAGIC.as_slice()) {
            return Err(bad("it does not begin with the magic number"));
        }
        let (Some(bytes), Some(count)) = (number_at(8), number_at(16)) else {
            return Err(bad("its header is cut short"));
        };
        let contents = count
            .checked_mul(8)
            .and_then(|n| n.checked_add(HEADER_BYTES));
        let end = contents
            .zip(count.checked_mul(PAGE_BYTES))
            .and_then(|(a, b)| a.checked_add(b));
        let (Some(contents), true) = (contents, end == Some(file.len())) else {
            return Err(bad("its length does not match its header"));
        };
        let mut builder = Self::new(bytes);
        for index in 0..count {
            let from = contents + index * PAGE_BYTES;
            let number = number_at(HEADER_BYTES + index * 8).unwrap_or(usize::MAX);
            let offset = number.saturating_mul(PAGE_BYTES);
            if !builder.write(offset, &file[from..from + PAGE_BYTES]) {
                return Err(bad("a page lies outside of the memory"));
            }
        }
        Ok(builder)
    }

    /// Freezes it.
    pub fn freeze(&self) -> Result<Image, MemoryError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd = rustix::fs::memfd_create("dunlin-image", flags)
            .map_err(MemoryError::kernel("create an image's memfd"))?;
        rustix::fs::ftruncate(&memfd, self.bytes as u64)
            .map_err(MemoryError::kernel("size an image"))?;
        let mut stored = vec![0u64; (self.bytes / PAGE_BYTES).div_ceil(64)];
        for (number, page) in self.kept() {
            let at = (number * PAGE_BYTES) as u64;
            write_all_at(memfd.as_fd(), page, at)?;
            stored[number / 64] |= 1 << (number % 64);
        }
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&memfd, seals).map_err(MemoryError::kernel("seal an image"))?;
        let whole = Piece {
            file: Arc::new(Pages::Whole(memfd)),
            page: 0,
            pages: self.bytes / PAGE_BYTES,
            file_page: 0,
        };
        let pieces = vec![whole];
        let view = map_view(&pieces, self.bytes)?;
        Ok(Image {
            pieces,
            arriving: Vec::new(),
            annex: None,
            bytes: self.bytes,
            view,
            stored,
            digest: Digest::of(&self.encode()),
        })
    }
}

/// A sealed memfd of [`ANNEX_BYTES`] that begins with `annex`.
fn freeze_annex(annex: &[u8]) -> Result<OwnedFd, MemoryError> {
    if annex.len() > ANNEX_BYTES {
        return Err(MemoryError::TooLarge {
            asked: annex.len(),
            most: ANNEX_BYTES,
        });
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = rustix::fs::memfd_create("dunlin-annex", flags)
        .map_err(MemoryError::kernel("create an annex's memfd"))?;
    rustix::fs::ftruncate(&memfd, ANNEX_BYTES as u64)
        .map_err(MemoryError::kernel("size an annex"))?;
    write_all_at(memfd.as_fd(), annex, 0)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memfd, seals).map_err(MemoryError::kernel("seal an annex"))?;
    Ok(memfd)
}

fn zero_page() -> Box<[u8; PAGE_BYTES]> {
    Box::new([0; PAGE_BYTES])
}

fn write_all_at(fd: BorrowedFd<'_>, mut data: &[u8], mut at: u64) -> Result<(), MemoryError> {
    while !data.is_empty() {
        let written =
            rustix::io::pwrite(fd, data, at).map_err(MemoryError::kernel("fill an image"))?;
        data = &data[written..];
        at += written as u64;
    }
    Ok(())
}

/// A view of all of an image's bytes, which nobody can write.
fn map_view(pieces: &[Piece], bytes: usize) -> Result<Option<NonNull<u8>>, MemoryError> {
    if bytes == 0 {
        return Ok(None);
    }
    // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
    let view = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    };
    let view = view.map_err(MemoryError::kernel("map an image"))?;
    for piece in pieces {
        // SAFETY: the span is the new mapping's own; the files are sealed, or are the node's own
        // cache, which is only ever added to.
        let mapped = unsafe { piece.map(view as usize, ProtFlags::READ) };
        if let Err(error) = mapped {
            // SAFETY: nobody refers to the new mapping yet.
            let _ = unsafe { rustix::mm::munmap(view, bytes) };
            return Err(error);
        }
    }
    Ok(NonNull::new(view.cast()))
}

/// The files of these pieces that are not whole, each once.
fn files_arriving(pieces: &[Piece]) -> Vec<Arc<Arriving>> {
    let mut files: Vec<Arc<Arriving>> = Vec::new();
    for piece in pieces {
        if let Pages::Arriving(file) = &*piece.file
            && file.presence() != Presence::Whole
            && !files.iter().any(|known| Arc::ptr_eq(known, file))
        {
            files.push(file.clone());
        }
    }
    files
}

/// A frozen guest memory.
#[derive(Debug)]
pub struct Image {
    /// Where its pages are, in the order in which they are mapped; what none holds is zeros.
    pieces: Vec<Piece>,
    /// Files of pieces that were not whole when it was made.
    arriving: Vec<Arc<Arriving>>,
    /// What is at the end of a range's reservation, where the guest's memory never comes to.
    annex: Option<OwnedFd>,
    bytes: usize,
    view: Option<NonNull<u8>>,
    /// One bit a page: whether the page holds anything but zeros.
    stored: Vec<u64>,
    digest: Digest,
}

// SAFETY: the view is read-only memory that nobody can change or unmap while the image lives.
unsafe impl Send for Image {}
// SAFETY: as above; every access is a read.
unsafe impl Sync for Image {}

impl Image {
    /// An image whose pages are where `pieces` say, with `annex` beside it. `digest` names all of
    /// that. Fails if a piece is outside of its file or of the memory.
    pub fn of_pieces(
        bytes: usize,
        pieces: Vec<Piece>,
        annex: &[u8],
        digest: Digest,
    ) -> Result<Self, MemoryError> {
        let bytes = bytes.next_multiple_of(PAGE_BYTES);
        let mut stored = vec![0u64; (bytes / PAGE_BYTES).div_ceil(64)];
        for piece in &pieces {
            piece.check(bytes)?;
            for number in piece.page..piece.page + piece.pages {
                stored[number / 64] |= 1 << (number % 64);
            }
        }
        Ok(Self {
            annex: (!annex.is_empty())
                .then(|| freeze_annex(annex))
                .transpose()?,
            view: map_view(&pieces, bytes)?,
            arriving: files_arriving(&pieces),
            pieces,
            bytes,
            stored,
            digest,
        })
    }

    /// Reads an image file.
    pub fn read(path: &std::path::Path) -> Result<Self, MemoryError> {
        let mut file = Vec::new();
        File::open(path)
            .and_then(|mut open| open.read_to_end(&mut file))
            .map_err(MemoryError::kernel("read an image file"))?;
        ImageBuilder::decode(&file)?.freeze()
    }

    /// Writes the image file to `out`.
    pub fn write(&self, out: &mut impl Write) -> Result<(), MemoryError> {
        let builder = ImageBuilder::of_memory(self.contents());
        out.write_all(&builder.encode())
            .map_err(MemoryError::kernel("write an image file"))
    }

    /// Bytes of memory, a multiple of [`PAGE_BYTES`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of pages that hold anything but zeros.
    pub fn stored_bytes(&self) -> usize {
        self.stored
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum::<usize>()
            * PAGE_BYTES
    }

    /// The image's name: the digest of its file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// All of its bytes.
    pub fn contents(&self) -> &[u8] {
        match self.view {
            // SAFETY: the view maps `bytes` readable bytes for as long as `self` lives.
            Some(view) => unsafe { std::slice::from_raw_parts(view.as_ptr(), self.bytes) },
            None => &[],
        }
    }

    /// Gives back what looking at the contents has made resident.
    pub fn forget_contents(&self) -> Result<(), MemoryError> {
        let Some(view) = self.view else {
            return Ok(());
        };
        // SAFETY: the view is of files that stay as they are, and zeros: the same bytes are read
        // from it afterwards.
        unsafe {
            rustix::mm::madvise(
                view.as_ptr().cast(),
                self.bytes,
                rustix::mm::Advice::LinuxDontNeed,
            )
        }
        .map_err(MemoryError::kernel("give back the view of an image"))
    }

    /// Whether any of its pages came while it was, or could have been, in use.
    pub(crate) fn has_arrived(&self) -> bool {
        let arrived = |piece: &Piece| matches!(*piece.file, Pages::Arriving(_));
        self.pieces.iter().any(arrived)
    }

    /// How much of it is there: as much as of that file of its pages of which the least is.
    pub fn presence(&self) -> Presence {
        let mut presence = Presence::Whole;
        for file in &self.arriving {
            match file.presence() {
                Presence::Whole => {}
                Presence::Arriving => presence = Presence::Arriving,
                Presence::Lost => return Presence::Lost,
            }
        }
        presence
    }

    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether there is nothing but one piece.
    pub(crate) fn is_one_piece(&self) -> bool {
        let whole = |piece: &Piece| piece.page == 0 && piece.pages * PAGE_BYTES == self.bytes;
        self.bytes == 0 || self.pieces.first().is_some_and(whole)
    }

    pub(crate) fn annex_bytes(&self) -> usize {
        self.annex.as_ref().map_or(0, |_| ANNEX_BYTES)
    }

    pub(crate) fn annex(&self) -> Option<BorrowedFd<'_>> {
        self.annex.as_ref().map(AsFd::as_fd)
    }

    /// Page `number`, if it holds anything but zeros.
    pub(crate) fn page(&self, number: usize) -> Option<&[u8]> {
        let start = number * PAGE_BYTES;
        self.is_stored(number)
            .then(|| &self.contents()[start..start + PAGE_BYTES])
    }

    /// Whether page `number` holds anything but zeros; pages past the end do not.
    pub(crate) fn is_stored(&self, number: usize) -> bool {
        self.stored
            .get(number / 64)
            .is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Some(view) = self.view {
            // SAFETY: `view` maps exactly `bytes` bytes and no reference outlives `self`. A failure
            // leaks address space, nothing else.
            let _ = unsafe { rustix::mm::munmap(view.as_ptr().cast(), self.bytes) };
        }
    }
}
