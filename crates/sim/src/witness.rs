//! Who looks on: at each change of the store and each act of a node, whether what must never
//! happen has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use membership::{Membership, Resource};
use model::{InvocationId, NodeId};
use scheduler::{Holder, Ledger, Resources};
use storage::{Change, Event, Op, Txn};
use xxhash_rust::xxh3::Xxh3;

use crate::host::index_of;
use crate::place::{Done, Job, PLACE_BYTES};
use crate::seats::Seat;
use crate::world::text;
use crate::{Summary, Violation, rooms};

/// An attempt that a node's queue runs.
struct Running {
    id: InvocationId,
    membership: Membership,
    tenure: u64,
}

pub(crate) struct Witness {
    seed: u64,
    violation: Option<Violation>,
    pub summary: Summary,
    trace: Xxh3,
    /// Places of each node.
    pub places: u32,
    /// The memberships of those that are up.
    members: BTreeMap<usize, Membership>,
    /// The records of members that the store has.
    records: BTreeMap<String, u64>,
    /// Tenures, by when they ended.
    left: Vec<(Duration, String, u64)>,
    /// Nodes that leave, with their tenures.
    leaving: BTreeMap<String, u64>,
    /// When there were fewer than two members last.
    alone: Duration,
    /// All invocations, and when each became final.
    invocations: BTreeMap<InvocationId, Option<Duration>>,
    /// What each run gave.
    runs: BTreeMap<InvocationId, Vec<Bytes>>,
    running: BTreeMap<u64, Running>,
    begun: u64,
    seats: BTreeMap<Resource, BTreeMap<u64, Seat>>,
    /// The token of the last write of an owner.
    work: BTreeMap<String, u64>,
    /// What was acknowledged and must be there.
    kept: BTreeSet<String>,
    ledgers: BTreeMap<String, Ledger>,
    given_back: BTreeSet<InvocationId>,
    /// How long decisions took, in nanoseconds of the real clock.
    pub decisions: Vec<u32>,
}

impl Witness {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            violation: None,
            summary: Summary::default(),
            trace: Xxh3::new(),
            places: 0,
            members: BTreeMap::new(),
            records: BTreeMap::new(),
            left: Vec::new(),
            leaving: BTreeMap::new(),
            alone: Duration::ZERO,
            invocations: BTreeMap::new(),
            runs: BTreeMap::new(),
            running: BTreeMap::new(),
            begun: 0,
            seats: BTreeMap::new(),
            work: BTreeMap::new(),
            kept: BTreeSet::new(),
            ledgers: BTreeMap::new(),
            given_back: BTreeSet::new(),
            decisions: Vec::new(),
        }
    }

    /// An invariant does not hold; the first one counts.
    pub fn broken(&mut self, after: Duration, what: String) {
        let seed = self.seed;
        self.violation
            .get_or_insert(Violation { seed, after, what });
    }

    pub fn violation(&self) -> Option<Violation> {
        self.violation.clone()
    }

    pub fn up(&mut self, node: usize, membership: Membership) {
        self.members.insert(node, membership);
    }

    pub fn down(&mut self, node: usize) {
        self.members.remove(&node);
    }

    /// A client has heard that its invocation is accepted; `before`, if it was told so before.
    pub fn accepted(&mut self, now: Duration, id: InvocationId, before: Option<InvocationId>) {
        match before {
            None => self.summary.accepted += 1,
            Some(before) if before == id => (),
            Some(before) => {
                self.broken(
                    now,
                    format!("one key has two invocations, {before} and {id}"),
                );
            }
        }
        if !self.invocations.contains_key(&id) {
            self.broken(now, format!("{id} was acknowledged and is not there"));
        }
    }

    /// Takes what the store has just committed.
    pub fn changed(&mut self, now: Duration, news: &[Event]) {
        for event in news {
            let key = text(&event.key).to_owned();
            let value = match &event.change {
                Change::Put(value) => Some(value),
                Change::Delete => None,
            };
            self.trace(now, &key, value, event.revision.0);
            if let Some(node) = key.strip_prefix("cluster/node/") {
                self.record(now, node, value.map(|_| event.revision.0));
            } else if let Some(name) = key.strip_prefix("cluster/own/") {
                if let (Some(value), Ok(name)) = (value, name.parse()) {
                    self.owned(now, &name, text(value));
                }
            } else if let Some(id) = key.strip_prefix("inv/s/") {
                if let (Some(value), Ok(id)) = (value, id.parse()) {
                    self.progress(now, id, text(value));
                }
            } else if let (Some(name), Some(value)) = (key.strip_prefix("work/"), value) {
                self.worked(now, name, text(value));
            } else if let (Some(node), Some(value)) = (rooms::node_of(&key), value) {
                self.ledger(now, node, event.revision.0, text(value));
            }
        }
    }

    fn trace(&mut self, now: Duration, key: &str, value: Option<&Bytes>, revision: u64) {
        self.summary.revision = revision;
        self.trace.update(&now.as_micros().to_le_bytes());
        self.trace.update(key.as_bytes());
        // A function's record has the time of the machine.
        let value = value.filter(|_| !key.starts_with("fn/"));
        self.trace.update(value.map_or(&[], |value| value));
        self.trace.update(&revision.to_le_bytes());
    }

    /// A node's record has come or gone: its tenure must be over by then, by its own account.
    fn record(&mut self, now: Duration, node: &str, token: Option<u64>) {
        if self.records.len() < 2 {
            self.alone = now;
        }
        let before = match token {
            Some(token) => {
                self.summary.tenures += 1;
                self.records.insert(node.to_owned(), token)
            }
            None => {
                let before = self.records.remove(node);
                let token = before.unwrap_or_default();
                self.left.push((now, node.to_owned(), token));
                self.leaving.remove(node);
                before
            }
        };
        if self.records.len() < 2 {
            self.alone = now;
        }
        let index = node.parse().ok().and_then(|id| index_of(&id));
        let member = index.and_then(|index| self.members.get(&index));
        let own = member
            .and_then(Membership::tenure)
            .map(|tenure| tenure.token);
        if let (Some(before), Some(own)) = (before, own)
            && own == before
        {
            self.broken(
                now,
                format!("{node} is a member at {own}, and the store says no"),
            );
        }
    }

    /// A node is told to stop: what it has in memory only goes with it.
    pub fn leaves(&mut self, node: &NodeId) {
        if let Some(token) = self.records.get(node.as_str()) {
            self.leaving.insert(node.as_str().to_owned(), *token);
        }
    }

    /// How many tenures have ended since, or are about to.
    pub fn left_since(&self, since: Duration) -> usize {
        let ended = self.left.iter().filter(|(left, ..)| *left >= since);
        ended.count() + self.leaving.len()
    }

    /// Whether there was a time since when a node could have no other.
    pub fn was_alone_since(&self, since: Duration) -> bool {
        self.alone >= since || self.records.len() < 2
    }

    /// A resource has a new owner: no earlier one may hold itself for that.
    fn owned(&mut self, now: Duration, name: &Resource, owner: &str) {
        let seats = self.seats.get(name).into_iter().flatten();
        let acts = |seat: &Seat| {
            let tenure = seat.membership.tenure().map(|tenure| tenure.token);
            seat.is_held.load(Ordering::Relaxed) && tenure == Some(seat.tenure)
        };
        let still = seats
            .filter(|(_, seat)| acts(seat))
            .map(|(token, _)| *token)
            .next();
        if let Some(token) = still {
            let what = format!("{name} is given to {owner}, and its owner at {token} still acts");
            self.broken(now, what);
        }
    }

    /// A node holds itself for the owner of a resource from now on.
    pub fn claimed(&mut self, now: Duration, name: &Resource, token: u64, seat: Seat) {
        self.summary.claims += 1;
        let seats = self.seats.entry(name.clone()).or_default();
        let last = seats.last_key_value().map(|(token, _)| *token);
        let who = seat.membership.id().clone();
        let other = seats
            .get(&token)
            .is_some_and(|other| (other.membership.id(), other.tenure) != (&who, seat.tenure));
        seats.insert(token, seat);
        if other {
            self.broken(now, format!("{name} has two owners at {token}"));
        } else if last.is_some_and(|last| last > token) {
            self.broken(
                now,
                format!("{name} has an owner at {token} after one at {last:?}"),
            );
        }
    }

    fn worked(&mut self, now: Duration, name: &str, token: &str) {
        let token = token.parse().unwrap_or_default();
        let last = self.work.insert(name.to_owned(), token);
        if last.is_some_and(|last| last > token) {
            let what = format!("a write of seat {name}'s owner at {token} came after {last:?}'s");
            self.broken(now, what);
        }
    }

    fn progress(&mut self, now: Duration, id: InvocationId, record: &str) {
        let is_final = !record.contains(r#""expires_ms":null"#);
        let ended = self.invocations.entry(id).or_default();
        if ended.is_some() {
            return self.broken(now, format!("{id} changes after its end: {record}"));
        }
        if is_final {
            *ended = Some(now);
            self.summary.dead += u64::from(record.contains(r#""state":"dead""#));
            if record.contains(r#""state":"failed""#) {
                self.broken(
                    now,
                    format!("{id} failed, though its function is there: {record}"),
                );
            }
        }
    }

    /// A ledger was put: it must hold what others have reserved, and no more than there is.
    fn ledger(&mut self, now: Duration, node: &str, revision: u64, value: &str) {
        let Some(next) = rooms::decode(revision, value) else {
            return self.broken(now, format!("{node}'s ledger cannot be read: {value}"));
        };
        let is_alive = |holder: &Holder| {
            let token = self.records.get(holder.node.as_str());
            token == Some(&holder.token)
        };
        let before = self.ledgers.get(node);
        let lost =
            before
                .into_iter()
                .flat_map(|before| &before.entries)
                .find(|(group, (holder, _))| {
                    let is_there = next.entries.contains_key(group);
                    !is_there && is_alive(holder) && !self.given_back.contains(group)
                });
        let lost = lost.map(|(group, _)| *group);
        let held = next.held(is_alive);
        let capacity = Resources {
            places: self.places,
            memory_bytes: u64::from(self.places) * PLACE_BYTES,
        };
        if let Some(group) = lost {
            self.broken(now, format!("{node} has lost what it reserved for {group}"));
        }
        if !held.fits_in(capacity) {
            self.broken(now, format!("{held} are reserved of {node}'s {capacity}"));
        }
        self.ledgers.insert(node.to_owned(), next);
    }

    pub fn gives_back(&mut self, group: InvocationId) {
        self.given_back.insert(group);
    }

    pub fn grouped(&mut self, has_room: bool) {
        match has_room {
            true => self.summary.groups += 1,
            false => self.summary.groups_again += 1,
        }
    }

    pub fn written(&mut self, key: String) {
        self.summary.written += 1;
        self.kept.insert(key);
    }

    /// A transaction had no effect: of an owner's, its token was an old one.
    pub fn conflict(&mut self, txn: &Txn) {
        let is_work = |op: &Op| op.key().starts_with(b"work/");
        self.summary.fenced += u64::from(txn.ops.iter().any(is_work));
    }

    /// A node's queue begins an attempt: no other node whose tenure lasts may run one of it.
    pub fn begins(&mut self, now: Duration, id: InvocationId, membership: &Membership) -> u64 {
        let present = |membership: &Membership| membership.tenure().map(|tenure| tenure.token);
        let twice = self.running.values().find(|running| {
            running.id == id && present(&running.membership) == Some(running.tenure)
        });
        if let Some(running) = twice {
            let (one, other) = (running.membership.id(), membership.id());
            let what = format!("{id} is run by {one} and by {other}, and both are members");
            self.broken(now, what);
        }
        self.begun += 1;
        if let Some(tenure) = present(membership) {
            let membership = membership.clone();
            let running = Running {
                id,
                membership,
                tenure,
            };
            self.running.insert(self.begun, running);
        }
        self.begun
    }

    pub fn ends(&mut self, number: u64) {
        self.running.remove(&number);
    }

    /// A run has ended.
    pub fn ran(&mut self, job: &Job, node: usize) -> Done {
        self.summary.runs += 1;
        let body = format!("{} {} n{node} {}", job.id, job.number, self.summary.runs);
        let body = Bytes::from(body);
        if self.places > 0 {
            self.runs.entry(job.id).or_default().push(body.clone());
        }
        let status = job.status();
        Done { status, body }
    }

    pub fn forwarded(&mut self) {
        self.summary.forwarded += 1;
    }

    pub fn decided(&mut self, took: Duration) {
        // A decision takes less than four seconds.
        self.decisions.push(took.as_nanos() as u32);
    }

    /// A client has the reply of an invocation that has ended: some run must have given it.
    pub fn replied(&mut self, now: Duration, id: InvocationId, body: &Bytes) {
        let runs = self.runs.get(&id).map(Vec::as_slice).unwrap_or_default();
        // A platform's failure has an empty one.
        if !body.is_empty() && !runs.contains(body) {
            self.broken(now, format!("no run of {id} gave its reply {body:?}"));
        }
    }

    /// When an invocation became final; none where it is not there.
    pub fn ended(&self, id: InvocationId) -> Option<Option<Duration>> {
        self.invocations.get(&id).copied()
    }

    /// Those that have no outcome.
    pub fn open(&self) -> Vec<InvocationId> {
        let open = self.invocations.iter().filter(|(_, ended)| ended.is_none());
        open.map(|(id, _)| *id).collect()
    }

    pub fn kept(&self) -> &BTreeSet<String> {
        &self.kept
    }

    /// What came of it; nothing of the simulation is held any more.
    pub fn conclude(&mut self) -> Summary {
        self.summary.trace = self.trace.digest();
        self.members.clear();
        self.seats.clear();
        self.running.clear();
        self.summary
    }
}
