//! Regions mapped into a range, and their removal before anything else of a reset.

use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags};

use crate::pagemap;
use crate::{MemoryError, PAGE_BYTES, Region};

/// Most regions that one range maps: each takes its share of `vm.max_map_count`.
pub const RANGE_MAPPINGS_MAX: usize = 256;

/// What a guest may do with a region that is mapped into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It sees the region as it is at each moment. What it writes is its own, page by page, and
    /// never reaches the region; from then on it sees that page of its own.
    Read,
    /// It shares the region with all others.
    Write,
}

/// A region mapped into a range.
pub(crate) struct Mapping {
    /// Address of its first byte.
    start: usize,
    bytes: usize,
    access: Access,
    /// Kept for as long as it is mapped, so that its owner can tell that someone maps it.
    _region: Arc<Region>,
}

/// The regions of one range.
#[derive(Default)]
pub(crate) struct Mappings(Vec<Mapping>);

fn bad(reason: &'static str) -> MemoryError {
    MemoryError::BadMapping { reason }
}

impl Mappings {
    /// Maps `bytes` of `region` from `offset` at the address `start`.
    ///
    /// # Safety
    /// The addresses belong to a range's own accessible part, and nobody holds a reference there.
    pub unsafe fn map(
        &mut self,
        start: usize,
        region: &Arc<Region>,
        offset: usize,
        bytes: usize,
        access: Access,
    ) -> Result<(), MemoryError> {
        region.check(offset, bytes)?;
        if bytes == 0 || [start, offset, bytes].iter().any(|n| n % PAGE_BYTES != 0) {
            return Err(bad("an address, offset or length is not of whole pages"));
        }
        if self.0.len() >= RANGE_MAPPINGS_MAX {
            return Err(bad("too many regions are mapped"));
        }
        let overlaps =
            |other: &Mapping| start < other.start + other.bytes && other.start < start + bytes;
        if self.0.iter().any(overlaps) {
            return Err(bad("another region is mapped there"));
        }
        let flags = match access {
            Access::Read => MapFlags::PRIVATE,
            Access::Write => MapFlags::SHARED,
        };
        // SAFETY: the caller vouches for the addresses. The region's file never shrinks, so no
        // access to the mapping faults.
        unsafe {
            rustix::mm::mmap(
                start as *mut _,
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                flags | MapFlags::FIXED | MapFlags::NORESERVE,
                region.memfd(),
                offset as u64,
            )
        }
        .map_err(MemoryError::kernel("map a region into guest memory"))?;
        self.0.push(Mapping {
            start,
            bytes,
            access,
            _region: region.clone(),
        });
        Ok(())
    }

    /// Puts private memory in the place of each, inaccessible from the address `kept_end` on; stops
    /// at the first failure.
    ///
    /// # Safety
    /// Nobody holds a reference into them.
    pub unsafe fn clear(&mut self, kept_end: usize) -> Result<(), MemoryError> {
        while let Some(mapping) = self.0.last() {
            let access = if mapping.start < kept_end {
                ProtFlags::READ | ProtFlags::WRITE
            } else {
                ProtFlags::empty()
            };
            // SAFETY: the addresses are the range's own, and the caller vouches that nobody refers
            // to them.
            unsafe {
                rustix::mm::mmap_anonymous(
                    mapping.start as *mut _,
                    mapping.bytes,
                    access,
                    MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                )
            }
            .map_err(MemoryError::kernel("take a region out of guest memory"))?;
            self.0.pop();
        }
        Ok(())
    }

    /// Whether a page of a mapping for reading was written.
    pub fn wrote_read_only(&self) -> Result<bool, MemoryError> {
        for mapping in self
            .0
            .iter()
            .filter(|mapping| mapping.access == Access::Read)
        {
            if pagemap::any_written(mapping.start, mapping.bytes)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
