//! What a guest may touch: its address space, as the page tables in its memory have it.
//!
//! ```text
//!  areas: [start … end) ▶ frames from a guest-physical address on, with a protection
//!            │ every change is written to the last level of the page tables
//!            └ what was touchable and is so no longer is forgotten by the hypervisor, too
//! ```
//!
//! Invariants: an address of the guest is touchable just if an area covers it; a frame belongs to
//! one area at most; a page never seen before reads as zeros.

use std::collections::BTreeMap;

use memory::{MemoryError, Range};
use smallvec::SmallVec;

use crate::frames::Frames;
use crate::layout::{self, PAGE, USER_END, USER_START};
use crate::system;

/// What a guest may do with a page. Reading is implied by the others: processors know no less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Protection {
    /// It may read.
    pub read: bool,
    /// It may write.
    pub write: bool,
    /// It may execute.
    pub execute: bool,
}

impl Protection {
    /// Nothing.
    pub const NONE: Self = Self::new(false, false, false);
    /// Reading.
    pub const READ: Self = Self::new(true, false, false);
    /// Reading and writing.
    pub const READ_WRITE: Self = Self::new(true, true, false);
    /// Reading and executing.
    pub const READ_EXECUTE: Self = Self::new(true, false, true);

    const fn new(read: bool, write: bool, execute: bool) -> Self {
        Self {
            read,
            write,
            execute,
        }
    }

    /// Whether all that `needed` allows is allowed.
    pub fn allows(self, needed: Self) -> bool {
        (self.read || !needed.read)
            && (self.write || !needed.write)
            && (self.execute || !needed.execute)
    }

    fn touchable(self) -> bool {
        self.read || self.write || self.execute
    }

    /// The entry for a page of this protection over the frame at `frame`. Accessed and dirty are
    /// set from the start, so that no processor writes to the tables.
    pub(crate) fn entry(self, frame: u64) -> u64 {
        const PRESENT: u64 = 1;
        const WRITE: u64 = 1 << 1;
        const USER: u64 = 1 << 2;
        const ACCESSED_DIRTY: u64 = 1 << 5 | 1 << 6;
        const NO_EXECUTE: u64 = 1 << 63;
        if !self.touchable() {
            return 0;
        }
        let write = if self.write { WRITE } else { 0 };
        let execute = if self.execute { 0 } else { NO_EXECUTE };
        frame | PRESENT | USER | ACCESSED_DIRTY | write | execute
    }
}

/// Addresses that lie over consecutive frames and have one protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// The first address past it.
    pub end: u64,
    /// The frame of its first page.
    pub frame: u64,
    /// What the guest may do there.
    pub protection: Protection,
    /// Whether the frames are the space's own, to be used again; those of a region are not.
    pub owned: bool,
}

/// Why a space could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// Addresses that are not whole pages of the guest's part.
    #[error("addresses {start:#x} to {end:#x} are not whole pages that a guest may have")]
    Addresses {
        /// The first.
        start: u64,
        /// The first past the end.
        end: u64,
    },
    /// The guest has all the memory that it may have.
    #[error("{asked} bytes more do not fit the memory cap of {most}")]
    Full {
        /// Bytes asked for.
        asked: u64,
        /// The cap in bytes.
        most: u64,
    },
    /// There is a hole.
    #[error("nothing is mapped at {0:#x}")]
    Hole(u64),
    /// The memory layer refused.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// An address space. Cheap to clone while it has few areas: a program keeps one for its resets.
#[derive(Clone, Debug)]
pub struct Space {
    areas: BTreeMap<u64, Area>,
    pub(crate) frames: Frames,
    /// Frames whose mapping has changed since the image, for the reset to have forgotten.
    changed: Vec<(u64, u64)>,
}

/// Parts that follow each other in a guest's addresses; mostly one.
pub type Extents = SmallVec<[Extent; 2]>;

/// Part of a guest's addresses, and where it lies physically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its first byte's physical address.
    pub frame: u64,
    /// Bytes.
    pub bytes: usize,
}

impl Space {
    /// A space of nothing, whose guest may have `bytes_max` bytes of frames.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            areas: BTreeMap::new(),
            frames: Frames::new(bytes_max),
            changed: Vec::new(),
        }
    }

    /// A space of `areas`.
    pub(crate) fn of_parts(areas: BTreeMap<u64, Area>, frames: Frames) -> Self {
        Self {
            areas,
            frames,
            changed: Vec::new(),
        }
    }

    /// Writes the tables above the last level, the system pages and their entries.
    pub fn write_system(&self, memory: &Range) -> Result<(), MemoryError> {
        for (at, bytes) in system::pages() {
            memory.write(at as usize, &bytes)?;
        }
        for (at, entry) in system::entries() {
            memory.write(at as usize, &entry.to_le_bytes())?;
        }
        Ok(())
    }

    /// Maps `bytes` bytes of zeros at `start`, in place of what was there.
    pub fn map(
        &mut self,
        memory: &Range,
        start: u64,
        bytes: u64,
        protection: Protection,
    ) -> Result<(), SpaceError> {
        let end = check(start, bytes)?;
        self.unmap(memory, start, bytes)?;
        let extents = self.frames.take(bytes).ok_or(SpaceError::Full {
            asked: bytes,
            most: self.frames.bytes_max(),
        })?;
        let mut at = start;
        for (frame, length) in extents {
            let area = Area {
                end: at + length,
                frame,
                protection,
                owned: true,
            };
            self.insert(memory, at, area)?;
            at += length;
        }
        debug_assert_eq!(at, end);
        Ok(())
    }

    /// Maps the frames from `frame` on, which are not the space's own, at `start`.
    pub fn map_frames(
        &mut self,
        memory: &Range,
        start: u64,
        frame: u64,
        bytes: u64,
        protection: Protection,
    ) -> Result<(), SpaceError> {
        let end = check(start, bytes)?;
        self.unmap(memory, start, bytes)?;
        let area = Area {
            end,
            frame,
            protection,
            owned: false,
        };
        self.insert(memory, start, area)
    }

    /// Unmaps `bytes` bytes at `start`; holes are no error.
    pub fn unmap(&mut self, memory: &Range, start: u64, bytes: u64) -> Result<(), SpaceError> {
        let end = check(start, bytes)?;
        for (at, area) in self.cut(start, end) {
            self.areas.remove(&at);
            let length = area.end - at;
            write_entries(memory, at, length, 0, Protection::NONE)?;
            if area.owned {
                self.discard(memory, &area, length)?;
            } else {
                self.forget(memory, &area, length)?;
            }
        }
        Ok(())
    }

    /// Changes what may be done with `bytes` bytes at `start`, which are mapped.
    pub fn protect(
        &mut self,
        memory: &Range,
        start: u64,
        bytes: u64,
        protection: Protection,
    ) -> Result<(), SpaceError> {
        let end = check(start, bytes)?;
        self.covered(start, end)?;
        for (at, mut area) in self.cut(start, end) {
            if area.protection == protection {
                continue;
            }
            let length = area.end - at;
            write_entries(memory, at, length, area.frame, protection)?;
            self.forget(memory, &area, length)?;
            area.protection = protection;
            self.areas.insert(at, area);
        }
        Ok(())
    }

    /// The lowest or highest gap of `bytes` bytes in `within`, by `highest`.
    pub fn gap(&self, within: std::ops::Range<u64>, bytes: u64, highest: bool) -> Option<u64> {
        let (low, high) = (within.start.max(USER_START), within.end.min(USER_END));
        let bytes = bytes.checked_next_multiple_of(PAGE)?;
        let mut best = None;
        let mut free_from = low;
        let ends = std::iter::once((high, high));
        let taken = self.areas.iter().map(|(at, area)| (*at, area.end));
        for (start, end) in taken.chain(ends) {
            let free_to = start.min(high);
            if free_to >= free_from && free_to - free_from >= bytes {
                if !highest {
                    return Some(free_from);
                }
                best = Some(free_to - bytes);
            }
            free_from = free_from.max(end);
            if start >= high {
                break;
            }
        }
        best
    }

    /// The area that covers `address`, with its start.
    pub fn area(&self, address: u64) -> Option<(u64, Area)> {
        let (start, area) = self.areas.range(..=address).next_back()?;
        (address < area.end).then_some((*start, *area))
    }

    /// The start of the first area past `address`.
    pub fn next_area(&self, address: u64) -> Option<u64> {
        let mut after = self.areas.range(address.saturating_add(1)..);
        after.next().map(|(start, _)| *start)
    }

    /// All areas, by address.
    pub fn areas(&self) -> impl Iterator<Item = (u64, Area)> + '_ {
        self.areas.iter().map(|(start, area)| (*start, *area))
    }

    /// Bytes of frames that the guest has now.
    pub fn bytes(&self) -> u64 {
        self.frames.bytes()
    }

    /// Most bytes of frames since the image.
    pub fn bytes_peak(&self) -> u64 {
        self.frames.bytes_peak()
    }

    /// The first physical address past all frames that were ever used.
    pub fn frames_end(&self) -> u64 {
        self.frames.end()
    }

    /// Where `bytes` bytes at `address` lie, if all of them allow `needed`.
    pub fn extents(&self, address: u64, bytes: usize, needed: Protection) -> Option<Extents> {
        let end = address.checked_add(bytes as u64)?;
        let mut extents = Extents::new();
        let mut at = address;
        while at < end {
            let (start, area) = self.area(at)?;
            if !area.protection.touchable() || !area.protection.allows(needed) {
                return None;
            }
            let stop = area.end.min(end);
            extents.push(Extent {
                frame: area.frame + (at - start),
                bytes: (stop - at) as usize,
            });
            at = stop;
        }
        Some(extents)
    }

    /// Takes a space as it was when its image was made, and has forgotten what has changed since;
    /// the memory itself is to be reset before.
    pub fn rewind(&mut self, memory: &Range, image: &Space) -> Result<(), MemoryError> {
        let kept = memory.bytes() as u64;
        let changed = std::mem::take(&mut self.changed);
        let differs = !changed.is_empty() && self.areas != image.areas;
        for (frame, bytes) in changed {
            // What lay past the memory that is kept was unmapped by its reset.
            let bytes = bytes.min(kept.saturating_sub(frame));
            if bytes > 0 {
                memory.forget_translations(frame as usize, bytes as usize)?;
            }
        }
        if differs {
            self.areas.clone_from(&image.areas);
        }
        self.frames.rewind(&image.frames);
        Ok(())
    }

    /// Ends the history: what has changed so far belongs to the image that is about to be made.
    pub fn settle(&mut self) {
        self.changed.clear();
        self.frames.settle();
    }

    /// Cuts areas at `start` and `end`, and returns those in between.
    fn cut(&mut self, start: u64, end: u64) -> Vec<(u64, Area)> {
        for at in [start, end] {
            let Some((from, area)) = self.area(at) else {
                continue;
            };
            if from < at {
                let frame = area.frame + (at - from);
                self.areas.insert(from, Area { end: at, ..area });
                self.areas.insert(at, Area { frame, ..area });
            }
        }
        let within = self.areas.range(start..end);
        within.map(|(at, area)| (*at, *area)).collect()
    }

    fn covered(&self, start: u64, end: u64) -> Result<(), SpaceError> {
        let mut at = start;
        while at < end {
            at = self.area(at).ok_or(SpaceError::Hole(at))?.1.end;
        }
        Ok(())
    }

    fn insert(&mut self, memory: &Range, at: u64, area: Area) -> Result<(), SpaceError> {
        let length = area.end - at;
        write_entries(memory, at, length, area.frame, area.protection)?;
        self.note(area.frame, length);
        let joined = self
            .areas
            .range(..at)
            .next_back()
            .is_some_and(|(start, before)| {
                before.end == at
                    && before.protection == area.protection
                    && before.owned == area.owned
                    && before.frame + (at - start) == area.frame
            });
        if joined && let Some((_, before)) = self.areas.range_mut(..at).next_back() {
            before.end = area.end;
        } else {
            self.areas.insert(at, area);
        }
        Ok(())
    }

    /// Gives frames back: zero, and forgotten by the hypervisor.
    fn discard(&mut self, memory: &Range, area: &Area, length: u64) -> Result<(), SpaceError> {
        let image = memory.image().bytes() as u64;
        let of_image = image.saturating_sub(area.frame).min(length);
        if of_image > 0 {
            memory.zero(area.frame as usize, of_image as usize)?;
            memory.forget_translations(area.frame as usize, of_image as usize)?;
        }
        if of_image < length {
            let (from, length) = (area.frame + of_image, length - of_image);
            memory.drop_pages(from as usize, length as usize)?;
        }
        self.note(area.frame, length);
        self.frames.give_back(area.frame, length);
        Ok(())
    }

    /// Notes what a reset has to have forgotten.
    fn note(&mut self, frame: u64, length: u64) {
        /// More are told as one.
        const NOTES_MAX: usize = 1024;
        if self.changed.len() >= NOTES_MAX {
            let all = (layout::FRAMES, self.frames.end() - layout::FRAMES);
            self.changed = vec![all];
        }
        self.changed.push((frame, length));
    }

    /// Has the hypervisor look again at frames whose entries have changed.
    fn forget(&mut self, memory: &Range, area: &Area, length: u64) -> Result<(), SpaceError> {
        self.note(area.frame, length);
        if area.protection.touchable() {
            memory.forget_translations(area.frame as usize, length as usize)?;
        }
        Ok(())
    }
}

/// The end of whole pages that a guest may have.
fn check(start: u64, bytes: u64) -> Result<u64, SpaceError> {
    let end = start.saturating_add(bytes);
    let whole = start.is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE);
    if whole && start >= USER_START && end <= USER_END {
        return Ok(end);
    }
    Err(SpaceError::Addresses { start, end })
}

fn write_entries(
    memory: &Range,
    start: u64,
    bytes: u64,
    frame: u64,
    protection: Protection,
) -> Result<(), MemoryError> {
    /// Entries put together before they are written: those of one table.
    const AT_A_TIME: u64 = 512;
    let mut page = 0;
    let pages = bytes / PAGE;
    while page < pages {
        let at = start + page * PAGE;
        let in_table = AT_A_TIME - at / PAGE % AT_A_TIME;
        let count = in_table.min(pages - page);
        let entries = (page..page + count).map(|page| protection.entry(frame + page * PAGE));
        let entries: Vec<u64> = entries.collect();
        memory.write_words(layout::entry(at) as usize, &entries)?;
        page += count;
    }
    Ok(())
}
