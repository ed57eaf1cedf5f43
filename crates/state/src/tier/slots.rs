//! The slots that this node has, and comparing what is written for them with its claims.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;
use storage::Txn;

use super::bell::{Bell, Ear};
use super::{Holding, Phase, SLOTS, Slot};
use crate::{GlobalError, Name};

/// The slots of this node.
pub(crate) struct Slots {
    holdings: [RwLock<Option<Arc<Holding>>>; SLOTS],
    changes: Bell,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            holdings: std::array::from_fn(|_| RwLock::default()),
            changes: Bell::default(),
        }
    }
}

impl Slots {
    /// A slot's holding, in whatever phase.
    pub fn get(&self, slot: Slot) -> Option<Arc<Holding>> {
        self.holdings[slot.number()].read().clone()
    }

    /// A slot's holding, if this node may act as the owner.
    pub fn open(&self, slot: Slot) -> Option<Arc<Holding>> {
        let holding = self.holdings[slot.number()].read();
        holding.as_ref().filter(|holding| holding.holds()).cloned()
    }

    pub fn put(&self, holding: Arc<Holding>) {
        let slot = holding.slot.number();
        *self.holdings[slot].write() = Some(holding);
        self.tell();
    }

    /// Something changed about a holding, or about the cluster.
    pub fn tell(&self) {
        self.changes.ring();
    }

    pub fn changes(&self) -> Ear<'_> {
        self.changes.ear()
    }

    /// All holdings that are not closed.
    pub fn all(&self) -> Vec<Arc<Holding>> {
        let holdings = self.holdings.iter();
        let holdings = holdings.filter_map(|holding| holding.read().clone());
        holdings
            .filter(|holding| !holding.is(Phase::Closed))
            .collect()
    }

    /// Closes what ended by itself; whether there is something closed whose values were not
    /// forgotten.
    pub fn close_ended(&self) -> bool {
        let mut closed = false;
        for holding in self.holdings.iter().filter_map(|one| one.read().clone()) {
            if !holding.claim.holds() {
                holding.enter(Phase::Closed);
            }
            if holding.is(Phase::Closed) {
                closed |= !holding.swept.swap(true, Ordering::AcqRel);
            }
        }
        closed
    }

    /// The slots that this node answers for, as a map of bits.
    pub fn map(&self) -> [u8; SLOTS / 8] {
        let mut map = [0; SLOTS / 8];
        for slot in Slot::all().filter(|slot| self.open(*slot).is_some()) {
            map[slot.number() / 8] |= 1 << (slot.number() % 8);
        }
        map
    }

    /// The same transaction, which takes effect only while this node owns the value.
    pub fn guard(&self, name: &Name, txn: Txn) -> Result<Txn, GlobalError> {
        let holding = self.get(Slot::of(name));
        let holding = holding.filter(|holding| !holding.is(Phase::Closed));
        match holding {
            Some(holding) => Ok(holding.claim.guard(txn)),
            None => Err(GlobalError::Fenced),
        }
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").finish_non_exhaustive()
    }
}
