//! `matmul`: a matrix product by divide and conquer, 64 products of blocks and 9 sums.

use anyhow::{Result, ensure};

use super::{Pair, Run};
use crate::Setting;
use crate::measure::median;
use crate::report::Report;

/// Native processes that take tasks; of functions, as many run as the node has threads.
const WORKERS: usize = 8;
const ROUNDS: usize = 7;

/// The task that is the whole product.
const ROOT: &str = "1";

/// Multiplies the same matrices in turns.
pub fn run(setting: &Setting) -> Result<Report> {
    let pair = Pair::start(setting, "matmul")?;
    pair.both("load")?;
    let [mut ours, mut theirs, mut ratios] = [const { Vec::new() }; 3];
    // The first round makes what later ones find.
    for round in 0..=ROUNDS {
        let Run {
            seconds: function, ..
        } = pair.function_timed(ROOT)?;
        pair.native("reset")?;
        let tasks = vec![format!("work {WORKERS}"); WORKERS];
        let Run {
            seconds: native, ..
        } = pair.native_timed(&tasks)?;
        let [product, same] = pair.both("sum")?;
        ensure!(product == same, "the products differ");
        if round > 0 {
            ours.push(function * 1e3);
            theirs.push(native * 1e3);
            ratios.push(native / function);
        }
    }
    let mut report = Report::new("matmul", &["1024 × 1024, blocks of 256", "ms"]);
    report.row("functions", [format!("{:.1}", median(&ours))]);
    report.row("processes, Redis", [format!("{:.1}", median(&theirs))]);
    report.figure("speedup", median(&ratios));
    Ok(report)
}
