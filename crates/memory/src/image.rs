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

use model::Digest;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::{MemoryError, PAGE_BYTES};

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
        let view = map_view(memfd.as_fd(), self.bytes)?;
        Ok(Image {
            memfd,
            bytes: self.bytes,
            view,
            stored,
            digest: Digest::of(&self.encode()),
        })
    }
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

fn map_view(memfd: BorrowedFd<'_>, bytes: usize) -> Result<Option<NonNull<u8>>, MemoryError> {
    if bytes == 0 {
        return Ok(None);
    }
    // SAFETY: a new mapping at an address of the kernel's choice aliases nothing; the memfd is
    // sealed against writing and shrinking, so the view neither changes nor faults.
    let view = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ,
            MapFlags::SHARED,
            memfd,
            0,
        )
    };
    Ok(NonNull::new(
        view.map_err(MemoryError::kernel("map an image"))?.cast(),
    ))
}

/// A frozen guest memory.
#[derive(Debug)]
pub struct Image {
    memfd: OwnedFd,
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

    pub(crate) fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
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
