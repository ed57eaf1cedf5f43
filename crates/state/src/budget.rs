//! Counting what values hold against the bounds of their app and of the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Quota;
use crate::{Config, StateError};

/// A bounded count.
#[derive(Debug)]
pub(crate) struct Meter {
    used: AtomicUsize,
    max: usize,
    quota: Quota,
}

impl Meter {
    pub fn new(max: usize, quota: Quota) -> Self {
        Self {
            used: AtomicUsize::new(0),
            max,
            quota,
        }
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn max(&self) -> usize {
        self.max
    }

    pub fn take(&self, count: usize) -> Result<(), StateError> {
        let fits = |used: usize| used.checked_add(count).filter(|sum| *sum <= self.max);
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(|_| ()).map_err(|_| {
            metrics::counter!(crate::metrics::REFUSED_TOTAL).increment(1);
            StateError::Full {
                quota: self.quota,
                max: self.max as u64,
            }
        })
    }

    pub fn give(&self, count: usize) {
        self.used.fetch_sub(count, Ordering::Relaxed);
    }
}

/// The bounds that all apps share.
#[derive(Debug)]
pub(crate) struct NodeBudget {
    pub bytes: Meter,
    pub regions: Meter,
}

impl NodeBudget {
    pub fn new(config: &Config) -> Self {
        Self {
            bytes: Meter::new(config.node_bytes_max, Quota::NodeBytes),
            regions: Meter::new(config.node_regions_max, Quota::NodeRegions),
        }
    }
}

/// The bounds of one app.
#[derive(Debug)]
pub(crate) struct AppBudget {
    pub bytes: Meter,
    pub keys: Meter,
    pub node: Arc<NodeBudget>,
}

impl AppBudget {
    pub fn new(config: &Config, node: Arc<NodeBudget>) -> Self {
        Self {
            bytes: Meter::new(config.app_bytes_max, Quota::AppBytes),
            keys: Meter::new(config.app_keys_max, Quota::AppKeys),
            node,
        }
    }
}

/// What one value holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<AppBudget>,
    bytes: usize,
    region: bool,
}

impl Charge {
    pub fn new(budget: Arc<AppBudget>) -> Self {
        Self {
            budget,
            bytes: 0,
            region: false,
        }
    }

    /// Of nothing yet, against the same bounds.
    pub fn another(&self) -> Self {
        Self::new(self.budget.clone())
    }

    /// Holds `bytes` from now on, in a region or not; unchanged if that is too much.
    pub fn hold(&mut self, bytes: usize, region: bool) -> Result<(), StateError> {
        let (app, node) = (&self.budget.bytes, &self.budget.node);
        if region && !self.region {
            node.regions.take(1)?;
        }
        if let Some(more) = bytes.checked_sub(self.bytes) {
            let taken = app.take(more).and_then(|()| {
                let taken = node.bytes.take(more);
                taken.inspect_err(|_| app.give(more))
            });
            if taken.is_err() && region && !self.region {
                node.regions.give(1);
            }
            taken?;
        } else {
            app.give(self.bytes - bytes);
            node.bytes.give(self.bytes - bytes);
        }
        if self.region && !region {
            node.regions.give(1);
        }
        (self.bytes, self.region) = (bytes, region);
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // Holding less cannot be refused.
        let _ = self.hold(0, false);
    }
}
