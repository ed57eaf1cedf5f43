//! `dunlin ps`: the sandboxes of a node.

use super::short;
use crate::args::NodeOnly;
use crate::connect;
use crate::exit::Outcome;
use crate::output::{Output, note};
use crate::table::{Table, bytes};

/// Shows the pools, one line a version.
pub fn run(args: &NodeOnly, out: Output) -> Outcome {
    connect::with(&args.node, async |client| {
        let pools = client.pools().await?;
        let exit = out.show(&pools, || {
            let mut table = Table::new(&[
                "FUNCTION",
                "VERSION",
                ">IDLE",
                ">RUNNING",
                ">QUEUED",
                ">COLD",
                ">RESTORED",
                ">REUSED",
                ">PEAK",
            ]);
            for pool in &pools.pools {
                table.row([
                    format!("{}/{}", pool.app, pool.function),
                    short(&pool.version),
                    pool.idle.to_string(),
                    pool.running.to_string(),
                    pool.queued.to_string(),
                    pool.starts.cold.to_string(),
                    pool.starts.restored.to_string(),
                    pool.starts.reused.to_string(),
                    bytes(pool.memory_peak_bytes),
                ]);
            }
            table
        })?;
        if out.is_for_people() {
            note(&format!(
                "resident memory of the node: {}",
                bytes(pools.resident_bytes)
            ));
        }
        Ok(exit)
    })
}
