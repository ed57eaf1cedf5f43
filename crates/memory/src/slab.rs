//! Reserved address ranges for guest memories, kept under the image that they map.

use std::collections::HashMap;
use std::sync::Arc;

use model::Digest;
use parking_lot::Mutex;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use crate::range::Range;
use crate::{ANNEX_BYTES, Image, MemoryError, PAGE_BYTES, sysctl};

/// What a slab reserves.
#[derive(Clone, Copy, Debug)]
pub struct SlabConfig {
    /// Most ranges that may be live at once; lowered to what `vm.max_map_count` allows.
    pub ranges_max: usize,
    /// Address space of one guest memory: the most that it can grow to.
    pub reservation_bytes: usize,
    /// Unmapped bytes after each reservation.
    pub guard_bytes: usize,
    /// Idle ranges that stay mapped to their image.
    pub idle_max: usize,
}

impl Default for SlabConfig {
    /// What wasm32 needs for memories without bounds checks: 4 GiB and a 32 MiB guard. 47 bits of
    /// address space hold 32,000 of these; half is left to everything else.
    fn default() -> Self {
        Self {
            ranges_max: 16_000,
            reservation_bytes: 4 << 30,
            guard_bytes: 32 << 20,
            idle_max: 256,
        }
    }
}

/// A reserved span: the reservation, the guard, one poll page. The poll page comes last since an
/// engine counts a reservation and a guard after each memory as that memory's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Address of the guest memory's first byte.
    pub base: usize,
    /// Address of the poll page.
    pub poll: usize,
}

#[derive(Default)]
struct Slots {
    /// Reserved and unmapped.
    blank: Vec<Slot>,
    /// Mapped to an image, equal to it.
    idle: HashMap<Digest, Vec<Slot>>,
    idle_count: usize,
    live: usize,
}

pub(crate) struct SlabInner {
    config: SlabConfig,
    ranges_max: usize,
    slots: Mutex<Slots>,
}

/// Hands out ranges. Cheap to clone.
#[derive(Clone)]
pub struct Slab(Arc<SlabInner>);

impl Slab {
    /// A slab. Nothing is reserved before the first [`Slab::take`].
    pub fn new(config: SlabConfig) -> Self {
        let ranges_max = sysctl::ranges_that_fit(config.ranges_max);
        Self(Arc::new(SlabInner {
            config,
            ranges_max,
            slots: Mutex::default(),
        }))
    }

    /// A range that equals `image`, preferably one that was mapped to it before.
    pub fn take(&self, image: &Arc<Image>) -> Result<Range, MemoryError> {
        let most = self.0.config.reservation_bytes;
        let annex = image.annex_bytes();
        if image.bytes().saturating_add(annex) > most {
            return Err(MemoryError::TooLarge {
                asked: image.bytes(),
                most: most - annex,
            });
        }
        let (slot, mapped) = self.0.pick(image.digest())?;
        if !mapped && let Err(error) = map_image(slot, most, image) {
            self.0.give_back_blank(slot);
            return Err(error);
        }
        Ok(Range::new(slot, image.clone(), self.0.clone()))
    }

    /// Ranges that are in use.
    pub fn live(&self) -> usize {
        self.0.slots.lock().live
    }

    /// Most ranges that can be in use.
    pub fn ranges_max(&self) -> usize {
        self.0.ranges_max
    }
}

impl SlabInner {
    pub fn reservation_bytes(&self) -> usize {
        self.config.reservation_bytes
    }

    fn stride(&self) -> usize {
        self.config.reservation_bytes + self.config.guard_bytes + PAGE_BYTES
    }

    /// A slot, and whether it is mapped to the image `wanted`.
    fn pick(&self, wanted: Digest) -> Result<(Slot, bool), MemoryError> {
        let mut slots = self.slots.lock();
        if slots.live >= self.ranges_max {
            return Err(MemoryError::Full {
                live: slots.live,
                max: self.ranges_max,
            });
        }
        if let Some(slot) = slots.idle.get_mut(&wanted).and_then(Vec::pop) {
            slots.idle_count -= 1;
            slots.live += 1;
            return Ok((slot, true));
        }
        let slot = match slots.blank.pop() {
            Some(slot) => slot,
            None => self.reserve()?,
        };
        slots.live += 1;
        Ok((slot, false))
    }

    fn reserve(&self) -> Result<Slot, MemoryError> {
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let span = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                self.stride(),
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        let base = span.map_err(MemoryError::kernel("reserve guest memory"))? as usize;
        let slot = Slot {
            base,
            poll: base + self.stride() - PAGE_BYTES,
        };
        protect_poll(slot, true)?;
        Ok(slot)
    }

    /// Maps zeros in the place of `span` of a slot's reservation.
    ///
    /// # Safety
    /// Nobody refers to what is there.
    pub unsafe fn map_zeros(
        &self,
        slot: Slot,
        span: std::ops::Range<usize>,
    ) -> Result<(), MemoryError> {
        let span = span.start..span.end.min(self.config.reservation_bytes);
        if span.is_empty() {
            return Ok(());
        }
        // SAFETY: the addresses are the slot's own, and the caller vouches that nobody refers to
        // what is there.
        unsafe { map_zeros(slot.base + span.start, span.len()) }
    }

    /// Unmaps the first `bytes` of a slot's reservation.
    pub fn unmap(&self, slot: Slot, bytes: usize) -> Result<(), MemoryError> {
        unmap(slot, bytes.min(self.config.reservation_bytes))
    }

    /// Takes a slot back that equals its image and holds no private page.
    pub fn give_back_idle(&self, slot: Slot, image: Digest) {
        let mut slots = self.slots.lock();
        if slots.idle_count < self.config.idle_max {
            slots.live -= 1;
            slots.idle_count += 1;
            slots.idle.entry(image).or_default().push(slot);
            return;
        }
        drop(slots);
        self.give_back_dirty(slot);
    }

    /// Takes a slot back in any state: everything mapped in it goes.
    pub fn give_back_dirty(&self, slot: Slot) {
        match unmap(slot, self.config.reservation_bytes).and_then(|()| protect_poll(slot, true)) {
            Ok(()) => self.give_back_blank(slot),
            Err(error) => {
                tracing::error!(%error, "a guest memory could not be unmapped and is set aside");
                self.slots.lock().live -= 1;
            }
        }
    }

    fn give_back_blank(&self, slot: Slot) {
        let mut slots = self.slots.lock();
        slots.live -= 1;
        slots.blank.push(slot);
    }
}

impl Drop for SlabInner {
    fn drop(&mut self) {
        let stride = self.stride();
        let slots = self.slots.get_mut();
        let idle = slots.idle.drain().flat_map(|(_, slots)| slots);
        for slot in idle.chain(slots.blank.drain(..)) {
            // SAFETY: no range lives any more, since each holds the slab; the slot spans exactly
            // `stride` bytes that this slab reserved.
            let _ = unsafe { rustix::mm::munmap(slot.base as *mut _, stride) };
        }
    }
}

/// Maps an image, and its annex where the reservation of `reserved` bytes ends.
pub(crate) fn map_image(slot: Slot, reserved: usize, image: &Image) -> Result<(), MemoryError> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    if !image.is_one_piece() {
        // SAFETY: the slot belongs to the caller alone and its reservation is at least as long as
        // the image; the pages replaced hold nothing that anybody refers to.
        unsafe { map_zeros(slot.base, image.bytes()) }?;
    }
    for piece in image.pieces() {
        // SAFETY: as above; a piece was compared with the image's length when that was made.
        unsafe { piece.map(slot.base, access) }?;
    }
    let Some(annex) = image.annex() else {
        return Ok(());
    };
    // SAFETY: as above; an image with an annex leaves room for it.
    unsafe {
        rustix::mm::mmap(
            (slot.base + reserved - ANNEX_BYTES) as *mut _,
            ANNEX_BYTES,
            ProtFlags::READ,
            MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
            annex,
            0,
        )
    }
    .map(|_| ())
    .map_err(MemoryError::kernel("map an annex into guest memory"))
}

/// Maps zeros that can be written.
///
/// # Safety
/// The addresses are the caller's, and nobody refers to what is there.
unsafe fn map_zeros(start: usize, bytes: usize) -> Result<(), MemoryError> {
    // SAFETY: the caller vouches for the addresses.
    unsafe {
        rustix::mm::mmap_anonymous(
            start as *mut _,
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
        )
    }
    .map(|_| ())
    .map_err(MemoryError::kernel("map zeros into guest memory"))
}

fn unmap(slot: Slot, bytes: usize) -> Result<(), MemoryError> {
    // SAFETY: the slot belongs to the caller alone; mapping the reservation anew without access
    // drops whatever was mapped in it.
    unsafe {
        rustix::mm::mmap_anonymous(
            slot.base as *mut _,
            bytes,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
        )
    }
    .map(|_| ())
    .map_err(MemoryError::kernel("unmap guest memory"))
}

/// Makes the poll page readable, or a trap for whoever polls it.
pub(crate) fn protect_poll(slot: Slot, readable: bool) -> Result<(), MemoryError> {
    let access = if readable {
        MprotectFlags::READ
    } else {
        MprotectFlags::empty()
    };
    // SAFETY: the poll page belongs to the slot; the host never touches it, and guest code that
    // faults on it is caught as a trap.
    unsafe { rustix::mm::mprotect(slot.poll as *mut _, PAGE_BYTES, access) }
        .map_err(MemoryError::kernel("protect a poll page"))
}
