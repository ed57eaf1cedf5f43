//! What both sides say first, and what they agree on.
//!
//! Neighbours of one release apart must understand each other, so the beginning of `HELLO` (magic,
//! versions, node) never changes, later fields are only ever appended, and what follows those that
//! are known is left alone.

use std::fmt;
use std::ops::BitAnd;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::NodeId;

use crate::config::Config;

/// The most bytes of a `HELLO`: those of today and as many of later versions.
pub(crate) const HELLO_BYTES_MAX: usize = 1024;

/// What a Dunlin node says first, so that nothing else is taken for one.
const MAGIC: [u8; 4] = *b"DNLN";

/// The least and the greatest version of the protocol that a node speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest that it still speaks.
    pub min: u16,
    /// The newest that it speaks.
    pub max: u16,
}

impl Versions {
    /// What this build speaks.
    pub const KNOWN: Self = Self { min: 1, max: 1 };

    /// The newest version that both speak.
    fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// What a node can do besides its version, one bit each.
///
/// The lower half belongs to the transport, which has none yet; the upper half to the services
/// above, whose calls may differ between neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    /// Whether all of `other` is among these.
    pub const fn have(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitAnd for Features {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The first frame of either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What the node speaks.
    pub versions: Versions,
    /// Which node it is; to be compared with its certificate.
    pub node: NodeId,
    /// What it can do besides.
    pub features: Features,
    /// Calls that it accepts at once on this connection.
    pub requests_max: u32,
    /// Bytes that may be sent to it on a stream before it gives credit.
    pub window_bytes: u32,
    /// Bytes of a body that it accepts in one frame.
    pub body_bytes_max: u32,
}

/// Why a first frame is not understood.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum HelloError {
    /// It is too short, or it begins with something else.
    #[error("the peer does not greet as a node does")]
    NotANode,
    /// The id is no label.
    #[error("the peer's id is not a node id")]
    NodeId,
    /// A limit of zero, or a range of versions that is empty.
    #[error("the peer accepts nothing: its {0}")]
    Nothing(&'static str),
}

impl Hello {
    /// What this node says.
    pub(crate) fn of(config: &Config, node: NodeId) -> Self {
        Self {
            versions: config.versions,
            node,
            features: config.features,
            requests_max: config.requests_max,
            window_bytes: config.window_bytes,
            body_bytes_max: config.body_bytes_max,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let node = self.node.as_str().as_bytes();
        let mut out = BytesMut::with_capacity(29 + node.len());
        out.put_slice(&MAGIC);
        out.put_u16_le(self.versions.min);
        out.put_u16_le(self.versions.max);
        // A label has at most 63 bytes.
        out.put_u8(node.len() as u8);
        out.put_slice(node);
        out.put_u64_le(self.features.0);
        out.put_u32_le(self.requests_max);
        out.put_u32_le(self.window_bytes);
        out.put_u32_le(self.body_bytes_max);
        out.freeze()
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, HelloError> {
        if bytes.len() < 9 || bytes[..4] != MAGIC {
            return Err(HelloError::NotANode);
        }
        bytes.advance(4);
        let versions = Versions {
            min: bytes.get_u16_le(),
            max: bytes.get_u16_le(),
        };
        let node_bytes = usize::from(bytes.get_u8());
        if bytes.len() < node_bytes + 20 {
            return Err(HelloError::NotANode);
        }
        let node = bytes.split_to(node_bytes);
        let node = std::str::from_utf8(&node).map_err(|_| HelloError::NodeId)?;
        let hello = Self {
            versions,
            node: node.parse().map_err(|_| HelloError::NodeId)?,
            features: Features(bytes.get_u64_le()),
            requests_max: bytes.get_u32_le(),
            window_bytes: bytes.get_u32_le(),
            body_bytes_max: bytes.get_u32_le(),
        };
        let limits = [
            ("versions", u32::from(versions.max >= versions.min)),
            ("calls", hello.requests_max),
            ("window", hello.window_bytes),
            ("bodies", hello.body_bytes_max),
        ];
        match limits.iter().find(|(_, limit)| *limit == 0) {
            Some((what, _)) => Err(HelloError::Nothing(what)),
            None => Ok(hello),
        }
    }
}

/// What two nodes have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) version: u16,
    pub(crate) features: Features,
    /// The peer's limits, for what is sent to it.
    pub(crate) requests_max: u32,
    pub(crate) window_bytes: u32,
    pub(crate) body_bytes_max: u32,
}

/// The newest version and the features that both have; none if they share no version.
pub(crate) fn agree(ours: &Hello, theirs: &Hello) -> Option<Agreed> {
    Some(Agreed {
        version: ours.versions.common(theirs.versions)?,
        features: ours.features & theirs.features,
        requests_max: theirs.requests_max.min(ours.requests_max),
        window_bytes: theirs.window_bytes,
        body_bytes_max: theirs.body_bytes_max,
    })
}
