//! Ids of invocations: time-ordered, unguessable, and short enough to paste.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One invocation: 48 bits of milliseconds since 1970 and 80 random bits, shown as 32 hex digits,
/// which sort by time of acceptance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct InvocationId(u128);

/// Why a text is not an invocation id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not an invocation id: expected 32 hexadecimal digits")]
pub struct IdError(String);

impl InvocationId {
    /// An id for an invocation accepted at `unix_ms`.
    pub fn new(unix_ms: u64) -> Self {
        Self::from_parts(unix_ms, rand::random())
    }

    /// The id of that time and of the low 80 bits of `random`.
    pub const fn from_parts(unix_ms: u64, random: u128) -> Self {
        Self(((unix_ms as u128) << 80) | (random & ((1 << 80) - 1)))
    }

    /// The id as a number.
    pub const fn as_u128(&self) -> u128 {
        self.0
    }

    /// Milliseconds since 1970 at which the invocation was accepted.
    pub fn unix_ms(&self) -> u64 {
        (self.0 >> 80) as u64
    }
}

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InvocationId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refuse = || IdError(text.chars().take(64).collect());
        let canonical = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 32 || !text.bytes().all(canonical) {
            return Err(refuse());
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| refuse())
    }
}

impl From<InvocationId> for String {
    fn from(id: InvocationId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for InvocationId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_read_back() {
        let (early, late) = (InvocationId::new(1), InvocationId::new(2));
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(late.to_string().parse(), Ok(late));
        assert_eq!(late.unix_ms(), 2);
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in ["", "+1", &"G".repeat(32), &"A".repeat(32), &"0".repeat(33)] {
            assert!(text.parse::<InvocationId>().is_err(), "{text}");
        }
    }
}
