//! A node in one of its lives: what a process holds, and what a kill takes away at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use invoker::{Invoker, Members, Registry, Surroundings};
use membership::{Membership, Record, Report};
use model::NodeId;
use parking_lot::Mutex;
use scheduler::Standing;
use storage::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::link::Link;
use crate::neighbours::Neighbours;
use crate::place::{Attempts, Places};
use crate::ways::{self, Share};
use crate::world::{BEGAN_MS, World};
use crate::{rooms, seats};

/// From one word of a node on its load to the next.
const REPORT_EVERY: Duration = Duration::from_millis(300);
/// By how much the clock on a node's wall goes wrong at most.
const SKEW_MS: u64 = 400;
/// Before what the store did not answer is tried again.
const PAUSE: Duration = Duration::from_millis(200);

pub(crate) struct Host {
    pub world: Arc<World>,
    pub node: usize,
    pub life: u64,
    pub membership: Membership,
    pub places: Places,
    pub neighbours: Neighbours,
    /// Once it is open.
    invoker: OnceLock<Invoker>,
    share: OnceLock<Share>,
    standing: Mutex<Standing>,
    tasks: Mutex<JoinSet<()>>,
    /// The queue is to stop, and then the node to leave.
    stop: CancellationToken,
    leave: CancellationToken,
    /// It has left.
    left: CancellationToken,
}

pub(crate) fn node_id(node: usize) -> NodeId {
    // A letter and digits make a label.
    format!("n{node}").parse().expect("a label")
}

/// Which node an id is of.
pub(crate) fn index_of(id: &NodeId) -> Option<usize> {
    id.as_str().strip_prefix('n')?.parse().ok()
}

pub(crate) fn membership_config() -> membership::Config {
    membership::Config {
        lease_ttl: Duration::from_millis(3000),
        lease_margin: Duration::from_millis(600),
        renew_every: Duration::from_millis(600),
        retry_after: Duration::from_millis(150),
        request_timeout: Duration::from_millis(600),
        report_every_min: REPORT_EVERY,
        reports_per_sec_max: 500,
    }
}

impl Host {
    /// A member that serves, places calls and reports its load, and no more.
    pub fn member(
        world: &Arc<World>,
        node: usize,
        life: u64,
        config: membership::Config,
    ) -> Arc<Self> {
        let record = Record {
            address: format!("10.0.0.{node}:7000"),
            software: "1".into(),
        };
        let store: Arc<dyn Store> = Arc::new(Link::new(world, node, life));
        let (membership, service) = Membership::new(node_id(node), record, store, config);
        let host = Arc::new(Self {
            world: world.clone(),
            node,
            life,
            places: Places::new(world.plan.places),
            neighbours: Neighbours::new(membership.clone()),
            membership,
            invoker: OnceLock::new(),
            share: OnceLock::new(),
            standing: Mutex::default(),
            tasks: Mutex::default(),
            stop: CancellationToken::new(),
            leave: CancellationToken::new(),
            left: CancellationToken::new(),
        });
        let (leave, left) = (host.leave.clone(), host.left.clone());
        host.spawn(async move {
            service.run(leave).await;
            left.cancel();
        });
        host.spawn(host.clone().says_its_load(config.report_every_min));
        let neighbours = host.clone();
        host.spawn(async move { neighbours.neighbours.follow().await });
        host
    }

    /// The whole of a node.
    pub fn start(world: &Arc<World>, node: usize, life: u64) -> Arc<Self> {
        let host = Self::member(world, node, life, membership_config());
        let store: Arc<dyn Store> = Arc::new(Link::new(world, node, life));
        let queues = Arc::new(Members::new(host.membership.clone()));
        let for_ever = CancellationToken::new();
        host.spawn(queues.clone().follow(for_ever));
        let queue = host.clone().runs_its_queue(store.clone(), queues.clone());
        let share = ways::keep(host.clone(), store.clone(), queues, host.stop.clone());
        let leave = host.leave.clone();
        host.spawn(async move {
            tokio::join!(queue, share);
            leave.cancel();
        });
        host.spawn(seats::keep(host.clone()));
        host.spawn(rooms::reserve(host.clone(), store));
        host
    }

    /// Lets something go on in this process: a kill ends it.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while let Some(ended) = tasks.try_join_next() {
            self.notice(ended);
        }
        tasks.spawn(task);
    }

    /// A task that panics is a fault that is not hidden.
    fn notice(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            let now = self.world.post.now();
            let what = format!("a task of n{} panicked: {error}", self.node);
            self.world.witness.lock().broken(now, what);
        }
    }

    pub fn invoker(&self) -> Option<&Invoker> {
        self.invoker.get()
    }

    /// Its part of the state, once it has one.
    pub fn share(&self) -> Option<&Share> {
        self.share.get()
    }

    pub fn shares(&self, share: Share) {
        // Nobody else sets it.
        let _set = self.share.set(share);
    }

    /// Whether it takes new calls.
    pub fn is_open(&self) -> bool {
        *self.standing.lock() == Standing::Serving
    }

    async fn says_its_load(self: Arc<Self>, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        loop {
            ticks.tick().await;
            let report = Report {
                standing: *self.standing.lock(),
                load: self.places.load(),
            };
            self.membership.report(report);
        }
    }

    async fn runs_its_queue(self: Arc<Self>, store: Arc<dyn Store>, queues: Arc<Members>) {
        let service = loop {
            if let Ok((invoker, service)) = self.opens(store.clone(), queues.clone()).await {
                // Nobody else sets it.
                let _set = self.invoker.set(invoker);
                break service;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => (),
            }
        };
        let stop = self.stop.clone();
        service
            .run(Arc::new(Attempts(self.clone())), stop.cancelled())
            .await;
    }

    async fn opens(
        &self,
        store: Arc<dyn Store>,
        queues: Arc<Members>,
    ) -> Result<(Invoker, invoker::Service), invoker::InvokerError> {
        let registry = Registry::open(store.clone()).await?;
        let mut chance = self.world.dice.throw("skew", &[self.node as u64]);
        let surroundings = Arc::new(Around {
            world: self.world.clone(),
            node: self.node as u64,
            life: self.life,
            count: AtomicU64::new(0),
            skew_ms: chance.below(SKEW_MS),
        });
        let config = invoker::Config {
            ready_max: 8,
            running_max: 6,
            inline_bytes_max: 1 << 10,
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_secs(2),
            interruptions_max: 1000,
            sweep_interval: Duration::from_secs(20),
            store_pause: PAUSE,
            drain: Duration::from_secs(1),
            surroundings,
            ..invoker::Config::default()
        };
        let blobs = self.world.blobs.clone();
        Invoker::open_among(store, blobs, registry, config, queues).await
    }

    /// What `kill -9` does.
    pub fn dies(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        while let Some(ended) = tasks.try_join_next() {
            self.notice(ended);
        }
        tasks.abort_all();
    }

    /// Stops as it is told to: drains its queue, leaves, and ends.
    pub async fn stops(self: Arc<Self>) {
        *self.standing.lock() = Standing::Draining;
        self.world.witness.lock().leaves(self.membership.id());
        self.stop.cancel();
        self.left.cancelled().await;
        self.dies();
    }
}

/// A node's wall clock, which is wrong, and its chance.
struct Around {
    world: Arc<World>,
    node: u64,
    life: u64,
    count: AtomicU64,
    skew_ms: u64,
}

impl Surroundings for Around {
    fn now_ms(&self) -> u64 {
        // A simulation lasts minutes.
        BEGAN_MS + self.skew_ms + self.world.post.now().as_millis() as u64
    }

    fn chance(&self) -> u128 {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut throw = self
            .world
            .dice
            .throw("chance", &[self.node, self.life, count]);
        u128::from(throw.word()) << 64 | u128::from(throw.word())
    }
}

impl std::fmt::Debug for Around {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Around({}, {})", self.node, self.life)
    }
}
