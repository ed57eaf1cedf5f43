//! What nodes own: each claims what should be its own, writes as the owner, and gives up what
//! should be another's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use membership::{Claim, Membership, Ownership, Resource};
use parking_lot::Mutex;
use storage::{Store, Txn, TxnOutcome};

use crate::Fault;
use crate::host::Host;
use crate::link::Link;

/// From one look of a node at what it owns to the next.
const EVERY: Duration = Duration::from_millis(250);

/// Something owned, as the witness sees it.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub membership: Membership,
    /// The tenure that it was claimed in.
    pub tenure: u64,
    /// Until it is given up.
    pub is_held: Arc<AtomicBool>,
}

struct Held {
    ownership: Ownership,
    is_held: Arc<AtomicBool>,
    writes: AtomicU64,
}

pub(crate) fn resource(seat: usize) -> Resource {
    // A short name is a resource's.
    format!("seat/{seat}").parse().expect("a short name")
}

/// Keeps what is this node's, for ever.
pub(crate) async fn keep(host: Arc<Host>) {
    let held: Mutex<BTreeMap<usize, Held>> = Mutex::default();
    let store = Link::new(&host.world, host.node, host.life);
    let phase = host
        .world
        .dice
        .throw("phase", &[host.node as u64, host.life]);
    tokio::time::sleep(phase.clone().time(EVERY)).await;
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        let all = 0..host.world.plan.seats;
        join_all(all.map(|seat| tend(&host, &store, &held, seat))).await;
    }
}

async fn tend(host: &Host, store: &Link, all: &Mutex<BTreeMap<usize, Held>>, seat: usize) {
    let name = resource(seat);
    let own = host.membership.id().clone();
    let is_ours = host
        .membership
        .look(|roster| roster.preferred(name.as_str().as_bytes()) == Some(&own));
    let held = all.lock().remove(&seat);
    let ignores = host.world.plan.fault == Some(Fault::FencingIgnored);
    match held {
        Some(held) if !ignores && held.ownership.check().is_err() => {
            held.is_held.store(false, Ordering::Relaxed);
        }
        Some(held) if !is_ours && !ignores => {
            // It stops before the store hears of it.
            held.is_held.store(false, Ordering::Relaxed);
            // One whose release is not answered has the resource until its tenure ends.
            let _released = held.ownership.release().await;
        }
        Some(held) => {
            write(host, store, &held, seat, ignores).await;
            all.lock().insert(seat, held);
        }
        None if is_ours => {
            if let Some(held) = claim(host, &name).await {
                all.lock().insert(seat, held);
            }
        }
        None => (),
    }
}

async fn claim(host: &Host, name: &Resource) -> Option<Held> {
    let Ok(Claim::Mine(ownership)) = host.membership.claim(name).await else {
        return None;
    };
    let tenure = host.membership.tenure()?.token;
    let is_held = Arc::new(AtomicBool::new(true));
    let seat = Seat {
        membership: host.membership.clone(),
        tenure,
        is_held: is_held.clone(),
    };
    let now = host.world.post.now();
    host.world
        .witness
        .lock()
        .claimed(now, name, ownership.token(), seat);
    Some(Held {
        ownership,
        is_held,
        writes: AtomicU64::new(0),
    })
}

/// Writes as the owner: whose token it was, and something that must never be lost.
async fn write(host: &Host, store: &Link, held: &Held, seat: usize, ignores: bool) {
    let token = held.ownership.token();
    let count = held.writes.fetch_add(1, Ordering::Relaxed);
    let kept = format!("kept/{seat}/{token}-{}-{count}", host.life);
    let txn = Txn::new()
        .put(format!("work/{seat}"), token.to_string())
        .put(kept.clone(), "");
    let txn = match ignores {
        true => txn,
        false => held.ownership.guard(txn),
    };
    let outcome = store.transact(txn).await;
    // Conflicts are counted by the store; of what was not answered nobody knows.
    if let Ok(TxnOutcome::Committed { .. }) = outcome {
        host.world.witness.lock().written(kept);
    }
}
