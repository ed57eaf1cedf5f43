//! What all nodes have in common: time, chance, the store, the network, and who looks on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::InvocationId;
use parking_lot::Mutex;
use storage::{Blobs, Event, StorageError, Txn, TxnOutcome};
use tokio::sync::oneshot;

use crate::dice::Dice;
use crate::host::Host;
use crate::link::{Answer, Answered, Ask};
use crate::post::Post;
use crate::shelf::Shelf;
use crate::values::Values;
use crate::watchers::Watchers;
use crate::weather::{Way, Weather};
use crate::witness::Witness;
use crate::{Fault, Plan};

/// Milliseconds since 1970 at which every simulation begins.
pub(crate) const BEGAN_MS: u64 = 1_700_000_000_000;
/// The least number of a thing whose turn among those of its moment is no matter.
const FIRST: u64 = 0;

pub(crate) struct World {
    pub plan: Plan,
    pub dice: Dice,
    pub post: Post,
    pub weather: Weather,
    pub witness: Mutex<Witness>,
    pub blobs: Blobs,
    /// Who waits for which invocation, at which node and since when.
    pub waits: Mutex<BTreeMap<InvocationId, (usize, Duration)>>,
    pub values: Mutex<Values>,
    /// Those that are up.
    pub hosts: Mutex<Vec<Option<Arc<Host>>>>,
    shelf: Mutex<Shelf>,
    watchers: Mutex<Watchers>,
    /// When the next lease ends, as far as somebody will look.
    looks_at: Mutex<Option<Duration>>,
}

#[derive(Debug, thiserror::Error)]
#[error("no space left")]
struct NoSpace;

impl World {
    pub fn new(plan: Plan) -> Arc<Self> {
        let dice = Dice::new(plan.seed);
        let weather = Weather::of(&plan, dice);
        Self::under(plan, weather)
    }

    /// A world whose weather is always fair.
    pub fn fair(plan: Plan) -> Arc<Self> {
        let weather = Weather::fair(Dice::new(plan.seed));
        Self::under(plan, weather)
    }

    fn under(plan: Plan, weather: Weather) -> Arc<Self> {
        let mut shelf = Shelf::default();
        shelf.ignores_compares = plan.fault == Some(Fault::ComparesForgotten);
        Arc::new(Self {
            dice: Dice::new(plan.seed),
            weather,
            post: Post::new(),
            witness: Mutex::new(Witness::new(plan.seed)),
            blobs: Blobs::in_memory(),
            waits: Mutex::default(),
            values: Mutex::new(Values::new()),
            hosts: Mutex::new(vec![None; plan.nodes]),
            shelf: Mutex::new(shelf),
            watchers: Mutex::default(),
            looks_at: Mutex::default(),
            plan,
        })
    }

    /// The node, if it is up.
    pub fn host(&self, node: usize) -> Option<Arc<Host>> {
        self.hosts.lock().get(node).cloned().flatten()
    }

    /// Looks at the store from outside of the simulation.
    pub fn look<R>(&self, look: impl FnOnce(&Shelf) -> R) -> R {
        look(&self.shelf.lock())
    }

    /// The store hears a request.
    pub fn asked(
        self: &Arc<Self>,
        node: usize,
        number: u64,
        ask: Ask,
        reply: oneshot::Sender<Answered>,
    ) {
        let now = self.post.now();
        // What it does not hear is lost. Node numbers beyond the cluster's are those of operators.
        if self.weather.is_out(now) && node < self.plan.nodes {
            return;
        }
        let disk = match ask {
            Ask::Transact(_) => self.weather.disk(now, number),
            _ => Duration::ZERO,
        };
        if disk.is_zero() {
            return self.answer(node, number, ask, reply);
        }
        let world = self.clone();
        self.post.at(now + disk, number, move || {
            world.answer(node, number, ask, reply)
        });
    }

    fn answer(
        self: &Arc<Self>,
        node: usize,
        number: u64,
        ask: Ask,
        reply: oneshot::Sender<Answered>,
    ) {
        let answered = self.perform(node, number, ask);
        let now = self.post.now();
        if let Way::Arrives(at) = self.weather.answers(now, number, node) {
            // One that nobody waits for any more is no answer.
            self.post.at(at, number, move || drop(reply.send(answered)));
        }
    }

    fn perform(self: &Arc<Self>, node: usize, number: u64, ask: Ask) -> Answered {
        let now = self.post.now();
        match ask {
            Ask::Get(key) => Ok(Answer::Got(self.shelf.lock().get(&key))),
            Ask::Range(range) => Ok(Answer::Page(self.shelf.lock().range(&range))),
            Ask::Transact(txn) => self.transact(now, number, &txn),
            Ask::Watch(prefix, from) => {
                let from = from.unwrap_or(self.shelf.lock().revision());
                let (watcher, watch) = self.watchers.lock().watch(node, prefix, from);
                self.tell_later(watcher, node);
                Ok(Answer::Watch(watch))
            }
            Ask::Lease(ttl) => {
                let lasts = self.lasts(node, ttl);
                let lease = self.shelf.lock().grant(now, ttl, lasts)?;
                self.look_at(now + lasts);
                Ok(Answer::Lease(lease))
            }
            Ask::Keep(lease) => {
                let ends = self.shelf.lock().keep(now, lease)?;
                self.look_at(ends);
                Ok(Answer::Done)
            }
            Ask::Revoke(lease) => {
                let revoked = self.shelf.lock().revoke(lease);
                self.changed();
                revoked.map(|()| Answer::Done)
            }
        }
    }

    fn transact(self: &Arc<Self>, now: Duration, number: u64, txn: &Txn) -> Answered {
        let puts = |op: &storage::Op| matches!(op, storage::Op::Put { .. });
        if self.weather.is_full(now) && txn.ops.iter().any(puts) {
            let (doing, source) = ("committing", Arc::new(NoSpace));
            return Err(StorageError::Full { doing, source });
        }
        if self.plan.fault == Some(Fault::WritesLost)
            && self.dice.throw("lost", &[number]).chance(20)
        {
            let revision = self.shelf.lock().revision();
            return Ok(Answer::Outcome(TxnOutcome::Committed { revision }));
        }
        let outcome = self.shelf.lock().transact(txn)?;
        self.changed();
        if outcome == TxnOutcome::Conflict {
            self.witness.lock().conflict(txn);
        }
        Ok(Answer::Outcome(outcome))
    }

    /// How long a lease of a node lasts by the store's clock, which is the faster one.
    fn lasts(&self, node: usize, ttl: Duration) -> Duration {
        let most = match self.plan.fault {
            Some(Fault::ClocksTooSlow) => 700,
            _ => self.plan.troubles.drift_permille,
        };
        let drift = self.dice.throw("drift", &[node as u64]).below(most + 1);
        // At most a thousand.
        ttl * (1000 - drift) as u32 / 1000
    }

    /// Looks when leases end.
    fn look_at(self: &Arc<Self>, time: Duration) {
        let mut looks_at = self.looks_at.lock();
        if looks_at.is_some_and(|at| at <= time) {
            return;
        }
        *looks_at = Some(time);
        let world = self.clone();
        self.post.at(time, FIRST, move || world.expire());
    }

    fn expire(self: &Arc<Self>) {
        let next = self.shelf.lock().expire(self.post.now());
        self.changed();
        *self.looks_at.lock() = None;
        if let Some(next) = next {
            self.look_at(next);
        }
    }

    /// Tells those who look on, and those who watch.
    fn changed(self: &Arc<Self>) {
        let news = self.shelf.lock().news();
        if news.is_empty() {
            return;
        }
        self.witness.lock().changed(self.post.now(), &news);
        let due = self.watchers.lock().add(&news);
        for (watcher, node) in due {
            self.tell_later(watcher, node);
        }
    }

    fn tell_later(self: &Arc<Self>, watcher: u64, node: usize) {
        let world = self.clone();
        let way = self.weather.answers(self.post.now(), watcher, node);
        match way {
            Way::Arrives(at) => {
                self.post.at(at, watcher, move || world.tell(watcher));
            }
            // The connection is lost with what was on it.
            Way::Lost => self.watchers.lock().end(watcher),
        }
    }

    fn tell(&self, watcher: u64) {
        let dice = self.dice;
        let forgets = self.plan.fault == Some(Fault::EventsLost);
        let is_withheld = |event: &Event| {
            let of = [watcher, event.revision.0];
            forgets && dice.throw("withheld", &of).chance(100)
        };
        self.watchers.lock().tell(watcher, is_withheld);
    }
}

/// A key's value, as text.
pub(crate) fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
