//! Names of values within an app.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use model::AppName;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// Names a value: 1 to [`KEY_BYTES_MAX`] bytes of UTF-8 without control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

/// Why a text is not a key.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// Nothing was given.
    #[error("a key is empty: use 1 to {KEY_BYTES_MAX} bytes of UTF-8")]
    Empty,
    /// Too long.
    #[error("a key of {0} bytes is too long: at most {KEY_BYTES_MAX}")]
    TooLong(usize),
    /// A control character.
    #[error("a key holds the control character {0:?}: leave it out, or write it as text")]
    Control(char),
    /// Bytes that are no text.
    #[error("a key is not UTF-8: write bytes as text, for example in hexadecimal")]
    NotText,
}

impl Key {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads a key from bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        std::str::from_utf8(bytes)
            .map_err(|_| KeyError::NotText)?
            .parse()
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong(text.len()));
        }
        match text.chars().find(|c| c.is_control()) {
            Some(control) => Err(KeyError::Control(control)),
            None => Ok(Self(text.into())),
        }
    }
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A value, named within all apps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// The app.
    pub app: AppName,
    /// The key within it.
    pub key: Key,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_without_control_characters_are_keys() {
        for text in ["a", "a/b c", "grüße", &"x".repeat(KEY_BYTES_MAX)] {
            assert_eq!(text.parse::<Key>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_cause() {
        let check = |text: &str, error: KeyError| {
            assert_eq!(text.parse::<Key>(), Err(error), "{text:.20}");
        };
        check("", KeyError::Empty);
        check(&"x".repeat(513), KeyError::TooLong(513));
        check("a\0b", KeyError::Control('\0'));
        check("a\nb", KeyError::Control('\n'));
        check("a\u{85}", KeyError::Control('\u{85}'));
        assert_eq!(Key::from_bytes(&[0xff]), Err(KeyError::NotText));
    }
}
