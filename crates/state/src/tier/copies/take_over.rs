//! Having the values that an owner left copies of, and seeing to it that there are enough copies.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::{Copies, CopyAsk, CopyOp, Set, record};
use crate::global::{CHUNK_BYTES, Head};
use crate::tier::reply::Reply;
use crate::tier::{Done, Holding, Member, PIECE_BYTES, marks};
use crate::{Name, State, StateError};

/// How long to wait until the claim is known here, and with it who was a member before it.
const KNOWN_MAX: Duration = Duration::from_secs(5);

/// Nodes that are tried instead of those that should have copies. Each may take its time to answer,
/// and changes of the slot wait for that.
const INSTEAD_MAX: usize = 1;

/// A value as another node has it: its chunks, without those of zeros only.
pub(crate) type Copied = (Name, Head, Vec<(u64, Bytes)>);

impl Copies {
    /// Has what the last owner's nodes keep, before the slot is opened; or notes that it is lost,
    /// if none of these nodes lives. Fails while one lives and cannot be reached.
    pub async fn take_over(
        &self,
        state: &State,
        holding: &Arc<Holding>,
        now_ms: u64,
    ) -> Result<(), StateError> {
        let (tier, slot) = (&self.tier, holding.slot);
        let Some(last) = record::read(&*tier.store, slot).await? else {
            tier.kept.forget(slot, &state.node.budget);
            return Ok(());
        };
        self.catch_up(holding).await?;
        let Some((source, values)) = self.have(&last, holding).await? else {
            return self.give_up_on(&last, holding, now_ms).await;
        };
        let count = values.len();
        for (name, head, chunks) in values {
            let app = state.app(&name.app);
            app.restore(name.key, &head, &chunks, holding)?;
        }
        tracing::info!(%slot, values = count, from = %source.node, "copies became values");
        let here = tier.cluster.me().is_some_and(|me| me == source);
        *holding.copies.write().await = Set {
            members: if here { Vec::new() } else { vec![source] },
            apps: last.apps,
            recorded: false,
            unsure: false,
        };
        self.repair(state, holding).await?;
        tier.kept.forget(slot, &state.node.budget);
        let left = {
            let set = holding.copies.read().await;
            let others = last.members.into_iter();
            others.filter(|one| !set.members.contains(one)).collect()
        };
        self.forget(holding, left).await;
        Ok(())
    }

    /// Has this node, which gives the slot up, be one of those with copies until the next owner has
    /// seen to it that there are enough: else only that one had what was acknowledged.
    pub async fn stay(&self, state: &State, holding: &Arc<Holding>) {
        let mut set = holding.copies.write().await;
        let Some(me) = self.tier.cluster.me().filter(|_| !set.apps.is_empty()) else {
            return;
        };
        let stayed = async {
            self.keep(state, holding, CopyOp::Reset)?;
            for value in state.values_of(holding) {
                let Some((head, chunks)) = value.copied() else {
                    continue;
                };
                self.keep(state, holding, push(value.name.clone(), head, &chunks))?;
            }
            let mut next = set.clone();
            next.members.push(me);
            Ok::<(), StateError>(self.write(holding, &mut set, next).await?)
        };
        if let Err(error) = stayed.await {
            // Those that should have copies have them.
            tracing::debug!(%error, slot = %holding.slot, "no copies stay here");
            self.tier.kept.forget(holding.slot, &state.node.budget);
        }
    }

    /// Keeps copies of a slot for its next owner.
    fn keep(&self, state: &State, holding: &Holding, op: CopyOp<'_>) -> Result<(), StateError> {
        let (slot, claim) = (holding.slot, holding.token());
        let ask = CopyAsk { slot, claim, op };
        match self.tier.kept.answer(ask, &state.node.budget) {
            Reply::Done(_) => Ok(()),
            Reply::Refused(error) => Err(error),
            _ => Err(StateError::Elsewhere),
        }
    }

    /// Has nodes forget copies that nobody counts on any more.
    async fn forget(&self, holding: &Holding, left: Vec<Member>) {
        let live = self.tier.cluster.members();
        let me = self.tier.cluster.me();
        let others = left.into_iter();
        let others = others.filter(|member| live.contains(member) && Some(member) != me.as_ref());
        for member in others {
            if let Err(error) = self.ask(&member, holding, CopyOp::Forget).await {
                tracing::debug!(%error, node = %member.node, "copies stay that nobody counts on");
            }
        }
    }

    /// Waits until this node knows of its own claim: then it knows of all who were members when an
    /// earlier owner wrote the record, and which of these are gone.
    async fn catch_up(&self, holding: &Holding) -> Result<(), StateError> {
        let cluster = &self.tier.cluster;
        let mut changes = cluster.changes();
        let known = async {
            loop {
                changes.mark_unchanged();
                let owner = cluster.owner(holding.slot);
                if owner.is_some_and(|owner| owner.token >= holding.token()) {
                    return Ok(());
                }
                if changes.changed().await.is_err() {
                    return Err(StateError::Unreached(None));
                }
            }
        };
        let known = timeout(KNOWN_MAX, known).await;
        known.unwrap_or(Err(StateError::Unreached(None)))
    }

    /// All values, and the node that had them; none if no node has them any more.
    async fn have(
        &self,
        last: &Set,
        holding: &Holding,
    ) -> Result<Option<(Member, Vec<Copied>)>, StateError> {
        let cluster = &self.tier.cluster;
        let me = cluster.me().ok_or(StateError::Elsewhere)?;
        let live = cluster.members();
        let live = last.members.iter().filter(|member| live.contains(member));
        let (here, there): (Vec<_>, Vec<_>) = live.partition(|member| **member == me);
        if !here.is_empty()
            && let Some(values) = self.tier.kept.fence(holding.slot, holding.token())
        {
            return Ok(Some((me, values)));
        }
        let mut unreached = None;
        for member in there {
            match self.fetch(member, holding).await {
                Ok(values) => return Ok(Some((member.clone(), values))),
                // It says that it has nothing.
                Err(StateError::Elsewhere) => {}
                Err(error) => unreached = Some(error),
            }
        }
        unreached.map_or(Ok(None), Err)
    }

    /// All values that a node keeps, which takes nothing of earlier owners any more.
    async fn fetch(&self, member: &Member, holding: &Holding) -> Result<Vec<Copied>, StateError> {
        self.ask(member, holding, CopyOp::Fence).await?;
        let mut values: Vec<Copied> = Vec::new();
        loop {
            let after = values.last().map(|(name, ..)| name.clone());
            let heads = match self.ask(member, holding, CopyOp::Heads { after }).await? {
                Done::Heads(heads) => heads,
                other => return Err(super::super::route::odd(&other)),
            };
            if heads.is_empty() {
                return Ok(values);
            }
            for (name, head) in heads {
                let chunks = self.fetch_chunks(member, holding, &name, &head).await?;
                values.push((name, head, chunks));
            }
        }
    }

    async fn fetch_chunks(
        &self,
        member: &Member,
        holding: &Holding,
        name: &Name,
        head: &Head,
    ) -> Result<Vec<(u64, Bytes)>, StateError> {
        let count = head.size.div_ceil(CHUNK_BYTES as u64);
        let mut chunks = Vec::new();
        for first in (0..count).step_by(PIECE_BYTES / CHUNK_BYTES) {
            let name = name.clone();
            match self
                .ask(member, holding, CopyOp::Chunks { name, first })
                .await?
            {
                Done::Chunks(_, more) => chunks.extend(more),
                other => return Err(super::super::route::odd(&other)),
            }
        }
        Ok(chunks)
    }

    /// Notes that what an owner left is lost.
    async fn give_up_on(
        &self,
        last: &Set,
        holding: &Holding,
        now_ms: u64,
    ) -> Result<(), StateError> {
        for app in &last.apps {
            tracing::warn!(slot = %holding.slot, %app, "values were lost with all their copies");
            marks::lose(&*self.tier.store, holding, app, now_ms).await?;
        }
        Ok(record::remove(&*self.tier.store, holding).await?)
    }

    /// Has the nodes that should have copies of the slot's values have all of them, and the record
    /// name these. Changes of the values wait meanwhile.
    pub async fn repair(&self, state: &State, holding: &Arc<Holding>) -> Result<(), StateError> {
        let mut set = holding.copies.write().await;
        if set.apps.is_empty() {
            return Ok(());
        }
        let cluster = &self.tier.cluster;
        let live = cluster.members();
        let mut next = set.clone();
        next.members.retain(|member| live.contains(member));
        let (mut ready, mut failed) = (Vec::new(), None);
        // Where one that should have copies is not reached, the one after it has them meanwhile.
        for member in cluster.keepers(holding.slot, self.count + INSTEAD_MAX) {
            if ready.len() == self.count {
                break;
            }
            let has_all = next.members.contains(&member);
            if has_all || self.fills(state, &member, holding, &mut failed).await {
                ready.push(member);
            }
        }
        match failed {
            // Others have taken the place of those that are not wanted any more.
            None => next.members = ready,
            Some(_) => {
                ready.retain(|member| !next.members.contains(member));
                next.members.append(&mut ready);
            }
        }
        let left = set.members.iter();
        let left: Vec<_> = left
            .filter(|one| !next.members.contains(one))
            .cloned()
            .collect();
        self.write(holding, &mut set, next).await?;
        drop(set);
        self.forget(holding, left).await;
        if let Some((member, error)) = failed {
            let (node, slot) = (&member.node, holding.slot);
            tracing::warn!(%error, %node, %slot, "a node has no copies yet");
        }
        Ok(())
    }

    /// Whether the slot's copies are on other nodes than they should be. Looks only where nobody
    /// waits.
    pub fn needs_repair(&self, holding: &Holding) -> bool {
        let Ok(set) = holding.copies.try_read() else {
            return false;
        };
        if set.apps.is_empty() {
            return false;
        }
        let wanted = self.tier.cluster.keepers(holding.slot, self.count);
        set.unsure
            || wanted.len() != set.members.len()
            || wanted.iter().any(|member| !set.members.contains(member))
    }

    /// Gives a node all values of the slot, and says whether it has them.
    async fn fills(
        &self,
        state: &State,
        member: &Member,
        holding: &Arc<Holding>,
        failed: &mut Option<(Member, StateError)>,
    ) -> bool {
        match self.fill(state, member, holding).await {
            Ok(()) => true,
            Err(error) => {
                failed.get_or_insert_with(|| (member.clone(), error));
                false
            }
        }
    }

    /// Gives a node all values of the slot.
    async fn fill(
        &self,
        state: &State,
        member: &Member,
        holding: &Arc<Holding>,
    ) -> Result<(), StateError> {
        self.ask(member, holding, CopyOp::Reset).await?;
        for value in state.values_of(holding) {
            let Some((head, chunks)) = value.copied() else {
                continue;
            };
            let op = push(value.name.clone(), head, &chunks);
            self.ask(member, holding, op).await?;
        }
        Ok(())
    }
}

/// All of a value.
fn push(name: Name, head: Head, chunks: &[(u64, Bytes)]) -> CopyOp<'_> {
    let chunks = chunks.iter();
    let chunks = chunks.map(|(number, bytes)| (*number, &bytes[..]));
    CopyOp::Push {
        name,
        head,
        chunks: chunks.collect(),
    }
}
