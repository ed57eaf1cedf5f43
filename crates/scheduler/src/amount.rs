//! What calls need and nodes have.

use std::fmt;

/// Places and memory: what a call needs, what a node has, uses or keeps for a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Calls at once.
    pub places: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

impl Resources {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            places: self.places.saturating_add(other.places),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// What is left without `other`; nothing where that is more.
    pub fn minus(self, other: Self) -> Self {
        Self {
            places: self.places.saturating_sub(other.places),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }

    /// `count` times this.
    pub fn times(self, count: u32) -> Self {
        Self {
            places: self.places.saturating_mul(count),
            memory_bytes: self.memory_bytes.saturating_mul(count.into()),
        }
    }

    /// Whether `room` holds this.
    pub fn fits_in(self, room: Self) -> bool {
        self.places <= room.places && self.memory_bytes <= room.memory_bytes
    }

    /// How many of this `room` holds, at most `most`.
    pub fn count_in(self, room: Self, most: u32) -> u32 {
        let places = room.places.checked_div(self.places).unwrap_or(most);
        let memory = room.memory_bytes.checked_div(self.memory_bytes);
        let memory = memory.unwrap_or(most.into()).min(most.into());
        // At most `most`, which is an u32.
        places.min(memory as u32)
    }

    /// How much of `whole` this is, in thousandths: of what is scarcer.
    pub fn permille_of(self, whole: Self) -> u64 {
        let part = |used: u64, whole: u64| match (used, whole) {
            (0, _) => 0,
            (_, 0) => u64::MAX,
            // In 128 bits, since 1,000 times the bytes of a large node may not fit in 64.
            _ => (u128::from(used) * 1000 / u128::from(whole)) as u64,
        };
        part(self.places.into(), whole.places.into())
            .max(part(self.memory_bytes, whole.memory_bytes))
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} places, {} bytes", self.places, self.memory_bytes)
    }
}
