//! What a call would cost on a node: microseconds, in parts.

use std::fmt;

use crate::Resources;
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
    /// Costs that differ by less are equal: each deciding node has its own order of these, so that
    /// many which decide alike by what they last heard do not all choose the same one.
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
}

/// Reckons costs of one demand: what is the same on most nodes is reckoned once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reckoner {
    weights: Weights,
    run_us: u64,
    input_bytes: u64,
    data_bytes: u64,
    /// Until there is a sandbox where there is no image.
    fetched_us: u64,
    /// What travels to a node where nothing of it is.
    sent_us: u64,
}

impl Reckoner {
    /// `data_bytes` is all of the state that the call will use.
    pub fn new(demand: &Demand, data_bytes: u64, weights: &Weights) -> Self {
        let travel = |bytes| travel_us(bytes, weights);
        let fetched_us = weights.fetch_us.saturating_add(travel(demand.image_bytes));
        Self {
            weights: *weights,
            run_us: demand.run_us,
            input_bytes: demand.input_bytes,
            data_bytes,
            fetched_us: fetched_us.saturating_add(weights.restore_us),
            sent_us: travel(demand.input_bytes.saturating_add(data_bytes)),
        }
    }

    #[inline]
    pub fn cost(&self, node: &Node, near: Near, waits: bool, demand: &Demand) -> Cost {
        let start_us = match (near.warm, near.has_image) {
            (1.., _) => 0,
            (0, true) => self.weights.restore_us,
            (0, false) => self.fetched_us,
        };
        let move_us = match (near.is_here, near.data_bytes) {
            (false, 0) => self.sent_us,
            (is_here, near) => {
                let sent = if is_here { 0 } else { self.input_bytes };
                let pulled = self.data_bytes.saturating_sub(near);
                travel_us(sent.saturating_add(pulled), &self.weights)
            }
        };
        let taken = node.full_permille(Resources::default()).min(1000);
        Cost {
            hop_us: if near.is_here { 0 } else { self.weights.hop_us },
            start_us,
            move_us,
            wait_us: if waits { wait_us(node, demand) } else { 0 },
            crowd_us: self.run_us.saturating_mul(taken) / 1000,
        }
    }
}

fn travel_us(bytes: u64, weights: &Weights) -> u64 {
    bytes / weights.bytes_per_us.max(1)
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
