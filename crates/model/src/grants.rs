//! What a function is allowed beyond its own sandbox. Nothing, unless it is granted.

use serde::{Deserialize, Serialize};

use crate::{AppName, EgressGrant, FunctionName, FunctionPath};

/// Most grants of one kind that a function may have.
pub const GRANTS_MAX: usize = 256;
/// Longest prefix of a state grant, in bytes.
pub const PREFIX_BYTES_MAX: usize = 512;

/// What a function may do with the keys of a grant.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Look at them.
    #[default]
    Read,
    /// Look at them and change them.
    Write,
}

/// What must have happened before a change of state is acknowledged.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It is in memory: it is lost with the node.
    #[default]
    Ephemeral,
    /// It is on disk.
    Durable,
    /// It is in the memory of several nodes of a cluster: it is lost with all of these.
    Replicated,
}

/// Keys of the app's state that a function may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateGrant {
    /// What the keys begin with; empty for all keys.
    pub prefix: String,
    /// What may be done with them.
    #[serde(default)]
    pub access: Access,
    /// Of keys that the function creates there.
    #[serde(default)]
    pub durability: Durability,
}

/// Functions that a function may call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CallGrant {
    /// Their app; none for the caller's own.
    app: Option<AppName>,
    /// Which; none for all of the app.
    function: Option<FunctionName>,
}

/// A text that grants no call.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` does not name functions: write FUNCTION, APP/FUNCTION, APP/* or *")]
pub struct CallGrantError(String);

impl CallGrant {
    /// Whether it lets a function of `caller`'s app call `callee`.
    pub fn covers(&self, caller: &AppName, callee: &FunctionPath) -> bool {
        let app = self.app.as_ref().unwrap_or(caller);
        let function = self.function.as_ref();
        *app == callee.app && function.is_none_or(|function| *function == callee.function)
    }
}

impl std::str::FromStr for CallGrant {
    type Err = CallGrantError;

    fn from_str(text: &str) -> Result<Self, CallGrantError> {
        let refuse = || CallGrantError(text.chars().take(64).collect());
        let (app, function) = match text.split_once('/') {
            Some((app, function)) => (Some(app.parse().map_err(|_| refuse())?), function),
            None => (None, text),
        };
        let function = match function {
            "*" => None,
            name => Some(name.parse().map_err(|_| refuse())?),
        };
        Ok(Self { app, function })
    }
}

impl TryFrom<String> for CallGrant {
    type Error = CallGrantError;

    fn try_from(text: String) -> Result<Self, CallGrantError> {
        text.parse()
    }
}

impl std::fmt::Display for CallGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(app) = &self.app {
            write!(f, "{app}/")?;
        }
        match &self.function {
            Some(function) => write!(f, "{function}"),
            None => f.write_str("*"),
        }
    }
}

impl From<CallGrant> for String {
    fn from(grant: CallGrant) -> String {
        grant.to_string()
    }
}

/// Everything that a function is granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// Keys of its app's state.
    pub state: Vec<StateGrant>,
    /// Functions that it may call.
    pub call: Vec<CallGrant>,
    /// Hosts that it may connect to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressGrant>,
}

/// Grants that cannot be given.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum GrantsError {
    /// More than a function may have.
    #[error("{count} grants of `{kind}` are too many: at most {GRANTS_MAX}")]
    TooMany {
        /// The field.
        kind: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A prefix that no key can begin with.
    #[error("a state prefix of {0} bytes is too long: at most {PREFIX_BYTES_MAX}")]
    LongPrefix(usize),
    /// A prefix with a character that keys cannot have.
    #[error("the state prefix `{0}` has a control character, which no key can have")]
    BadPrefix(String),
}

impl Grants {
    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.state.is_empty() && self.call.is_empty() && self.egress.is_empty()
    }

    /// Checks numbers and prefixes.
    pub fn check(&self) -> Result<(), GrantsError> {
        let counts = [
            ("state", self.state.len()),
            ("call", self.call.len()),
            ("egress", self.egress.len()),
        ];
        for (kind, count) in counts {
            if count > GRANTS_MAX {
                return Err(GrantsError::TooMany { kind, count });
            }
        }
        for grant in &self.state {
            if grant.prefix.len() > PREFIX_BYTES_MAX {
                return Err(GrantsError::LongPrefix(grant.prefix.len()));
            }
            if grant.prefix.chars().any(char::is_control) {
                let shown = grant.prefix.escape_default().take(64).collect();
                return Err(GrantsError::BadPrefix(shown));
            }
        }
        Ok(())
    }

    /// The grant for `key` that allows most, if any covers it; of equals the longest prefix.
    pub fn state_of(&self, key: &str) -> Option<&StateGrant> {
        let covering = self.state.iter();
        covering
            .filter(|grant| key.starts_with(grant.prefix.as_str()))
            .max_by_key(|grant| (grant.access, grant.prefix.len()))
    }

    /// Whether a function of `caller`'s app may call `callee`.
    pub fn may_call(&self, caller: &AppName, callee: &FunctionPath) -> bool {
        self.call.iter().any(|grant| grant.covers(caller, callee))
    }

    /// The parts that name a version with these grants.
    pub(crate) fn parts(&self) -> Vec<Vec<u8>> {
        if self.is_empty() {
            // Versions that were named before there were grants keep their names.
            return Vec::new();
        }
        let mut parts = vec![(self.state.len() as u64).to_le_bytes().to_vec()];
        for grant in &self.state {
            parts.push(grant.prefix.as_bytes().to_vec());
            parts.push(vec![grant.access as u8, grant.durability as u8]);
        }
        parts.extend(self.call.iter().map(|grant| grant.to_string().into_bytes()));
        if !self.egress.is_empty() {
            // No call grant has zero bytes: here the calls end.
            parts.push((self.egress.len() as u64).to_le_bytes().to_vec());
            let egress = self.egress.iter();
            parts.extend(egress.map(|grant| grant.to_string().into_bytes()));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FunctionPath {
        text.parse().expect("a path")
    }

    #[test]
    fn a_call_grant_covers_what_it_names() {
        let check = |grant: &str, callee: &str, expected: bool| {
            let grant: CallGrant = grant.parse().expect("a grant");
            let own: AppName = "shop".parse().expect("a name");
            assert_eq!(
                grant.covers(&own, &path(callee)),
                expected,
                "{grant} {callee}"
            );
        };
        check("resize", "shop/resize", true);
        check("resize", "shop/other", false);
        check("resize", "bank/resize", false);
        check("*", "shop/other", true);
        check("*", "bank/other", false);
        check("bank/*", "bank/other", true);
        check("bank/pay", "bank/pay", true);
        check("bank/pay", "bank/steal", false);
    }

    #[test]
    fn what_names_no_function_is_refused() {
        for text in ["", "/", "a/", "/b", "*/b", "a/b/c", "A", "*/*"] {
            assert!(text.parse::<CallGrant>().is_err(), "{text}");
        }
    }

    #[test]
    fn each_kind_of_grant_names_another_version() {
        let call: Grants = Grants {
            call: vec!["f".parse().expect("a grant")],
            ..Grants::default()
        };
        let egress = Grants {
            egress: vec!["f".parse().expect("a grant")],
            ..Grants::default()
        };
        let both = Grants {
            call: call.call.clone(),
            ..egress.clone()
        };
        let parts = [Grants::default(), call, egress, both].map(|grants| grants.parts());
        assert_eq!(
            parts[0],
            Vec::<Vec<u8>>::new(),
            "as before there were grants"
        );
        let distinct: std::collections::BTreeSet<_> = parts.into_iter().collect();
        assert_eq!(distinct.len(), 4);
    }

    #[test]
    fn the_most_generous_grant_holds() {
        let grant = |prefix: &str, access| StateGrant {
            prefix: prefix.into(),
            access,
            durability: Durability::Ephemeral,
        };
        let grants = Grants {
            state: vec![grant("", Access::Read), grant("a/", Access::Write)],
            ..Grants::default()
        };
        let access = |key| grants.state_of(key).map(|grant| grant.access);
        assert_eq!(access("a/b"), Some(Access::Write));
        assert_eq!(access("b"), Some(Access::Read));
        assert_eq!(Grants::default().state_of("a").map(|g| g.access), None);
    }
}
