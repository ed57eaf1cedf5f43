//! Which parts of a durable value are here, and which differ from what the global tier holds.
//!
//! ```text
//!  absent ──pull──▶ loaded ──write──▶ dirty ──push──▶ loaded
//!                     └─map for writing──▶ suspect ──push compares hashes──▶ dirty or loaded
//! ```

use std::ops::Range;

use crate::global::CHUNK_BYTES;

/// The hash of a chunk that holds nothing but zeros.
pub(crate) const ZEROS: u128 = 0;

/// The hash of a chunk's bytes without the zeros at its end.
pub(crate) fn hash(trimmed: &[u8]) -> u128 {
    match trimmed.is_empty() {
        true => ZEROS,
        // Guests could make two chunks of one hash, and would lose their own write by it.
        false => xxhash_rust::xxh3::xxh3_128(trimmed).max(1),
    }
}

/// The bytes without the zeros at their end.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0);
    &bytes[..end.map_or(0, |last| last + 1)]
}

/// Chunks that overlap bytes.
pub(crate) fn covering(bytes: Range<usize>) -> Range<usize> {
    if bytes.is_empty() {
        return 0..0;
    }
    bytes.start / CHUNK_BYTES..bytes.end.div_ceil(CHUNK_BYTES)
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    loaded: bool,
    dirty: bool,
    /// A guest may write it unseen.
    suspect: bool,
    /// Of what the global tier holds.
    pushed: u128,
}

/// The chunks of a value.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    /// The version that the global tier holds; 0 if none.
    pub base: u64,
    /// Whether more than chunks differs from it: the size, the version, the time to live.
    pub head_dirty: bool,
    chunks: Vec<Chunk>,
}

impl Chunks {
    /// Those of a value of `size` bytes, all in the global tier.
    pub fn stored(base: u64, size: usize) -> Self {
        let absent = Chunk {
            loaded: false,
            dirty: false,
            suspect: false,
            pushed: ZEROS,
        };
        Self {
            base,
            head_dirty: false,
            chunks: vec![absent; size.div_ceil(CHUNK_BYTES)],
        }
    }

    /// The value has another size now. What is added is new: whatever the global tier holds there
    /// is of an older value.
    pub fn resize(&mut self, size: usize) {
        let new = Chunk {
            loaded: true,
            dirty: true,
            suspect: false,
            pushed: ZEROS,
        };
        self.head_dirty = true;
        self.chunks.resize(size.div_ceil(CHUNK_BYTES), new);
    }

    /// The bytes were written.
    pub fn write(&mut self, bytes: Range<usize>) {
        self.head_dirty = true;
        for chunk in self.within(covering(bytes)) {
            (chunk.loaded, chunk.dirty) = (true, true);
        }
    }

    /// The bytes may be written by guests from now on.
    pub fn suspect(&mut self, bytes: Range<usize>) {
        for chunk in self.within(covering(bytes)) {
            chunk.suspect = true;
        }
    }

    /// Marks chunks to be pushed, again.
    pub fn soil(&mut self, numbers: &[usize]) {
        for number in numbers {
            if let Some(chunk) = self.chunks.get_mut(*number) {
                chunk.dirty = true;
            }
        }
    }

    /// Takes out the dirty ones within `range`, which count as clean from now on.
    pub fn take_dirty(&mut self, range: Range<usize>) -> Vec<usize> {
        let mut taken = Vec::new();
        for number in range.start..range.end.min(self.chunks.len()) {
            if std::mem::take(&mut self.chunks[number].dirty) {
                taken.push(number);
            }
        }
        taken
    }

    /// The suspect ones within `range` that are not dirty anyway, each with the hash that it would
    /// have if nobody had written it. Unless guests may go on writing, they are cleared.
    pub fn suspects(&mut self, range: Range<usize>, go_on: bool) -> Vec<(usize, u128)> {
        let mut found = Vec::new();
        for number in range.start..range.end.min(self.chunks.len()) {
            let chunk = &mut self.chunks[number];
            if chunk.suspect && !chunk.dirty {
                found.push((number, chunk.pushed));
            }
            chunk.suspect &= go_on;
        }
        found
    }

    /// Marks chunks that may have been written, again.
    pub fn suspect_again(&mut self, numbers: impl Iterator<Item = usize>) {
        for number in numbers {
            if let Some(chunk) = self.chunks.get_mut(number) {
                chunk.suspect = true;
            }
        }
    }

    /// The global tier holds this hash for the chunk now.
    pub fn pushed(&mut self, number: usize, hash: u128) {
        if let Some(chunk) = self.chunks.get_mut(number) {
            chunk.pushed = hash;
        }
    }

    /// The first run of chunks within `range` that are not here, of at most `most`.
    pub fn missing(&self, range: Range<usize>, most: usize) -> Option<Range<usize>> {
        let end = range.end.min(self.chunks.len());
        let start = (range.start..end).find(|number| !self.chunks[*number].loaded)?;
        let length = self.chunks[start..end.min(start + most)]
            .iter()
            .take_while(|chunk| !chunk.loaded)
            .count();
        Some(start..start + length)
    }

    /// Whether the chunk is still to be loaded; marks it as loaded, with the hash of what it holds.
    pub fn load(&mut self, number: usize, hash: u128) {
        if let Some(chunk) = self.chunks.get_mut(number) {
            (chunk.loaded, chunk.pushed) = (true, hash);
        }
    }

    /// Whether the chunk is one of the value's, and not here.
    pub fn is_missing(&self, number: usize) -> bool {
        self.chunks.get(number).is_some_and(|chunk| !chunk.loaded)
    }

    /// Whether the global tier holds all of it, and no guest may have changed it.
    pub fn are_clean(&self) -> bool {
        let clean = |chunk: &Chunk| !chunk.dirty && !chunk.suspect;
        self.base != 0 && !self.head_dirty && self.chunks.iter().all(clean)
    }

    /// All of them.
    pub fn all(&self) -> Range<usize> {
        0..self.chunks.len()
    }

    fn within(&mut self, range: Range<usize>) -> &mut [Chunk] {
        let end = range.end.min(self.chunks.len());
        &mut self.chunks[range.start.min(end)..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: usize = CHUNK_BYTES;

    #[test]
    fn bytes_are_covered_by_whole_chunks() {
        assert_eq!(covering(0..1), 0..1);
        assert_eq!(covering(C - 1..C + 1), 0..2);
        assert_eq!(covering(C..2 * C), 1..2);
        assert_eq!(covering(5..5), 0..0);
    }

    #[test]
    fn zeros_at_the_end_do_not_count() {
        assert_eq!(trim(&[1, 0, 2, 0, 0]), [1, 0, 2]);
        assert_eq!(hash(trim(&[0; 10])), ZEROS);
        assert_ne!(hash(&[1]), hash(&[2]));
    }

    #[test]
    fn chunks_are_loaded_in_bounded_runs() {
        let mut chunks = Chunks::stored(1, 10 * C);
        chunks.load(3, 7);
        assert_eq!(chunks.missing(0..10, 2), Some(0..2));
        assert_eq!(chunks.missing(1..10, 9), Some(1..3));
        assert_eq!(chunks.missing(3..4, 9), None);
        assert_eq!(chunks.missing(8..99, 9), Some(8..10));
    }

    #[test]
    fn what_is_written_added_or_suspect_is_pushed_once() {
        let mut chunks = Chunks::stored(1, 3 * C);
        chunks.write(C..C + 1);
        chunks.resize(4 * C);
        assert_eq!(chunks.take_dirty(0..9), [1, 3]);
        assert_eq!(chunks.take_dirty(0..9), [0; 0]);
        chunks.soil(&[3, 9]);
        assert_eq!(chunks.take_dirty(0..2), [0; 0]);
        assert_eq!(chunks.take_dirty(0..9), [3]);
        chunks.suspect(0..2 * C);
        chunks.pushed(1, 5);
        assert_eq!(chunks.suspects(1..9, true), [(1, 5)]);
        assert_eq!(chunks.suspects(1..9, false), [(1, 5)]);
        assert_eq!(chunks.suspects(0..9, false), [(0, ZEROS)]);
    }
}
