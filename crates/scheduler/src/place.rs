//! One call: one pass over the nodes.

use std::cmp::Ordering;
use std::fmt;

use model::NodeId;

use crate::cost::{Near, Reckoner, wait_us};
use crate::view::Node;
use crate::{Cost, Demand, Facts, Policy, Rank, Refused, Resources, Standing, View, Weights, Why};

/// What the call finds where it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A warm sandbox.
    Warm,
    /// Room for a new one.
    Room,
    /// A place in the queue.
    Queue,
}

/// Where a call should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The node.
    pub node: NodeId,
    /// What it finds there.
    pub via: Via,
    /// What it is reckoned to cost there.
    pub cost: Cost,
}

/// How many nodes could not take the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Nodes that were looked at.
    pub nodes: u32,
    /// Too small even when empty.
    pub too_small: u32,
    /// Cordoned, draining, lost or to be avoided.
    pub closed: u32,
    /// Without room, and with a full queue.
    pub full: u32,
    /// The shortest wait at one of these.
    pub wait_us_min: u64,
}

/// What was decided, and how it came about: small enough to be kept for each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// How nodes were ranked.
    pub policy: Policy,
    /// Where to, or why nowhere.
    pub outcome: Result<Placement, Refused>,
    /// The nodes that were passed over. The deciding node alone is looked at when it is first.
    pub tally: Tally,
}

/// What became of one node in the pass. The parts of its cost are not kept: copying them for each
/// node would take longer than reckoning them again for the one that is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    pub via: Via,
    pub rank: Rank,
    pub sent: u32,
    pub tie: u64,
    pub is_first: bool,
    near: Near,
}

impl Judged {
    /// What nodes are compared by.
    pub fn order(&self) -> (bool, Rank, u32, u64) {
        (self.via == Via::Queue, self.rank, self.sent, self.tie)
    }
}

/// Chooses a node for one call. Takes time in proportion to the number of nodes.
pub fn decide(view: &View, demand: &Demand, weights: &Weights) -> Decision {
    let mut pass = Pass::new(view, demand, weights);
    let mut tally = Tally::default();
    if let Some((node, judged)) = pass.first() {
        tally.nodes = 1;
        return decision(demand, Ok(pass.placement(node, &judged)), tally);
    }
    let mut best: Option<(&Node, Judged)> = None;
    for (slot, node) in view.nodes() {
        match pass.judge(slot, node) {
            Ok(judged) => {
                tally.nodes += 1;
                let is_better = best.is_none_or(|best| order((node, &judged), best).is_lt());
                if is_better {
                    best = Some((node, judged));
                }
            }
            Err(why) => tally.add(why, || wait_us(node, demand)),
        }
    }
    let outcome = match best {
        Some((node, judged)) => Ok(pass.placement(node, &judged)),
        None => Err(tally.refused(demand.needs)),
    };
    decision(demand, outcome, tally)
}

fn decision(demand: &Demand, outcome: Result<Placement, Refused>, tally: Tally) -> Decision {
    let policy = demand.policy;
    Decision {
        policy,
        outcome,
        tally,
    }
}

/// Which of two nodes comes before the other. No two are equal, so that slots have no say.
fn order(one: (&Node, &Judged), other: (&Node, Judged)) -> Ordering {
    let ((node, judged), (other, than)) = (one, other);
    let by_rank = judged.order().cmp(&than.order());
    by_rank.then_with(|| node.id.cmp(&other.id))
}

/// The pass over all nodes in the order of slots: walks the lists of the demand's image along.
pub(crate) struct Pass<'a> {
    view: &'a View,
    demand: &'a Demand,
    weights: &'a Weights,
    rank: fn(&Facts) -> Rank,
    here: Option<u32>,
    warm: &'a [(u32, u32)],
    images: &'a [u32],
    /// In the order of slots; one for each.
    data: Vec<(u32, u64)>,
    reckoner: Reckoner,
    avoid: Vec<u32>,
    /// The call's data does not call it away from here.
    may_stay: bool,
}

impl<'a> Pass<'a> {
    pub fn new(view: &'a View, demand: &'a Demand, weights: &'a Weights) -> Self {
        let here = view.slot(&demand.here);
        let mut data: Vec<(u32, u64)> = Vec::new();
        for holding in &demand.data {
            let Some(slot) = view.slot(&holding.node) else {
                continue;
            };
            match data.binary_search_by_key(&slot, |entry| entry.0) {
                Ok(at) => data[at].1 = data[at].1.saturating_add(holding.bytes),
                Err(at) => data.insert(at, (slot, holding.bytes)),
            }
        }
        let bytes = demand.data.iter().map(|holding| holding.bytes);
        let data_bytes = bytes.fold(0, u64::saturating_add);
        let lies = |is_here: bool| {
            let there = data
                .iter()
                .filter(move |(slot, _)| (Some(*slot) == here) == is_here);
            there.map(|(_, bytes)| *bytes).max().unwrap_or(0)
        };
        let may_stay = lies(false) <= lies(true).saturating_add(demand.input_bytes);
        Self {
            rank: demand.policy.rank(),
            warm: view.warm(demand.version),
            images: view.images(demand.version),
            avoid: demand.avoid.iter().filter_map(|id| view.slot(id)).collect(),
            view,
            demand,
            weights,
            here,
            data,
            reckoner: Reckoner::new(demand, data_bytes, weights),
            may_stay,
        }
    }

    /// The deciding node, where the policy takes it before all others. Leaves the pass at its
    /// beginning.
    fn first(&mut self) -> Option<(&'a Node, Judged)> {
        if self.demand.policy != Policy::Locality {
            return None;
        }
        let slot = self.here?;
        let node = self.view.node(slot)?;
        let (warm, images) = (self.warm, self.images);
        let judged = self.judge(slot, node);
        (self.warm, self.images) = (warm, images);
        Some((node, judged.ok().filter(|judged| judged.is_first)?))
    }

    /// What the next node offers. Slots must come in their order.
    #[inline(always)]
    pub fn judge(&mut self, slot: u32, node: &Node) -> Result<Judged, Why> {
        let near = self.near(slot);
        let demand = self.demand;
        self.closed(slot, node)?;
        let free = node.free();
        let has_place = demand.needs.places <= free.places;
        // A warm sandbox has its memory already.
        let via = match (near.warm, demand.needs.fits_in(free)) {
            (1.., _) if has_place => Via::Warm,
            (_, true) => Via::Room,
            _ if node.waiting < node.waiting_max => Via::Queue,
            _ => return Err(Why::Full),
        };
        let waits = via == Via::Queue;
        let is_first = near.is_here && !waits && self.may_stay;
        let facts = Facts {
            is_first,
            waits,
            full_permille: node.full_permille(demand.needs),
            cost: self.reckoner.cost(node, near, waits, demand),
            step_us: self.weights.step_us,
        };
        Ok(Judged {
            via,
            rank: (self.rank)(&facts),
            sent: node.sent,
            tie: mix(node.salt ^ demand.seed),
            is_first,
            near,
        })
    }

    /// What a node costs that was judged.
    pub fn cost(&self, node: &Node, judged: &Judged) -> Cost {
        let waits = judged.via == Via::Queue;
        self.reckoner.cost(node, judged.near, waits, self.demand)
    }

    fn placement(&self, node: &Node, judged: &Judged) -> Placement {
        Placement {
            node: node.id.clone(),
            via: judged.via,
            cost: self.cost(node, judged),
        }
    }

    /// Whether the node is out of the question, whatever its load.
    pub fn closed(&self, slot: u32, node: &Node) -> Result<(), Why> {
        match node.standing {
            // Size comes first: what is refused for it is refused for good.
            _ if !self.demand.needs.fits_in(node.capacity) => Err(Why::TooSmall),
            Standing::Lost => Err(Why::Lost),
            Standing::Draining => Err(Why::Draining),
            Standing::Cordoned => Err(Why::Cordoned),
            Standing::Serving if self.avoid.contains(&slot) => Err(Why::Avoided),
            Standing::Serving => Ok(()),
        }
    }

    pub fn near(&mut self, slot: u32) -> Near {
        while self.warm.first().is_some_and(|entry| entry.0 < slot) {
            self.warm = &self.warm[1..];
        }
        while self.images.first().is_some_and(|entry| *entry < slot) {
            self.images = &self.images[1..];
        }
        let warm = self.warm.first().filter(|entry| entry.0 == slot);
        let data = self.data.binary_search_by_key(&slot, |entry| entry.0);
        Near {
            is_here: self.here == Some(slot),
            warm: warm.map_or(0, |entry| entry.1),
            has_image: self.images.first() == Some(&slot),
            data_bytes: data.map_or(0, |at| self.data[at].1),
        }
    }

    pub fn reckoner(&self) -> Reckoner {
        self.reckoner
    }
}

/// Scatters the bits of `word` (the finalizer of splitmix64, by Steele, Lea and Flood).
pub(crate) fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Tally {
    pub(crate) fn add(&mut self, why: Why, wait_us: impl FnOnce() -> u64) {
        self.nodes += 1;
        match why {
            Why::TooSmall => self.too_small += 1,
            Why::Lost | Why::Draining | Why::Cordoned | Why::Avoided => self.closed += 1,
            Why::Full => {
                let wait_us = wait_us();
                self.wait_us_min = match self.full {
                    0 => wait_us,
                    _ => self.wait_us_min.min(wait_us),
                };
                self.full += 1;
            }
        }
    }

    /// Why nobody took the call.
    pub(crate) fn refused(&self, needs: Resources) -> Refused {
        let nodes = self.nodes;
        match self {
            Tally { nodes: 0, .. } => Refused::NoNodes,
            Tally { full: 1.., .. } => Refused::Full {
                nodes,
                retry_after_us: self.wait_us_min,
            },
            Tally { closed: 1.., .. } => Refused::Closed { nodes },
            _ => Refused::NeverFits { nodes, needs },
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Via::Warm => "a warm sandbox",
            Via::Room => "room",
            Via::Queue => "a place in the queue",
        })
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            nodes,
            too_small,
            closed,
            full,
            ..
        } = self.tally;
        match &self.outcome {
            Ok(Placement { node, via, cost }) => {
                write!(f, "{node} by {}: {via}; {cost}", self.policy)?;
            }
            Err(refused) => write!(f, "nowhere by {}: {refused}", self.policy)?,
        }
        write!(
            f,
            "; of {nodes}: {closed} closed, {full} full, {too_small} too small"
        )
    }
}
