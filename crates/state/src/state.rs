//! The state of a node.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::AppName;
use parking_lot::RwLock;
use storage::{Blobs, Store};
use tokio::time::Instant;

use crate::budget::NodeBudget;
use crate::clock::{Clock, SystemClock, micros};
use crate::config::VALUE_BYTES_MOST;
use crate::global::Global;
use crate::lock::Held;
use crate::sweep::Timed;
use crate::tier::{Copies, Holding, Slot, Slots, Tier};
use crate::turns::Event;
use crate::{AppState, Cluster, Config, EmbeddedGlobal, Keeper, Name, Serve, Service, Value};

/// What all apps share.
#[derive(Debug)]
pub(crate) struct Node {
    pub config: Config,
    pub clock: Arc<dyn Clock>,
    pub global: Arc<dyn Global>,
    pub budget: Arc<NodeBudget>,
    pub held: Held,
    pub timed: Timed,
    /// None where there are no other nodes.
    pub tier: Option<Arc<Tier>>,
    /// Where replicated values are besides; none where there are no other nodes.
    pub copies: Option<Arc<Copies>>,
    tickets: AtomicU64,
    started: Instant,
}

impl Node {
    /// Names a request for a lock.
    pub fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// Microseconds, by the clock that locks go by.
    pub fn uptime_us(&self) -> u64 {
        micros(self.started.elapsed())
    }

    pub fn at(&self, uptime_us: u64) -> Instant {
        self.started + Duration::from_micros(uptime_us)
    }
}

/// The state of a node's apps. Cheap to clone.
#[derive(Clone)]
pub struct State {
    pub(crate) node: Arc<Node>,
    apps: Arc<RwLock<HashMap<AppName, AppState>>>,
}

impl State {
    /// State over a global tier; nothing is read before it is asked for.
    pub fn new(global: Arc<dyn Global>, config: Config) -> Self {
        Self::with_clock(global, config, Arc::new(SystemClock))
    }

    /// As [`State::new`], with a wall clock of one's own.
    pub fn with_clock(global: Arc<dyn Global>, config: Config, clock: Arc<dyn Clock>) -> Self {
        Self::made(global, config, clock, None)
    }

    /// The state of a node of a cluster, whose nodes share `store` and `bucket`. Owns nothing
    /// before the keeper runs.
    pub fn clustered(
        store: Arc<dyn Store>,
        bucket: Blobs,
        cluster: Arc<dyn Cluster>,
        config: Config,
        clock: Arc<dyn Clock>,
    ) -> (Self, Keeper) {
        let slots = Arc::new(Slots::default());
        let global = EmbeddedGlobal::shared(store.clone(), bucket, slots.clone());
        let tier = Arc::new(Tier::new(cluster, slots, store, &config, &*clock));
        let state = Self::made(Arc::new(global.clone()), config, clock, Some(tier.clone()));
        let keeper = Keeper::new(state.clone(), tier, global);
        (state, keeper)
    }

    fn made(
        global: Arc<dyn Global>,
        mut config: Config,
        clock: Arc<dyn Clock>,
        tier: Option<Arc<Tier>>,
    ) -> Self {
        config.value_bytes_max = config.value_bytes_max.min(VALUE_BYTES_MOST);
        let copies = tier.clone().map(|tier| Copies::new(tier, &config));
        Self {
            node: Arc::new(Node {
                budget: Arc::new(NodeBudget::new(&config)),
                config,
                clock,
                global,
                held: Held::default(),
                timed: Timed::default(),
                copies: copies.map(Arc::new),
                tier,
                tickets: AtomicU64::new(0),
                started: Instant::now(),
            }),
            apps: Arc::default(),
        }
    }

    /// An app's state.
    pub fn app(&self, app: &AppName) -> AppState {
        if let Some(app) = self.apps.read().get(app) {
            return app.clone();
        }
        let mut apps = self.apps.write();
        let made = || AppState::new(app.clone(), self.node.clone());
        apps.entry(app.clone()).or_insert_with(made).clone()
    }

    /// Frees all locks that `owner` holds: to be called when an invocation ends. Those that other
    /// nodes keep are freed a little later.
    pub fn release_all(&self, owner: u128) {
        self.release_here(owner);
        if let Some(tier) = &self.node.tier {
            tier.release_there(owner);
        }
    }

    pub(crate) fn release_here(&self, owner: u128) {
        for value in self.node.held.take(owner) {
            if let Some(value) = value.upgrade() {
                value.turn(Event::Release { owner });
            }
        }
    }

    /// What answers other nodes; none where there are none.
    pub fn serve(&self) -> Option<Serve> {
        let tier = self.node.tier.clone()?;
        Some(Serve::new(self.clone(), tier))
    }

    /// Longest value that is taken, in bytes.
    pub fn value_bytes_max(&self) -> usize {
        self.node.config.value_bytes_max
    }

    /// What frees expired values; to be run for as long as the node runs.
    pub fn service(&self) -> Service {
        Service::new(self.clone())
    }

    /// Bytes that all values hold in memory.
    pub fn bytes(&self) -> usize {
        self.node.budget.bytes.used()
    }

    /// The values that are in memory, by slot.
    pub(crate) fn values_by_slot(&self) -> HashMap<Slot, Vec<Arc<Value>>> {
        let mut found: HashMap<Slot, Vec<_>> = HashMap::new();
        for app in self.apps() {
            for value in app.residents() {
                if let Some(holding) = &value.holding {
                    found.entry(holding.slot).or_default().push(value);
                }
            }
        }
        found
    }

    /// The values that are in memory as long as this node has a slot.
    pub(crate) fn values_of(&self, slot: &Arc<Holding>) -> Vec<Arc<Value>> {
        let residents = self.apps().into_iter().flat_map(|app| app.residents());
        let is_in = |value: &Arc<Value>| {
            let holding = value.holding.as_ref();
            holding.is_some_and(|holding| Arc::ptr_eq(holding, slot))
        };
        residents.filter(is_in).collect()
    }

    /// Forgets the values that are no longer this node's.
    pub(crate) fn forget_closed(&self) {
        for app in self.apps() {
            app.forget_closed();
        }
    }

    /// Whether this node may change the value.
    pub(crate) fn is_mine(&self, name: &Name) -> bool {
        match &self.node.tier {
            Some(tier) => tier.slots.open(Slot::of(name)).is_some(),
            None => true,
        }
    }

    pub(crate) fn apps(&self) -> Vec<AppState> {
        self.apps.read().values().cloned().collect()
    }

    pub(crate) fn known_app(&self, app: &AppName) -> Option<AppState> {
        self.apps.read().get(app).cloned()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}
