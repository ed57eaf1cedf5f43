//! One guest's memory: a span of reserved addresses that begins as a copy of an image.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::mm::{Advice, MprotectFlags};

use crate::mapping::Mappings;
use crate::own::Own;
use crate::pagemap::{self, Run};
use crate::slab::{SlabInner, Slot, protect_poll};
use crate::{ANNEX_BYTES, Access, Image, MemoryError, Overlay, PAGE_BYTES, Region};

/// Written pages that a reset copies back and keeps resident; those past it are dropped. Copying
/// costs a tenth of faulting a page in again, but holds its memory.
const COPIED_PAGES_MAX: usize = 512;
/// Runs of written pages looked up at a time.
const RUNS_AT_A_TIME: usize = 128;

/// Who may touch an annex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnexAccess {
    /// Nobody.
    None,
    /// Readers.
    Read,
    /// Writers, of private pages.
    Write,
}

/// A guest memory over an image. Shared between the engine, which grows it, and the sandbox, which
/// resets it when no guest runs.
pub struct Range {
    pub(crate) slot: Slot,
    pub(crate) image: Mutex<Arc<Image>>,
    /// What its image was put over another with, which is the one that is mapped.
    pub(crate) overlay: Mutex<Option<Arc<Overlay>>>,
    pub(crate) slab: Arc<SlabInner>,
    /// Accessible bytes.
    pub(crate) bytes: AtomicUsize,
    /// Most accessible bytes since the last reset.
    pub(crate) peak: AtomicUsize,
    /// Bytes that stay accessible over a reset: the image and what [`Range::keep`] added.
    pub(crate) kept: AtomicUsize,
    /// Regions in the grown part.
    pub(crate) mappings: Mutex<Mappings>,
    /// Whether a reset failed half-way.
    pub(crate) spoiled: AtomicBool,
    /// Pages of the kept part that are private.
    pub(crate) own: Own,
    /// The stretch that huge pages back.
    pub(crate) huge: Mutex<std::ops::Range<usize>>,
}

impl Range {
    pub(crate) fn new(slot: Slot, image: Arc<Image>, slab: Arc<SlabInner>) -> Self {
        let bytes = image.bytes();
        Self {
            slot,
            image: Mutex::new(image),
            overlay: Mutex::default(),
            slab,
            bytes: bytes.into(),
            peak: bytes.into(),
            kept: bytes.into(),
            mappings: Mutex::default(),
            spoiled: false.into(),
            own: Own::default(),
            huge: Mutex::new(0..0),
        }
    }

    /// The first byte.
    pub fn base(&self) -> *mut u8 {
        self.slot.base as *mut u8
    }

    /// A page of its own past the memory and its guard, which guest code reads at its polls.
    pub fn poll_page(&self) -> *mut u8 {
        self.slot.poll as *mut u8
    }

    /// Lets polls pass, or makes them trap. Callable from any thread while the guest runs.
    pub fn set_poll_passes(&self, passes: bool) -> Result<(), MemoryError> {
        protect_poll(self.slot, passes)
    }

    /// Accessible bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Most accessible bytes since the last reset.
    pub fn peak_bytes(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Most bytes that it can grow to.
    pub fn bytes_max(&self) -> usize {
        self.reserved_bytes() - self.image().annex_bytes()
    }

    pub(crate) fn reserved_bytes(&self) -> usize {
        self.slab.reservation_bytes()
    }

    /// Who may touch the annex of the image, which ends with the reservation: nobody, readers, or,
    /// with private pages, writers. Does nothing without an annex.
    pub fn set_annex_access(&self, access: AnnexAccess) -> Result<(), MemoryError> {
        if self.image().annex().is_none() {
            return Ok(());
        }
        let flags = match access {
            AnnexAccess::None => MprotectFlags::empty(),
            AnnexAccess::Read => MprotectFlags::READ,
            AnnexAccess::Write => MprotectFlags::READ | MprotectFlags::WRITE,
        };
        // SAFETY: the annex is this range's own, mapped when its slot was; guest code that faults
        // on it is caught as a trap, and the host reads it only through `annex`.
        unsafe { rustix::mm::mprotect(self.annex_address() as *mut _, ANNEX_BYTES, flags) }
            .map_err(MemoryError::kernel("protect an annex"))
    }

    /// A copy of the annex, which must be readable, to be called when no guest runs.
    pub fn annex(&self) -> Vec<u8> {
        if self.image().annex().is_none() {
            return Vec::new();
        }
        // SAFETY: the annex spans these bytes of the range's own; it is readable unless the caller
        // has taken that away, and nobody writes it now.
        unsafe { std::slice::from_raw_parts(self.annex_address() as *const u8, ANNEX_BYTES) }
            .to_vec()
    }

    fn annex_address(&self) -> usize {
        self.slot.base + self.bytes_max()
    }

    /// A copy of all accessible bytes, to be called when no guest runs.
    pub fn contents(&self) -> Vec<u8> {
        // SAFETY: the accessible bytes are readable, and the caller vouches that nobody writes.
        unsafe { std::slice::from_raw_parts(self.base(), self.bytes()) }.to_vec()
    }

    /// What it holds is of no use to anybody: when dropped it is mapped anew.
    pub fn spoil(&self) {
        self.spoiled.store(true, Ordering::Relaxed);
    }

    /// The image that it began as.
    pub fn image(&self) -> Arc<Image> {
        self.image.lock().clone()
    }

    /// Makes the first `bytes` bytes accessible; added bytes are zero. Never shrinks.
    pub fn grow_to(&self, bytes: usize) -> Result<(), MemoryError> {
        let old = self.bytes();
        let new = bytes.next_multiple_of(PAGE_BYTES);
        if new > self.bytes_max() {
            return Err(MemoryError::TooLarge {
                asked: bytes,
                most: self.bytes_max(),
            });
        }
        if new <= old {
            return Ok(());
        }
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: the span lies in this range's own reservation and was without access, so nothing
        // refers to it.
        unsafe { rustix::mm::mprotect((self.slot.base + old) as *mut _, new - old, access) }
            .map_err(MemoryError::kernel("grow guest memory"))?;
        self.bytes.store(new, Ordering::Relaxed);
        self.peak.fetch_max(new, Ordering::Relaxed);
        Ok(())
    }

    /// Maps `bytes` of `region` from `offset` at `at`, in the part that the guest has grown, until
    /// the next reset; all three are of whole pages. What was there is gone. To be called when
    /// nobody holds a reference into that part.
    pub fn map(
        &self,
        at: usize,
        region: &Arc<Region>,
        offset: usize,
        bytes: usize,
        access: Access,
    ) -> Result<(), MemoryError> {
        let reason = "it lies outside of the part that has grown";
        self.own.forget();
        let mut mappings = self.mappings.lock();
        let kept = self.kept.load(Ordering::Relaxed);
        let inside = |end: usize| {
            let on_one_side = at >= kept || end <= kept;
            at >= self.image().bytes() && end <= self.bytes() && on_one_side
        };
        if !at.checked_add(bytes).is_some_and(inside) {
            return Err(MemoryError::BadMapping { reason });
        }
        // SAFETY: the addresses are this range's own and accessible, and the caller vouches that
        // nobody refers to them.
        unsafe { mappings.map(self.slot.base + at, region, offset, bytes, access) }
    }

    /// Whether the guest, or the host for it, wrote to a region that is mapped for reading; what
    /// was written is seen by this guest only.
    pub fn wrote_read_only(&self) -> Result<bool, MemoryError> {
        self.mappings.lock().wrote_read_only()
    }

    /// Makes the range equal to its image again: as long, and with the same bytes. To be called
    /// when no guest runs in it and nobody holds a reference into it. Returns whether it had grown.
    pub fn reset(&self) -> Result<bool, MemoryError> {
        self.own.forget();
        self.finish_reset(|range| range.search_and_restore().map(|_| ()))
    }

    /// The same, for an owner who says by [`Range::may_own_more`] whenever somebody but the host,
    /// through this range, may have written to a page for the first time: where nobody has, written
    /// pages need not be searched.
    pub fn reset_told(&self) -> Result<bool, MemoryError> {
        self.finish_reset(Self::restore_known)
    }

    /// Says that pages may be private that were not at the last reset.
    pub fn may_own_more(&self) {
        self.own.forget();
    }

    fn finish_reset(
        &self,
        restore: fn(&Self) -> Result<(), MemoryError>,
    ) -> Result<bool, MemoryError> {
        let done = self
            .shrink()
            .and_then(|grown| restore(self).map(|()| grown));
        if done.is_err() {
            self.spoiled.store(true, Ordering::Relaxed);
        }
        done
    }

    fn shrink(&self) -> Result<bool, MemoryError> {
        let (kept, bytes) = (self.kept.load(Ordering::Relaxed), self.bytes());
        // SAFETY: the caller of the reset vouches that nobody holds a reference into the range.
        unsafe { self.mappings.lock().clear(self.slot.base + kept) }?;
        self.peak.store(kept, Ordering::Relaxed);
        if bytes == kept {
            return Ok(false);
        }
        let (start, length) = (self.slot.base + kept, bytes - kept);
        self.forget(start, length)?;
        // SAFETY: the span is this range's own, and the caller vouches that nobody refers to it.
        unsafe { rustix::mm::mprotect(start as *mut _, length, MprotectFlags::empty()) }
            .map_err(MemoryError::kernel("shrink guest memory"))?;
        self.bytes.store(kept, Ordering::Relaxed);
        Ok(true)
    }

    fn restore_known(&self) -> Result<(), MemoryError> {
        let Some(pages) = self.own.all() else {
            if let Some(pages) = self.search_and_restore()? {
                self.own.are(pages);
            }
            return Ok(());
        };
        let image = self.image();
        for number in pages {
            // SAFETY: only pages of the kept part are known, and the caller vouches that nobody
            // else refers to them.
            unsafe { self.set_page(&image, number) };
        }
        Ok(())
    }

    /// Gives the private pages that are left, if none was dropped: what is laid over those that
    /// were is private again.
    fn search_and_restore(&self) -> Result<Option<Vec<usize>>, MemoryError> {
        let kept = self.kept.load(Ordering::Relaxed);
        let (mut at, end) = (self.slot.base, self.slot.base + kept);
        let image = self.image();
        let mut runs = [Run::default(); RUNS_AT_A_TIME];
        let mut pages = Vec::new();
        while at < end {
            let Some((found, walked)) = pagemap::written(at, end - at, &mut runs) else {
                return self.drop_written(at, end - at).map(|()| None);
            };
            for run in &runs[..found] {
                let first = (run.start as usize - self.slot.base) / PAGE_BYTES;
                pages.extend(first..first + run.pages());
                self.restore_run(&image, run, pages.len() <= COPIED_PAGES_MAX)?;
            }
            if walked <= at {
                return self.drop_written(at, end - at).map(|()| None);
            }
            at = walked;
        }
        Ok((pages.len() <= COPIED_PAGES_MAX).then_some(pages))
    }

    fn restore_run(&self, image: &Image, run: &Run, keep: bool) -> Result<(), MemoryError> {
        let (start, length) = (run.start as usize, run.pages() * PAGE_BYTES);
        if !keep {
            return self.drop_written(start, length);
        }
        let first = (start - self.slot.base) / PAGE_BYTES;
        for number in first..first + run.pages() {
            // SAFETY: the page lies in the accessible part of this range, which the caller vouches
            // nobody else refers to.
            unsafe { self.set_page(image, number) };
        }
        Ok(())
    }

    /// Drops private pages of the kept part, so that they are as in the image.
    fn drop_written(&self, start: usize, length: usize) -> Result<(), MemoryError> {
        self.forget(start, length)?;
        let first = (start - self.slot.base) / PAGE_BYTES;
        self.lay(first..first + length / PAGE_BYTES);
        Ok(())
    }

    /// Drops private pages: the image that is mapped, or zeros, show through again.
    pub(crate) fn forget(&self, start: usize, length: usize) -> Result<(), MemoryError> {
        // SAFETY: the span is private memory of this range, which the caller vouches nobody
        // refers to.
        unsafe { rustix::mm::madvise(start as *mut _, length, Advice::LinuxDontNeed) }
            .map_err(MemoryError::kernel("drop written guest pages"))
    }

    /// Unmaps everything, regions and image too. What had grown is without access by then, so that
    /// only an image's own bytes, and an annex, are left to be unmapped.
    pub(crate) fn blank(&self) -> Result<(), MemoryError> {
        self.empty()?;
        let image = self.image();
        match image.annex() {
            Some(_) => self.slab.unmap(self.slot, self.reserved_bytes()),
            None if image.bytes() > 0 => self.slab.unmap(self.slot, image.bytes()),
            None => Ok(()),
        }
    }

    fn empty(&self) -> Result<(), MemoryError> {
        let bytes = self.image().bytes();
        self.kept.store(bytes, Ordering::Relaxed);
        self.shrink()?;
        if bytes > 0 {
            self.forget(self.slot.base, bytes)?;
        }
        self.set_annex_access(AnnexAccess::Read)?;
        self.set_poll_passes(true)
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // Under an overlay lies another image, and zeros in the place of the rest.
        let clean = self.overlay.get_mut().is_none() && !self.spoiled.load(Ordering::Relaxed);
        // Whoever takes one that is mapped already may hold another image of the same name, and no
        // file stands behind the memory of this one.
        let kept = clean && !self.image.get_mut().has_arrived();
        if kept && self.empty().is_ok() {
            self.slab.give_back_idle(self.slot, self.image().digest());
        } else {
            self.slab.give_back_dirty(self.slot);
        }
    }
}
