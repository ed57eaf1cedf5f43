//! Policies: plain functions that rank a node by what is known of it there.

use std::fmt;
use std::str::FromStr;

use crate::cost::Cost;

/// What a policy may look at, of one node that could take the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// It decides, it has a warm sandbox or room, and no more of the call's data lies on another
    /// node than would travel to that one.
    pub is_first: bool,
    /// The call would wait in the node's queue.
    pub waits: bool,
    /// How full it would be with the call, in thousandths.
    pub full_permille: u64,
    /// What the call would cost there.
    pub cost: Cost,
    /// Costs that differ by less are equal.
    pub step_us: u64,
}

/// The order of nodes: the lowest is chosen; of equals, the one with the fewest calls of the
/// deciding node. Nodes with room come before those where a call would wait, whatever their ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// What the policy looks at.
    pub first: u64,
    /// What it looks at between equals.
    pub then: u64,
}

/// Which of the policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// [`locality`].
    #[default]
    Locality,
    /// [`spread`].
    Spread,
    /// [`pack`].
    Pack,
}

/// The lowest cost; the node that decides before all others while it has room.
pub fn locality(facts: &Facts) -> Rank {
    let steps = facts.cost.total_us() / facts.step_us.max(1);
    let (first, then) = match facts.is_first {
        true => (0, 0),
        // One more than the deciding node's.
        false => (steps.saturating_add(1), 0),
    };
    Rank { first, then }
}

/// The emptiest node.
pub fn spread(facts: &Facts) -> Rank {
    let (first, then) = (facts.full_permille, facts.cost.total_us());
    Rank { first, then }
}

/// The fullest node that has room, so that others run empty and can be given back.
pub fn pack(facts: &Facts) -> Rank {
    let first = match facts.waits {
        // Among queues the fullest is no virtue.
        true => facts.cost.wait_us,
        false => 1000_u64.saturating_sub(facts.full_permille),
    };
    let then = facts.cost.total_us();
    Rank { first, then }
}

impl Policy {
    /// All of them.
    pub const ALL: [Policy; 3] = [Policy::Locality, Policy::Spread, Policy::Pack];

    /// The function.
    pub fn rank(self) -> fn(&Facts) -> Rank {
        match self {
            Policy::Locality => locality,
            Policy::Spread => spread,
            Policy::Pack => pack,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Locality => "locality",
            Policy::Spread => "spread",
            Policy::Pack => "pack",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no placement policy: use locality, spread or pack")]
pub struct PolicyError(String);

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let named = Policy::ALL
            .into_iter()
            .find(|policy| policy.as_str() == text);
        named.ok_or_else(|| PolicyError(text.chars().take(40).collect()))
    }
}
