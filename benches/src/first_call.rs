//! `first-call`: from the start of a node's process to the first reply of a function that was
//! deployed before.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use xtask::catalogue;
use xtask::node::Node;
use xtask::visit;

use crate::Setting;
use crate::measure::{median, micros, percentile};
use crate::report::Report;

/// Starts of the node for each function.
const STARTS: usize = 20;

/// How long a first reply may take.
const REPLY_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often the node's port is tried while it starts: the error of each sample.
const TRY_EVERY: Duration = Duration::from_micros(200);

const APP: &str = "bench";

/// Deploys every example, then starts the node anew for each sample.
pub fn run(setting: &Setting) -> Result<Report> {
    let entries = catalogue::read(&setting.root)?;
    let agent = visit::agent();
    let mut node = Node::start(&setting.binary(), &agent)?;
    for entry in &entries {
        visit::deploy(&setting.root, &node, APP, entry)?;
    }
    let mut samples = vec![Vec::with_capacity(STARTS); entries.len()];
    for _ in 0..STARTS {
        for (entry, samples) in entries.iter().zip(&mut samples) {
            let request = visit::request(&setting.root, &node.data, APP, entry)?;
            node.stop();
            let start = Instant::now();
            node.start_again()?;
            first_reply(&request, start)?;
            samples.push(micros(start.elapsed()) / 1e3);
        }
    }
    let head = ["function", "language", "kind", "p50 ms", "p99 ms"];
    let mut report = Report::new("first-call", &head);
    for (entry, samples) in entries.iter().zip(&samples) {
        let times = [median(samples), percentile(samples, 99)].map(|ms| format!("{ms:.1}"));
        let words = [entry.language.clone(), entry.kind.clone()];
        report.row(&entry.name, words.into_iter().chain(times));
    }
    let all: Vec<f64> = samples.iter().map(|samples| median(samples)).collect();
    report.figure("median_ms", median(&all));
    Ok(report)
}

/// Calls until the node answers, from a client without connections; the answer must be right.
fn first_reply(request: &visit::Request<'_>, start: Instant) -> Result<()> {
    let agent = visit::agent();
    loop {
        match visit::call(&agent, request) {
            Ok((_, None)) => return Ok(()),
            Ok((_, Some(fault))) => bail!("the first reply is wrong: {fault}"),
            Err(error) if start.elapsed() > REPLY_WAIT_MAX => return Err(error),
            Err(_) => std::thread::sleep(TRY_EVERY),
        }
    }
}
