//! A node: what it knows, what it owns, what runs there.

use std::collections::{BTreeMap, BTreeSet};

use membership::{Moment, Report, Resource, Roster, Session, Standpoint, Terms};
use model::NodeId;
use scheduler::{Load, Resources, Standing, Tag};
use storage::{Change, Event};

/// Bytes of memory of one place.
pub(crate) const PLACE_BYTES: u64 = 64 << 20;

/// A shard that a node owns, by its claim and in which tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub token: u64,
    pub tenure: u64,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub id: NodeId,
    /// How often it has started; what was meant for an earlier life is not heard.
    pub life: u64,
    pub is_up: bool,
    /// How fast its clock goes, in thousandths.
    pub rate: u32,
    pub session: Session,
    /// Requests of the session that are waited for.
    pub open: BTreeSet<u64>,
    pub roster: Roster,
    /// How much of the store's log it has read.
    pub read: usize,
    pub owned: BTreeMap<usize, Held>,
    /// When each shard was last claimed, in vain as far as is known.
    pub claimed: BTreeMap<usize, Moment>,
    /// Claims that it gives up.
    pub released: BTreeSet<u64>,
    /// What waits in the queue, as it has read, with the shard.
    pub queue: BTreeMap<u64, usize>,
    /// When it last sent each of those off.
    pub sent: BTreeMap<u64, Moment>,
    /// What has run, and when its outcome was last put.
    pub done: BTreeMap<u64, Option<Moment>>,
    pub running: BTreeSet<u64>,
    pub reported: Moment,
}

impl Node {
    pub fn new(id: NodeId, rate: u32, terms: Terms) -> Self {
        Self {
            id,
            life: 0,
            is_up: false,
            rate,
            session: Session::new(terms),
            open: BTreeSet::new(),
            roster: Roster::default(),
            read: 0,
            owned: BTreeMap::new(),
            claimed: BTreeMap::new(),
            released: BTreeSet::new(),
            queue: BTreeMap::new(),
            sent: BTreeMap::new(),
            done: BTreeMap::new(),
            running: BTreeSet::new(),
            reported: Moment::ZERO,
        }
    }

    /// Starts with nothing of its last life.
    pub fn start(&mut self, terms: Terms) {
        *self = Self {
            life: self.life + 1,
            is_up: true,
            ..Self::new(self.id.clone(), self.rate, terms)
        };
    }

    /// What its own clock shows.
    pub fn local(&self, now: Moment) -> Moment {
        now * self.rate / 1000
    }

    pub fn standpoint(&self, now: Moment) -> Option<Standpoint> {
        self.session
            .standpoint(self.local(now))
            .filter(|_| self.is_up)
    }

    /// The claim by which it may act on a shard at this moment.
    pub fn owns(&self, now: Moment, shard: usize) -> Option<Held> {
        let tenure = self.standpoint(now)?.token;
        self.owned
            .get(&shard)
            .copied()
            .filter(|held| held.tenure == tenure)
    }

    /// Reads one event of the store's log.
    pub fn hear(&mut self, event: &Event) {
        if let Some((shard, id)) = queued(&event.key) {
            match event.change {
                Change::Put(_) => drop(self.queue.insert(id, shard)),
                Change::Delete => {
                    self.queue.remove(&id);
                    self.sent.remove(&id);
                    self.done.remove(&id);
                }
            }
            return;
        }
        let heard = self.roster.apply(event);
        assert!(heard.is_ok(), "{heard:?}");
    }

    pub fn report(&self, places: u32) -> Report {
        // Fewer than its places, which are counted in 32 bits.
        let used = self.running.len() as u32;
        let amount = |places: u32| Resources {
            places,
            memory_bytes: u64::from(places) * PLACE_BYTES,
        };
        let load = Load {
            capacity: amount(places),
            used: amount(used),
            waiting: 0,
            waiting_max: 0,
            warm: Vec::new(),
            images: self.running.iter().map(|id| version(*id)).collect(),
        };
        let standing = Standing::Serving;
        Report { standing, load }
    }
}

/// The version that an invocation is of.
pub(crate) fn version(id: u64) -> Tag {
    Tag(id % 7)
}

pub(crate) fn shard(shard: usize) -> Resource {
    let name = format!("queue/{shard}").parse();
    name.expect("a short name is a resource's")
}

pub(crate) fn queue_key(shard: usize, id: u64) -> String {
    format!("queue/{shard}/{id}")
}

pub(crate) fn outcome_key(id: u64) -> String {
    format!("outcome/{id}")
}

/// The shard and the invocation of a queue's key.
fn queued(key: &[u8]) -> Option<(usize, u64)> {
    let text = std::str::from_utf8(key).ok()?.strip_prefix("queue/")?;
    let (shard, id) = text.split_once('/')?;
    Some((shard.parse().ok()?, id.parse().ok()?))
}
