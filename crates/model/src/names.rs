//! Names of apps, functions and nodes: DNS labels, so that each fits a host name, a path and a
//! metric.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes (one DNS label).
const NAME_BYTES_MAX: usize = 63;

/// Why a text is not a name.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Nothing was given.
    #[error("a name is empty: use 1 to {NAME_BYTES_MAX} of a-z, 0-9 and `-`")]
    Empty,
    /// Longer than a DNS label.
    #[error("a name of {0} bytes is too long: at most {NAME_BYTES_MAX}")]
    TooLong(usize),
    /// A character that a host name cannot carry.
    #[error(
        "`{0}` is not a name: use a-z, 0-9 and `-`, starting and ending with a letter or digit"
    )]
    Malformed(String),
    /// Not of the form `app/function`.
    #[error("`{0}` does not name a function: write APP/FUNCTION")]
    NotAPath(String),
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(text.len()));
    }
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    if bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last()) {
        return Ok(());
    }
    Err(NameError::Malformed(text.to_owned()))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// The name of an app: a group of functions that trust each other.
    AppName
);
name!(
    /// The name of a function within its app.
    FunctionName
);
name!(
    /// The id of a node: a label too, so that a certificate can carry it in a host name.
    NodeId
);

/// A function named within its node: `app/function`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FunctionPath {
    /// The app that the function belongs to.
    pub app: AppName,
    /// The function's name within the app.
    pub function: FunctionName,
}

impl fmt::Display for FunctionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.function)
    }
}

impl FromStr for FunctionPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (app, function) = text
            .split_once('/')
            .ok_or_else(|| NameError::NotAPath(text.chars().take(NAME_BYTES_MAX).collect()))?;
        Ok(Self {
            app: app.parse()?,
            function: function.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_labels_are_names() {
        for text in ["a", "hello", "a-1", "0", &"x".repeat(63)] {
            assert!(text.parse::<AppName>().is_ok(), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let long = "x".repeat(1 << 20);
        for text in [
            "",
            "-a",
            "a-",
            "a/b",
            "..",
            "a.b",
            "A",
            "é",
            "a b",
            "a\0",
            long.as_str(),
        ] {
            assert!(text.parse::<FunctionName>().is_err(), "{:.40}", text);
        }
    }

    #[test]
    fn a_path_has_exactly_two_names() {
        assert!("a/b".parse::<FunctionPath>().is_ok());
        for text in ["a", "a/", "/b", "a/b/c"] {
            assert!(text.parse::<FunctionPath>().is_err(), "{text}");
        }
    }
}
