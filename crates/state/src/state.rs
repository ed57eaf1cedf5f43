//! The state of a node.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::AppName;
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::budget::NodeBudget;
use crate::clock::{Clock, SystemClock, micros};
use crate::config::VALUE_BYTES_MOST;
use crate::global::Global;
use crate::lock::Held;
use crate::sweep::Timed;
use crate::turns::Event;
use crate::{AppState, Config, Service};

/// What all apps share.
#[derive(Debug)]
pub(crate) struct Node {
    pub config: Config,
    pub clock: Arc<dyn Clock>,
    pub global: Arc<dyn Global>,
    pub budget: Arc<NodeBudget>,
    pub held: Held,
    pub timed: Timed,
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
    pub fn with_clock(global: Arc<dyn Global>, mut config: Config, clock: Arc<dyn Clock>) -> Self {
        config.value_bytes_max = config.value_bytes_max.min(VALUE_BYTES_MOST);
        Self {
            node: Arc::new(Node {
                budget: Arc::new(NodeBudget::new(&config)),
                config,
                clock,
                global,
                held: Held::default(),
                timed: Timed::default(),
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

    /// Frees all locks that `owner` holds: to be called when an invocation ends.
    pub fn release_all(&self, owner: u128) {
        for value in self.node.held.take(owner) {
            if let Some(value) = value.upgrade() {
                value.turn(Event::Release { owner });
            }
        }
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
