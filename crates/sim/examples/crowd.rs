//! What a decision costs and how even the load is, as a cluster grows: the table of
//! docs/simulation.md.
//!
//! `cargo run --release -p sim --example crowd [SEED]`

use std::io::Write as _;
use std::time::Instant;

use sim::{Crowd, Figures};

const SIZES: [(usize, u64); 3] = [(10, 10_000), (100, 100_000), (1000, 1_000_000)];

fn run(crowd: Crowd) -> Figures {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(crowd.run())
}

fn main() -> std::io::Result<()> {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(1);
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| nodes | calls | ran | sent on | decisions | p50 | p99 | busy | max/mean | min/mean \
         | wait mean | wait p99 | simulated | real |"
    )?;
    writeln!(out, "|{}", "---|".repeat(14))?;
    for (nodes, calls) in SIZES {
        let began = Instant::now();
        let figures = run(Crowd {
            seed,
            nodes,
            places: 16,
            calls,
            load_permille: 700,
            crowded_permille: 500,
        });
        let Figures {
            ran,
            forwarded,
            decisions,
            ..
        } = figures;
        writeln!(
            out,
            "| {nodes} | {calls} | {ran} | {forwarded} | {decisions} | {:.1?} | {:.1?} | {:.2} \
             | {:.2} | {:.2} | {:.1?} | {:.1?} | {:.1?} | {:.1?} |",
            figures.decision_p50,
            figures.decision_p99,
            figures.busy_mean,
            figures.busy_max_to_mean,
            figures.busy_min_to_mean,
            figures.waits_mean,
            figures.waits_p99,
            figures.lasted,
            began.elapsed(),
        )?;
        out.flush()?;
    }
    Ok(())
}
