//! The one task that lets idle things go.

use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::executor::Inner;
use crate::pool::Services;

/// Sweeps now and then, and when there is pressure, until the executor is gone.
pub(crate) async fn run(executor: Weak<Inner>, services: Arc<Services>) {
    let interval = services.config.reap_interval;
    loop {
        // Either wakes it; a pressure that goes on is served once an interval at the least.
        let _ = tokio::time::timeout(interval, services.pressure.notified()).await;
        let Some(executor) = executor.upgrade() else {
            return;
        };
        executor.sweep(Instant::now());
    }
}
