//! What can go wrong with guest memory.

use std::io;

/// A failure of the memory layer.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The cap of live ranges is reached.
    #[error("{live} guest memories are live, and the cap is {max}")]
    Full {
        /// Live ranges.
        live: usize,
        /// The cap.
        max: usize,
    },
    /// The kernel refused an operation.
    #[error("could not {doing}")]
    Kernel {
        /// What was being done.
        doing: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A length that does not fit the reservation.
    #[error("{asked} bytes do not fit the reservation of {most}")]
    TooLarge {
        /// The length.
        asked: usize,
        /// The most that fits.
        most: usize,
    },
    /// Bytes that a region or range does not have.
    #[error("{length} bytes at {offset} are outside of {bytes} bytes of memory")]
    Outside {
        /// The first byte.
        offset: usize,
        /// How many.
        length: usize,
        /// The bytes that there are.
        bytes: usize,
    },
    /// A region that cannot be mapped where it was asked.
    #[error("a region cannot be mapped: {reason}")]
    BadMapping {
        /// What is wrong.
        reason: &'static str,
    },
    /// An image file that is not what it says.
    #[error("the image file is unusable: {reason}")]
    BadImage {
        /// What is wrong.
        reason: String,
    },
}

impl MemoryError {
    /// For `map_err`: the kernel refused to do `doing`.
    pub(crate) fn kernel<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Kernel {
            doing,
            source: error.into(),
        }
    }
}
