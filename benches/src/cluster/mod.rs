//! `cluster`: nodes on hosts of their own, in network namespaces: what a call costs more that runs
//! on another node, against an echo by bare TLS; and how long a node's death is felt.

pub mod echo;
mod values;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use testkit::{Host, Lan};
use ureq::Agent;
use xtask::cluster::{Cluster, LEASE, Site};
use xtask::node::Node;
use xtask::visit;

use crate::Setting;
use crate::measure::{median, micros, percentile};
use crate::report::Report;
use echo::Echo;

const NOOP: &str = "guests/out/probes/noop.wasm";
/// Calls, or echoes, of a kind in a round, and rounds of all kinds.
const CALLS: usize = 1_000;
const ROUNDS: usize = 5;
/// Calls that succeed in a row before a death counts as over.
const CALM: usize = 200;
/// How long the nodes may take until they act upon what operators want.
const WISH_WAIT_MAX: Duration = Duration::from_secs(30);
/// Says which node ran a call.
const NODE: &str = "dunlin-node";

/// Measures from a thread of its own, which goes to the first node's host and stays there.
pub fn run(setting: &Setting) -> Result<Report> {
    std::thread::scope(|scope| {
        let measured = scope.spawn(|| measure(setting));
        measured.join().map_err(|_| anyhow!("it panicked"))?
    })
}

/// Times calls that stay, calls that are sent on, and echoes in turns; then kills a node.
fn measure(setting: &Setting) -> Result<Report> {
    let lan = Lan::new().map_err(|error| anyhow!(error))?;
    let host = || lan.host().map_err(|error| anyhow!(error));
    let (services, first) = (site(&host()?), host()?);
    let nodes = [site(&first), site(&host()?), site(&host()?)];
    first.enter().map_err(|error| anyhow!(error))?;
    let agent = visit::agent();
    let mut cluster = Cluster::start_apart(&setting.binary(), &agent, &services, &nodes)?;
    let artifact = setting.root.join(NOOP);
    let artifact = artifact
        .to_str()
        .context("the repository's path is not UTF-8")?;
    let entrance = &cluster.nodes[0];
    entrance.cli(&["deploy", "--app", "bench", "--name", "noop", artifact])?;
    let url = format!("http://{}/bench/noop", entrance.data);
    let keys = tempfile::tempdir()?;
    let mut echo = Echo::start(&nodes[1], keys.path())?;
    let (mut stays, mut sent, mut echoes, mut ratios) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        wish(&agent, entrance, &url, "uncordon", true)?;
        let here = timed(CALLS, || call(&agent, &url).map(drop))?;
        wish(&agent, entrance, &url, "cordon", false)?;
        let there = timed(CALLS, || call(&agent, &url).map(drop))?;
        let bare = timed(CALLS, || echo.once())?;
        ratios.push((median(&there) - median(&here)) / median(&bare));
        stays.extend(here);
        sent.extend(there);
        echoes.extend(bare);
    }
    wish(&agent, entrance, &url, "uncordon", true)?;
    let moved = values::measure(setting, &agent, entrance, &nodes[1], &mut echo)?;
    wish(&agent, entrance, &url, "cordon", false)?;
    let felt = felt_death(&agent, &mut cluster, &url)?;
    let mut report = Report::new("cluster", &["what", "p50 µs", "p99 µs"]);
    for (name, times) in [
        ("call that stays", &stays),
        ("call that is sent on", &sent),
        ("echo by TLS", &echoes),
    ] {
        let figures = [median(times), percentile(times, 99)];
        report.row(name, figures.map(|us| format!("{us:.1}")));
    }
    moved.report(&mut report);
    let felt_us = micros(felt);
    report.row(
        "until calls succeed after kill -9",
        [format!("{felt_us:.0}"), String::new()],
    );
    report.figure("hop_ratio", median(&ratios));
    report.figure("failover_leases", felt.as_secs_f64() / LEASE.as_secs_f64());
    Ok(report)
}

fn site(host: &Host) -> Site {
    let there = host.clone();
    Site {
        address: host.address().to_string(),
        launch: Arc::new(move |program: &Path| there.command(program)),
    }
}

/// Microseconds of each of `count` runs.
fn timed(count: usize, mut what: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    (0..count)
        .map(|_| {
            let begun = Instant::now();
            what()?;
            Ok(micros(begun.elapsed()))
        })
        .collect()
}

/// Calls the function; which node ran it.
fn call(agent: &Agent, url: &str) -> Result<String> {
    let mut reply = agent.post(url).send_empty()?;
    let body = reply.body_mut().read_to_string()?;
    ensure!(reply.status() == 200, "{}: {body}", reply.status());
    let node = reply.headers().get(NODE).context("no node is named")?;
    Ok(node.to_str()?.to_owned())
}

/// Cordons the node that calls come to, or ends that, and waits until calls go so.
fn wish(agent: &Agent, entrance: &Node, url: &str, what: &str, stays: bool) -> Result<()> {
    entrance.cli(&["node", what, "n1"])?;
    let end = Instant::now() + WISH_WAIT_MAX;
    // Right after a deploy the others may not know the function yet.
    while !call(agent, url).is_ok_and(|node| (node == "n1") == stays) {
        if Instant::now() > end {
            bail!("`{what}` is not heeded:\n{}", entrance.log());
        }
    }
    Ok(())
}

/// Kills a node to which calls are sent, and gives how long it took from then until calls
/// succeeded for good.
fn felt_death(agent: &Agent, cluster: &mut Cluster, url: &str) -> Result<Duration> {
    let victim: usize = match call(agent, url)?.as_str() {
        "n2" => 1,
        _ => 2,
    };
    let killed = Instant::now();
    cluster.nodes[victim].kill()?;
    let (mut calm, mut healed) = (0, killed);
    while calm < CALM {
        match call(agent, url) {
            Ok(_) if calm == 0 => {
                healed = Instant::now();
                calm = 1;
            }
            Ok(_) => calm += 1,
            Err(_) => calm = 0,
        }
        ensure!(killed.elapsed() < WISH_WAIT_MAX, "calls fail for good");
    }
    Ok(healed - killed)
}
