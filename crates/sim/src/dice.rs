//! Chance out of a seed.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Rolls the same for the same seed, on every machine and in every release.
#[derive(Debug)]
pub(crate) struct Dice {
    seed: u64,
    rolls: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self { seed, rolls: 0 }
    }

    /// A number below `below`, which is at least one.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.rolls += 1;
        xxh3_64_with_seed(&self.rolls.to_le_bytes(), self.seed) % below.max(1)
    }

    pub fn index(&mut self, len: usize) -> usize {
        // Below a length, which is a usize.
        self.roll(len as u64) as usize
    }

    pub fn chance(&mut self, permille: u64) -> bool {
        self.roll(1000) < permille
    }

    pub fn time(&mut self, below: Duration) -> Duration {
        Duration::from_micros(self.roll(below.as_micros() as u64))
    }
}
