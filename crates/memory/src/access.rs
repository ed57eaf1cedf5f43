//! What a virtual machine needs of its memory beyond what an engine does: checked copies by the
//! host, grown memory that outlives resets, and a way to make the machine look pages up again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{Advice, MprotectFlags};

use crate::slab::map_image;
use crate::{Image, MemoryError, PAGE_BYTES, Range};

/// Buffers from this size on are backed by huge pages.
const FILLED_BYTES_MIN: usize = 4 << 20;

impl Range {
    /// Grows to `bytes` and keeps that much over resets, which make what was added zero again.
    /// Small pages back it, since a reset has to make whole ones zero.
    pub fn keep(&self, bytes: usize) -> Result<(), MemoryError> {
        if bytes <= self.kept_bytes() {
            return Ok(());
        }
        self.own.forget();
        self.grow_to(bytes)?;
        self.kept.fetch_max(self.bytes(), Ordering::Relaxed);
        let image = self.image().bytes();
        let length = self.bytes() - image;
        self.advise(
            image,
            length,
            Advice::LinuxNoHugepage,
            "advise on the size of pages",
        )
    }

    /// Bytes that stay accessible over resets.
    pub fn kept_bytes(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Copies the bytes from `at` on into `out`.
    pub fn read(&self, at: usize, out: &mut [u8]) -> Result<(), MemoryError> {
        let from = self.inside(at, out.len())?;
        // SAFETY: the span is accessible memory of this range, and `out` is not in it, since no
        // reference into a range exists. A guest that writes at the same time can only mix up the
        // bytes that are copied, which are plain numbers.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    /// Copies `data` to `at`.
    pub fn write(&self, at: usize, data: &[u8]) -> Result<(), MemoryError> {
        let to = self.inside(at, data.len())?;
        self.own.host_writes(at, data.len());
        // SAFETY: as in `read`, the other way.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) };
        Ok(())
    }

    /// Writes `words` from `at` on, a multiple of 8, each of them at once: whoever reads one
    /// meanwhile, as a processor does that walks page tables, finds the old one or the new.
    pub fn write_words(&self, at: usize, words: &[u64]) -> Result<(), MemoryError> {
        let to = self.inside(at, size_of_val(words))?;
        if !at.is_multiple_of(size_of::<u64>()) {
            return Err(MemoryError::BadMapping {
                reason: "an address is not of whole words",
            });
        }
        self.own.host_writes(at, size_of_val(words));
        for (index, word) in words.iter().enumerate() {
            // SAFETY: the word lies in accessible memory of this range, which begins with a page,
            // so it is aligned; the host touches it by atomic stores and by copies only.
            let place = unsafe { AtomicU64::from_ptr(to.cast::<u64>().wrapping_add(index)) };
            place.store(*word, Ordering::Release);
        }
        Ok(())
    }

    /// Makes `length` bytes from `at` zero.
    pub fn zero(&self, at: usize, length: usize) -> Result<(), MemoryError> {
        let to = self.inside(at, length)?;
        self.own.host_writes(at, length);
        // SAFETY: the span is accessible memory of this range, into which no reference exists.
        unsafe { std::ptr::write_bytes(to, 0, length) };
        Ok(())
    }

    /// Makes every virtual machine that runs on these whole pages ask its own page tables again
    /// before it touches them: what it remembers of how it may use them is forgotten. The bytes
    /// stay. The guest must not run.
    pub fn forget_translations(&self, at: usize, length: usize) -> Result<(), MemoryError> {
        let start = self.pages(at, length)?;
        for access in [
            MprotectFlags::empty(),
            MprotectFlags::READ | MprotectFlags::WRITE,
        ] {
            // SAFETY: the span is accessible memory of this range; no reference into it exists and
            // no guest runs, so nothing faults while it is without access.
            unsafe { rustix::mm::mprotect(start.cast(), length, access) }
                .map_err(MemoryError::kernel("renew guest memory"))?;
        }
        Ok(())
    }

    /// Makes whole pages past the image zero, gives their memory back, and forgets translations as
    /// [`Range::forget_translations`] does.
    pub fn drop_pages(&self, at: usize, length: usize) -> Result<(), MemoryError> {
        let start = self.pages(at, length)?;
        if at < self.image().bytes() {
            return Err(MemoryError::BadMapping {
                reason: "pages of an image cannot be dropped",
            });
        }
        self.own.forget();
        // SAFETY: the span is private memory of this range, into which no reference exists.
        unsafe { rustix::mm::madvise(start.cast(), length, Advice::LinuxDontNeed) }
            .map_err(MemoryError::kernel("drop guest memory"))
    }

    /// Lets whole pages past the image be backed by huge ones, which are much cheaper to touch
    /// first, and dearer to reset if few of their bytes are used.
    pub fn prefer_huge_pages(&self, at: usize, length: usize) -> Result<(), MemoryError> {
        self.advise(
            at,
            length,
            Advice::LinuxHugepage,
            "advise on the size of pages",
        )
    }

    /// Says that a long buffer past the image is about to be filled, all of it: huge pages back it
    /// from then on. They back one stretch of a range at most, so that it stays few mappings.
    pub(crate) fn will_fill(&self, at: usize, length: usize) -> Result<(), MemoryError> {
        let start = at.max(self.image().bytes()).next_multiple_of(PAGE_BYTES);
        let end = (at + length) / PAGE_BYTES * PAGE_BYTES;
        if length < FILLED_BYTES_MIN || start >= end {
            return Ok(());
        }
        let mut huge = self.huge.lock();
        let all = match huge.is_empty() {
            true => start..end,
            false => huge.start.min(start)..huge.end.max(end),
        };
        if *huge != all {
            let within = all.start..all.end.min(self.bytes());
            self.prefer_huge_pages(within.start, within.len())?;
            *huge = all;
        }
        Ok(())
    }

    /// Gives the kernel advice that changes no bytes. One that does not know it does without.
    fn advise(
        &self,
        at: usize,
        length: usize,
        advice: Advice,
        doing: &'static str,
    ) -> Result<(), MemoryError> {
        let start = self.pages(at, length)?;
        // SAFETY: advice on accessible memory of this range changes none of its bytes.
        match unsafe { rustix::mm::madvise(start.cast(), length, advice) } {
            Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
            Err(error) => Err(MemoryError::kernel(doing)(error)),
        }
    }

    /// Makes it a range over `image`, as new. No guest runs, and nobody holds a reference into it.
    pub fn reimage(&self, image: &Arc<Image>) -> Result<(), MemoryError> {
        let reserved = self.reserved_bytes();
        let most = reserved - image.annex_bytes();
        if image.bytes() > most {
            return Err(MemoryError::TooLarge {
                asked: image.bytes(),
                most,
            });
        }
        // Until it is whole again, nobody may find it under its old image.
        self.spoiled.store(true, Ordering::Relaxed);
        self.blank()?;
        map_image(self.slot, reserved, image)?;
        self.is_now(image, image.bytes());
        Ok(())
    }

    /// The same for one that keeps its length, zeros past the image: cheaper for a virtual machine.
    pub fn reimage_within(&self, image: &Arc<Image>) -> Result<(), MemoryError> {
        let (old, kept) = (self.image(), self.kept_bytes());
        let annex = old.annex().or(image.annex()).is_some();
        if annex || image.bytes() > kept || self.bytes() != kept {
            self.reimage(image)?;
            return self.keep(kept);
        }
        self.spoiled.store(true, Ordering::Relaxed);
        // SAFETY: no guest runs in it and nobody refers to it, as the caller vouches; what is
        // mapped is this range's own.
        unsafe {
            self.mappings.lock().clear(self.base() as usize + kept)?;
            map_image(self.slot, self.reserved_bytes(), image)?;
            let file = image.bytes()..old.bytes();
            self.slab.map_zeros(self.slot, file)?;
        }
        let rest = image.bytes().max(old.bytes());
        if rest < kept {
            self.forget(self.base() as usize + rest, kept - rest)?;
        }
        self.is_now(image, kept);
        Ok(())
    }

    /// It equals `image`, and zeros from there to `kept` bytes.
    fn is_now(&self, image: &Arc<Image>, kept: usize) {
        self.own.forget();
        *self.image.lock() = image.clone();
        *self.overlay.lock() = None;
        *self.huge.lock() = 0..0;
        for bytes in [&self.bytes, &self.peak, &self.kept] {
            bytes.store(kept, Ordering::Relaxed);
        }
        self.spoiled.store(false, Ordering::Relaxed);
    }

    /// Has the kernel make whole pages resident now, as private ones that can be written, rather
    /// than at the first touch of each. A kernel that cannot makes them then.
    pub fn populate(&self, at: usize, length: usize) -> Result<(), MemoryError> {
        self.own.forget();
        self.advise(
            at,
            length,
            Advice::LinuxPopulateWrite,
            "make guest memory resident",
        )
    }

    fn inside(&self, at: usize, length: usize) -> Result<*mut u8, MemoryError> {
        let bytes = self.bytes();
        match at.checked_add(length) {
            // In bounds of the reservation, so the address does not overflow.
            Some(end) if end <= bytes => Ok(self.base().wrapping_add(at)),
            _ => Err(MemoryError::Outside {
                offset: at,
                length,
                bytes,
            }),
        }
    }

    fn pages(&self, at: usize, length: usize) -> Result<*mut u8, MemoryError> {
        if !at.is_multiple_of(PAGE_BYTES) || !length.is_multiple_of(PAGE_BYTES) {
            return Err(MemoryError::BadMapping {
                reason: "an address or length is not of whole pages",
            });
        }
        self.inside(at, length)
    }
}
