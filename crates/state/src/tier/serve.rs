//! Answering other nodes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use model::{AppName, NodeId};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::reply::Reply;
use super::wire::{self, Request, What};
use super::{Ask, Done, Holding, Member, Op, Phase, Slot, Tier};
use crate::metrics::SERVED_TOTAL;
use crate::{GlobalError, Name, State, StateError, Watch, WatchItem};

/// How long a request waits for its claim, or its asker, to become known here.
const KNOWN_MAX: Duration = Duration::from_secs(2);
/// Longest wait of one question for changes.
pub(super) const WATCH_WAIT_MAX: Duration = Duration::from_secs(20);
/// A watch is forgotten that nobody asked for so long.
const WATCH_IDLE_MAX: Duration = Duration::from_secs(60);
/// Changes in one answer.
const WATCH_ITEMS_MAX: usize = 256;

/// Answers other nodes; see [`State::serve`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Serve {
    state: State,
    tier: Arc<Tier>,
    permits: Arc<Semaphore>,
}

/// An answer: `head` and then `data`, which may be large and is not copied for it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How it went.
    pub head: Bytes,
    /// Bytes of a value.
    pub data: Bytes,
}

/// The locks that are held for other nodes, by who holds them.
#[derive(Debug, Default)]
pub(crate) struct Lockers(Mutex<HashMap<Member, HashSet<u128>>>);

/// The watches of other nodes.
#[derive(Debug)]
pub(crate) struct Watches {
    next: AtomicU64,
    watches: Mutex<HashMap<u64, Watched>>,
    max: usize,
}

#[derive(Debug)]
struct Watched {
    peer: NodeId,
    watch: Watch,
    asked: Instant,
}

impl Serve {
    pub(crate) fn new(state: State, tier: Arc<Tier>) -> Self {
        let permits = Arc::new(Semaphore::new(state.node.config.asks_max));
        Self {
            state,
            tier,
            permits,
        }
    }

    /// The most bytes that a request may have.
    pub fn request_bytes_max(&self) -> usize {
        self.state.value_bytes_max() + (1 << 20)
    }

    /// Answers a request of `peer`, which has proven to be that node. Dropping the future stops
    /// what is done for it, and takes back a lock that was waited for.
    pub async fn answer(&self, peer: &NodeId, request: &Bytes) -> Answer {
        let reply = match self.permits.try_acquire() {
            Ok(_permit) => self.reply(peer, request).await,
            // Who answers with a permit may wait for this one.
            Err(_) if wire::is_about_copies(request) => self.reply(peer, request).await,
            Err(_) => Reply::Busy,
        };
        let outcome = match &reply {
            Reply::Done(_) => "done",
            Reply::Refused(_) => "refused",
            _ => "turned-away",
        };
        counter!(SERVED_TOTAL, "outcome" => outcome).increment(1);
        let (head, data) = reply.parts();
        Answer { head, data }
    }

    async fn reply(&self, peer: &NodeId, request: &Bytes) -> Reply {
        let Request { from, what } = match Request::decode(request) {
            Ok(request) => request,
            Err(error) => return Reply::Malformed(error.to_string()),
        };
        let member = Member {
            node: peer.clone(),
            token: from,
        };
        match what {
            What::Key { claim, name, op } => self.key(member, claim, name, op).await,
            What::App { app, ask } => self.app(peer, app, ask).await,
            What::Copy(ask) => match self.tier.cluster.me() {
                Some(me) => {
                    let budget = &self.state.node.budget;
                    self.tier.kept.keep_for(me.token, budget);
                    self.tier.kept.answer(ask, budget)
                }
                // Nobody could count on what is kept.
                None => Reply::Elsewhere,
            },
            What::Release { owner } => {
                self.tier.lockers.remove(&member, owner);
                self.state.release_here(owner);
                Reply::Done(Done::Nothing)
            }
        }
    }

    async fn key(&self, member: Member, claim: u64, name: Name, op: Op<'_>) -> Reply {
        let Some(holding) = self.meant(Slot::of(&name), claim).await else {
            return Reply::Elsewhere;
        };
        let locker = match op {
            Op::Lock { owner, .. } => Some(owner),
            _ => None,
        };
        if let Some(owner) = locker {
            // What is held for who is gone would be held for nobody.
            if !self.knows(&member).await {
                return Reply::Unknown;
            }
            self.tier.lockers.add(&member, owner);
        }
        let app = self.state.app(&name.app);
        let done = app.run_here(&name.key, Some(&holding), &op).await;
        if let (Some(owner), Ok(_)) = (locker, &done)
            && !self.tier.lockers.has(&member, owner)
        {
            self.state.release_here(owner);
            return Reply::Unknown;
        }
        match done {
            Ok(done) => Reply::Done(done),
            Err(StateError::Elsewhere) => Reply::Elsewhere,
            Err(StateError::Global(GlobalError::Fenced)) => {
                self.tier.fenced(&holding);
                Reply::Elsewhere
            }
            Err(error) => Reply::Refused(error),
        }
    }

    /// The holding by the claim that is meant. It may be about to be opened; an earlier or later
    /// one is another.
    async fn meant(&self, slot: Slot, claim: u64) -> Option<Arc<Holding>> {
        let until = Instant::now() + KNOWN_MAX;
        let mut changes = self.tier.slots.changes();
        loop {
            if let Some(holding) = self.tier.slots.get(slot) {
                if holding.token() == claim && holding.holds() {
                    return Some(holding);
                }
                let comes = holding.token() == claim && holding.is(Phase::Opening);
                if holding.token() >= claim && !comes {
                    return None;
                }
            }
            timeout_at(until, changes.hear()).await.ok()?;
        }
    }

    /// Whether the asker is a member, as far as is known here before long.
    async fn knows(&self, member: &Member) -> bool {
        let mut changes = self.tier.cluster.changes();
        let known = async {
            loop {
                changes.mark_unchanged();
                if self.tier.cluster.members().contains(member) {
                    return true;
                }
                if changes.changed().await.is_err() {
                    return false;
                }
            }
        };
        timeout(KNOWN_MAX, known).await.unwrap_or(false)
    }

    async fn app(&self, peer: &NodeId, app: AppName, ask: Ask<'_>) -> Reply {
        let app = self.state.app(&app);
        match ask {
            Ask::List {
                prefix,
                after,
                limit,
            } => {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                let before = self.tier.slots.map();
                let listed = app.list_here(prefix, after, limit).await;
                let mut slots = self.tier.slots.map();
                let both = slots.iter_mut().zip(before);
                both.for_each(|(slots, before)| *slots &= before);
                match listed {
                    Ok(listed) => Reply::Done(Done::Listed(slots, listed)),
                    Err(error) => Reply::Refused(error),
                }
            }
            Ask::Watch {
                prefix, watch: 0, ..
            } => match app.watch(prefix) {
                Ok(watch) => self.tier.watches.begin(peer, watch),
                Err(error) => Reply::Refused(error),
            },
            Ask::Watch { watch, wait, .. } => self.tier.watches.ask(peer, watch, wait).await,
        }
    }
}

impl Lockers {
    fn add(&self, member: &Member, owner: u128) {
        self.0
            .lock()
            .entry(member.clone())
            .or_default()
            .insert(owner);
    }

    fn has(&self, member: &Member, owner: u128) -> bool {
        let lockers = self.0.lock();
        lockers.get(member).is_some_and(|one| one.contains(&owner))
    }

    fn remove(&self, member: &Member, owner: u128) {
        let mut lockers = self.0.lock();
        if let Some(owners) = lockers.get_mut(member) {
            owners.remove(&owner);
            if owners.is_empty() {
                lockers.remove(member);
            }
        }
    }

    /// Frees what is held for nodes that are no members any more.
    pub fn free_gone(&self, state: &State, members: &[Member]) {
        let mut gone = Vec::new();
        self.0.lock().retain(|member, owners| {
            let stays = members.contains(member);
            if !stays {
                gone.extend(owners.iter().copied());
            }
            stays
        });
        gone.into_iter().for_each(|owner| state.release_here(owner));
    }
}

impl Watches {
    pub fn new(first: u64, max: usize) -> Self {
        Self {
            next: AtomicU64::new(first.max(1)),
            watches: Mutex::default(),
            max,
        }
    }

    fn begin(&self, peer: &NodeId, watch: Watch) -> Reply {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut watches = self.watches.lock();
        if watches.len() >= self.max {
            return Reply::Busy;
        }
        let watched = Watched {
            peer: peer.clone(),
            watch,
            asked: Instant::now(),
        };
        watches.insert(number, watched);
        Reply::Done(Done::Watched(number, Vec::new()))
    }

    /// What a watch saw since it was last asked for. While that is waited for it is not kept, so
    /// that a question that breaks off ends it, and the asker knows that it missed something.
    async fn ask(&self, peer: &NodeId, number: u64, wait: Duration) -> Reply {
        let taken = self.watches.lock().remove(&number);
        let Some(mut watched) = taken.filter(|watched| watched.peer == *peer) else {
            return Reply::Refused(StateError::NotFound);
        };
        let mut items: Vec<WatchItem> = Vec::new();
        let wait = wait.min(WATCH_WAIT_MAX);
        if let Ok(item) = timeout(wait, watched.watch.next()).await {
            items.push(item);
        }
        while items.len() < WATCH_ITEMS_MAX
            && let Some(item) = watched.watch.next_here()
        {
            items.push(item);
        }
        watched.asked = Instant::now();
        self.watches.lock().insert(number, watched);
        Reply::Done(Done::Watched(number, items))
    }

    /// Ends the watches that nobody asks for any more.
    pub fn forget_idle(&self) {
        let mut watches = self.watches.lock();
        watches.retain(|_, watched| watched.asked.elapsed() < WATCH_IDLE_MAX);
    }
}
