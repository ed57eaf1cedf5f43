//! A group: all of its members, or none.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use model::{InvocationId, NodeId};

use crate::cost::wait_us;
use crate::place::{Pass, mix};
use crate::view::Node;
use crate::{Cost, Demand, Policy, Refused, Reservation, Resources, Tally, View, Weights, Why};

/// Members of a group on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The node.
    pub node: NodeId,
    /// How many of the members.
    pub members: u32,
    /// What one of them is reckoned to cost there.
    pub cost: Cost,
}

/// What was decided for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDecision {
    /// How nodes were ranked.
    pub policy: Policy,
    /// Who runs how many, or why nobody does.
    pub outcome: Result<Vec<Share>, Refused>,
    /// What to reserve before the group may start, in one transaction: empty when refused.
    pub reservations: Vec<Reservation>,
    /// The nodes that were passed over.
    pub tally: Tally,
}

/// A node that takes at least one member.
struct Offer<'a> {
    node: &'a Node,
    is_here: bool,
    cost: Cost,
    tie: u64,
    /// Members that it has room for.
    room: u32,
    /// Members that it gets.
    members: u32,
}

/// Chooses nodes for `members` calls like `demand` that run at once. None of them waits in a queue:
/// members that run would wait for it in their places.
pub fn decide_group(
    view: &View,
    group: InvocationId,
    members: u32,
    demand: &Demand,
    weights: &Weights,
) -> GroupDecision {
    let found = Found::of(view, members, demand, weights);
    if found.room() < members.into() {
        let refused = found.refused(members, demand.needs);
        return GroupDecision {
            policy: demand.policy,
            outcome: Err(refused),
            reservations: Vec::new(),
            tally: found.tally,
        };
    }
    let Found {
        mut offers, tally, ..
    } = found;
    // The order of slots has no say, between equals and in the result.
    offers.sort_by_key(|offer| &offer.node.id);
    match demand.policy {
        Policy::Spread => share_out(&mut offers, members, demand.needs),
        Policy::Pack => {
            let full = |o: &Offer| Reverse(o.node.full_permille(Resources::default()));
            offers.sort_by_key(|o| (full(o), o.cost.total_us(), o.tie));
            fill(&mut offers, members);
        }
        // Members talk to each other: on as few nodes as can be.
        Policy::Locality => {
            offers.sort_by_key(|o| (Reverse(o.room), !o.is_here, o.cost.total_us(), o.tie));
            fill(&mut offers, members);
        }
    }
    offers.retain(|offer| offer.members > 0);
    let shares = offers.iter().map(|offer| Share {
        node: offer.node.id.clone(),
        members: offer.members,
        cost: offer.cost,
    });
    let reservations = offers.iter().map(|offer| Reservation {
        node: offer.node.id.clone(),
        group,
        members: offer.members,
        each: demand.needs,
        against: offer.node.ledger,
    });
    GroupDecision {
        policy: demand.policy,
        outcome: Ok(shares.collect()),
        reservations: reservations.collect(),
        tally,
    }
}

/// What the pass over all nodes found.
struct Found<'a> {
    offers: Vec<Offer<'a>>,
    tally: Tally,
    /// Members that would fit if all nodes that take calls were empty.
    room_if_empty: u64,
    /// Until the first of them has probably worked off one more call.
    retry_after_us: u64,
}

impl<'a> Found<'a> {
    fn of(view: &'a View, members: u32, demand: &Demand, weights: &Weights) -> Self {
        let mut pass = Pass::new(view, demand, weights);
        let mut found = Self {
            offers: Vec::new(),
            tally: Tally::default(),
            room_if_empty: 0,
            retry_after_us: u64::MAX,
        };
        for (slot, node) in view.nodes() {
            let near = pass.near(slot);
            if let Err(why) = pass.closed(slot, node) {
                found.tally.add(why, || 0);
                continue;
            }
            let wait_us = wait_us(node, demand);
            found.retry_after_us = found.retry_after_us.min(wait_us);
            found.room_if_empty += u64::from(demand.needs.count_in(node.capacity, members));
            let room = demand.needs.count_in(node.free(), members);
            if room == 0 {
                found.tally.add(Why::Full, || wait_us);
                continue;
            }
            found.tally.nodes += 1;
            found.offers.push(Offer {
                node,
                is_here: near.is_here,
                cost: pass.reckoner().cost(node, near, false, demand),
                tie: mix(node.salt ^ demand.seed),
                room,
                members: 0,
            });
        }
        found
    }

    /// Members that there is room for.
    fn room(&self) -> u64 {
        self.offers.iter().map(|offer| u64::from(offer.room)).sum()
    }

    fn refused(&self, members: u32, needs: Resources) -> Refused {
        let tally = &self.tally;
        if tally.nodes == tally.too_small + tally.closed {
            return tally.refused(needs);
        }
        // Fewer than the members, which are counted in 32 bits.
        let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        match self.room_if_empty < members.into() {
            true => Refused::GroupNeverFits {
                members,
                room: count(self.room_if_empty),
            },
            false => Refused::GroupFull {
                members,
                room: count(self.room()),
                retry_after_us: self.retry_after_us,
            },
        }
    }
}

/// Fills one node after the other.
fn fill(offers: &mut [Offer], members: u32) {
    let mut left = members;
    for offer in offers {
        offer.members = offer.room.min(left);
        left -= offer.members;
    }
}

/// Gives each member to the node that is the emptiest with it.
fn share_out(offers: &mut [Offer], members: u32, needs: Resources) {
    let full = |offer: &Offer, more: u32| (offer.node.full_permille(needs.times(more)), offer.tie);
    let first = offers.iter().enumerate();
    let mut heap: BinaryHeap<_> = first
        .map(|(at, offer)| Reverse((full(offer, 1), at)))
        .collect();
    for _ in 0..members {
        let Some(Reverse((_, at))) = heap.pop() else {
            return;
        };
        let offer = &mut offers[at];
        offer.members += 1;
        if offer.members < offer.room {
            heap.push(Reverse((full(offer, offer.members + 1), at)));
        }
    }
}
