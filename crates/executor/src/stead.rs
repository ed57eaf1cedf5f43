//! A parent's stead: while it waits for children that it spawned, one of them at a time may run
//! without a place of its own, as if it were the parent that ran.
//!
//! ```text
//!            has a place of its own
//!   queues ──────────────────────────▶ gone
//!      └─ waited for, and the stead is free ─▶ in the stead ──ends──▶ gone
//! ```
//!
//! Invariants:
//! - At most one child is in the stead: so all that run without a place are no more than those that
//!   have one, times the depth of their trees.
//! - While a parent waits for a child that queues, some child of its is in the stead. So parents
//!   that hold every place and wait for children do not wait for each other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Names a child of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeirId(u64);

/// Who is in the stead, and who is to be. Pure.
struct Lending<W> {
    heirs: u64,
    queue: BTreeMap<HeirId, W>,
    awaited: Vec<HeirId>,
    lent_to: Option<HeirId>,
}

impl<W> Lending<W> {
    fn new() -> Self {
        Self {
            heirs: 0,
            queue: BTreeMap::new(),
            awaited: Vec::new(),
            lent_to: None,
        }
    }

    fn queues(&mut self, wake: W) -> HeirId {
        self.heirs += 1;
        let id = HeirId(self.heirs);
        self.queue.insert(id, wake);
        id
    }

    /// The parent waits for these, in this order; whom it lets in.
    fn waits_for(&mut self, heirs: Vec<HeirId>) -> Option<W> {
        self.awaited = heirs;
        self.next()
    }

    /// A child has a place of its own, or has ended; whom that lets in.
    fn leaves(&mut self, id: HeirId) -> Option<W> {
        self.queue.remove(&id);
        if self.lent_to == Some(id) {
            self.lent_to = None;
        }
        self.next()
    }

    fn next(&mut self) -> Option<W> {
        if self.lent_to.is_some() {
            return None;
        }
        let queues = |id: &&HeirId| self.queue.contains_key(id);
        let id = self.awaited.iter().find(queues).copied()?;
        self.lent_to = Some(id);
        self.queue.remove(&id)
    }
}

type Wake = oneshot::Sender<()>;

/// What a parent that spawns children lends to them while it waits. Clones are the same stead.
#[derive(Clone)]
pub struct Stead(Arc<Mutex<Lending<Wake>>>);

impl Default for Stead {
    fn default() -> Self {
        Self::new()
    }
}

impl Stead {
    /// The stead of one parent.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Lending::new())))
    }

    /// A child to be, for [`crate::Executor::enqueue`].
    pub fn heir(&self) -> Heir {
        let (wake, woken) = oneshot::channel();
        let id = self.0.lock().queues(wake);
        Heir {
            stead: self.clone(),
            id,
            woken,
        }
    }

    /// Lends the stead to these, in this order and one at a time, while the parent waits for them:
    /// until what is returned is dropped. Who is in the stead then stays there to its end. A later
    /// wait takes the place of an earlier one.
    pub fn lend(&self, to: impl IntoIterator<Item = HeirId>) -> Lent {
        let to = to.into_iter().collect();
        self.change(|lending| lending.waits_for(to));
        Lent(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Lending<Wake>) -> Option<Wake>) {
        let let_in = change(&mut self.0.lock());
        if let Some(wake) = let_in {
            // Whoever left meanwhile says so itself.
            let _ = wake.send(());
        }
    }
}

impl fmt::Debug for Stead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stead").finish_non_exhaustive()
    }
}

/// The time in which a parent lends its stead.
#[must_use = "the stead is lent until this is dropped"]
#[derive(Debug)]
pub struct Lent(Stead);

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.0.lock().awaited.clear();
    }
}

/// A child that may be let in in its parent's stead. Dropping it frees the stead.
pub struct Heir {
    stead: Stead,
    id: HeirId,
    woken: oneshot::Receiver<()>,
}

impl Heir {
    /// What its parent calls it when it waits for it.
    pub fn id(&self) -> HeirId {
        self.id
    }

    /// Waits until it is let in.
    pub(crate) async fn let_in(&mut self) {
        if (&mut self.woken).await.is_err() {
            // Its sender is kept by the stead, which this holds.
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for Heir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heir").field("id", &self.id).finish()
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        self.stead.change(|lending| lending.leaves(self.id));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_at_a_time_is_let_in_and_only_who_is_waited_for() {
        let mut lending = Lending::new();
        let ids: Vec<HeirId> = ["a", "b", "c"].map(|name| lending.queues(name)).to_vec();
        assert_eq!(lending.waits_for(vec![ids[1], ids[2]]), Some("b"));
        assert_eq!(lending.leaves(ids[0]), None);
        assert_eq!(lending.leaves(ids[1]), Some("c"));
        assert_eq!(lending.waits_for(ids.clone()), None);
        assert_eq!(lending.leaves(ids[2]), None);
    }

    #[test]
    fn who_has_a_place_of_its_own_is_passed_over() {
        let mut lending = Lending::new();
        let (a, b) = (lending.queues("a"), lending.queues("b"));
        assert_eq!(lending.leaves(a), None);
        assert_eq!(lending.waits_for(vec![a, b]), Some("b"));
    }

    proptest! {
        #[test]
        fn while_one_waits_for_one_that_queues_one_is_in_the_stead(
            steps in proptest::collection::vec((0_u8..4, 1_u64..8), 0..100),
        ) {
            let mut lending = Lending::new();
            let (mut queue, mut inside) = (Vec::new(), None);
            let mut awaited = Vec::new();
            for (step, number) in steps {
                let id = HeirId(number);
                let let_in = match step {
                    0 => {
                        let heirs = lending.heirs;
                        queue.push(lending.queues(HeirId(heirs + 1)));
                        // Nobody waits for one that was not yet there.
                        None
                    }
                    1 => {
                        awaited = (1..=number).map(HeirId).filter(|id| id.0 <= lending.heirs).collect();
                        lending.waits_for(awaited.clone())
                    }
                    2 => {
                        lending.awaited.clear();
                        awaited.clear();
                        None
                    }
                    _ => {
                        queue.retain(|queued| *queued != id);
                        inside = inside.filter(|inside| *inside != id);
                        lending.leaves(id)
                    }
                };
                if let Some(id) = let_in {
                    prop_assert_eq!(inside, None);
                    prop_assert!(awaited.contains(&id) && queue.contains(&id));
                    queue.retain(|queued| *queued != id);
                    inside = Some(id);
                }
                prop_assert!(inside.is_some() || !queue.iter().any(|id| awaited.contains(id)));
            }
        }
    }
}
