//! Copies of values in the memory of other nodes, so that what was acknowledged outlives its owner.
//!
//! ```text
//!  Value ──push, remove──▶ Copies ──CopyAsk──▶ Kept of each node in the slot's set
//!                             │ a node that did not take it is left out of the set
//!                             ▼
//!                          record in the store: the set, and the apps that have values
//!
//!  Keeper ──opening──▶ take_over: reads the record, and has the values from one node of the set
//!         ──pass─────▶ repair: fills nodes that should have copies, and then has them in the set
//! ```
//!
//! Whatever is acknowledged is held by every node of the set that the record names, since a change
//! is acknowledged after all of them have taken it, or after the record is without those that did
//! not. So any node of the set that lives has everything. What nobody lives for is lost, and told.
//!
//! A node serves one claim of a slot at a time, and never an earlier one again: what a replaced
//! owner still sends is refused, and therefore not acknowledged.

mod kept;
mod record;
mod take_over;
pub(super) mod wire;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use model::AppName;

use super::reply::Reply;
use super::wire::{Request, What};
use super::{Done, Holding, Member, Phase, Slot, Tier};
use crate::global::{Content, Found, Global, Head, Push};
use crate::{Config, GlobalError, Key, Name, StateError};

pub(super) use kept::Kept;
pub(super) use wire::{CopyAsk, CopyOp};

/// The nodes that have copies of a slot's values, as its record says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set {
    /// Each has all that was acknowledged.
    pub members: Vec<Member>,
    /// The apps that may have values.
    pub apps: BTreeSet<AppName>,
    /// Whether there is a record of this claim.
    pub recorded: bool,
    /// Whether the record may be another than this: it has some of these members then.
    pub unsure: bool,
}

impl Set {
    /// Whether there may be values that no other node has.
    pub fn is_only_here(&self) -> bool {
        !self.apps.is_empty() && self.members.is_empty()
    }
}

/// How a node took what it was sent.
enum Took {
    Yes,
    /// It has no copies of the slot, or was not reached.
    Not,
    Refused(StateError),
}

/// The copies of this node's values.
#[derive(Debug)]
pub(crate) struct Copies {
    tier: Arc<Tier>,
    ask_timeout: Duration,
    /// Nodes that should have copies, besides the owner.
    count: usize,
}

impl Copies {
    pub fn new(tier: Arc<Tier>, config: &Config) -> Self {
        Self {
            tier,
            ask_timeout: config.ask_timeout,
            count: config.copies.saturating_sub(1),
        }
    }

    /// Has all nodes of the slot's set do something with a value.
    async fn tell(&self, name: &Name, op: CopyOp<'_>) -> Result<(), GlobalError> {
        let slot = Slot::of(name);
        let holding = self.tier.slots.get(slot);
        let holding = holding.filter(|holding| !holding.is(Phase::Closed));
        let holding = holding.ok_or(GlobalError::Fenced)?;
        self.know(&holding, &name.app).await?;
        let set = holding.copies.read().await;
        let took = set.members.iter();
        let took = took.map(|member| self.send(member, &holding, op.clone()));
        let took = join_all(took).await;
        let mut gone = Vec::new();
        for (member, took) in set.members.iter().zip(took) {
            match took {
                Took::Yes => {}
                Took::Not => gone.push(member.clone()),
                Took::Refused(error) => return Err(GlobalError::Copy(error.to_string())),
            }
        }
        let is_only_here = set.members.is_empty();
        drop(set);
        match gone.is_empty() {
            // Nobody else could have refused what came too late.
            true if is_only_here && !holding.claim.holds() => Err(GlobalError::Fenced),
            true => Ok(()),
            false => self.leave_out(&holding, &gone).await,
        }
    }

    async fn send(&self, member: &Member, holding: &Holding, op: CopyOp<'_>) -> Took {
        match self.ask(member, holding, op).await {
            Ok(_) => Took::Yes,
            Err(StateError::Elsewhere | StateError::Unreached(_)) => Took::Not,
            Err(error) => Took::Refused(error),
        }
    }

    /// Asks a node about copies of a slot.
    async fn ask(
        &self,
        member: &Member,
        holding: &Holding,
        op: CopyOp<'_>,
    ) -> Result<Done, StateError> {
        let me = self.tier.cluster.me().ok_or(StateError::Elsewhere)?;
        let what = What::Copy(CopyAsk {
            slot: holding.slot,
            claim: holding.token(),
            op,
        });
        let from = me.token;
        let request = Request { from, what };
        match self.tier.ask(member, &request, self.ask_timeout).await {
            Ok(Reply::Done(done)) => Ok(done),
            Ok(Reply::Refused(error)) => Err(error),
            Ok(Reply::Malformed(why)) => Err(StateError::Refused(why)),
            Ok(Reply::Elsewhere | Reply::Unknown) => Err(StateError::Elsewhere),
            Ok(Reply::Busy) => Err(StateError::Unreached(None)),
            Err(error) => Err(StateError::Unreached(Some(error))),
        }
    }

    /// Has the record name the app, and a set of nodes, before the first of its values is
    /// acknowledged.
    async fn know(&self, holding: &Holding, app: &AppName) -> Result<(), GlobalError> {
        {
            let set = holding.copies.read().await;
            if set.recorded && set.apps.contains(app) {
                return Ok(());
            }
        }
        let mut set = holding.copies.write().await;
        let mut next = set.clone();
        if !set.recorded {
            // There are no values yet, so that whoever is ready for them has all there are.
            for member in self.tier.cluster.keepers(holding.slot, self.count) {
                if let Took::Yes = self.send(&member, holding, CopyOp::Reset).await
                    && !next.members.contains(&member)
                {
                    next.members.push(member);
                }
            }
        }
        next.apps.insert(app.clone());
        self.write(holding, &mut set, next).await
    }

    /// Goes on without nodes that did not take something.
    async fn leave_out(&self, holding: &Holding, gone: &[Member]) -> Result<(), GlobalError> {
        let mut set = holding.copies.write().await;
        let mut next = set.clone();
        next.members.retain(|member| !gone.contains(member));
        for member in gone {
            tracing::warn!(node = %member.node, slot = %holding.slot, "copies are left behind");
        }
        self.write(holding, &mut set, next).await
    }

    /// Writes the record, unless it says the same already.
    async fn write(
        &self,
        holding: &Holding,
        set: &mut Set,
        mut next: Set,
    ) -> Result<(), GlobalError> {
        (next.recorded, next.unsure) = (true, false);
        if next == *set {
            return Ok(());
        }
        let written = record::write(&*self.tier.store, holding, &next).await;
        match written {
            Ok(()) => *set = next,
            // It may be written all the same: from now on all of both have everything.
            Err(_) => {
                next.members.retain(|member| !set.members.contains(member));
                set.members.append(&mut next.members);
                set.unsure = true;
            }
        }
        written
    }
}

/// As the global tier of values that are in memory only: what is not here is nowhere, so nothing is
/// ever read from it.
#[async_trait]
impl Global for Copies {
    async fn head(&self, _name: &Name) -> Result<Found, GlobalError> {
        Ok(Found::Nothing { floor: 0 })
    }

    async fn pull(
        &self,
        _name: &Name,
        _chunks: Range<usize>,
    ) -> Result<Vec<(usize, Bytes)>, GlobalError> {
        Ok(Vec::new())
    }

    async fn push(&self, name: &Name, push: Push, content: Content<'_>) -> Result<(), GlobalError> {
        let chunks: Vec<_> = push.chunks.iter().map(|number| content(*number)).collect();
        let chunks = push.chunks.iter().zip(&chunks);
        let chunks = chunks.map(|(number, bytes)| (*number as u64, &bytes[..]));
        let op = CopyOp::Push {
            name: name.clone(),
            head: push.head,
            chunks: chunks.collect(),
        };
        self.tell(name, op).await
    }

    async fn remove(&self, name: &Name, _expected: u64) -> Result<(), GlobalError> {
        let op = CopyOp::Remove { name: name.clone() };
        self.tell(name, op).await
    }

    async fn list(
        &self,
        _app: &AppName,
        _prefix: &str,
        _after: Option<&str>,
        _limit: usize,
    ) -> Result<Vec<(Key, Head)>, GlobalError> {
        Ok(Vec::new())
    }

    async fn expired(&self, _now_ms: u64, _limit: usize) -> Result<Vec<(Name, u64)>, GlobalError> {
        Ok(Vec::new())
    }
}
