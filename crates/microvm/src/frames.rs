//! Guest-physical pages: which are in use, which can be used again, and how many there may be.

use std::collections::BTreeMap;

use crate::layout::FRAMES;

/// Frames taken: where they begin, and how many bytes.
pub(crate) type Taken = (u64, u64);

/// The frames of one machine. Those never used come in order, so that what a guest has used lies
/// together at the start of its memory. Who gives frames back has made them zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frames {
    /// The first frame never used.
    end: u64,
    /// Used before and free: bytes by start. Neighbours are joined.
    free: BTreeMap<u64, u64>,
    bytes: u64,
    bytes_peak: u64,
    bytes_max: u64,
}

impl Frames {
    pub fn new(bytes_max: u64) -> Self {
        Self {
            end: FRAMES,
            free: BTreeMap::new(),
            bytes: 0,
            bytes_peak: 0,
            bytes_max,
        }
    }

    /// The first frame never used, what is free below it, and bytes in use.
    pub fn parts(&self) -> (u64, Vec<(u64, u64)>, u64) {
        let free = self.free.iter().map(|(start, bytes)| (*start, *bytes));
        (self.end, free.collect(), self.bytes)
    }

    /// Frames of those parts, of which a guest may have `bytes_max` bytes.
    pub fn of_parts(end: u64, free: Vec<(u64, u64)>, bytes: u64, bytes_max: u64) -> Self {
        Self {
            end,
            free: free.into_iter().collect(),
            bytes,
            bytes_peak: bytes,
            bytes_max,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn bytes_peak(&self) -> u64 {
        self.bytes_peak
    }

    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    /// Takes `bytes`, in as few pieces as there are; None if they are over the cap.
    pub fn take(&mut self, bytes: u64) -> Option<Vec<Taken>> {
        let total = self.bytes.checked_add(bytes)?;
        if total > self.bytes_max {
            return None;
        }
        self.bytes = total;
        self.bytes_peak = self.bytes_peak.max(total);
        let mut taken = Vec::new();
        let mut left = bytes;
        while left > 0
            && let Some((start, length)) = self.free.pop_first()
        {
            let used = length.min(left);
            if used < length {
                self.free.insert(start + used, length - used);
            }
            taken.push((start, used));
            left -= used;
        }
        if left > 0 {
            taken.push((self.end, left));
            self.end += left;
        }
        Some(taken)
    }

    /// The end of frames once `bytes` more are taken, at the most.
    pub fn end_after(&self, bytes: u64) -> u64 {
        let free: u64 = self.free.values().sum();
        self.end
            .saturating_add(bytes.min(self.bytes_max).saturating_sub(free))
    }

    /// Addresses for `bytes` that are not the guest's own, on one side of `boundary`.
    pub fn reserve(&mut self, bytes: u64, boundary: u64) -> u64 {
        if self.end < boundary && self.end + bytes > boundary {
            self.end = boundary;
        }
        let start = self.end;
        self.end += bytes;
        start
    }

    /// Gives `bytes` at `start` back.
    pub fn give_back(&mut self, start: u64, bytes: u64) {
        self.bytes -= bytes;
        let (mut start, mut bytes) = (start, bytes);
        if let Some(next) = self.free.remove(&(start + bytes)) {
            bytes += next;
        }
        if let Some((before, length)) = self.free.range(..start).next_back()
            && before + length == start
        {
            (start, bytes) = (*before, length + bytes);
        }
        self.free.insert(start, bytes);
    }

    /// Forgets the peak of what came before.
    pub fn settle(&mut self) {
        self.bytes_peak = self.bytes;
    }

    /// As it was in `image`.
    pub fn rewind(&mut self, image: &Frames) {
        let bytes_max = self.bytes_max;
        if self != image {
            self.clone_from(image);
            self.bytes_max = bytes_max;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u64 = 4096;

    #[test]
    fn what_is_given_back_is_joined_and_taken_first() {
        let mut frames = Frames::new(16 * PAGE);
        assert_eq!(frames.take(8 * PAGE), Some(vec![(FRAMES, 8 * PAGE)]));
        for page in [0, 2, 1] {
            frames.give_back(FRAMES + page * PAGE, PAGE);
        }
        let again = frames.take(4 * PAGE);
        let expected = vec![(FRAMES, 3 * PAGE), (FRAMES + 8 * PAGE, PAGE)];
        assert_eq!(again, Some(expected));
        assert_eq!((frames.bytes(), frames.bytes_peak()), (9 * PAGE, 9 * PAGE));
    }

    #[test]
    fn the_cap_holds_for_any_number() {
        let mut frames = Frames::new(4 * PAGE);
        for bytes in [5 * PAGE, u64::MAX, u64::MAX - PAGE] {
            assert_eq!(frames.take(bytes), None);
        }
        assert!(frames.take(4 * PAGE).is_some());
        assert_eq!(frames.take(PAGE), None);
    }

    proptest! {
        #[test]
        fn no_frame_is_ever_in_two_hands(steps in prop::collection::vec((1u64..9, 0usize..8), 1..60)) {
            let mut frames = Frames::new(64 * PAGE);
            let mut held: Vec<Taken> = Vec::new();
            for (pages, which) in steps {
                if which % 2 == 0 || held.is_empty() {
                    held.extend(frames.take(pages * PAGE).unwrap_or_default());
                } else {
                    let (start, bytes) = held.swap_remove(which % held.len());
                    frames.give_back(start, bytes);
                }
                let mut spans: Vec<_> = held.iter().map(|(s, b)| (*s, s + b)).collect();
                spans.extend(frames.free.iter().map(|(s, b)| (*s, s + b)));
                spans.sort_unstable();
                prop_assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0));
                let total: u64 = held.iter().map(|(_, bytes)| bytes).sum();
                prop_assert_eq!(total, frames.bytes());
            }
        }
    }
}
