//! Data objects: views on state, which functions of an app share without copies.
//!
//! Their bytes are laid out as `docs/data-objects.md` says, the same in every language.

mod counter;
mod dense;
mod dictionary;
mod list;
mod sparse;

pub use counter::Counter;
pub use dense::{Matrix, Number, Vector};
pub use dictionary::{Dictionary, Locked};
pub use list::List;
pub use sparse::{Sparse, SparseDraft};

use crate::calls::{self, Error};

const HEADER_BYTES: usize = 64;

/// The first bytes of a value that describes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    magic: [u8; 8],
    small: [u32; 2],
    large: [u64; 6],
}

impl Header {
    fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.magic);
        for (at, word) in self.small.iter().enumerate() {
            bytes[8 + 4 * at..][..4].copy_from_slice(&word.to_le_bytes());
        }
        for (at, word) in self.large.iter().enumerate() {
            bytes[16 + 8 * at..][..8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn of(bytes: &[u8; HEADER_BYTES]) -> Self {
        let small = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let large = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Self {
            magic: std::array::from_fn(|i| bytes[i]),
            small: std::array::from_fn(|i| small(8 + 4 * i)),
            large: std::array::from_fn(|i| large(16 + 8 * i)),
        }
    }

    /// The header that is there, which must have this magic.
    fn read(key: &str, magic: &[u8; 8]) -> Result<Self, Error> {
        let mut bytes = [0; HEADER_BYTES];
        let count = calls::state_read(key, 0, &mut bytes)?;
        let header = Self::of(&bytes);
        if count < HEADER_BYTES as u64 || header.magic != *magic {
            return Err(Error::Invalid);
        }
        Ok(header)
    }

    /// Creates the value with this header unless it is there; gives the header that is there.
    fn make(&self, key: &str) -> Result<Self, Error> {
        match calls::state_swap(key, 0, &self.bytes()) {
            Ok(_) => Ok(*self),
            Err(Error::Conflict) => Self::read(key, &self.magic),
            Err(error) => Err(error),
        }
    }
}

fn to_usize(count: u64) -> Result<usize, Error> {
    usize::try_from(count).map_err(|_| Error::TooLarge)
}
