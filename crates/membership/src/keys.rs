//! Keys in the store.
//!
//! ```text
//!  cluster/node/NODE       who the node is; its revision is its token      leased
//!  cluster/report/NODE     its standing and load, as it says               leased
//!  cluster/own/RESOURCE    who owns it; its revision is the claim's token  leased
//!  cluster/wish/NODE       what operators want of the node                 stays
//! ```

use std::fmt;
use std::str::FromStr;

use model::NodeId;

/// What all keys of membership begin with.
pub const ROOT: &str = "cluster/";

/// Longest name of a resource.
const RESOURCE_BYTES_MAX: usize = 1 << 10;

/// Something that one node at a time owns: a part of the state, a queue, a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource(String);

/// A text that names no resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a resource's name has 1 to {RESOURCE_BYTES_MAX} bytes, not {0}")]
pub struct ResourceError(usize);

impl Resource {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn key(&self) -> String {
        format!("{ROOT}own/{}", self.0)
    }
}

impl FromStr for Resource {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self, ResourceError> {
        match (1..=RESOURCE_BYTES_MAX).contains(&text.len()) {
            true => Ok(Self(text.to_owned())),
            false => Err(ResourceError(text.len())),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The key of a node's record: it is there for as long as a tenure of the node lasts, and its
/// revision is the tenure's token.
pub fn record_key(id: &NodeId) -> String {
    format!("{ROOT}node/{id}")
}

pub(crate) fn report(id: &NodeId) -> String {
    format!("{ROOT}report/{id}")
}

pub(crate) fn wish(id: &NodeId) -> String {
    format!("{ROOT}wish/{id}")
}

/// What a key is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Node(NodeId),
    Report(NodeId),
    Wish(NodeId),
    Own(Resource),
}

impl Key {
    /// Reads a key; none for one that this version does not know.
    pub fn read(key: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?;
        let (kind, name) = text.split_once('/')?;
        match kind {
            "node" => Some(Key::Node(name.parse().ok()?)),
            "report" => Some(Key::Report(name.parse().ok()?)),
            "wish" => Some(Key::Wish(name.parse().ok()?)),
            "own" => Some(Key::Own(name.parse().ok()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        let id: NodeId = "n1".parse().unwrap();
        let resource: Resource = "state/7".parse().unwrap();
        for (text, key) in [
            (record_key(&id), Key::Node(id.clone())),
            (report(&id), Key::Report(id.clone())),
            (wish(&id), Key::Wish(id.clone())),
            (resource.key(), Key::Own(resource)),
        ] {
            assert_eq!(Key::read(text.as_bytes()), Some(key), "{text}");
        }
        for text in [
            "",
            "cluster/",
            "cluster/own/",
            "cluster/node/-",
            "cluster/new/a",
            "x/node/a",
        ] {
            assert_eq!(Key::read(text.as_bytes()), None, "{text}");
        }
    }
}
