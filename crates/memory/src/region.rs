//! Memory that guests share: a memfd that grows, never shrinks, and is mapped in the host once and
//! in any number of ranges.
//!
//! Guests write it while the host reads: that is what it is for. So the host touches it only by
//! relaxed atomic loads and stores of whole aligned words, and a copy may mix words of before and
//! after a write that runs beside it, but never tears a word.

use std::any::Any;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::{MemoryError, PAGE_BYTES};

/// Regions are made of whole units of this size (a Wasm page), and are mapped from one.
pub const REGION_UNIT_BYTES: usize = 64 << 10;

/// Bytes of the words that the host copies by.
const WORD_BYTES: usize = size_of::<u64>();
/// Bytes that [`Region::zero`] writes at once where it cannot drop a whole page.
const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// Bytes that guests share. They begin as zeros.
pub struct Region {
    memfd: OwnedFd,
    /// `bytes_max` mapped addresses, of which the first `bytes` are backed by the file.
    view: NonNull<u8>,
    bytes_max: usize,
    bytes: AtomicUsize,
    growing: Mutex<()>,
    /// What its owner gave it to keep.
    kept: OnceLock<Kept>,
}

/// Anything that is to live as long as a region.
pub type Kept = Box<dyn Any + Send + Sync>;

// SAFETY: the view is never unmapped while the region lives, and is only accessed atomically.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// A region of no bytes that may grow to `bytes_max`, rounded up to whole units. Reserves the
    /// addresses, and no memory.
    pub fn new(bytes_max: usize) -> Result<Self, MemoryError> {
        let most = isize::MAX as usize;
        let too_large = MemoryError::TooLarge {
            asked: bytes_max,
            most,
        };
        let bytes_max = bytes_max.max(1).checked_next_multiple_of(REGION_UNIT_BYTES);
        let bytes_max = bytes_max.filter(|bytes| *bytes <= most).ok_or(too_large)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd = rustix::fs::memfd_create("dunlin-region", flags)
            .map_err(MemoryError::kernel("create a region's memfd"))?;
        rustix::fs::fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::SEAL)
            .map_err(MemoryError::kernel("seal a region"))?;
        let view = map_view(memfd.as_fd(), bytes_max)?;
        Ok(Self {
            memfd,
            view,
            bytes_max,
            bytes: AtomicUsize::new(0),
            growing: Mutex::default(),
            kept: OnceLock::new(),
        })
    }

    /// Drops `kept` when the region is gone: when nobody maps it any more either. A second one is
    /// dropped at once.
    pub fn keep(&self, kept: Kept) {
        drop(self.kept.set(kept));
    }

    /// Its bytes, a multiple of [`REGION_UNIT_BYTES`].
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// The most that it can grow to.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Makes it at least `bytes` long, rounded up to whole units; added bytes are zero.
    pub fn grow_to(&self, bytes: usize) -> Result<(), MemoryError> {
        if bytes > self.bytes_max {
            return Err(MemoryError::TooLarge {
                asked: bytes,
                most: self.bytes_max,
            });
        }
        let bytes = bytes.next_multiple_of(REGION_UNIT_BYTES);
        let _one_at_a_time = self.growing.lock();
        if bytes > self.bytes() {
            rustix::fs::ftruncate(&self.memfd, bytes as u64)
                .map_err(MemoryError::kernel("grow a region"))?;
            self.bytes.store(bytes, Ordering::Release);
        }
        Ok(())
    }

    /// Copies the bytes from `offset` on into `out`.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), MemoryError> {
        self.check(offset, out.len())?;
        let (mut at, mut rest) = (offset, out);
        while !rest.is_empty() {
            let within = at % WORD_BYTES;
            let length = rest.len().min(WORD_BYTES - within);
            let (now, later) = rest.split_at_mut(length);
            let word = self.word(at - within).load(Ordering::Relaxed).to_ne_bytes();
            now.copy_from_slice(&word[within..within + length]);
            (at, rest) = (at + length, later);
            let words = rest.len() / WORD_BYTES;
            let (whole, later) = rest.split_at_mut(words * WORD_BYTES);
            for (from, to) in self
                .words(at, words)
                .zip(whole.chunks_exact_mut(WORD_BYTES))
            {
                to.copy_from_slice(&from.load(Ordering::Relaxed).to_ne_bytes());
            }
            (at, rest) = (at + words * WORD_BYTES, later);
        }
        Ok(())
    }

    /// A copy of `length` bytes from `offset` on.
    pub fn copy(&self, offset: usize, length: usize) -> Result<Vec<u8>, MemoryError> {
        self.check(offset, length)?;
        let mut copy = Vec::with_capacity(length);
        let whole = match offset.is_multiple_of(WORD_BYTES) {
            true => length - length % WORD_BYTES,
            false => 0,
        };
        let room = &mut copy.spare_capacity_mut()[..whole];
        for (from, to) in self
            .words(offset, whole / WORD_BYTES)
            .zip(room.chunks_exact_mut(WORD_BYTES))
        {
            to.write_copy_of_slice(&from.load(Ordering::Relaxed).to_ne_bytes());
        }
        // SAFETY: there is room for these, and each of them was written.
        unsafe { copy.set_len(whole) };
        copy.resize(length, 0);
        self.read(offset + whole, &mut copy[whole..])?;
        Ok(copy)
    }

    /// Copies `data` to `offset`. Bytes beside it are left as they are, whoever writes them.
    pub fn write(&self, offset: usize, data: &[u8]) -> Result<(), MemoryError> {
        self.check(offset, data.len())?;
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let within = at % WORD_BYTES;
            let length = rest.len().min(WORD_BYTES - within);
            let (now, later) = rest.split_at(length);
            self.write_part(at - within, within, now);
            (at, rest) = (at + length, later);
            let words = rest.len() / WORD_BYTES;
            let (whole, later) = rest.split_at(words * WORD_BYTES);
            for (to, from) in self.words(at, words).zip(whole.chunks_exact(WORD_BYTES)) {
                let mut word = [0; WORD_BYTES];
                word.copy_from_slice(from);
                to.store(u64::from_ne_bytes(word), Ordering::Relaxed);
            }
            (at, rest) = (at + words * WORD_BYTES, later);
        }
        Ok(())
    }

    /// Adds to word `number`, the 8 bytes at 8 × `number`, and gives the sum. One step, also beside
    /// guests that change it atomically.
    pub fn add_to_word(&self, number: usize, amount: u64) -> Result<u64, MemoryError> {
        let offset = number.saturating_mul(WORD_BYTES);
        self.check(offset, WORD_BYTES)?;
        let before = self.word(offset).fetch_add(amount, Ordering::AcqRel);
        Ok(before.wrapping_add(amount))
    }

    /// Makes `length` bytes from `offset` zero; whole pages give their memory back.
    pub fn zero(&self, offset: usize, length: usize) -> Result<(), MemoryError> {
        self.check(offset, length)?;
        let end = offset + length;
        let pages = offset.next_multiple_of(PAGE_BYTES)..end - end % PAGE_BYTES;
        if pages.is_empty() {
            return self.write_zeros(offset, end);
        }
        self.write_zeros(offset, pages.start)?;
        self.write_zeros(pages.end, end)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let (start, length) = (pages.start as u64, pages.len() as u64);
        rustix::fs::fallocate(&self.memfd, flags, start, length)
            .map_err(MemoryError::kernel("drop pages of a region"))
    }

    fn write_zeros(&self, start: usize, end: usize) -> Result<(), MemoryError> {
        let mut at = start;
        while at < end {
            let length = (end - at).min(ZEROS.len());
            self.write(at, &ZEROS[..length])?;
            at += length;
        }
        Ok(())
    }

    /// Bytes of memory that it holds.
    pub fn resident_bytes(&self) -> Result<usize, MemoryError> {
        const BLOCK_BYTES: usize = 512;
        let stat =
            rustix::fs::fstat(&self.memfd).map_err(MemoryError::kernel("measure a region"))?;
        Ok(usize::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES)
    }

    pub(crate) fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// Whether `length` bytes from `offset` lie within.
    pub(crate) fn check(&self, offset: usize, length: usize) -> Result<(), MemoryError> {
        let bytes = self.bytes();
        match offset.checked_add(length) {
            Some(end) if end <= bytes => Ok(()),
            _ => Err(MemoryError::Outside {
                offset,
                length,
                bytes,
            }),
        }
    }

    /// Changes part of a word, and only that part, beside whoever changes the rest.
    fn write_part(&self, at: usize, within: usize, part: &[u8]) {
        let word = self.word(at);
        let mut old = word.load(Ordering::Relaxed);
        loop {
            let mut new = old.to_ne_bytes();
            new[within..within + part.len()].copy_from_slice(part);
            let new = u64::from_ne_bytes(new);
            match word.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    /// The word at `at`: aligned, and within the file.
    fn word(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at.is_multiple_of(WORD_BYTES) && at < self.bytes());
        // SAFETY: callers checked that `at` is within the file, whose length is a multiple of a
        // word and never shrinks; the view is aligned to a page and lives as long as `self`. The
        // host accesses it by atomics of this one size only.
        unsafe { AtomicU64::from_ptr(self.view.as_ptr().add(at).cast()) }
    }

    fn words(&self, at: usize, count: usize) -> impl Iterator<Item = &AtomicU64> {
        (0..count).map(move |index| self.word(at + index * WORD_BYTES))
    }
}

fn map_view(memfd: BorrowedFd<'_>, bytes: usize) -> Result<NonNull<u8>, MemoryError> {
    // SAFETY: a new mapping at an address of the kernel's choice aliases nothing. Addresses past
    // the file's end are mapped and would fault; every access is checked against its length.
    let view = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::NORESERVE,
            memfd,
            0,
        )
    }
    .map_err(MemoryError::kernel("map a region"))?;
    NonNull::new(view.cast()).ok_or_else(|| {
        let nowhere = std::io::Error::other("it was mapped at address 0");
        MemoryError::kernel("map a region")(nowhere)
    })
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Region");
        shown.field("bytes", &self.bytes());
        shown.field("bytes_max", &self.bytes_max).finish()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the view spans exactly `bytes_max` mapped addresses, and no reference outlives
        // `self`. Ranges hold mappings of their own. A failure leaks address space, nothing else.
        let _ = unsafe { rustix::mm::munmap(self.view.as_ptr().cast(), self.bytes_max) };
    }
}
