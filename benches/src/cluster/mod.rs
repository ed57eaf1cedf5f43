//! `cluster`: nodes on hosts of their own, in network namespaces: what a call costs more that runs
//! on another node, against an echo by bare TLS; what values of another node cost, against bare
//! streams and Redis; how long a node's death is felt; and what very many deaths lose.

pub mod echo;
mod iperf;
mod kills;
mod values;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use testkit::{Host, Lan};
use ureq::Agent;
use xtask::cluster::{Cluster, LEASE, Site, Terms};
use xtask::node::Node;
use xtask::visit;

use crate::Setting;
use crate::measure::{median, micros, percentile};
use crate::report::Report;
use echo::Echo;
use iperf::Iperf;
use values::{LARGE, LARGE_BYTES, Pair, Values};

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

/// What all measure with; the calling thread is on the first node's host.
struct Bench<'a> {
    setting: &'a Setting,
    agent: Agent,
    services: Site,
    nodes: [Site; 3],
}

/// Measures from a thread of its own, which goes to the first node's host and stays there. Nodes
/// that are killed again and again are on this host.
pub fn run(setting: &Setting) -> Result<Report> {
    let mut report = std::thread::scope(|scope| {
        let measured = scope.spawn(|| measure(setting));
        measured.join().map_err(|_| anyhow!("it panicked"))?
    })?;
    kills::run(setting, &mut report)?;
    Ok(report)
}

fn measure(setting: &Setting) -> Result<Report> {
    let lan = Lan::new().map_err(|error| anyhow!(error))?;
    let host = || lan.host().map_err(|error| anyhow!(error));
    let (services, first) = (site(&host()?), host()?);
    let nodes = [site(&first), site(&host()?), site(&host()?)];
    first.enter().map_err(|error| anyhow!(error))?;
    let bench = Bench {
        setting,
        agent: visit::agent(),
        services,
        nodes,
    };
    let mut report = Report::new("cluster", &["what", "p50 µs", "p99 µs"]);
    bench.measure_encrypted(&mut report)?;
    bench.measure_plain(&mut report)?;
    Ok(report)
}

impl Bench<'_> {
    fn start(&self, terms: Terms) -> Result<Cluster> {
        let (binary, services) = (self.setting.binary(), &self.services);
        Cluster::start_apart(&binary, &self.agent, services, &self.nodes, terms)
    }

    /// What values of the second node cost the first one, against a stream from there.
    fn values(
        &self,
        cluster: &Cluster,
        stream: impl FnMut() -> Result<Vec<f64>>,
    ) -> Result<Values> {
        let pair = Pair {
            setting: self.setting,
            agent: &self.agent,
            entrance: &cluster.nodes[0],
            site: &self.nodes[1],
        };
        values::measure(&pair, stream)
    }

    /// Nodes that talk by TLS: calls, values, and a death.
    fn measure_encrypted(&self, report: &mut Report) -> Result<()> {
        let mut cluster = self.start(Terms::default())?;
        let keys = tempfile::tempdir()?;
        let mut echo = Echo::start(&self.nodes[1], keys.path())?;
        let url = self.measure_calls(&cluster, &mut echo, report)?;
        let mut room = vec![0; LARGE_BYTES];
        let moved = self.values(&cluster, || timed(LARGE, || echo.get(&mut room)))?;
        moved.report(report, "by TLS", "bare TLS");
        let [tls, get, set] = moved.ratios;
        report.figure("pull_against_tls", tls);
        report.figure("encrypted_pull_against_redis", get);
        report.figure("encrypted_push_against_redis", set);
        wish(&self.agent, &cluster.nodes[0], &url, "cordon", false)?;
        let felt = felt_death(&self.agent, &mut cluster, &url)?;
        let felt_us = micros(felt);
        report.row(
            "until calls succeed after kill -9",
            [format!("{felt_us:.0}"), String::new()],
        );
        report.figure("failover_leases", felt.as_secs_f64() / LEASE.as_secs_f64());
        Ok(())
    }

    /// Nodes that talk without TLS, as iperf3 and Redis do: values.
    fn measure_plain(&self, report: &mut Report) -> Result<()> {
        let terms = Terms {
            plaintext: true,
            ..Terms::default()
        };
        let cluster = self.start(terms)?;
        let iperf = Iperf::start(&self.nodes[1])?;
        let moved = self.values(&cluster, || Ok(vec![iperf.take_us(LARGE_BYTES)?]))?;
        moved.report(report, "not encrypted", "iperf3");
        let [iperf3, get, set] = moved.ratios;
        report.figure("pull_against_iperf3", iperf3);
        report.figure("pull_against_redis", get);
        report.figure("push_against_redis", set);
        Ok(())
    }

    /// Times calls that stay, calls that are sent on, and echoes in turns; the function's address.
    fn measure_calls(
        &self,
        cluster: &Cluster,
        echo: &mut Echo,
        report: &mut Report,
    ) -> Result<String> {
        let agent = &self.agent;
        let artifact = self.setting.root.join(NOOP);
        let artifact = artifact
            .to_str()
            .context("the repository's path is not UTF-8")?;
        let entrance = &cluster.nodes[0];
        entrance.cli(&["deploy", "--app", "bench", "--name", "noop", artifact])?;
        let url = format!("http://{}/bench/noop", entrance.data);
        let mut kinds = [const { Vec::new() }; 3];
        let mut ratios = vec![];
        for _ in 0..ROUNDS {
            wish(agent, entrance, &url, "uncordon", true)?;
            let stays = timed(CALLS, || call(agent, &url).map(drop))?;
            wish(agent, entrance, &url, "cordon", false)?;
            let sent = timed(CALLS, || call(agent, &url).map(drop))?;
            let echoes = timed(CALLS, || echo.once())?;
            ratios.push((median(&sent) - median(&stays)) / median(&echoes));
            for (all, times) in kinds.iter_mut().zip([stays, sent, echoes]) {
                all.extend(times);
            }
        }
        wish(agent, entrance, &url, "uncordon", true)?;
        let names = ["call that stays", "call that is sent on", "echo by TLS"];
        for (name, times) in names.into_iter().zip(&kinds) {
            let figures = [median(times), percentile(times, 99)];
            report.row(name, figures.map(|us| format!("{us:.1}")));
        }
        report.figure("hop_ratio", median(&ratios));
        Ok(url)
    }
}

pub fn site(host: &Host) -> Site {
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
