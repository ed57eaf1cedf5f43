//! Groups: nodes reserve room for them on many nodes at once, by compare-and-swap on the ledgers,
//! and give it back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{InvocationId, NodeId};
use scheduler::{
    Demand, Holder, Ledger, Policy, Reservation, Resources, Tag, Weights, decide_group,
};
use storage::{Range, Revision, Store, Txn, TxnOutcome};

use crate::Fault;
use crate::host::Host;
use crate::place::PLACE_BYTES;

const ROOT: &str = "room/";
/// The records of members.
const MEMBERS: &str = "cluster/node/";
/// From one group of a node to the next, at most.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// How long a group has its room at most.
const HOLD_MAX: Duration = Duration::from_secs(4);
/// How often a group is decided anew when others have come before it.
const TRIES_MAX: u64 = 5;
/// Most members of a group.
const MEMBERS_MAX: u64 = 8;

/// What the store has of a ledger.
pub(crate) fn encode(ledger: &Ledger) -> String {
    let line = |(group, (holder, amount)): (&InvocationId, &(Holder, Resources))| {
        let Holder { node, token } = holder;
        let Resources {
            places,
            memory_bytes,
        } = amount;
        format!("{group} {node} {token} {places} {memory_bytes}\n")
    };
    ledger.entries.iter().map(line).collect()
}

/// None for bytes that are no ledger.
pub(crate) fn decode(revision: u64, text: &str) -> Option<Ledger> {
    let mut entries = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let group: InvocationId = words.next()?.parse().ok()?;
        let node: NodeId = words.next()?.parse().ok()?;
        let token = words.next()?.parse().ok()?;
        let amount = Resources {
            places: words.next()?.parse().ok()?,
            memory_bytes: words.next()?.parse().ok()?,
        };
        entries.insert(group, (Holder { node, token }, amount));
    }
    Some(Ledger { revision, entries })
}

/// The node that a ledger's key is of.
pub(crate) fn node_of(key: &str) -> Option<&str> {
    key.strip_prefix(ROOT)
}

fn key(node: &NodeId) -> String {
    format!("{ROOT}{node}")
}

/// Reserves for one group after the other, as long as groups come.
pub(crate) async fn reserve(host: Arc<Host>, store: Arc<dyn Store>) {
    let world = &host.world;
    for n in 0.. {
        let mut throw = world.dice.throw("group", &[host.node as u64, host.life, n]);
        tokio::time::sleep(throw.time(PAUSE_MAX)).await;
        if world.post.now() >= world.plan.span {
            return;
        }
        let now_ms = world.post.now().as_millis() as u64;
        let group = InvocationId::from_parts(now_ms, throw.word().into());
        let members = 1 + throw.below(MEMBERS_MAX) as u32;
        for _ in 0..TRIES_MAX {
            match try_reserve(&host, &*store, group, members).await {
                Some(true) => {
                    world.witness.lock().grouped(true);
                    tokio::time::sleep(throw.time(HOLD_MAX)).await;
                    // Half of them are given back; the others go with their holder's tenure.
                    if throw.chance(700) {
                        give_back(&host, &*store, group).await;
                    }
                    break;
                }
                Some(false) => world.witness.lock().grouped(false),
                None => break,
            }
        }
    }
}

/// What is reserved, and who of those who have done so is alive.
struct Books {
    ledgers: BTreeMap<NodeId, Ledger>,
    /// The tokens of the members.
    alive: BTreeMap<NodeId, u64>,
    none: Ledger,
}

impl Books {
    fn of(&self, node: &NodeId) -> &Ledger {
        self.ledgers.get(node).unwrap_or(&self.none)
    }

    fn is_alive(&self, holder: &Holder) -> bool {
        self.alive.get(&holder.node) == Some(&holder.token)
    }
}

/// Reads all ledgers; none where the store does not answer.
async fn read(store: &dyn Store) -> Option<Books> {
    let mut ledgers = BTreeMap::new();
    for entry in store.range(Range::prefix(ROOT)).await.ok()?.entries {
        let node = node_of(std::str::from_utf8(&entry.key).ok()?)?
            .parse()
            .ok()?;
        let ledger = decode(entry.revision.0, std::str::from_utf8(&entry.value).ok()?)?;
        ledgers.insert(node, ledger);
    }
    // After the ledgers: whoever is in one of them was a member when it was written, so that one
    // whose record is not there now is gone for good. A roster may not have heard of it yet.
    let mut alive = BTreeMap::new();
    for entry in store.range(Range::prefix(MEMBERS)).await.ok()?.entries {
        let name = std::str::from_utf8(&entry.key)
            .ok()?
            .strip_prefix(MEMBERS)?;
        alive.insert(name.parse().ok()?, entry.revision.0);
    }
    Some(Books {
        ledgers,
        alive,
        none: Ledger::default(),
    })
}

/// True when it has its room, false when others were faster, none when there is no room, or no
/// store.
async fn try_reserve(
    host: &Host,
    store: &dyn Store,
    group: InvocationId,
    members: u32,
) -> Option<bool> {
    let token = host.membership.tenure()?.token;
    let books = read(store).await?;
    let nodes: Vec<NodeId> = host
        .membership
        .look(|r| r.peers().keys().cloned().collect());
    for node in &nodes {
        let ledger = books.of(node);
        let held = ledger.held(|holder| books.is_alive(holder));
        host.membership
            .look_mut(|r| r.view_mut().reserve(node, ledger, held));
    }
    let holder = Holder {
        node: host.membership.id().clone(),
        token,
    };
    let demand = demand(&holder.node, group);
    let weights = Weights::default();
    let decide = |r: &membership::Roster| decide_group(r.view(), group, members, &demand, &weights);
    let decision = host.membership.look(decide);
    if decision.outcome.is_err() {
        return None;
    }
    // Whoever is no member reserves nothing.
    let record = membership::record_key(&holder.node);
    let mut txn = Txn::new().if_revision(record, Revision(token));
    for reservation in &decision.reservations {
        let ledger = books.of(&reservation.node);
        let next = with(host, &books, reservation, holder.clone())?;
        txn = put(host, txn, &reservation.node, ledger.revision, &next);
    }
    match store.transact(txn).await {
        Ok(TxnOutcome::Committed { .. }) => Some(true),
        Ok(TxnOutcome::Conflict) => Some(false),
        // If it was done it goes with the tenure.
        Err(_) => None,
    }
}

fn with(host: &Host, books: &Books, reservation: &Reservation, holder: Holder) -> Option<Ledger> {
    let report = |r: &membership::Roster| r.report(&reservation.node).cloned();
    let capacity = host.membership.look(report)?.load.capacity;
    let alive = |holder: &Holder| books.is_alive(holder);
    books
        .of(&reservation.node)
        .with(reservation, holder, capacity, alive)
        .ok()
}

fn put(host: &Host, txn: Txn, node: &NodeId, revision: u64, ledger: &Ledger) -> Txn {
    let txn = match revision {
        _ if host.world.plan.fault == Some(Fault::LedgersOverwritten) => txn,
        0 => txn.if_absent(key(node)),
        revision => txn.if_revision(key(node), Revision(revision)),
    };
    txn.put(key(node), encode(ledger))
}

fn demand(here: &NodeId, group: InvocationId) -> Demand {
    Demand {
        here: here.clone(),
        version: Tag(1),
        image_bytes: 0,
        needs: Resources {
            places: 1,
            memory_bytes: PLACE_BYTES,
        },
        input_bytes: 0,
        data: Vec::new(),
        run_us: 100_000,
        avoid: Vec::new(),
        policy: Policy::Spread,
        seed: group.as_u128() as u64,
    }
}

/// Gives back what a group has, unless its holder's tenure does so before.
async fn give_back(host: &Host, store: &dyn Store, group: InvocationId) {
    host.world.witness.lock().gives_back(group);
    for _ in 0..TRIES_MAX {
        let Some(books) = read(store).await else {
            return;
        };
        let mut txn = Txn::new();
        for (node, ledger) in books.ledgers {
            if ledger.entries.contains_key(&group) {
                txn = put(host, txn, &node, ledger.revision, &ledger.without(group));
            }
        }
        if txn.ops.is_empty()
            || store
                .transact(txn)
                .await
                .is_ok_and(TxnOutcome::is_committed)
        {
            return;
        }
    }
}
