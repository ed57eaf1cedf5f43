//! State, from outside.

mod bucket;
mod cluster;
mod doubles;
mod durable;
mod limits;
mod local;
mod locks;
mod time;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use storage::{RedbStore, Store};

use crate::{AppState, Clock, Config, Durability, EmbeddedGlobal, Key, Open, State};

pub(crate) const EPHEMERAL: Open = Open {
    create: Some(Durability::Ephemeral),
};
pub(crate) const DURABLE: Open = Open {
    create: Some(Durability::Durable),
};
pub(crate) const EXISTING: Open = Open { create: None };

pub(crate) fn store() -> Arc<dyn Store> {
    Arc::new(RedbStore::in_memory(storage::Config::default()).unwrap())
}

/// A node's state over a store.
pub(crate) async fn node(store: &Arc<dyn Store>, config: Config) -> State {
    let global = EmbeddedGlobal::open(store.clone()).await.unwrap();
    State::new(Arc::new(global), config)
}

/// The app `shop` of a node of its own.
pub(crate) async fn app() -> AppState {
    app_with(Config::default()).await
}

pub(crate) async fn app_with(config: Config) -> AppState {
    shop(&node(&store(), config).await)
}

pub(crate) fn shop(state: &State) -> AppState {
    state.app(&"shop".parse().unwrap())
}

pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap()
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub(crate) struct FakeClock(AtomicU64);

impl FakeClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_000_000)))
    }

    pub fn pass(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}
