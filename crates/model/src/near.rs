//! Keys of state that a function is to run near.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Keys that a function may name.
pub const NEAR_MAX: usize = 8;
/// Longest key, in bytes: as state has them.
pub const NEAR_BYTES_MAX: usize = 512;

/// A key of its app's state by which a function is placed: where many bytes of it are, calls go. It
/// grants nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NearKey(String);

/// A text that is no key.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`near` names keys: 1 to {NEAR_BYTES_MAX} bytes each, without control characters")]
pub struct NearError;

impl NearKey {
    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NearKey {
    type Err = NearError;

    fn from_str(text: &str) -> Result<Self, NearError> {
        let is_key = (1..=NEAR_BYTES_MAX).contains(&text.len());
        match is_key && !text.contains(|c: char| c.is_control()) {
            true => Ok(Self(text.to_owned())),
            false => Err(NearError),
        }
    }
}

impl TryFrom<String> for NearKey {
    type Error = NearError;

    fn try_from(text: String) -> Result<Self, NearError> {
        text.parse()
    }
}

impl From<NearKey> for String {
    fn from(key: NearKey) -> String {
        key.0
    }
}

impl fmt::Display for NearKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
