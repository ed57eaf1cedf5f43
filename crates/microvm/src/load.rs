//! An executable put into a machine's memory, as its segments say.

use memory::{MemoryError, PAGE_BYTES, Range};

use crate::elf::{Elf, ElfError, Segment};
use crate::layout::PAGE;
use crate::space::{Protection, Space, SpaceError};
use crate::view::View;

/// Where a program that may be moved goes.
pub const MOVED_TO: u64 = 0x40_0000;

/// Why a program could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadElfError {
    /// The file is not right.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// It does not fit.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// A relocation points outside of what the program may write.
    #[error("a relocation at {0:#x} is outside of the program's data")]
    Relocation(u64),
}

/// A program in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What was added to each of its addresses.
    pub moved_by: u64,
    /// Its first instruction.
    pub entry: u64,
    /// Its program headers, if they are in memory.
    pub headers_address: Option<u64>,
    /// The first address past its last segment.
    pub end: u64,
}

/// What is added to each of a program's addresses.
pub fn moved_by(elf: &Elf) -> u64 {
    match elf.movable {
        true => MOVED_TO.saturating_sub(elf.span().start),
        false => 0,
    }
}

/// Maps `elf`, which was read from `file`, into `space`. `memory` must reach as far as all of its
/// segments do; [`frames_needed`] says how far.
pub fn load(
    memory: &Range,
    space: &mut Space,
    elf: &Elf,
    file: &[u8],
) -> Result<Loaded, LoadElfError> {
    let moved_by = moved_by(elf);
    // What the file fills comes first, so that an image need not hold what is zero behind it.
    for segment in &elf.segments {
        let (filled, _) = parts(segment);
        let (start, bytes) = (filled.start + moved_by, filled.end - filled.start);
        space.map(memory, start, bytes, Protection::READ_WRITE)?;
        let bytes = file.get(segment.file.clone()).unwrap_or_default();
        let written = View::new(memory, space).write(segment.address + moved_by, bytes);
        written.map_err(|bad| SpaceError::Hole(bad.address))?;
    }
    for segment in &elf.segments {
        let (_, zero) = parts(segment);
        let (start, bytes) = (zero.start + moved_by, zero.end - zero.start);
        space.map(memory, start, bytes, Protection::READ_WRITE)?;
    }
    if elf.movable {
        for (at, to) in &elf.relocations {
            let at = at.wrapping_add(moved_by);
            let word = to.wrapping_add(moved_by).to_le_bytes();
            let written = View::new(memory, space).write(at, &word);
            written.map_err(|_| LoadElfError::Relocation(at))?;
        }
    }
    for segment in &elf.segments {
        let pages = segment.pages();
        let start = pages.start + moved_by;
        space.protect(memory, start, pages.end - pages.start, segment.protection)?;
    }
    Ok(Loaded {
        moved_by,
        entry: elf.entry + moved_by,
        headers_address: elf.headers_address.map(|at| at + moved_by),
        end: elf.span().end + moved_by,
    })
}

/// The pages of a segment that its file's bytes touch, and those that hold zeros only.
fn parts(segment: &Segment) -> (std::ops::Range<u64>, std::ops::Range<u64>) {
    let pages = segment.pages();
    let file_end = segment.address + segment.file.len() as u64;
    let filled_end = match segment.file.len() {
        0 => pages.start,
        _ => file_end.next_multiple_of(PAGE),
    };
    (pages.start..filled_end, filled_end..pages.end)
}

/// Bytes of frames that the segments of `elf` take.
pub fn frames_needed(elf: &Elf) -> u64 {
    let pages = elf.segments.iter().map(|segment| segment.pages());
    pages.map(|pages| pages.end - pages.start).sum()
}

/// Makes `memory`, which is empty or an image's, hold `bytes` bytes of frames.
pub fn make_room(memory: &Range, bytes: u64) -> Result<(), MemoryError> {
    let most = memory.bytes_max();
    let end = usize::try_from(crate::layout::FRAMES + bytes.next_multiple_of(PAGE));
    let end = end.unwrap_or(usize::MAX);
    if end > most {
        return Err(MemoryError::TooLarge { asked: end, most });
    }
    memory.grow_to(end.next_multiple_of(PAGE_BYTES))
}
