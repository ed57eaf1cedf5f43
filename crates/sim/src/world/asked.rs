//! What the store does with what it is asked.

use membership::{Action, Event, Record};
use model::InvocationId;
use scheduler::{Holder, Reservation, Resources};
use storage::{Op, Revision, Txn};

use super::{Answer, Ask, Step, World, is_alive};
use crate::node::{Held, PLACE_BYTES, outcome_key};
use crate::store::Gone;

impl World {
    pub(super) fn asked(&mut self, node: usize, life: u64, ask: Ask) {
        let now = self.now;
        let answer = match ask {
            Ask::Session(action) => self.session_asked(node, action),
            Ask::Claim { shard, tenure, txn } => {
                let made = self.store.transact(now, &txn);
                made.ok().flatten().map(|Revision(token)| {
                    let last = self.claims.insert(shard, token);
                    assert!(last < Some(token), "tokens of shard {shard} only grow");
                    self.summary.claims += 1;
                    let held = Held { token, tenure };
                    Answer::Claimed { shard, held }
                })
            }
            Ask::Outcome { id, txn } => {
                match self.store.transact(now, &txn) {
                    Ok(Some(_)) => self.summary.outcomes += 1,
                    _ => {
                        let is_there = self.store.get(outcome_key(id).as_bytes()).is_some();
                        self.summary.fenced += u64::from(!is_there);
                    }
                }
                None
            }
            Ask::Tell(txn) => {
                self.told(&txn);
                None
            }
            Ask::Reserve {
                group,
                holder,
                reservations,
            } => {
                self.reserve(group, &holder, &reservations);
                None
            }
        };
        self.check_owners();
        if let Some(answer) = answer
            && !self.cut.contains(&node)
        {
            self.send(Step::Answered { node, life, answer });
        }
    }

    /// A transaction that nobody waits for; of a queue's entry its client hears.
    pub(super) fn told(&mut self, txn: &Txn) {
        let made = self.store.transact(self.now, txn);
        for op in &txn.ops {
            if let Op::Put { key, .. } = op
                && let Some(id) = key.strip_prefix(b"queue/".as_slice())
                && made != Err(Gone)
            {
                let id = id.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                let id: Option<u64> = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
                self.accepted.extend(id);
            }
        }
    }

    pub(super) fn session_asked(&mut self, node: usize, action: Action) -> Option<Answer> {
        let (now, end) = (self.now, self.now + self.plan.terms.ttl);
        let answer = match action {
            Action::Grant(n) => {
                let lease = self.store.grant(end);
                self.plan(end, Step::LeaseEnds);
                Answer::Session(n, Event::Granted(n, lease))
            }
            Action::Join(n, lease) => {
                let record = Record {
                    address: String::new(),
                    software: String::new(),
                };
                let txn = record.join(&self.nodes[node].id, lease);
                let event = match self.store.transact(now, &txn) {
                    Ok(Some(Revision(token))) => {
                        self.summary.tenures += 1;
                        Event::Joined(n, token)
                    }
                    Ok(None) => Event::Taken(n),
                    Err(Gone) => Event::Gone(n),
                };
                Answer::Session(n, event)
            }
            Action::Keep(n, lease) => {
                self.plan(end, Step::LeaseEnds);
                let kept = self.store.keep(lease, end);
                let event = if kept.is_ok() {
                    Event::Kept(n)
                } else {
                    Event::Gone(n)
                };
                Answer::Session(n, event)
            }
            Action::Revoke(lease) => {
                self.store.revoke(now, lease);
                return None;
            }
        };
        Some(answer)
    }

    pub(super) fn answered(&mut self, node: usize, answer: Answer) {
        match answer {
            Answer::Session(number, event) => {
                if self.nodes[node].open.remove(&number) {
                    self.tell(node, Some(event));
                }
            }
            Answer::Claimed { shard, held } => {
                // One that it gave up meanwhile is not its own again.
                if !self.nodes[node].released.contains(&held.token) {
                    self.nodes[node].owned.insert(shard, held);
                }
            }
        }
        self.check_owners();
    }

    /// All of a group's reservations, or none: each against the ledger that it was decided by.
    pub(super) fn reserve(&mut self, group: InvocationId, holder: &Holder, all: &[Reservation]) {
        let capacity = Resources {
            places: self.plan.places,
            memory_bytes: u64::from(self.plan.places) * PLACE_BYTES,
        };
        let mut next = Vec::new();
        for reservation in all {
            let at = self
                .nodes
                .iter()
                .position(|node| node.id == reservation.node);
            let at = at.expect("a node of the view is one of the world's");
            let ledger = self.ledgers.get(&at).cloned().unwrap_or_default();
            let alive = |holder: &Holder| is_alive(&self.store, holder);
            match ledger.with(reservation, holder.clone(), capacity, alive) {
                Ok(ledger) if alive(holder) => next.push((at, ledger)),
                _ => {
                    self.summary.groups_late += 1;
                    return;
                }
            }
        }
        self.summary.groups += 1;
        self.count += 1;
        for (at, mut ledger) in next {
            ledger.revision = self.count;
            // Half of the groups are over at once, the others with their holder's tenure.
            if self.dice.chance(500) {
                ledger = ledger.without(group);
            }
            let held = ledger.held(|holder| is_alive(&self.store, holder));
            assert!(held.fits_in(capacity), "{held} reserved of {capacity}");
            self.ledgers.insert(at, ledger);
        }
    }
}
