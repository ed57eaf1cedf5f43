//! Why a node is not chosen, and why nobody is.

use std::fmt;

use crate::Resources;

/// Why a node cannot take a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Even empty it has less than the call needs.
    TooSmall,
    /// Its lease is over.
    Lost,
    /// It finishes what runs, then stops.
    Draining,
    /// It was told to take no new calls.
    Cordoned,
    /// The demand does not want it.
    Avoided,
    /// No room, and its queue is full.
    Full,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::TooSmall => "too small even when empty",
            Why::Lost => "its lease is over",
            Why::Draining => "draining",
            Why::Cordoned => "cordoned",
            Why::Avoided => "to be avoided",
            Why::Full => "full, and so is its queue",
        })
    }
}

/// Why there is no placement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The view has no node.
    #[error("no node is known")]
    NoNodes,
    /// No node is large enough: waiting does not help.
    #[error("none of {nodes} nodes is large enough for {needs}")]
    NeverFits {
        /// Nodes that were looked at.
        nodes: u32,
        /// What was asked.
        needs: Resources,
    },
    /// Every node that is large enough is cordoned, draining, lost or to be avoided.
    #[error("none of {nodes} nodes takes new calls")]
    Closed {
        /// Nodes that were looked at.
        nodes: u32,
    },
    /// There is no room now.
    #[error("all of {nodes} nodes are full; there may be room in {retry_after_us} µs")]
    Full {
        /// Nodes that were looked at.
        nodes: u32,
        /// Until the first of them has probably worked off one more call.
        retry_after_us: u64,
    },
    /// The nodes that take calls have room for a part of the group.
    #[error("there is room for {room} of the group's {members} members now")]
    GroupFull {
        /// Members asked for.
        members: u32,
        /// Members that there is room for.
        room: u32,
        /// Until the first node has probably worked off one more call.
        retry_after_us: u64,
    },
    /// The group is larger than all nodes that take calls together: waiting does not help.
    #[error("all nodes that take calls have room for {room} of the group's {members} members")]
    GroupNeverFits {
        /// Members asked for.
        members: u32,
        /// Members that there would be room for if they were empty.
        room: u32,
    },
}

impl Refused {
    /// When to try again; none where that does not help while the nodes are what they are.
    pub fn retry_after_us(&self) -> Option<u64> {
        match self {
            Refused::Full { retry_after_us, .. } | Refused::GroupFull { retry_after_us, .. } => {
                Some(*retry_after_us)
            }
            _ => None,
        }
    }
}
