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
}

/// Tells how much of a node something is, in thousandths of what is scarcer there. A decision asks
/// that twice of each node, so it divides once, when the node says what it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauge {
    places: Part,
    memory: Part,
}

/// One over the whole, in fixed point with 32 bits behind it, of a whole that is shifted down to 16
/// bits: what is lost is less than a thousandth.
#[derive(Clone, Copy, Debug)]
struct Part {
    shift: u32,
    permille: u64,
}

impl Gauge {
    pub fn of(whole: Resources) -> Self {
        Self {
            places: Part::of(whole.places.into()),
            memory: Part::of(whole.memory_bytes),
        }
    }

    pub fn permille(&self, used: Resources) -> u64 {
        let places = self.places.permille(used.places.into());
        places.max(self.memory.permille(used.memory_bytes))
    }
}

impl Part {
    fn of(whole: u64) -> Self {
        let shift = (u64::BITS - whole.leading_zeros()).saturating_sub(16);
        // Of nothing, anything is far more than all.
        let permille = match whole >> shift {
            0 => u64::MAX,
            whole => (1000_u64 << 32).div_ceil(whole),
        };
        Self { shift, permille }
    }

    fn permille(&self, used: u64) -> u64 {
        (used >> self.shift).saturating_mul(self.permille) >> 32
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} places, {} bytes", self.places, self.memory_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_exact_to_a_thousandth_of_any_size() {
        let check = |used: u64, whole: u64, wanted: u64| {
            let memory = |memory_bytes| Resources {
                places: 0,
                memory_bytes,
            };
            let found = Gauge::of(memory(whole)).permille(memory(used));
            assert!(found.abs_diff(wanted) <= 1, "{used} of {whole}: {found}");
        };
        for whole in [1, 3, 10, 1000, 1 << 16, (1 << 34) + 5, 1 << 50, u64::MAX] {
            check(0, whole, 0);
            check(whole, whole, 1000);
            check(
                whole / 2,
                whole,
                (u128::from(whole / 2) * 1000 / u128::from(whole)) as u64,
            );
        }
        check(0, 0, 0);
        let nothing = Gauge::of(Resources::default());
        let one = Resources {
            places: 1,
            memory_bytes: 0,
        };
        assert!(nothing.permille(one) > 1_000_000);
    }
}
