//! Slots: the parts that all keys of all apps fall into, each of which one node owns.

use std::fmt;

use crate::Name;

/// A part of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u8);

/// How many slots a cluster has, for good: which slot a key is in is the same on every node, of
/// every release.
pub const SLOTS: usize = 256;

impl Slot {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// The slot of a key.
    pub fn of(name: &Name) -> Self {
        let text = name.to_string();
        // Any eight bits of the hash do.
        Self((xxhash_rust::xxh3::xxh3_64(text.as_bytes()) & 0xff) as u8)
    }

    /// The slot of this number.
    pub(crate) fn numbered(number: u8) -> Self {
        Self(number)
    }

    /// Its number, less than [`SLOTS`].
    pub fn number(self) -> usize {
        self.0.into()
    }
}

/// As it is named where nodes claim it.
impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state/{:03}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(key: &str) -> Slot {
        Slot::of(&Name {
            app: "shop".parse().unwrap(),
            key: key.parse().unwrap(),
        })
    }

    #[test]
    fn a_key_is_in_the_same_slot_for_ever() {
        // Nodes of two releases must agree: these may never change.
        let slots = ["cart/7", "a", "b"].map(|key| slot(key).number());
        assert_eq!(slots, GOLDEN);
        assert_eq!(Slot(7).to_string(), "state/007");
    }

    #[test]
    fn keys_are_spread_over_the_slots() {
        let mut counts = [0; SLOTS];
        for number in 0..25_600 {
            counts[slot(&format!("key/{number}")).number()] += 1;
        }
        assert!(counts.iter().all(|count| (50..170).contains(count)));
    }

    const GOLDEN: [usize; 3] = [44, 151, 11];
}
