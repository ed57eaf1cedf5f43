//! Capacity that groups hold: a ledger for each node, changed by compare-and-swap.
//!
//! A ledger is a value. Whoever reserves reads it with its revision, makes the next one by
//! [`Ledger::with`], and commits that where the revision is still the same, for all nodes of the
//! group in one transaction. What a holder that is dead has reserved counts for nothing, so that
//! nothing has to be given back for it.

use std::collections::BTreeMap;

use model::{InvocationId, NodeId};

use crate::Resources;

/// Who holds a reservation: a node, as long as its membership with this token lasts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// The token of its membership.
    pub token: u64,
}

/// Capacity of one node for members of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Where.
    pub node: NodeId,
    /// For which group: the invocation that it belongs to.
    pub group: InvocationId,
    /// The members that are to run there.
    pub members: u32,
    /// What each of them takes.
    pub each: Resources,
    /// The revision of the node's ledger that this was decided by.
    pub against: u64,
}

/// What is reserved on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The revision at which it was read; 0 where there is none yet.
    pub revision: u64,
    /// What each group holds, and in whose name.
    pub entries: BTreeMap<InvocationId, (Holder, Resources)>,
}

/// Why a reservation is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// The ledger has changed since the decision: decide again.
    #[error("the reservations of {node} have changed since: {against} is now {revision}")]
    Stale {
        /// The node.
        node: NodeId,
        /// What was decided by.
        against: u64,
        /// What is there.
        revision: u64,
    },
    /// More than the node has.
    #[error("{node} has {left} left for groups, and {asked} were asked")]
    OverCapacity {
        /// The node.
        node: NodeId,
        /// What is left.
        left: Resources,
        /// What was asked.
        asked: Resources,
    },
    /// The group holds something there already.
    #[error("{node} has a reservation of {group} already")]
    Twice {
        /// The node.
        node: NodeId,
        /// The group.
        group: InvocationId,
    },
}

impl Ledger {
    /// What holders that are alive have reserved.
    pub fn held(&self, is_alive: impl Fn(&Holder) -> bool) -> Resources {
        let alive = self.entries.values().filter(|(holder, _)| is_alive(holder));
        alive.fold(Resources::default(), |sum, (_, amount)| sum.plus(*amount))
    }

    /// This ledger with one reservation more, and without those of dead holders: to be committed
    /// where its revision is still [`Ledger::revision`].
    pub fn with(
        &self,
        reservation: &Reservation,
        holder: Holder,
        capacity: Resources,
        is_alive: impl Fn(&Holder) -> bool,
    ) -> Result<Ledger, ReserveError> {
        let Reservation { node, group, .. } = reservation;
        let (node, group) = (node.clone(), *group);
        let (against, revision) = (reservation.against, self.revision);
        if against != revision {
            return Err(ReserveError::Stale {
                node,
                against,
                revision,
            });
        }
        let left = capacity.minus(self.held(&is_alive));
        let asked = reservation.amount();
        if !asked.fits_in(left) {
            return Err(ReserveError::OverCapacity { node, left, asked });
        }
        let mut next = self.clone();
        next.entries.retain(|_, (holder, _)| is_alive(holder));
        match next.entries.insert(group, (holder, asked)) {
            None => Ok(next),
            Some(_) => Err(ReserveError::Twice { node, group }),
        }
    }

    /// This ledger without what a group holds.
    pub fn without(&self, group: InvocationId) -> Ledger {
        let mut next = self.clone();
        next.entries.remove(&group);
        next
    }
}

impl Reservation {
    /// All that it keeps.
    pub fn amount(&self) -> Resources {
        self.each.times(self.members)
    }
}
