//! What nodes and clients do.

use membership::{Event, Owner, ROOT, Standpoint};
use scheduler::{Demand, Holder, Policy, Resources, Weights, decide, decide_group};
use storage::{Change, LeaseId, Txn};

use super::{AGAIN, Ask, MS, RUN_AGAIN, Step, TICK, World, is_alive};
use crate::node::{Held, PLACE_BYTES, outcome_key, queue_key, shard, version};

impl World {
    /// A node looks at what it knows, and acts.
    pub(super) fn tick(&mut self, node: usize) {
        self.tell(node, None);
        if !self.cut.contains(&node) {
            self.read(node);
        }
        if let Some(standpoint) = self.nodes[node].standpoint(self.now) {
            self.report(node, standpoint.lease);
            for shard in 0..self.plan.shards {
                self.care_for(node, shard, standpoint);
            }
            self.work(node);
        }
        let life = self.nodes[node].life;
        let at = self.now + TICK + self.dice.time(MS);
        self.plan(at, Step::Tick { node, life });
    }

    /// Reads the store's log up to a little while ago, and the ledgers.
    pub(super) fn read(&mut self, node: usize) {
        let lag = self.dice.time(self.plan.delay_max * 3);
        let log = &self.store.log[self.nodes[node].read..];
        let known = log.iter().take_while(|(at, _)| *at + lag <= self.now);
        let known: Vec<_> = known.map(|(_, event)| event.clone()).collect();
        self.nodes[node].read += known.len();
        let own = format!("{ROOT}node/{}", self.nodes[node].id);
        for event in known {
            self.nodes[node].hear(&event);
            if event.key == own.as_bytes() && event.change == Change::Delete {
                self.tell(node, Some(Event::Freed));
            }
        }
        for (at, ledger) in &self.ledgers {
            let held = ledger.held(|holder| is_alive(&self.store, holder));
            let id = self.nodes[*at].id.clone();
            // One that is not in the view has nothing to decide about.
            let _known = self.nodes[node]
                .roster
                .view_mut()
                .reserve(&id, ledger, held);
        }
    }

    pub(super) fn report(&mut self, node: usize, lease: LeaseId) {
        let now = self.now;
        let it = &mut self.nodes[node];
        let every = if it.reported.is_zero() { MS } else { MS * 300 };
        if now >= it.reported + every {
            it.reported = now;
            let txn = it.report(self.plan.places).put(&it.id, lease);
            self.ask(node, Ask::Tell(txn));
        }
    }

    /// Claims a shard that should be this node's and is nobody's; gives up one that should be
    /// another's.
    pub(super) fn care_for(&mut self, node: usize, at: usize, standpoint: Standpoint) {
        let resource = shard(at);
        let it = &mut self.nodes[node];
        let preferred = it.roster.preferred(resource.as_str().as_bytes()).cloned();
        let owner = Owner {
            node: it.id.clone(),
            token: standpoint.token,
        };
        let known = it.roster.owner(&resource);
        let mine = known
            .filter(|(by, _)| **by == owner)
            .map(|(_, token)| token);
        let is_free = known.is_none();
        let tenure = standpoint.token;
        let is_preferred = preferred.as_ref() == Some(&it.id);
        if let Some(token) = mine
            && (!is_preferred || it.released.contains(&token))
        {
            it.released.insert(token);
            it.owned.remove(&at);
            self.ask(node, Ask::Tell(resource.release(token)));
        } else if let Some(token) = mine {
            // The answer to its claim was lost; the log has told it.
            it.owned.insert(at, Held { token, tenure });
        } else if is_free && is_preferred {
            let last = it.claimed.get(&at).copied();
            if last.is_none_or(|last| self.now >= last + AGAIN) {
                it.claimed.insert(at, self.now);
                let txn = owner.claim(&resource, standpoint.lease);
                let shard = at;
                self.ask(node, Ask::Claim { shard, tenure, txn });
            }
        }
    }

    /// Sends off what waits in the node's shards, and puts outcomes of what has run.
    pub(super) fn work(&mut self, node: usize) {
        let now = self.now;
        let waits: Vec<(u64, usize)> = self.nodes[node]
            .queue
            .iter()
            .map(|(id, shard)| (*id, *shard))
            .collect();
        for (id, at) in waits {
            let Some(held) = self.nodes[node].owns(now, at) else {
                continue;
            };
            let it = &mut self.nodes[node];
            if let Some(put) = it.done.get_mut(&id) {
                if put.is_none_or(|put| now >= put + AGAIN) {
                    *put = Some(now);
                    let txn = Txn::new()
                        .if_absent(outcome_key(id))
                        .put(outcome_key(id), held.token.to_string())
                        .delete(queue_key(at, id));
                    let txn = shard(at).guard(txn, held.token);
                    self.ask(node, Ask::Outcome { id, txn });
                }
            } else if it.sent.get(&id).is_none_or(|sent| now >= *sent + RUN_AGAIN) {
                self.send_off(node, id);
            }
        }
    }

    pub(super) fn demand(&mut self, node: usize, id: u64, members: u32) -> Demand {
        let policy = Policy::ALL[self.dice.index(Policy::ALL.len())];
        Demand {
            here: self.nodes[node].id.clone(),
            version: version(id),
            image_bytes: 1 << 20,
            needs: Resources {
                places: 1,
                memory_bytes: PLACE_BYTES,
            },
            input_bytes: 1 << 10,
            data: Vec::new(),
            run_us: 100_000,
            avoid: Vec::new(),
            policy: if members > 1 {
                policy
            } else {
                Policy::Locality
            },
            seed: self.dice.roll(u64::MAX),
        }
    }

    pub(super) fn send_off(&mut self, node: usize, id: u64) {
        let demand = self.demand(node, id, 1);
        let it = &mut self.nodes[node];
        let decision = decide(it.roster.view(), &demand, &Weights::default());
        // Nobody has room now: it stays in the queue, and this is tried again.
        let Ok(placement) = decision.outcome else {
            return;
        };
        it.sent.insert(id, self.now);
        let is_known = it.roster.view_mut().assume(&placement.node, demand.needs);
        assert!(is_known, "a placement is of the view");
        let to = self
            .nodes
            .iter()
            .position(|other| other.id == placement.node);
        let to = to.expect("a node of the view is one of the world's");
        let from = node;
        self.send_between(from, to, |to| Step::Run { from, to, id });
    }

    /// From node to node: at once to itself, and not at all over a split.
    pub(super) fn send_between(
        &mut self,
        from: usize,
        to: usize,
        step: impl FnOnce(usize) -> Step,
    ) {
        if from == to {
            self.plan(self.now, step(to));
        } else if self.split == 0 || (from < self.split) == (to < self.split) {
            self.send(step(to));
        }
    }

    pub(super) fn start_run(&mut self, from: usize, to: usize, id: u64) {
        let places = self.plan.places as usize;
        let it = &mut self.nodes[to];
        if !it.is_up {
            return;
        }
        if it.running.contains(&id) {
            return;
        }
        if it.running.len() >= places {
            self.summary.rejected += 1;
            let was_run = false;
            self.send_between(to, from, |to| Step::Ran { to, id, was_run });
            return;
        }
        it.running.insert(id);
        self.summary.runs += 1;
        let life = it.life;
        let at = self.now + MS * 20 + self.dice.time(MS * 400);
        let (node, owner) = (to, from);
        self.plan(
            at,
            Step::Ends {
                node,
                life,
                id,
                owner,
            },
        );
    }

    pub(super) fn ran(&mut self, to: usize, id: u64, was_run: bool) {
        let it = &mut self.nodes[to];
        if !it.is_up || !it.queue.contains_key(&id) {
            return;
        }
        if was_run {
            it.done.entry(id).or_insert(None);
        } else {
            it.sent.remove(&id);
        }
    }

    /// A client submits an invocation by any node, again and again until it is accepted.
    pub(super) fn submit(&mut self, id: u64) {
        if self.accepted.contains(&id) {
            return;
        }
        self.plan(self.now + AGAIN * 2, Step::Submit { id });
        let node = self.dice.index(self.nodes.len());
        if self.nodes[node].is_up {
            let key = queue_key(id as usize % self.plan.shards, id);
            let txn = Txn::new().if_absent(outcome_key(id)).if_absent(key.clone());
            self.ask(node, Ask::Tell(txn.put(key, "")));
        }
    }

    /// A node reserves for a group by what it knows of others.
    pub(super) fn group(&mut self, n: u64) {
        let node = self.dice.index(self.nodes.len());
        let Some(standpoint) = self.nodes[node].standpoint(self.now) else {
            return;
        };
        let members = 1 + self.dice.roll(2 * u64::from(self.plan.places)) as u32;
        let demand = self.demand(node, n, members);
        let group = format!("{n:032x}").parse().expect("32 digits");
        let it = &self.nodes[node];
        let weights = Weights::default();
        let decision = decide_group(it.roster.view(), group, members, &demand, &weights);
        if decision.outcome.is_ok() {
            let holder = Holder {
                node: it.id.clone(),
                token: standpoint.token,
            };
            let reservations = decision.reservations;
            self.ask(
                node,
                Ask::Reserve {
                    group,
                    holder,
                    reservations,
                },
            );
        }
    }
}
