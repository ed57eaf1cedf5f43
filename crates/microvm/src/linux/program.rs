//! A program that is loaded: what a process of it has to know.

use super::maps::STACK_GUARD;
use crate::elf::Elf;
use crate::load::Loaded;
use crate::space::Protection;

/// No address.
const NONE: u64 = u64::MAX;

/// A loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its first instruction.
    pub entry: u64,
    /// Its program headers, if they are in memory.
    pub headers_address: Option<u64>,
    /// How many there are.
    pub header_count: u16,
    /// Its segments: first address, the one past the last, and whether they may be written and
    /// executed.
    segments: Vec<(u64, u64, bool, bool)>,
}

impl Program {
    /// The program that `elf` is, loaded so.
    pub fn new(elf: &Elf, loaded: &Loaded) -> Self {
        let segments = elf.segments.iter().map(|segment| {
            let (pages, moved) = (segment.pages(), loaded.moved_by);
            let allowed = segment.protection;
            let (start, end) = (pages.start + moved, pages.end + moved);
            (start, end, allowed.write, allowed.execute)
        });
        Self {
            entry: loaded.entry,
            headers_address: loaded.headers_address,
            header_count: elf.header_count,
            segments: segments.collect(),
        }
    }

    /// As words: entry, address and number of headers, then start, end and bits of each segment.
    pub fn encode(&self) -> Vec<u8> {
        let headers = self.headers_address.unwrap_or(NONE);
        let mut words = vec![self.entry, headers, self.header_count.into()];
        for (start, end, write, execute) in &self.segments {
            words.extend([*start, *end, u64::from(*write) | u64::from(*execute) << 1]);
        }
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Reads it back; none if it is malformed.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let words: Vec<_> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let (head, segments) = words.split_first_chunk::<3>()?;
        let (segments, odd) = segments.as_chunks::<3>();
        if !rest.is_empty() || !odd.is_empty() {
            return None;
        }
        let segment = |[start, end, bits]: &[u64; 3]| (*start, *end, bits & 1 != 0, bits & 2 != 0);
        Some(Self {
            entry: head[0],
            headers_address: Some(head[1]).filter(|address| *address != NONE),
            header_count: u16::try_from(head[2]).ok()?,
            segments: segments.iter().map(segment).collect(),
        })
    }

    /// Its segments, whole pages each.
    pub fn segments(&self) -> Vec<(std::ops::Range<u64>, Protection)> {
        let segments = self.segments.iter();
        let all = segments.map(|(start, end, write, execute)| {
            let allowed = Protection {
                read: true,
                write: *write,
                execute: *execute,
            };
            (*start..*end, allowed)
        });
        all.collect()
    }

    /// The hole below the stack of its first thread.
    pub fn stack_guard() -> std::ops::Range<u64> {
        STACK_GUARD
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A program of two segments.
    pub fn program() -> Program {
        Program {
            entry: 0x40_1000,
            headers_address: Some(0x40_0040),
            header_count: 7,
            segments: vec![
                (0x40_0000, 0x40_2000, false, true),
                (0x40_2000, 0x40_3000, true, false),
            ],
        }
    }

    #[test]
    fn it_comes_back_as_it_was_or_not_at_all() {
        let program = program();
        let bytes = program.encode();
        assert_eq!(Program::decode(&bytes), Some(program));
        for length in [0, 8, 23, 25, bytes.len() - 1] {
            assert_eq!(Program::decode(&bytes[..length]), None);
        }
    }
}
