//! What a call would cost on a node: microseconds, in parts.

use std::fmt;

use crate::demand::Demand;
use crate::view::Node;

/// What the parts are reckoned with. The defaults are orders of magnitude of one data centre: a
/// choice between nodes needs no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Sending a call to another node and its reply back.
    pub hop_us: u64,
    /// Making a sandbox of an image that is there.
    pub restore_us: u64,
    /// Asking for an image that is not there, before its first byte.
    pub fetch_us: u64,
    /// Bytes that go from node to node in a microsecond.
    pub bytes_per_us: u64,
    /// Costs that differ by less are equal: chance decides between such nodes, so that many which
    /// decide alike by what they last heard do not all choose the same one.
    pub step_us: u64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            hop_us: 100,
            restore_us: 50,
            fetch_us: 5_000,
            bytes_per_us: 1_000,
            step_us: 50,
        }
    }
}

/// The cost of one node, in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Sending the call there.
    pub hop_us: u64,
    /// Until a sandbox is there.
    pub start_us: u64,
    /// The call's bytes, and state that lies elsewhere.
    pub move_us: u64,
    /// Until there is a place.
    pub wait_us: u64,
    /// What the others that run there slow it down by.
    pub crowd_us: u64,
}

/// What is near a node, of that which a call needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Near {
    pub is_here: bool,
    pub warm: u32,
    pub has_image: bool,
    pub data_bytes: u64,
}

impl Cost {
    /// All parts together.
    pub fn total_us(&self) -> u64 {
        let parts = [
            self.hop_us,
            self.start_us,
            self.move_us,
            self.wait_us,
            self.crowd_us,
        ];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    pub(crate) fn of(
        node: &Node,
        near: Near,
        waits: bool,
        demand: &Demand,
        data_bytes: u64,
        weights: &Weights,
    ) -> Self {
        let travel = |bytes: u64| bytes / weights.bytes_per_us.max(1);
        let fetch = || weights.fetch_us.saturating_add(travel(demand.image_bytes));
        let start_us = match (near.warm, near.has_image) {
            (1.., _) => 0,
            (0, true) => weights.restore_us,
            (0, false) => fetch().saturating_add(weights.restore_us),
        };
        let sent = if near.is_here { 0 } else { demand.input_bytes };
        let pulled = data_bytes.saturating_sub(near.data_bytes);
        let taken = node.taken().permille_of(node.capacity).min(1000);
        Self {
            hop_us: if near.is_here { 0 } else { weights.hop_us },
            start_us,
            move_us: travel(sent.saturating_add(pulled)),
            wait_us: if waits { wait_us(node, demand) } else { 0 },
            crowd_us: demand.run_us.saturating_mul(taken) / 1000,
        }
    }
}

/// Until one more call gets a place: those before it, over the places that they share.
pub(crate) fn wait_us(node: &Node, demand: &Demand) -> u64 {
    let before = u64::from(node.waiting).saturating_add(1);
    before.saturating_mul(demand.run_us) / u64::from(node.capacity.places.max(1))
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} µs = hop {} + start {} + move {} + wait {} + crowd {}",
            self.total_us(),
            self.hop_us,
            self.start_us,
            self.move_us,
            self.wait_us,
            self.crowd_us
        )
    }
}
