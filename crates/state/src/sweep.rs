//! Values that end by themselves: which is next, and freeing them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Weak};

use metrics::{counter, gauge};
use parking_lot::Mutex;

use crate::clock::millis;
use crate::metrics::{BYTES, EXPIRED_TOTAL, REGIONS};
use crate::{Name, State, StateError, Value};

/// Values by when to look at them: `(milliseconds since 1970, number)`. Each is in it at most once.
#[derive(Debug, Default)]
pub(crate) struct Timed(Mutex<Times>);

#[derive(Debug, Default)]
struct Times {
    next: u64,
    values: BTreeMap<(u64, u64), Weak<Value>>,
}

impl Timed {
    fn add(&self, ms: u64, value: &Arc<Value>) -> (u64, u64) {
        let mut times = self.0.lock();
        times.next += 1;
        let at = (ms, times.next);
        times.values.insert(at, Arc::downgrade(value));
        at
    }

    fn remove(&self, at: (u64, u64)) {
        self.0.lock().values.remove(&at);
    }

    fn take_due(&self, now_ms: u64, limit: usize) -> Vec<Weak<Value>> {
        let mut times = self.0.lock();
        let mut due = Vec::new();
        while due.len() < limit
            && let Some(first) = times.values.first_entry()
            && first.key().0 <= now_ms
        {
            due.push(first.remove());
        }
        due
    }
}

impl Value {
    /// Has the sweeper look at the value when it ends.
    pub(crate) fn schedule(self: &Arc<Self>) {
        let timed = &self.core.node.timed;
        let mut content = self.content.write();
        let ends = content.expires_ms;
        if ends == 0 || content.scheduled.is_some_and(|(at, _)| at <= ends) {
            return;
        }
        let earlier = timed.add(ends, self);
        if let Some(later) = content.scheduled.replace(earlier) {
            timed.remove(later);
        }
    }

    /// Frees the value if it has ended, here and in the global tier.
    async fn reap(self: &Arc<Self>) -> Result<bool, StateError> {
        let _gate = self.gate.lock().await;
        let before = self.content.read().exists();
        // Whatever is changed, an expired value goes first.
        let exists = self.change(|content| Ok(content.exists()))?;
        // What is stored of an older value than an ephemeral one is of no use either.
        let backed = self.is_backed(&self.content.read());
        if !backed {
            self.remove_base().await?;
        }
        Ok(before && !exists)
    }
}

/// Frees values that have ended; see [`State::service`].
#[derive(Debug)]
pub struct Service {
    state: State,
}

impl Service {
    pub(crate) fn new(state: State) -> Self {
        Self { state }
    }

    /// Sweeps at each interval until `stop`.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let interval = self.state.node.config.sweep_interval;
        let mut stop = std::pin::pin!(stop);
        while tokio::time::timeout(interval, &mut stop).await.is_err() {
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "expired values are freed later");
            }
        }
    }

    /// Frees what has ended by now, and says how many values that were.
    pub async fn sweep(&self) -> Result<usize, StateError> {
        let node = &self.state.node;
        let limit = node.config.sweep_keys_max;
        let now_ms = millis(node.clock.now());
        let mut freed = 0;
        for value in node.timed.take_due(now_ms, limit) {
            let Some(value) = value.upgrade() else {
                continue;
            };
            value.content.write().scheduled = None;
            if !value.is_held() {
                continue;
            }
            freed += usize::from(value.reap().await?);
            value.schedule();
        }
        for (name, version) in node.global.expired(now_ms, limit).await? {
            if !self.state.is_mine(&name) {
                continue;
            }
            freed += usize::from(self.reap_stored(&name, version).await?);
        }
        for app in self.state.apps() {
            for owing in app.forget_idle() {
                if owing.is_held() {
                    owing.reap().await?;
                }
            }
            app.forget_mirrors();
            if app.is_crowded() {
                app.make_room();
            }
        }
        counter!(EXPIRED_TOTAL).increment(freed as u64);
        gauge!(BYTES).set(node.budget.bytes.used() as f64);
        gauge!(REGIONS).set(node.budget.regions.used() as f64);
        Ok(freed)
    }

    /// Frees a value that the global tier holds and that may be here by now.
    async fn reap_stored(&self, name: &Name, version: u64) -> Result<bool, StateError> {
        let app = self.state.known_app(&name.app);
        match app.and_then(|app| app.resident(name.key.as_str())) {
            Some(value) => value.reap().await,
            None => {
                let removed = self.state.node.global.remove(name, version).await;
                match removed {
                    Ok(()) => Ok(true),
                    // It was changed in the meantime.
                    Err(crate::GlobalError::Conflict { .. }) => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}
