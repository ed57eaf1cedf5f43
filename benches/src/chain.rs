//! `chain`: a function calls another that does nothing, against the same call over HTTP.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use xtask::node::Node;
use xtask::visit;

use crate::Setting;
use crate::measure::{median, percentile};
use crate::report::Report;
use crate::state::said;

const FOLDER: &str = "guests/out/probes";
/// Calls over HTTP in a round, and rounds of both.
const CALLS: usize = 2_000;
const ROUNDS: usize = 5;

/// Times calls between functions and calls from outside in turns.
pub fn run(setting: &Setting) -> Result<Report> {
    let agent = visit::agent();
    let node = Node::start(&setting.binary(), &agent)?;
    for (name, file, reuse) in [
        ("chain", "chain", "fresh"),
        ("noop", "noop", "fresh"),
        ("kept", "noop", "app"),
    ] {
        let artifact = setting.root.join(FOLDER).join(format!("{file}.wasm"));
        let artifact = artifact
            .to_str()
            .context("the repository's path is not UTF-8")?;
        let (allow, reuse) = ("--allow-call=*", format!("--reuse={reuse}"));
        node.cli(&[
            "deploy", "--app", "bench", "--name", name, allow, &reuse, artifact,
        ])?;
    }
    let url = format!("http://{}/bench/noop", node.data);
    let (mut chained, mut kept) = (Vec::new(), Vec::new());
    let (mut over_http, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let inside = said(&node, "bench/chain", "noop")?;
        kept.extend(said(&node, "bench/chain", "kept")?);
        let mut outside = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let begun = Instant::now();
            let mut reply = agent.post(&url).send_empty()?;
            reply.body_mut().read_to_vec()?;
            outside.push(begun.elapsed().as_nanos() as f64);
            ensure!(reply.status() == 200, "noop failed over HTTP");
        }
        ratios.push(median(&outside) / median(&inside));
        chained.extend(inside);
        over_http.extend(outside);
    }
    let mut report = Report::new(
        "chain",
        &["call of a function that does nothing", "p50 µs", "p99 µs"],
    );
    for (name, times) in [
        ("by a function", &chained),
        ("by a function, its sandbox kept", &kept),
        ("over HTTP", &over_http),
    ] {
        let figures = [median(times), percentile(times, 99)];
        report.row(name, figures.map(|ns| format!("{:.2}", ns / 1e3)));
    }
    report.figure("call_p50_us", median(&chained) / 1e3);
    report.figure("call_against_http", median(&ratios));
    Ok(report)
}
