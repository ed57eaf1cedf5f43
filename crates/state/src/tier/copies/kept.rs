//! The copies that this node keeps for owners of slots.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::Mutex;

use super::take_over::Copied;
use super::wire::{CopyAsk, CopyOp};
use crate::budget::{Meter, NodeBudget};
use crate::global::{CHUNK_BYTES, Head};
use crate::tier::reply::Reply;
use crate::tier::{Done, PIECE_BYTES, Slot};
use crate::{Durability, Info, Name, StateError};

/// Values whose heads are in one answer.
const HEADS_MAX: usize = 4096;

/// What is kept, by slot.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Parts>);

#[derive(Debug, Default)]
struct Parts {
    /// The membership in which it is kept: of an earlier one, nobody counts on it.
    token: u64,
    slots: HashMap<Slot, Part>,
}

/// The copies of one slot.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// By which the owner asks; an earlier one is refused.
    claim: u64,
    values: BTreeMap<Name, Copy>,
}

/// A copy of a value.
#[derive(Debug, Default)]
struct Copy {
    head: Head,
    /// Without the zeros at their ends.
    chunks: Vec<Bytes>,
}

impl Kept {
    /// Forgets what was kept in another membership than this one.
    pub fn keep_for(&self, token: u64, budget: &NodeBudget) {
        let mut parts = self.0.lock();
        if parts.token != token {
            parts.token = token;
            let slots = std::mem::take(&mut parts.slots);
            slots
                .into_values()
                .for_each(|part| part.free(&budget.bytes));
        }
    }

    /// Does what an owner asks.
    pub fn answer(&self, ask: CopyAsk<'_>, budget: &NodeBudget) -> Reply {
        let CopyAsk { slot, claim, op } = ask;
        let mut parts = self.0.lock();
        let known = parts.slots.get(&slot).map(|part| part.claim);
        if known.is_some_and(|known| known > claim) {
            return Reply::Elsewhere;
        }
        if let CopyOp::Reset | CopyOp::Forget = op {
            if let Some(part) = parts.slots.remove(&slot) {
                part.free(&budget.bytes);
            }
            if let CopyOp::Reset = op {
                let values = BTreeMap::new();
                parts.slots.insert(slot, Part { claim, values });
            }
            return Reply::Done(Done::Nothing);
        }
        let Some(part) = parts.slots.get_mut(&slot) else {
            return Reply::Elsewhere;
        };
        if let CopyOp::Fence = op {
            part.claim = claim;
        }
        match part.claim == claim {
            true => part.answer(op, &budget.bytes),
            false => Reply::Elsewhere,
        }
    }

    /// Has only this claim answered from now on, and gives what is kept: what this node owns now it
    /// kept before.
    pub fn fence(&self, slot: Slot, claim: u64) -> Option<Vec<Copied>> {
        let mut parts = self.0.lock();
        let part = parts.slots.get_mut(&slot)?;
        part.claim = part.claim.max(claim);
        let values = part.values.iter();
        let copied = |(name, copy): (&Name, &Copy)| {
            let chunks = copy.chunks.iter().enumerate();
            let chunks = chunks.filter(|(_, bytes)| !bytes.is_empty());
            let chunks = chunks.map(|(number, bytes)| (number as u64, bytes.clone()));
            (name.clone(), copy.head, chunks.collect())
        };
        Some(values.map(copied).collect())
    }

    /// Forgets a slot that this node owns.
    pub fn forget(&self, slot: Slot, budget: &NodeBudget) {
        if let Some(part) = self.0.lock().slots.remove(&slot) {
            part.free(&budget.bytes);
        }
    }
}

impl Part {
    fn answer(&mut self, op: CopyOp<'_>, room: &Meter) -> Reply {
        match op {
            CopyOp::Push { name, head, chunks } => {
                let copy = self.values.entry(name.clone()).or_default();
                match copy.push(head, &chunks, room) {
                    Ok(()) => Reply::Done(Done::Nothing),
                    Err(error) => {
                        if copy.head.version == 0 {
                            // There was none before.
                            self.values.remove(&name);
                        }
                        Reply::Refused(error)
                    }
                }
            }
            CopyOp::Remove { name } => {
                if let Some(copy) = self.values.remove(&name) {
                    room.give(copy.bytes());
                }
                Reply::Done(Done::Nothing)
            }
            CopyOp::Heads { after } => {
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                let heads = self.values.range((from, Bound::Unbounded)).take(HEADS_MAX);
                let heads = heads.map(|(name, copy)| (name.clone(), copy.head));
                Reply::Done(Done::Heads(heads.collect()))
            }
            CopyOp::Chunks { name, first } => match self.values.get(&name) {
                Some(copy) => Reply::Done(copy.chunks(first)),
                None => Reply::Refused(StateError::NotFound),
            },
            CopyOp::Reset | CopyOp::Fence | CopyOp::Forget => Reply::Done(Done::Nothing),
        }
    }

    fn free(self, room: &Meter) {
        self.values
            .values()
            .for_each(|copy| room.give(copy.bytes()));
    }
}

impl Copy {
    fn bytes(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// Takes a change, all or nothing.
    fn push(
        &mut self,
        head: Head,
        pushed: &[(u64, &[u8])],
        room: &Meter,
    ) -> Result<(), StateError> {
        let count = usize::try_from(head.size.div_ceil(CHUNK_BYTES as u64)).unwrap_or(usize::MAX);
        let fits = pushed
            .iter()
            .all(|(number, bytes)| *number < count as u64 && bytes.len() <= CHUNK_BYTES);
        if !fits || !pushed.is_sorted_by(|(one, _), (next, _)| one < next) {
            let why = "it pushed chunks that a value does not have";
            return Err(StateError::Refused(why.to_owned()));
        }
        let old = |number: &u64| self.chunks.get(*number as usize).map_or(0, Bytes::len);
        let replaced: usize = pushed.iter().map(|(number, _)| old(number)).sum();
        let cut: usize = self.chunks.iter().skip(count).map(Bytes::len).sum();
        let more: usize = pushed.iter().map(|(_, bytes)| bytes.len()).sum();
        match more.checked_sub(replaced + cut) {
            Some(more) => room.take(more)?,
            None => room.give(replaced + cut - more),
        }
        self.head = head;
        self.chunks.truncate(count);
        for (number, bytes) in pushed {
            let number = *number as usize;
            if self.chunks.len() <= number {
                self.chunks.resize(number + 1, Bytes::new());
            }
            self.chunks[number] = Bytes::copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Some chunks from one on; those of zeros only are left out.
    fn chunks(&self, first: u64) -> Done {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let chunks = self.chunks.iter().enumerate().skip(first);
        let chunks = chunks.take(PIECE_BYTES / CHUNK_BYTES);
        let chunks = chunks.filter(|(_, bytes)| !bytes.is_empty());
        let chunks = chunks.map(|(number, bytes)| (number as u64, bytes.clone()));
        let info = Info {
            version: self.head.version,
            size: self.head.size,
            durability: Durability::Replicated,
            expires_ms: self.head.expires_ms,
        };
        Done::Chunks(info, chunks.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn name(key: &str) -> Name {
        Name {
            app: "shop".parse().unwrap(),
            key: key.parse().unwrap(),
        }
    }

    fn slot() -> Slot {
        Slot::of(&name("a"))
    }

    fn push(size: u64, chunks: Vec<(u64, &'static [u8])>) -> CopyOp<'static> {
        let head = Head {
            version: 7,
            size,
            expires_ms: 0,
        };
        let name = name("a");
        CopyOp::Push { name, head, chunks }
    }

    fn chunks() -> CopyOp<'static> {
        let name = name("a");
        CopyOp::Chunks { name, first: 0 }
    }

    struct World {
        kept: Kept,
        budget: NodeBudget,
    }

    impl World {
        fn new() -> Self {
            let config = Config {
                node_bytes_max: 100,
                ..Config::default()
            };
            Self {
                kept: Kept::default(),
                budget: NodeBudget::new(&config),
            }
        }

        fn ask(&self, claim: u64, op: CopyOp<'_>) -> Reply {
            let slot = slot();
            self.kept.answer(CopyAsk { slot, claim, op }, &self.budget)
        }

        fn does(&self, claim: u64, op: CopyOp<'_>) -> bool {
            matches!(self.ask(claim, op), Reply::Done(_))
        }
    }

    #[test]
    fn an_earlier_claim_is_refused_and_nothing_is_kept_unasked() {
        let world = World::new();
        assert!(!world.does(5, push(1, vec![(0, b"x")])), "not begun");
        assert!(!world.does(5, CopyOp::Fence), "there is nothing");
        assert!(world.does(5, CopyOp::Reset));
        assert!(world.does(5, push(1, vec![(0, b"x")])));
        assert!(
            !world.does(6, push(1, vec![(0, b"y")])),
            "it did not say so first"
        );
        assert!(world.does(6, CopyOp::Fence));
        for op in [CopyOp::Reset, CopyOp::Fence, CopyOp::Forget, chunks()] {
            assert!(!world.does(5, op), "it is an earlier one");
        }
        match world.ask(6, chunks()) {
            Reply::Done(Done::Chunks(info, chunks)) => {
                assert_eq!((info.version, info.size), (7, 1));
                assert_eq!(chunks, [(0, Bytes::from_static(b"x"))]);
            }
            other => panic!("{other:?}"),
        }
        assert!(world.does(7, CopyOp::Reset));
        assert!(!world.does(7, chunks()), "it begins anew");
    }

    #[test]
    fn what_is_kept_counts_and_too_much_is_refused_as_a_whole() {
        let world = World::new();
        let used = || world.budget.bytes.used();
        assert!(world.does(1, CopyOp::Reset));
        let long: &[u8] = &[1; 60];
        assert!(world.does(
            1,
            push(2 * CHUNK_BYTES as u64, vec![(0, long), (1, b"xyz")])
        ));
        assert_eq!(used(), 63);
        assert!(!world.does(1, push(2 * CHUNK_BYTES as u64, vec![(1, long)])));
        assert_eq!(used(), 63);
        assert!(
            !world.does(1, push(1, vec![(1, b"x")])),
            "there is no such chunk"
        );
        assert!(world.does(1, push(1, vec![(0, b"x")])));
        assert_eq!(used(), 1, "the rest is cut off");
        assert!(world.does(1, CopyOp::Remove { name: name("a") }));
        assert_eq!(used(), 0);
        assert!(world.does(1, push(1, vec![(0, b"x")])));
        world.kept.keep_for(9, &world.budget);
        assert_eq!(used(), 0, "nobody counts on it");
    }
}
