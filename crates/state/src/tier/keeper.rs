//! Claims the slots that this node should own, and gives up those that it should not.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Claim, Holding, Phase, Slot, Tier, marks};
use crate::clock::{micros, millis};
use crate::{EmbeddedGlobal, State, StateError, Value};

/// Slots that are claimed, opened or closed at a time.
const AT_ONCE: usize = 16;
/// The wait after something failed, and how often claims are looked at that may have ended.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps the slots; see [`State::keeper`].
#[derive(Debug)]
pub struct Keeper {
    state: State,
    tier: Arc<Tier>,
    global: EmbeddedGlobal,
    /// Slots that others take for this node's and that it does not have: the token of each one's
    /// claim, and since when.
    strays: Mutex<BTreeMap<Slot, (u64, Instant)>>,
}

impl Keeper {
    pub(crate) fn new(state: State, tier: Arc<Tier>, global: EmbeddedGlobal) -> Self {
        Self {
            state,
            tier,
            global,
            strays: Mutex::default(),
        }
    }

    /// Follows the cluster until `stop`, and then gives up everything.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let config = self.state.node.config.clone();
        let owed = self.tier.clone().release_owed(config);
        let tells = tell_of_changes(&self.tier);
        tokio::select! {
            biased;
            () = tells => {}
            () = self.follow(stop) => {}
            () = owed => {}
        }
        self.hand_over(self.tier.slots.all(), true).await;
    }

    async fn follow(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut changes = self.tier.cluster.changes();
        loop {
            changes.mark_unchanged();
            if let Err(error) = self.pass().await {
                tracing::warn!(%error, "the parts of the state are claimed later");
            }
            tokio::select! {
                biased;
                () = &mut stop => return,
                changed = tokio::time::timeout(PAUSE, changes.changed()) => {
                    if let Ok(Err(_)) = changed {
                        return;
                    }
                }
            }
        }
    }

    /// Brings what this node owns in line with what it should own.
    pub async fn pass(&self) -> Result<(), StateError> {
        let tier = &self.tier;
        self.forget_closed();
        if let Some(me) = tier.cluster.me() {
            tier.kept.keep_for(me.token, &self.state.node.budget);
        }
        tier.lockers.free_gone(&self.state, &tier.cluster.members());
        tier.watches.forget_idle();
        let should: BTreeSet<Slot> = Slot::all()
            .filter(|slot| tier.cluster.should_own(*slot))
            .collect();
        let leaving = tier.slots.all();
        let leaving = leaving.into_iter();
        let leaving = leaving.filter(|holding| !should.contains(&holding.slot));
        self.hand_over(leaving.collect(), should.is_empty()).await;
        self.release_strays(&should).await;
        let me = tier.cluster.me().map(|me| me.node);
        let wanted = should.into_iter().filter(|slot| {
            let held = self.has(*slot);
            // Another one that owns it gives it up by itself, or loses it.
            let owner = tier.cluster.owner(*slot);
            !held && owner.is_none_or(|owner| Some(owner.node) == me)
        });
        let claimed = self.claim(wanted.collect()).await;
        self.repair().await;
        claimed
    }

    fn has(&self, slot: Slot) -> bool {
        let holding = self.tier.slots.get(slot);
        holding.is_some_and(|holding| !holding.is(Phase::Closed))
    }

    /// Gives up what this node neither has nor should have, and what nobody else can have as long
    /// as its claim is there: the answer to a claim, or a release, was lost.
    async fn release_strays(&self, should: &BTreeSet<Slot>) {
        let cluster = &self.tier.cluster;
        let Some(me) = cluster.me() else {
            return;
        };
        let found = Slot::all().filter(|slot| !should.contains(slot) && !self.has(*slot));
        let found: BTreeMap<Slot, u64> = found
            .filter_map(|slot| {
                let owner = cluster.owner(slot)?;
                (owner.node == me.node).then_some((slot, owner.token))
            })
            .collect();
        let now = Instant::now();
        let strays: Vec<Slot> = {
            let mut strays = self.strays.lock();
            strays.retain(|slot, (token, _)| found.get(slot) == Some(token));
            for (slot, token) in found {
                strays.entry(slot).or_insert((token, now));
            }
            // Of what was given up just now one hears in time.
            let old = strays
                .iter()
                .filter(|(_, (_, since))| now - *since >= PAUSE);
            old.map(|(slot, _)| *slot).collect()
        };
        let released = stream::iter(strays)
            .map(|slot| async move {
                let released = match cluster.claim(slot).await {
                    Ok(Some(claim)) => claim.release().await,
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                };
                if let Err(error) = released {
                    tracing::warn!(%error, %slot, "a part of the state was not given up");
                }
            })
            .buffer_unordered(AT_ONCE);
        released.collect::<Vec<()>>().await;
    }

    async fn claim(&self, wanted: Vec<Slot>) -> Result<(), StateError> {
        let claims = stream::iter(wanted)
            .map(|slot| {
                let cluster = self.tier.cluster.clone();
                async move { (slot, cluster.claim(slot).await) }
            })
            .buffer_unordered(AT_ONCE);
        let claims: Vec<_> = claims.collect().await;
        let mut mine = Vec::new();
        let mut failed = None;
        for (slot, claim) in claims {
            match claim {
                Ok(Some(claim)) => mine.push((slot, claim)),
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        if !mine.is_empty() {
            self.open(mine).await?;
        }
        failed.map_or(Ok(()), |error| Err(StateError::Unreached(Some(error))))
    }

    async fn open(&self, claims: Vec<(Slot, Arc<dyn Claim>)>) -> Result<(), StateError> {
        let node = &self.state.node;
        let base = marks::base(&*self.tier.store, micros(node.clock.now())).await?;
        let opening: Vec<_> = claims
            .into_iter()
            .map(|(slot, claim)| Arc::new(Holding::new(slot, claim, base)))
            .collect();
        for holding in &opening {
            self.tier.slots.put(holding.clone());
        }
        let slots: BTreeSet<Slot> = opening.iter().map(|holding| holding.slot).collect();
        let recovered = self.global.recover(|name| slots.contains(&Slot::of(name)));
        let mut failed = recovered.await.err().map(StateError::from);
        let unrecovered = failed.is_some();
        let mut opened = stream::iter(opening)
            .map(|holding| async move {
                let done = match unrecovered {
                    true => Err(StateError::Elsewhere),
                    false => self.take_over(&holding).await,
                };
                match &done {
                    Ok(()) => holding.enter(Phase::Open),
                    // It is claimed anew: there is no holding that is not closed.
                    Err(_) => give_up(&holding).await,
                }
                done
            })
            .buffer_unordered(AT_ONCE);
        while let Some(done) = opened.next().await {
            failed = failed.or(done.err());
        }
        self.tier.slots.tell();
        failed.map_or(Ok(()), Err)
    }

    /// Clears up what the last owner of a slot left, and has what others have copies of.
    async fn take_over(&self, holding: &Arc<Holding>) -> Result<(), StateError> {
        let node = &self.state.node;
        let now_ms = millis(node.clock.now());
        let since_ms = now_ms.saturating_sub(millis(node.config.loss_told));
        marks::take_over(&*self.tier.store, holding, now_ms, since_ms).await?;
        match &node.copies {
            Some(copies) => copies.take_over(&self.state, holding, now_ms).await,
            None => Ok(()),
        }
    }

    /// Sees to it that there are enough copies of what this node has.
    async fn repair(&self) {
        let Some(copies) = &self.state.node.copies else {
            return;
        };
        let held = self.tier.slots.all().into_iter();
        let held = held.filter(|one| one.is(Phase::Open) && copies.needs_repair(one));
        let repaired = stream::iter(held.collect::<Vec<_>>())
            .map(|holding| async move {
                if let Err(error) = copies.repair(&self.state, &holding).await {
                    tracing::warn!(%error, slot = %holding.slot, "there are too few copies");
                }
            })
            .buffer_unordered(AT_ONCE);
        repaired.collect::<Vec<()>>().await;
    }

    /// Forgets the values of what this node no longer owns.
    fn forget_closed(&self) {
        if self.tier.slots.close_ended() {
            self.state.forget_closed();
            self.tier.slots.tell();
        }
    }

    /// Gives slots up. Unless the node `drains`, those stay that have values in memory only, or
    /// locks that are held, or values that guests have mapped.
    async fn hand_over(&self, leaving: Vec<Arc<Holding>>, drains: bool) {
        let leaving = leaving.into_iter();
        let leaving: Vec<_> = leaving.filter(|holding| holding.is(Phase::Open)).collect();
        if leaving.is_empty() {
            return;
        }
        // Nothing is changed from now on, so that what is seen stays so.
        leaving.iter().for_each(|one| one.enter(Phase::Closing));
        let mut values = self.state.values_by_slot();
        let mut handed = Vec::new();
        for holding in leaving {
            let values = values.remove(&holding.slot).unwrap_or_default();
            let bound = values.iter().any(|value| value.is_bound());
            if bound && !drains {
                holding.enter(Phase::Open);
            } else {
                handed.push((holding, values, bound));
            }
        }
        let handed = stream::iter(handed)
            .map(|(holding, values, bound)| async move {
                if !self.hand_on(&holding, &values, (bound, drains)).await {
                    holding.enter(Phase::Open);
                }
            })
            .buffer_unordered(AT_ONCE);
        handed.collect::<Vec<()>>().await;
        self.forget_closed();
    }

    /// Gives one slot up, once all that was acknowledged of its values is written down, or other
    /// nodes have it; whether it did.
    async fn hand_on(
        &self,
        holding: &Arc<Holding>,
        values: &[Arc<Value>],
        (bound, drains): (bool, bool),
    ) -> bool {
        let written = async {
            flush(values).await?;
            match &self.state.node.copies {
                Some(copies) => copies.repair(&self.state, holding).await,
                None => Ok(()),
            }
        };
        if let Err(error) = written.await {
            tracing::warn!(%error, slot = %holding.slot, "handed over later");
            return false;
        }
        if !drains && holding.copies.read().await.is_only_here() {
            return false;
        }
        if !drains && let Some(copies) = &self.state.node.copies {
            copies.stay(&self.state, holding).await;
        }
        if !bound && let Err(error) = marks::unmark(&*self.tier.store, holding).await {
            // The next owner tells of a loss that was none.
            tracing::warn!(%error, slot = %holding.slot, "marks of values stay");
        }
        give_up(holding).await;
        true
    }
}

/// Has those who wait for a slot's owner look again whenever something changes.
async fn tell_of_changes(tier: &Tier) {
    let mut changes = tier.cluster.changes();
    while changes.changed().await.is_ok() {
        tier.slots.tell();
    }
    // Nobody changes anything any more.
    std::future::pending().await
}

async fn give_up(holding: &Holding) {
    holding.enter(Phase::Closed);
    if let Err(error) = holding.claim.release().await {
        // It ends with the membership, is claimed anew, or is a stray.
        tracing::warn!(%error, slot = %holding.slot, "a part of the state was not given up");
    }
}

/// Writes down what was acknowledged and is not durable yet.
async fn flush(values: &[Arc<Value>]) -> Result<(), StateError> {
    for value in values {
        value.flush().await?;
    }
    Ok(())
}
