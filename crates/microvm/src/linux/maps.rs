//! What a process has mapped: areas with a protection, whose pages come when they are touched.
//!
//! ```text
//!  64 KiB   program   heap ▶ …                … ◀ mappings   gap   stack   end
//! ```
//!
//! An area costs nothing until it is touched: the first touch of a page, by the guest or by a
//! system call for it, makes it and some that follow. So a process may reserve much more than its
//! function's memory limit, and the limit counts what it has used.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::errno::Errno;
use super::memory::{GuestMemory, NoMemory};
use super::spans::Spans;
use crate::layout::{PAGE, USER_END, USER_START};
use crate::space::Protection;

/// Bytes of the first thread's stack.
pub const STACK_BYTES: u64 = 8 << 20;
/// Bytes below a stack that nothing is placed in.
const STACK_GAP: u64 = 1 << 20;
/// Where that is.
pub const STACK_GUARD: Range<u64> = USER_END - STACK_BYTES - STACK_GAP..USER_END - STACK_BYTES;
/// Most areas of a process; Linux's default is 65,530.
const AREAS_MAX: usize = 16_384;
/// The fewest bytes that a touch makes, and the most.
const TOUCHED_LEAST: u64 = 64 << 10;
const TOUCHED_MOST: u64 = 4 << 20;

/// What an area is for, as /proc/self/maps says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Use {
    /// A segment of the program.
    Program,
    /// What brk moves.
    Heap,
    /// The first thread's stack.
    Stack,
    /// Everything else.
    Mapping,
}

/// Part of a process's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Area {
    /// The first address past it.
    pub end: u64,
    /// What may be done there.
    #[serde(with = "super::form::protection")]
    pub protection: Protection,
    /// What it is for.
    pub what: Use,
}

/// What came of a touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It may be done, now.
    Fine,
    /// Nothing is mapped there.
    Nothing,
    /// It is mapped, and may not be used so.
    Denied,
    /// It may be done, but the process has all the memory that it may have.
    NoMemory,
}

/// The addresses of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Maps {
    areas: BTreeMap<u64, Area>,
    /// Pages that are there.
    present: Spans,
    heap: Range<u64>,
    /// Past the highest address for mappings.
    top: u64,
}

/// The end of `bytes` bytes at `at` in whole pages.
fn span(at: u64, bytes: u64) -> Option<Range<u64>> {
    let end = at.checked_add(bytes)?.checked_next_multiple_of(PAGE)?;
    let inside = at.is_multiple_of(PAGE) && at >= USER_START && end <= USER_END;
    (inside && at < end).then_some(at..end)
}

impl Maps {
    /// The addresses of a program that was loaded as these segments, which are present.
    pub fn new(program: &[(Range<u64>, Protection)]) -> Self {
        let end = program.iter().map(|(pages, _)| pages.end).max();
        let heap = end.unwrap_or(USER_START).next_multiple_of(PAGE);
        let stack = USER_END - STACK_BYTES;
        let mut maps = Self {
            areas: BTreeMap::new(),
            present: Spans::default(),
            heap: heap..heap,
            top: STACK_GUARD.start,
        };
        for (pages, protection) in program {
            let what = Use::Program;
            let area = Area {
                end: pages.end,
                protection: *protection,
                what,
            };
            maps.areas.insert(pages.start, area);
            maps.present.insert(pages.clone());
        }
        let area = Area {
            end: USER_END,
            protection: Protection::READ_WRITE,
            what: Use::Stack,
        };
        maps.areas.insert(stack, area);
        maps
    }

    /// All areas, by address.
    pub fn areas(&self) -> impl Iterator<Item = (u64, Area)> + '_ {
        self.areas.iter().map(|(start, area)| (*start, *area))
    }

    /// Bytes of pages that are there.
    pub fn present_bytes(&self) -> u64 {
        let parts = self.present.within(0..USER_END);
        parts.iter().map(|part| part.end - part.start).sum()
    }

    fn area(&self, at: u64) -> Option<(u64, Area)> {
        let (start, area) = self.areas.range(..=at).next_back()?;
        (at < area.end).then_some((*start, *area))
    }

    /// Whether `bytes` bytes at `at`, all of one area, can be touched so as they are.
    pub fn is_there(&self, at: u64, bytes: u64, needed: Protection) -> bool {
        let Some(end) = at.checked_add(bytes) else {
            return false;
        };
        let allows = |area: Area| {
            end <= area.end && area.protection.allows(needed) && area.protection != Protection::NONE
        };
        bytes > 0
            && self.area(at).is_some_and(|(_, area)| allows(area))
            && self.present.covers(at..end)
    }

    /// Makes sure that `bytes` bytes at `at` can be touched so, by making pages.
    pub fn touch(
        &mut self,
        memory: &mut dyn GuestMemory,
        at: u64,
        bytes: u64,
        needed: Protection,
    ) -> Touch {
        let Some(end) = at.checked_add(bytes) else {
            return Touch::Nothing;
        };
        let mut at = at;
        while at < end {
            let Some((start, area)) = self.area(at) else {
                return Touch::Nothing;
            };
            if !area.protection.allows(needed) || area.protection == Protection::NONE {
                return Touch::Denied;
            }
            let upto = end.min(area.end);
            if !self.present.missing(at..upto).is_empty() {
                let wanted = self.wanted(start, &area, at, upto);
                if self.make(memory, wanted, area.protection).is_err()
                    && self
                        .make(memory, pages_of(at, upto), area.protection)
                        .is_err()
                {
                    return Touch::NoMemory;
                }
            }
            at = upto;
        }
        Touch::Fine
    }

    /// What to make when `at` to `upto` is touched: as much again as the area has, around there.
    fn wanted(&self, start: u64, area: &Area, at: u64, upto: u64) -> Range<u64> {
        let there = self.present.within(start..area.end);
        let there: u64 = there.iter().map(|part| part.end - part.start).sum();
        let chunk = there.clamp(TOUCHED_LEAST, TOUCHED_MOST) & !(TOUCHED_LEAST - 1);
        let touched = pages_of(at, upto);
        if area.what == Use::Stack {
            let from = touched.start.saturating_sub(chunk).max(start);
            return from..touched.end;
        }
        let to = touched.end.max(touched.start.saturating_add(chunk));
        touched.start..to.min(area.end)
    }

    fn make(
        &mut self,
        memory: &mut dyn GuestMemory,
        span: Range<u64>,
        protection: Protection,
    ) -> Result<(), NoMemory> {
        for part in self.present.missing(span) {
            memory.map(part.start, part.end - part.start, protection)?;
            self.present.insert(part);
        }
        Ok(())
    }

    /// The highest gap of `bytes` bytes among mappings, or the one at `hint`.
    fn place(&self, hint: u64, bytes: u64) -> Option<u64> {
        if hint != 0
            && let Some(span) = span(hint - hint % PAGE, bytes)
            && span.end <= self.top
            && self.is_free(&span)
        {
            return Some(span.start);
        }
        let mut end = self.top;
        for (start, area) in self.areas.range(..self.top).rev() {
            if end.checked_sub(area.end).is_some_and(|gap| gap >= bytes) {
                return Some(end - bytes);
            }
            end = end.min(*start);
        }
        let lowest = end.checked_sub(bytes)?;
        (lowest >= USER_START).then_some(lowest)
    }

    fn is_free(&self, span: &Range<u64>) -> bool {
        let before = self.areas.range(..span.end).next_back();
        before.is_none_or(|(_, area)| area.end <= span.start)
    }

    /// Maps `bytes` bytes of zeros somewhere, near `hint` if that is free. Returns where.
    pub fn map(
        &mut self,
        memory: &dyn GuestMemory,
        hint: u64,
        bytes: u64,
        protection: Protection,
        reserve: bool,
    ) -> Result<u64, Errno> {
        let bytes = rounded(bytes)?;
        self.check_room(memory, bytes, protection, reserve)?;
        let at = self.place(hint, bytes).ok_or(Errno::ENOMEM)?;
        self.insert(at..at + bytes, protection, Use::Mapping);
        Ok(at)
    }

    /// The same at `at`, in place of what was there if `replace`.
    pub fn map_at(
        &mut self,
        memory: &mut dyn GuestMemory,
        at: u64,
        bytes: u64,
        protection: Protection,
        replace: bool,
    ) -> Result<u64, Errno> {
        if !at.is_multiple_of(PAGE) || bytes == 0 {
            return Err(Errno::EINVAL);
        }
        // Below the first address only null pointers lie, which Linux protects as well.
        let denied = if at < USER_START {
            Errno::EPERM
        } else {
            Errno::ENOMEM
        };
        let span = span(at, bytes).ok_or(denied)?;
        if !replace && !self.is_free(&span) {
            return Err(Errno::EEXIST);
        }
        self.check_room(memory, span.end - span.start, protection, false)?;
        self.remove(memory, span.clone())?;
        self.insert(span, protection, Use::Mapping);
        Ok(at)
    }

    /// A process is refused what it could never use, so that it learns of it in time.
    fn check_room(
        &self,
        memory: &dyn GuestMemory,
        bytes: u64,
        protection: Protection,
        reserve: bool,
    ) -> Result<(), Errno> {
        if self.areas.len() >= AREAS_MAX {
            return Err(Errno::ENOMEM);
        }
        let counted = protection.write && !reserve;
        let left = memory.bytes_max().saturating_sub(memory.bytes());
        if counted && bytes > left {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    fn insert(&mut self, span: Range<u64>, protection: Protection, what: Use) {
        let mut area = Area {
            end: span.end,
            protection,
            what,
        };
        let mut start = span.start;
        let same = |other: &Area| other.protection == protection && other.what == what;
        if let Some((from, before)) = self.areas.range(..start).next_back()
            && before.end == start
            && same(before)
        {
            start = *from;
        }
        if let Some(after) = self.areas.get(&area.end).copied()
            && same(&after)
        {
            self.areas.remove(&area.end);
            area.end = after.end;
        }
        self.areas.insert(start, area);
    }

    /// Takes `bytes` bytes at `at` away.
    pub fn unmap(
        &mut self,
        memory: &mut dyn GuestMemory,
        at: u64,
        bytes: u64,
    ) -> Result<(), Errno> {
        let span = span(at, bytes).ok_or(Errno::EINVAL)?;
        self.remove(memory, span)
    }

    fn remove(&mut self, memory: &mut dyn GuestMemory, span: Range<u64>) -> Result<(), Errno> {
        self.cut(&span);
        self.areas.retain(|at, _| !span.contains(at));
        self.drop_pages(memory, span)
    }

    fn drop_pages(&mut self, memory: &mut dyn GuestMemory, span: Range<u64>) -> Result<(), Errno> {
        for part in self.present.within(span) {
            let bytes = part.end - part.start;
            memory.unmap(part.start, bytes).map_err(|_| Errno::ENOMEM)?;
            self.present.remove(part);
        }
        Ok(())
    }

    fn cut(&mut self, span: &Range<u64>) {
        for at in [span.start, span.end] {
            if let Some((start, area)) = self.area(at)
                && start < at
            {
                self.areas.insert(start, Area { end: at, ..area });
                self.areas.insert(at, area);
            }
        }
    }

    /// Whether every address of `span` is mapped.
    fn is_covered(&self, span: &Range<u64>) -> bool {
        let mut at = span.start;
        while at < span.end {
            match self.area(at) {
                Some((_, area)) => at = area.end,
                None => return false,
            }
        }
        true
    }

    /// Whether all of `bytes` bytes at `at` are mapped.
    pub fn is_mapped(&self, at: u64, bytes: u64) -> bool {
        span(at, bytes).is_some_and(|span| self.is_covered(&span))
    }

    /// Changes what may be done with `bytes` bytes at `at`.
    pub fn protect(
        &mut self,
        memory: &mut dyn GuestMemory,
        at: u64,
        bytes: u64,
        protection: Protection,
    ) -> Result<(), Errno> {
        if !at.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        if bytes == 0 {
            return Ok(());
        }
        let span = span(at, bytes).ok_or(Errno::ENOMEM)?;
        if !self.is_covered(&span) || self.areas.len() >= AREAS_MAX {
            return Err(Errno::ENOMEM);
        }
        self.cut(&span);
        let starts: Vec<_> = self.areas.range(span.clone()).map(|(at, _)| *at).collect();
        for start in starts {
            if let Some(mut area) = self.areas.remove(&start) {
                area.protection = protection;
                self.insert(start..area.end, protection, area.what);
            }
        }
        for part in self.present.within(span) {
            let changed = memory.protect(part.start, part.end - part.start, protection);
            changed.map_err(|_| Errno::ENOMEM)?;
        }
        Ok(())
    }

    /// Makes `bytes` bytes at `at` zero again, the next time they are touched.
    pub fn forget(
        &mut self,
        memory: &mut dyn GuestMemory,
        at: u64,
        bytes: u64,
    ) -> Result<(), Errno> {
        let span = span(at, bytes).ok_or(Errno::EINVAL)?;
        if !self.is_covered(&span) {
            return Err(Errno::ENOMEM);
        }
        self.drop_pages(memory, span)
    }

    /// Moves the end of the heap; where it is now.
    pub fn set_heap_end(&mut self, memory: &mut dyn GuestMemory, end: u64) -> u64 {
        let (now, wanted) = (self.heap.end, end.checked_next_multiple_of(PAGE));
        let Some(wanted) = wanted.filter(|_| end >= self.heap.start) else {
            return now;
        };
        let mapped = now.next_multiple_of(PAGE);
        let moved = if wanted > mapped {
            self.grow_heap(memory, mapped..wanted)
        } else if wanted < mapped {
            self.remove(memory, wanted..mapped)
        } else {
            Ok(())
        };
        if moved.is_ok() {
            self.heap.end = end;
        }
        self.heap.end
    }

    fn grow_heap(&mut self, memory: &dyn GuestMemory, span: Range<u64>) -> Result<(), Errno> {
        if span.end > self.top || !self.is_free(&span) {
            return Err(Errno::ENOMEM);
        }
        self.check_room(memory, span.end - span.start, Protection::READ_WRITE, false)?;
        self.insert(span, Protection::READ_WRITE, Use::Heap);
        Ok(())
    }

    /// Makes a mapping longer or shorter, elsewhere if `may_move` and it does not fit. Returns
    /// where it is.
    pub fn resize(
        &mut self,
        memory: &mut dyn GuestMemory,
        at: u64,
        old: u64,
        new: u64,
        may_move: bool,
    ) -> Result<u64, Errno> {
        let (old, new) = (rounded(old)?, rounded(new)?);
        let span = span(at, old).ok_or(Errno::EFAULT)?;
        let (_, area) = self.area(at).ok_or(Errno::EFAULT)?;
        if !self.is_covered(&span) {
            return Err(Errno::EFAULT);
        }
        if new <= old {
            if new < old {
                self.remove(memory, at + new..at + old)?;
            }
            return Ok(at);
        }
        let added = span.end..span.start.checked_add(new).ok_or(Errno::ENOMEM)?;
        if added.end <= self.top && self.is_free(&added) {
            self.check_room(memory, new - old, area.protection, false)?;
            self.insert(added, area.protection, area.what);
            return Ok(at);
        }
        if !may_move {
            return Err(Errno::ENOMEM);
        }
        let to = self.map(memory, 0, new, area.protection, false)?;
        self.carry(memory, span, to, area.protection)?;
        Ok(to)
    }

    /// Moves what `from` holds to `to`, and takes `from` away.
    fn carry(
        &mut self,
        memory: &mut dyn GuestMemory,
        from: Range<u64>,
        to: u64,
        protection: Protection,
    ) -> Result<(), Errno> {
        /// Bytes that are copied at a time.
        const STEP: u64 = 256 << 10;
        let mut piece = vec![0; STEP as usize];
        for part in self.present.within(from.clone()) {
            let mut at = part.start;
            while at < part.end {
                let count = STEP.min(part.end - at);
                let target = to + (at - from.start);
                let made = self.make(memory, target..target + count, Protection::READ_WRITE);
                made.map_err(|_| Errno::ENOMEM)?;
                memory.read(at, &mut piece[..count as usize])?;
                memory.write(target, &piece[..count as usize])?;
                self.drop_pages(memory, at..at + count)?;
                if protection != Protection::READ_WRITE {
                    let set = memory.protect(target, count, protection);
                    set.map_err(|_| Errno::ENOMEM)?;
                }
                at += count;
            }
        }
        self.remove(memory, from)
    }
}

fn rounded(bytes: u64) -> Result<u64, Errno> {
    match bytes.checked_next_multiple_of(PAGE) {
        Some(0) => Err(Errno::EINVAL),
        Some(bytes) if bytes <= USER_END => Ok(bytes),
        _ => Err(Errno::ENOMEM),
    }
}

fn pages_of(at: u64, upto: u64) -> Range<u64> {
    at - at % PAGE..upto.next_multiple_of(PAGE)
}

#[cfg(test)]
#[path = "maps_tests.rs"]
mod tests;
