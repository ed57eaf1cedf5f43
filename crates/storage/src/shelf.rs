//! Which blobs of a cache stay: the books of what is there, in the order of its use.
//!
//! ```text
//!  put ─▶ newest … oldest ─▶ given up while there is more than fits; what is pinned is passed over
//!           ▲ used
//! ```
//!
//! Pure: files are somebody else's. What is pinned counts, and stays also where it alone is more
//! than fits.

use std::collections::{BTreeMap, HashMap};

use model::Digest;

/// One blob that is there.
#[derive(Clone, Copy, Debug)]
struct Item {
    bytes: u64,
    /// When it was used last, in steps of the shelf's own.
    used: u64,
}

/// The books of a cache of at most so many bytes.
#[derive(Debug)]
pub(crate) struct Shelf {
    bytes_max: u64,
    bytes: u64,
    step: u64,
    items: HashMap<Digest, Item>,
    by_use: BTreeMap<u64, Digest>,
    /// How many hold each blob that must stay, whether it is there or not.
    pins: HashMap<Digest, usize>,
}

impl Shelf {
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            step: 0,
            items: HashMap::new(),
            by_use: BTreeMap::new(),
            pins: HashMap::new(),
        }
    }

    /// A blob is there, and is the one used last. Gives those that are given up for it, oldest
    /// first; it may be one of them.
    pub fn put(&mut self, digest: Digest, bytes: u64) -> Vec<Digest> {
        self.remove(&digest);
        self.step += 1;
        let used = self.step;
        self.items.insert(digest, Item { bytes, used });
        self.by_use.insert(used, digest);
        self.bytes = self.bytes.saturating_add(bytes);
        self.give_up()
    }

    /// A blob that is there was used.
    pub fn used(&mut self, digest: &Digest) {
        let Some(item) = self.items.get_mut(digest) else {
            return;
        };
        self.step += 1;
        self.by_use.remove(&item.used);
        item.used = self.step;
        self.by_use.insert(item.used, *digest);
    }

    /// A blob is no longer there.
    pub fn remove(&mut self, digest: &Digest) {
        if let Some(item) = self.items.remove(digest) {
            self.by_use.remove(&item.used);
            self.bytes = self.bytes.saturating_sub(item.bytes);
        }
    }

    /// A blob must stay, or must once it is there.
    pub fn pin(&mut self, digest: Digest) {
        *self.pins.entry(digest).or_default() += 1;
    }

    /// One of those who hold a blob lets it go.
    pub fn unpin(&mut self, digest: &Digest) {
        if let Some(count) = self.pins.get_mut(digest) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(digest);
            }
        }
    }

    /// Whether a blob's file must stay.
    pub fn keeps(&self, digest: &Digest) -> bool {
        self.items.contains_key(digest) || self.pins.contains_key(digest)
    }

    /// Bytes of all that is there.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the oldest off the books until the rest fits.
    pub fn give_up(&mut self) -> Vec<Digest> {
        let mut left = self.bytes;
        let mut given_up = Vec::new();
        for digest in self.by_use.values() {
            if left <= self.bytes_max {
                break;
            }
            if !self.pins.contains_key(digest) {
                left = left.saturating_sub(self.items.get(digest).map_or(0, |item| item.bytes));
                given_up.push(*digest);
            }
        }
        for digest in &given_up {
            self.remove(digest);
        }
        given_up
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u64),
        Used(u8),
        Remove(u8),
        Pin(u8),
        Unpin(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let blob = || 0..8u8;
        prop_oneof![
            4 => (blob(), 0..60u64).prop_map(|(blob, bytes)| Step::Put(blob, bytes)),
            2 => blob().prop_map(Step::Used),
            1 => blob().prop_map(Step::Remove),
            1 => blob().prop_map(Step::Pin),
            1 => blob().prop_map(Step::Unpin),
        ]
    }

    fn name(blob: u8) -> Digest {
        Digest::of(&[blob])
    }

    /// The same by the plainest means: a list from the oldest to the newest.
    #[derive(Default)]
    struct Model {
        list: Vec<(u8, u64)>,
        pins: [usize; 8],
    }

    impl Model {
        fn put(&mut self, blob: u8, bytes: u64, bytes_max: u64) -> Vec<Digest> {
            self.list.retain(|(other, _)| *other != blob);
            self.list.push((blob, bytes));
            let mut given_up = Vec::new();
            loop {
                let all: u64 = self.list.iter().map(|(_, bytes)| bytes).sum();
                let free = |(blob, _): &(u8, u64)| self.pins[usize::from(*blob)] == 0;
                match self.list.iter().position(free) {
                    Some(oldest) if all > bytes_max => {
                        given_up.push(name(self.list.remove(oldest).0));
                    }
                    _ => return given_up,
                }
            }
        }

        fn used(&mut self, blob: u8) {
            if let Some(at) = self.list.iter().position(|(other, _)| *other == blob) {
                let item = self.list.remove(at);
                self.list.push(item);
            }
        }
    }

    proptest! {
        #[test]
        fn the_least_recently_used_goes_first_and_never_what_is_pinned(
            bytes_max in 0..200u64,
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let (mut shelf, mut model) = (Shelf::new(bytes_max), Model::default());
            for step in steps {
                match step {
                    Step::Put(blob, bytes) => {
                        let given_up = shelf.put(name(blob), bytes);
                        prop_assert_eq!(given_up, model.put(blob, bytes, bytes_max));
                    }
                    Step::Used(blob) => {
                        shelf.used(&name(blob));
                        model.used(blob);
                    }
                    Step::Remove(blob) => {
                        shelf.remove(&name(blob));
                        model.list.retain(|(other, _)| *other != blob);
                    }
                    Step::Pin(blob) => {
                        shelf.pin(name(blob));
                        model.pins[usize::from(blob)] += 1;
                    }
                    Step::Unpin(blob) => {
                        shelf.unpin(&name(blob));
                        let pins = &mut model.pins[usize::from(blob)];
                        *pins = pins.saturating_sub(1);
                    }
                }
                let all: u64 = model.list.iter().map(|(_, bytes)| bytes).sum();
                prop_assert_eq!(shelf.bytes(), all);
                for blob in 0..8 {
                    let there = model.list.iter().any(|(other, _)| *other == blob);
                    let pinned = model.pins[usize::from(blob)] > 0;
                    prop_assert_eq!(shelf.keeps(&name(blob)), there || pinned);
                }
            }
        }
    }
}
