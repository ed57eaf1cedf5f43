//! Chance out of a seed, without a state: what is thrown depends on what it is thrown for, and not
//! on what was thrown before, so that one message more or less changes the fate of no other.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The dice of one seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice(u64);

/// Numbers for one purpose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Throw(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A throw for `purpose`, with what tells it from others of that purpose.
    pub fn throw(self, purpose: &str, of: &[u64]) -> Throw {
        let mut word = xxh3_64_with_seed(purpose.as_bytes(), self.0);
        for part in of {
            word = xxh3_64_with_seed(&part.to_le_bytes(), word);
        }
        Throw(word)
    }
}

impl Throw {
    /// The next number (splitmix64, by Steele, Lea and Flood).
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub fn below(&mut self, below: u64) -> u64 {
        self.word() % below.max(1)
    }

    pub fn index(&mut self, len: usize) -> usize {
        // Below a length, which is a usize.
        self.below(len as u64) as usize
    }

    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    pub fn time(&mut self, below: Duration) -> Duration {
        Duration::from_micros(self.below(below.as_micros() as u64))
    }
}
