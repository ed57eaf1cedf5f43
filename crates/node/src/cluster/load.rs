//! What this node has and does, for the others: said again and again, at membership's rate.

use std::collections::HashMap;
use std::time::Duration;

use executor::Executor;
use membership::{Membership, Report};
use scheduler::{Load, Resources, Standing, Tag};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Says the node's load until `stop`, and its standing at once when that changes.
pub(super) async fn tell(
    executor: Executor,
    membership: Membership,
    mut standing: watch::Receiver<Standing>,
    every: Duration,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(every);
    loop {
        let now = *standing.borrow_and_update();
        membership.report(Report {
            standing: now,
            load: load(&executor),
        });
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => (),
            Ok(()) = standing.changed() => (),
        }
    }
}

/// The node's load at this moment.
pub(super) fn load(executor: &Executor) -> Load {
    let (running, queued) = executor.occupied();
    let (running_max, queued_max) = executor.places();
    let (memory_bytes, free_bytes) = memory();
    let mut warm: HashMap<Tag, u32> = HashMap::new();
    let mut images = Vec::new();
    for pool in executor.pools() {
        let tag = Tag::from(&pool.version);
        if pool.idle > 0 {
            *warm.entry(tag).or_default() += u32::try_from(pool.idle).unwrap_or(u32::MAX);
        }
        if pool.loaded {
            images.push(tag);
        }
    }
    let mut warm: Vec<_> = warm.into_iter().collect();
    // One order, so that a load that has not changed is not said again.
    warm.sort_unstable();
    images.sort_unstable();
    images.dedup();
    Load {
        capacity: Resources {
            places: running_max,
            memory_bytes,
        },
        used: Resources {
            places: running,
            memory_bytes: memory_bytes.saturating_sub(free_bytes),
        },
        waiting: queued,
        waiting_max: queued_max,
        warm,
        images,
    }
}

/// What changes below this much is not worth a word.
const MEMORY_STEP: u64 = 64 << 20;

/// All of the machine's memory, and what of it can be had, in steps: both without bounds where the
/// kernel does not say.
fn memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some((kib << 10) / MEMORY_STEP * MEMORY_STEP)
    };
    match (of("MemTotal:"), of("MemAvailable:")) {
        (Some(all), Some(free)) => (all, free),
        _ => (u64::MAX, u64::MAX),
    }
}
