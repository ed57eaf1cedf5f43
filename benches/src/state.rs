//! `state`: what shared state costs a function, against plain memory and against Redis.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use xtask::node::Node;
use xtask::visit;

use crate::Setting;
use crate::measure::median;
use crate::redis::{self, Redis};
use crate::report::Report;

const PROBE: &str = "guests/out/probes/state.wasm";
/// Bytes of a value that is got.
const VALUE_BYTES: usize = 64;
/// Gets of one batch, and batches.
const GETS: u32 = 5_000;
const BATCHES: usize = 9;

/// Lets a function measure its state, and a native client the same of Redis.
pub fn run(setting: &Setting) -> Result<Report> {
    let node = Node::start(&setting.binary(), &visit::agent())?;
    let probe = setting.root.join(PROBE);
    let probe = probe
        .to_str()
        .context("the repository's path is not UTF-8")?;
    let allow = "--allow-state=probe/=write";
    node.cli(&["deploy", "--app", "bench", "--name", "state", allow, probe])?;
    let access = said(&node, "bench/state", "access")?;
    let first = said(&node, "bench/state", "map")?;
    let again = said(&node, "bench/state", "map")?;
    let get = median(&said(&node, "bench/state", "get")?);
    let redis = redis_get_ns()?;

    let (pairs, rest) = access.as_chunks::<2>();
    ensure!(
        rest.is_empty() && !pairs.is_empty(),
        "the probe said half a pair"
    );
    let ratios: Vec<f64> = pairs.iter().map(|[plain, mapped]| mapped / plain).collect();
    let mut report = Report::new("state", &["what", "ns"]);
    report.row(
        "map 1 MiB that is there",
        [format!("{:.0}", median(&again))],
    );
    report.row("map 1 MiB and make it", [format!("{:.0}", median(&first))]);
    report.row("get 64 bytes", [format!("{get:.0}")]);
    report.row("get 64 bytes of Redis", [format!("{redis:.0}")]);
    report.figure("mapped_access_ratio", median(&ratios));
    report.figure("map_1_mib_us", median(&again) / 1e3);
    report.figure("get_against_redis", redis / get);
    Ok(report)
}

/// The numbers that a probe says, one a line.
pub fn said(node: &Node, function: &str, what: &str) -> Result<Vec<f64>> {
    let url = format!("http://{}/{function}", node.data);
    let mut reply = visit::agent().post(&url).send(what)?;
    let text = reply.body_mut().read_to_string()?;
    ensure!(reply.status() == 200, "{function} {what}: {text}");
    let numbers = text
        .lines()
        .map(|line| line.parse().context("a number of a probe"));
    numbers.collect()
}

fn redis_get_ns() -> Result<f64> {
    let server = redis::start()?;
    let mut redis = Redis::connect(&server.address)?;
    redis.command(&[b"SET", b"probe/get", &[1; VALUE_BYTES]])?;
    let mut batches = Vec::new();
    for _ in 0..BATCHES {
        let begun = Instant::now();
        for _ in 0..GETS {
            let value = redis.command(&[b"GET", b"probe/get"])?;
            ensure!(value.len() == VALUE_BYTES, "Redis lost a byte");
        }
        batches.push(begun.elapsed().as_nanos() as f64 / f64::from(GETS));
    }
    Ok(median(&batches))
}
