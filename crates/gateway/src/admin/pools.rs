//! The node and its sandboxes.

use api::v1::{NodeInfo, Pool, Pools, StartCounts};
use axum::extract::State;

use super::AdminState;
use super::extract::Json;

/// The sandboxes of each version in use.
#[utoipa::path(get, path = "/v1/pools", operation_id = "listPools", tag = "node",
    responses((status = 200, body = Pools)))]
pub(super) async fn pools(State(shared): AdminState) -> Json<Pools> {
    let pools = shared.executor.pools().into_iter().map(|pool| Pool {
        app: pool.path.app.to_string(),
        function: pool.path.function.to_string(),
        version: pool.version.to_string(),
        idle: pool.idle as u64,
        running: pool.running as u64,
        queued: pool.queued as u64,
        starts: StartCounts {
            cold: pool.starts.cold,
            restored: pool.starts.restored,
            reused: pool.starts.reused,
        },
        memory_peak_bytes: pool.memory_peak_bytes,
    });
    Json(Pools {
        pools: pools.collect(),
        resident_bytes: resident_bytes(),
    })
}

/// Resident bytes of this process, as the kernel counts them; 0 if it does not say.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// What the node is.
#[utoipa::path(get, path = "/v1/node", operation_id = "getNode", tag = "node",
    responses((status = 200, body = NodeInfo)))]
pub(super) async fn node(State(shared): AdminState) -> Json<NodeInfo> {
    Json(shared.info.clone())
}
