//! Many nodes and very many calls, without trouble: what a decision costs, and how even the load
//! is, as a cluster grows.
//!
//! Each node is a member, follows all others and reports its load by `membership`, at its rate;
//! each call is placed as a node places it. Calls come in unevenly: most of them at few nodes.

use std::sync::Arc;
use std::time::Duration;

use model::InvocationId;
use scheduler::Tag;
use tokio::task::JoinSet;

use crate::dice::Throw;
use crate::host::Host;
use crate::place::Job;
use crate::world::World;
use crate::{Plan, Troubles};

/// Versions that are called, the first the most.
const VERSIONS: u64 = 50;
/// What a call takes at least, and how much longer at most, where a sandbox is warm.
const TAKES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(80));
/// From one look at whether all nodes know each other to the next.
const LOOK: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

/// A cluster and its calls.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Decides everything that chance does.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Places of each.
    pub places: u32,
    /// Calls of all.
    pub calls: u64,
    /// How much of all places they take, in thousandths.
    pub load_permille: u64,
    /// Calls of a thousand that come in at the first tenth of the nodes.
    pub crowded_permille: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Calls that ran; the others were refused.
    pub ran: u64,
    /// Calls that ran at another node than the one that they came to.
    pub forwarded: u64,
    /// Decisions of the scheduler.
    pub decisions: u64,
    /// What half of them cost at most, by the machine's clock.
    pub decision_p50: Duration,
    /// What all but one of a hundred cost at most.
    pub decision_p99: Duration,
    /// The busiest node's time over that of all in the middle.
    pub busy_max_to_mean: f64,
    /// The same of the least busy one.
    pub busy_min_to_mean: f64,
    /// The share of its places that a node uses in the middle.
    pub busy_mean: f64,
    /// The time that a call waits, beside what it takes, in the middle.
    pub waits_mean: Duration,
    /// What all but one of a hundred wait at most.
    pub waits_p99: Duration,
    /// Time that passed in the simulation.
    pub lasted: Duration,
}

impl Crowd {
    /// Runs it, on a runtime of one thread whose clock is paused.
    pub async fn run(&self) -> Figures {
        let world = World::fair(Plan {
            nodes: self.nodes,
            places: self.places,
            seats: 0,
            clients: 0,
            troubles: Troubles::default(),
            ..Plan::of(self.seed)
        });
        let post = world.clone();
        let post = tokio::spawn(async move { post.post.run().await });
        let config = membership::Config::default();
        let hosts: Vec<_> = (0..self.nodes)
            .map(|node| Host::member(&world, node, 0, config))
            .collect();
        world
            .hosts
            .lock()
            .clone_from(&hosts.iter().cloned().map(Some).collect());
        self.know_each_other(&hosts).await;
        let began = world.post.now();
        let waits = self.calls(&world, &hosts).await;
        let lasted = world.post.now() - began;
        hosts.iter().for_each(|host| host.dies());
        world.hosts.lock().clear();
        post.abort();
        self.figures(&world, &hosts, waits, lasted)
    }

    async fn know_each_other(&self, hosts: &[Arc<Host>]) {
        let knows_all =
            |host: &Arc<Host>| host.membership.look(|roster| roster.view().len()) == self.nodes;
        while !hosts.iter().all(knows_all) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Gives how long each call that ran has waited.
    async fn calls(&self, world: &Arc<World>, hosts: &[Arc<Host>]) -> Vec<Duration> {
        let takes = TAKES.0 + TAKES.1 / 2;
        let places = u64::from(self.places) * self.nodes as u64;
        let share = places * self.load_permille;
        // The time between two calls, so that as many run at once as are meant to.
        let between = takes.as_nanos() as u64 * 1000 / share.max(1);
        let (began, mut running) = (tokio::time::Instant::now(), JoinSet::new());
        let mut waits = Vec::new();
        for n in 0..self.calls {
            let at = Duration::from_nanos(between * n);
            // Timers go by milliseconds.
            if at > began.elapsed() + Duration::from_millis(1) {
                tokio::time::sleep_until(began + at).await;
            }
            let mut throw = world.dice.throw("call", &[n]);
            let host = hosts[self.comes_to(&mut throw)].clone();
            let job = job(n, &mut throw);
            running.spawn(async move {
                let came = host.world.post.now();
                let done = host.call(&job).await;
                let took = host.world.post.now() - came;
                matches!(done, Ok(Some(_))).then(|| took.saturating_sub(job.takes))
            });
            while let Some(done) = running.try_join_next() {
                waits.extend(done.ok().flatten());
            }
        }
        while let Some(done) = running.join_next().await {
            waits.extend(done.ok().flatten());
        }
        waits
    }

    fn comes_to(&self, throw: &mut Throw) -> usize {
        match throw.chance(self.crowded_permille) {
            true => throw.index(self.nodes.div_ceil(10)),
            false => throw.index(self.nodes),
        }
    }

    fn figures(
        &self,
        world: &World,
        hosts: &[Arc<Host>],
        mut waits: Vec<Duration>,
        lasted: Duration,
    ) -> Figures {
        let mut witness = world.witness.lock();
        let mut decisions = std::mem::take(&mut witness.decisions);
        let forwarded = witness.summary.forwarded;
        drop(witness);
        decisions.sort_unstable();
        waits.sort_unstable();
        let busy: Vec<f64> = hosts
            .iter()
            .map(|host| host.places.busy().0 as f64)
            .collect();
        let mean = busy.iter().sum::<f64>() / busy.len() as f64;
        let most = busy.iter().copied().fold(0.0, f64::max);
        let least = busy.iter().copied().fold(f64::INFINITY, f64::min);
        let cost = |permille| Duration::from_nanos(at(&decisions, permille).into());
        let sum: Duration = waits.iter().sum();
        Figures {
            ran: waits.len() as u64,
            forwarded,
            decisions: decisions.len() as u64,
            decision_p50: cost(500),
            decision_p99: cost(990),
            busy_max_to_mean: most / mean,
            busy_min_to_mean: least / mean,
            busy_mean: mean / lasted.as_micros() as f64 / f64::from(self.places),
            waits_mean: sum / u32::try_from(waits.len().max(1)).unwrap_or(u32::MAX),
            waits_p99: at(&waits, 990),
            lasted,
        }
    }
}

/// A function that is called often, or one that is not, and what the call takes.
fn job(n: u64, throw: &mut Throw) -> Job {
    // The rank is the lower the likelier: about one over itself (Zipf's law).
    let all = VERSIONS as f64 + 1.0;
    let rank = all.powf(throw.below(1 << 20) as f64 / f64::from(1 << 20));
    Job {
        id: InvocationId::from_parts(n, throw.word().into()),
        number: 1,
        // Below the number of versions.
        version: Tag(rank as u64),
        kind: 9,
        takes: TAKES.0 + throw.time(TAKES.1),
    }
}

/// The value that so many of a thousand are not above.
fn at<T: Copy + Default>(sorted: &[T], permille: usize) -> T {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get(last * permille / 1000)
        .copied()
        .unwrap_or_default()
}

impl Figures {
    /// Calls that ran in one second of the simulation.
    pub fn per_second(&self) -> f64 {
        self.ran as f64 / self.lasted.max(SECOND / 1000).as_secs_f64()
    }
}
