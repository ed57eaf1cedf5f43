//! The whole of a simulation, from the first node to the last check.

use std::sync::Arc;
use std::time::Duration;

use invoker::Registry;
use model::{Digest, Kind, Settings, VersionSpec};
use storage::Store;
use tokio::task::JoinSet;

use crate::client::{self, FUNCTION};
use crate::host::Host;
use crate::link::Link;
use crate::weather::Mishap;
use crate::world::World;
use crate::{Plan, Summary, Violation, values};

/// From one look at whether all is well to the next.
const LOOK: Duration = Duration::from_millis(100);
/// In which nodes start.
const STARTS: Duration = Duration::from_millis(300);
/// How long one who waits may have waited for the end that the store has.
const WAKES: Duration = Duration::from_secs(10);

/// Runs a plan to its end, or to the first invariant that does not hold.
///
/// It takes its time from tokio: run it on a runtime of one thread whose clock is paused.
pub async fn play(plan: &Plan) -> Result<Summary, Violation> {
    let world = World::new(plan.clone());
    world.witness.lock().places = plan.places;
    let mut beside = JoinSet::new();
    let post = world.clone();
    beside.spawn(async move { post.post.run().await });
    deploy(&world).await;
    for node in 0..plan.nodes {
        let at = world.dice.throw("starts", &[node as u64]).time(STARTS);
        start_at(&world, at, node, 0);
    }
    for (n, mishap) in (1..).zip(world.weather.mishaps.clone()) {
        befalls(&world, n, mishap);
    }
    let mut clients = JoinSet::new();
    for n in 0..plan.clients {
        clients.spawn(client::run(world.clone(), n));
    }
    for n in 0..plan.writers {
        clients.spawn(values::run(world.clone(), n));
    }
    let summary = settle(&world, &mut clients).await;
    clients.shutdown().await;
    let hosts = std::mem::take(&mut *world.hosts.lock());
    hosts.iter().flatten().for_each(|host| host.dies());
    world.post.clear();
    beside.shutdown().await;
    let concluded = world.witness.lock().conclude();
    summary.map(|()| concluded)
}

/// An operator deploys the function before anything goes wrong.
async fn deploy(world: &Arc<World>) {
    let operator = Link::new(world, world.plan.nodes, 0);
    let store: Arc<dyn Store> = Arc::new(operator);
    let spec = VersionSpec {
        kind: Kind::Command,
        artifact: Digest::of(b"f"),
        settings: Settings::default(),
    };
    loop {
        let Ok(registry) = Registry::open(store.clone()).await else {
            continue;
        };
        // A name of two parts is a function's.
        let path = FUNCTION.parse().expect("a path");
        if registry.deploy(&path, spec.clone()).await.is_ok() {
            return;
        }
    }
}

fn start_at(world: &Arc<World>, at: Duration, node: usize, life: u64) {
    let then = world.clone();
    world.post.at(at, node as u64, move || {
        if then.host(node).is_none() {
            start(&then, node, life);
        }
    });
}

fn start(world: &Arc<World>, node: usize, life: u64) {
    let host = Host::start(world, node, life);
    world.witness.lock().up(node, host.membership.clone());
    if let Some(slot) = world.hosts.lock().get_mut(node) {
        *slot = Some(host);
    }
}

/// Lets a node be killed, or stop; it starts again later, as another process.
fn befalls(world: &Arc<World>, life: u64, mishap: Mishap) {
    let Mishap {
        node,
        at,
        back,
        is_told,
    } = mishap;
    let then = world.clone();
    world.post.at(at, node as u64, move || {
        let Some(host) = then.host(node) else {
            return;
        };
        match is_told {
            true => drop(tokio::spawn(leaves(then, host, back, life))),
            false => {
                down(&then, &host);
                start_at(&then, back, node, life);
            }
        }
    });
}

fn down(world: &World, host: &Host) {
    host.dies();
    world.witness.lock().down(host.node);
    if let Some(slot) = world.hosts.lock().get_mut(host.node) {
        *slot = None;
    }
}

async fn leaves(world: Arc<World>, host: Arc<Host>, back: Duration, life: u64) {
    host.clone().stops().await;
    // Unless it was killed meanwhile, and is another process by now.
    if world
        .host(host.node)
        .is_some_and(|now| Arc::ptr_eq(&now, &host))
    {
        down(&world, &host);
    }
    start_at(&world, back.max(world.post.now()), host.node, life);
}

/// Waits until all clients have what they wait for and every invocation its outcome.
async fn settle(world: &Arc<World>, clients: &mut JoinSet<()>) -> Result<(), Violation> {
    let end = world.plan.span + world.plan.calm;
    loop {
        while let Some(done) = clients.try_join_next() {
            if let Err(error) = done {
                let what = format!("a client panicked: {error}");
                world.witness.lock().broken(world.post.now(), what);
            }
        }
        let now = world.post.now();
        let is_open = !world.witness.lock().open().is_empty();
        let is_over = clients.is_empty() && !is_open && now >= world.plan.span;
        if is_over || now >= end {
            check_end(world, clients.len());
        }
        if let Some(violation) = world.witness.lock().violation() {
            return Err(violation);
        }
        if is_over {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn check_end(world: &World, clients: usize) {
    let now = world.post.now();
    let mut witness = world.witness.lock();
    for (id, (node, since)) in &*world.waits.lock() {
        let late = match witness.ended(*id) {
            Some(Some(ended)) => ended.max(*since) + WAKES < now,
            _ => false,
        };
        if late {
            let what = format!("who waits for {id} at n{node} is not woken");
            witness.broken(now, what);
        }
    }
    if let Some(id) = witness.open().first() {
        let what = format!("{id} and perhaps others have no outcome");
        witness.broken(now, what);
    }
    let lost = |key: &&String| world.look(|shelf| shelf.get(key.as_bytes()).is_none());
    let lost = witness.kept().iter().find(lost).cloned();
    if let Some(key) = lost {
        witness.broken(now, format!("the acknowledged write of {key} is lost"));
    }
    if clients > 0 {
        witness.broken(now, format!("{clients} clients have got nothing"));
    }
}
