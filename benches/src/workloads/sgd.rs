//! `sgd`: HOGWILD! logistic regression on sparse data of RCV1's shape.

use anyhow::{Context, Result, ensure};

use super::{Pair, Run, held};
use crate::Setting;
use crate::measure::median;
use crate::report::Report;

/// Functions at once, or native processes.
const WORKERS: usize = 8;
const EPOCHS: usize = 5;
const ROUNDS: usize = 5;

/// How far the two losses may lie apart, as part of the native one.
const LOSS_APART_MAX: f64 = 0.1;

/// What one of the two took in one round.
struct Took {
    seconds: f64,
    /// Most memory, over that of the servers before anything was in them.
    peak_mib: f64,
    /// The same, over that with the examples in them.
    added_mib: f64,
    loss: f64,
}

/// Trains the same model on the same examples in turns.
pub fn run(setting: &Setting) -> Result<Report> {
    let pair = Pair::start(setting, "sgd")?;
    // Something of each has run before their idle level is taken.
    pair.both("reset")?;
    let idle = held_by(&pair);
    pair.both("load")?;
    let loaded = held_by(&pair);
    let [mut functions, mut native] = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        let [ours, theirs] = round(&pair, idle, loaded)?;
        functions.push(ours);
        native.push(theirs);
    }
    let ratios = |of: fn(&Took) -> f64| {
        let pairs = functions.iter().zip(&native);
        let ratios: Vec<f64> = pairs.map(|(ours, theirs)| of(theirs) / of(ours)).collect();
        median(&ratios)
    };
    let head = ["SGD", "ms", "peak MiB", "over data MiB", "GB-ms", "loss"];
    let mut report = Report::new("sgd", &head);
    for (name, took) in [("functions", &functions), ("processes, Redis", &native)] {
        let of = |of: fn(&Took) -> f64| median(&took.iter().map(of).collect::<Vec<_>>());
        report.row(
            name,
            [
                format!("{:.1}", of(|took| took.seconds * 1e3)),
                format!("{:.1}", of(|took| took.peak_mib)),
                format!("{:.1}", of(|took| took.added_mib)),
                format!("{:.2}", of(|took| took.gb_s() * 1e3)),
                format!("{:.4}", of(|took| took.loss)),
            ],
        );
    }
    report.figure("speedup", ratios(|took| took.seconds));
    report.figure("memory_ratio", ratios(Took::gb_s));
    report.figure("peak_memory_ratio", ratios(|took| took.peak_mib));
    report.figure("added_memory_ratio", ratios(|took| took.added_mib));
    Ok(report)
}

fn round(pair: &Pair, idle: [f64; 2], loaded: [f64; 2]) -> Result<[Took; 2]> {
    pair.both("reset")?;
    let ours = pair.function_timed(&format!("run {WORKERS} {EPOCHS}"))?;
    let tasks: Vec<String> = (0..WORKERS)
        .map(|worker| format!("work {worker} {WORKERS} {EPOCHS}"))
        .collect();
    let theirs = pair.native_timed(&tasks)?;
    let losses = pair.both("loss")?;
    let [ours, theirs] = [
        took(&ours, idle[0], loaded[0], &losses[0])?,
        took(&theirs, idle[1], loaded[1], &losses[1])?,
    ];
    let apart = (ours.loss - theirs.loss).abs() / theirs.loss;
    ensure!(
        apart <= LOSS_APART_MAX,
        "the losses differ: {} and {}",
        ours.loss,
        theirs.loss
    );
    Ok([ours, theirs])
}

/// Bytes that the node and Redis hold.
fn held_by(pair: &Pair) -> [f64; 2] {
    [pair.node.pid(), pair.redis.pid()].map(held::bytes)
}

fn took(run: &Run, idle: f64, loaded: f64, loss: &str) -> Result<Took> {
    let mib = f64::from(1 << 20);
    Ok(Took {
        seconds: run.seconds,
        peak_mib: (run.peak_bytes - idle) / mib,
        added_mib: (run.peak_bytes - loaded) / mib,
        loss: loss.trim().parse().context("a loss")?,
    })
}

impl Took {
    /// Memory times time, as serverless platforms bill it.
    fn gb_s(&self) -> f64 {
        self.peak_mib / 1024.0 * self.seconds
    }
}
