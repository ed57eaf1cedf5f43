//! Making room: durable values that nobody uses and that the global tier holds as they are leave
//! memory, and come back when they are opened.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use metrics::counter;

use crate::budget::Meter;
use crate::chunks::Chunks;
use crate::metrics::EVICTED_TOTAL;
use crate::{AppState, Key, Value};

/// Room is made when less than this part of a bound, a quarter, is left.
const LEFT: usize = 4;

fn is_crowded(meter: &Meter) -> bool {
    meter.used() > meter.max() - meter.max() / LEFT
}

impl AppState {
    /// Whether a bound of the app or the node is nearly reached.
    pub(crate) fn is_crowded(&self) -> bool {
        let budget = &self.0.core.budget;
        let meters = [
            &budget.keys,
            &budget.bytes,
            &budget.node.bytes,
            &budget.node.regions,
        ];
        meters.into_iter().any(is_crowded)
    }

    /// Makes room while the app is crowded, first of values that were not opened since the last
    /// time; says how many left.
    pub(crate) fn make_room(&self) -> usize {
        let mut left = 0;
        for even_used in [false, true] {
            for shard in &self.0.shards {
                if !self.is_crowded() {
                    break;
                }
                let mut shard = shard.write();
                // New holders come by the shard, which is locked.
                shard.retain(|key, value| {
                    let goes = (even_used || !value.used.swap(false, Ordering::Relaxed))
                        && Arc::strong_count(value) == 1
                        && value.may_leave()
                        && self.is_crowded();
                    if goes {
                        self.forget(key, value);
                        left += 1;
                    }
                    !goes
                });
            }
        }
        counter!(EVICTED_TOTAL).increment(left as u64);
        left
    }

    /// What goes with a key that leaves its shard.
    pub(crate) fn forget(&self, key: &Key, value: &Value) {
        let core = &self.0.core;
        let mut content = value.content.write();
        core.floor.fetch_max(content.last, Ordering::Relaxed);
        // Gives back what it held at once, for those who count.
        content.delete();
        // Whoever still comes by it must not take what is stored for a value that was removed.
        content.chunks = Chunks::default();
        self.0.order.lock().remove(key);
        core.budget.keys.give(1);
    }
}

impl Value {
    fn may_leave(&self) -> bool {
        self.locks.are_free() && self.content.read().is_stored()
    }
}
