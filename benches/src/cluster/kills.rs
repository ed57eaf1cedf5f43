//! Nodes that are killed again and again, while calls are left with them: what was accepted has one
//! outcome, neither none nor two.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;
use xtask::cluster::{Cluster, Terms};
use xtask::node::Node;
use xtask::visit;

use crate::Setting;
use crate::report::Report;

const PROBE: &str = "guests/out/probes/nap.wasm";
/// Each is one `kill -9` of one node, which is started again at once.
const CYCLES: usize = 100;
/// Nodes, killed in turns. While one comes back, which takes a lease, more of them are killed.
const NODES: usize = 4;
/// The shortest that there is.
const LEASE: Duration = Duration::from_secs(2);
/// From one kill to the next at least: a node's turn comes when it has been back for a while.
const CYCLE: Duration = Duration::from_millis(1_300);
/// Who leaves calls, and how long each of them rests after one.
const CLIENTS: usize = 2;
const REST: Duration = Duration::from_millis(50);
/// How long a call is offered again before it counts as not taken.
const OFFER_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long all may take to their ends after the last kill: some of them wait for a retry.
const END_WAIT_MAX: Duration = Duration::from_secs(120);
/// How long one request waits for that.
const ASK_WAIT_MAX: Duration = Duration::from_secs(20);
/// Between two looks, and two rounds of offers that nobody took.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Invocations in one page of a listing.
const PAGE: usize = 1_000;

/// Calls by their ids; each has the numbers of the requests that it was accepted for.
type Accepted = BTreeMap<String, Vec<usize>>;

/// Kills nodes on this host's loopback, and counts.
pub fn run(setting: &Setting, report: &mut Report) -> Result<()> {
    let terms = Terms {
        lease: LEASE,
        ..Terms::default()
    };
    let agent = visit::agent();
    let mut cluster = Cluster::start(&setting.binary(), &agent, NODES, terms)?;
    deploy(setting, &agent, &cluster)?;
    let begun = Instant::now();
    let accepted = with_clients(&mut cluster, |cluster| kill_in_turns(&agent, cluster))?;
    let took = begun.elapsed();
    for node in &mut cluster.nodes {
        node.wait_until_ready(&agent)?;
    }
    let node = &cluster.nodes[0];
    await_ends(&agent, node, &accepted)?;
    let found = all_of(&agent, node)?;
    let lost = lost(&accepted, &found);
    report.row(
        &format!("accepted in {CYCLES} kill cycles"),
        [format!("{} calls", accepted.len()), String::new()],
    );
    report.row(
        "of a kill cycle",
        [
            format!("{:.1}", took.as_secs_f64() * 1e6 / CYCLES as f64),
            String::new(),
        ],
    );
    report.figure("lost_in_kill_cycles", lost as f64);
    Ok(())
}

/// Deploys the function, and waits until every node knows it.
fn deploy(setting: &Setting, agent: &Agent, cluster: &Cluster) -> Result<()> {
    let probe = setting.root.join(PROBE);
    let probe = probe
        .to_str()
        .context("the repository's path is not UTF-8")?;
    cluster.nodes[0].cli(&["deploy", "--app", "bench", "--name", "nap", probe])?;
    let end = Instant::now() + OFFER_WAIT_MAX;
    for node in &cluster.nodes {
        let url = format!("http://{}/v1/apps/bench/functions/nap", node.admin);
        while agent.get(&url).call()?.status() != 200 {
            ensure!(Instant::now() < end, "a node has not heard of it");
            std::thread::sleep(LOOK_EVERY);
        }
    }
    Ok(())
}

/// Kills each node when its turn comes and it has come back from the last time.
fn kill_in_turns(agent: &Agent, cluster: &mut Cluster) -> Result<()> {
    for cycle in 0..CYCLES {
        let begun = Instant::now();
        let victim = &mut cluster.nodes[cycle % NODES];
        victim.wait_until_ready(agent)?;
        std::thread::sleep(CYCLE.saturating_sub(begun.elapsed()));
        victim.kill()?;
        victim.start_again()?;
    }
    Ok(())
}

/// Has clients leave calls with all nodes while `what` is done; what was accepted.
fn with_clients(
    cluster: &mut Cluster,
    what: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<Accepted> {
    let nodes: Vec<String> = cluster.nodes.iter().map(|node| node.data.clone()).collect();
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let client = || leave_calls(&nodes, &next, &over);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let done = what(cluster);
        over.store(true, Ordering::Relaxed);
        let mut accepted = Accepted::new();
        for client in clients {
            let left = client.join().map_err(|_| anyhow!("a client panicked"))??;
            for (number, id) in left {
                accepted.entry(id).or_default().push(number);
            }
        }
        done.map(|()| accepted)
    })
}

/// One client: requests by their numbers, and the ids that they were accepted with.
fn leave_calls(
    nodes: &[String],
    next: &AtomicUsize,
    over: &AtomicBool,
) -> Result<Vec<(usize, String)>> {
    let agent = visit::agent();
    let mut left = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        left.push((number, leave(&agent, nodes, number)?));
        std::thread::sleep(REST);
    }
    Ok(left)
}

/// Has a call accepted: by the node whose turn it is, or else by the next one. The key makes a call
/// that is offered twice, since its answer did not come, one call.
fn leave(agent: &Agent, nodes: &[String], number: usize) -> Result<String> {
    let end = Instant::now() + OFFER_WAIT_MAX;
    let mut last = String::new();
    while Instant::now() < end {
        for at in 0..nodes.len() {
            match offer(agent, &nodes[(number + at) % nodes.len()], number) {
                Ok(id) => return Ok(id),
                Err(error) => last = format!("{error:#}"),
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
    bail!("call {number} was not taken: {last}")
}

fn offer(agent: &Agent, node: &str, number: usize) -> Result<String> {
    let request = Request::post(format!("http://{node}/bench/nap"))
        .header("prefer", "respond-async")
        .header("idempotency-key", format!("nap-{number}"))
        .body(String::new())?;
    let reply = read(agent, request)?;
    let id = reply["id"].as_str().context("no id")?;
    Ok(id.to_owned())
}

fn read(agent: &Agent, request: Request<String>) -> Result<Value> {
    let mut reply = agent.run(request)?;
    let status = reply.status();
    let body = reply.body_mut().read_to_string()?;
    ensure!(status.is_success(), "{status}: {body}");
    Ok(serde_json::from_str(&body)?)
}

/// Waits until all have ended, or for as long as that may take.
fn await_ends(agent: &Agent, node: &Node, accepted: &Accepted) -> Result<()> {
    let end = Instant::now() + END_WAIT_MAX;
    for id in accepted.keys() {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let wait_ms = left.min(ASK_WAIT_MAX).as_millis();
            let url = format!("http://{}/v1/invocations/{id}?wait={wait_ms}ms", node.admin);
            let text = agent.get(url).call()?.body_mut().read_to_string()?;
            let said: Value = serde_json::from_str(&text).unwrap_or_default();
            let goes_on = matches!(said["state"].as_str(), Some("waiting" | "running"));
            // One that is not there, or does not end, shows in the listing.
            if !goes_on || left.is_zero() {
                break;
            }
        }
    }
    Ok(())
}

/// The states of all invocations that there are, by id.
fn all_of(agent: &Agent, node: &Node) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let mut after = String::new();
    loop {
        let url = format!(
            "http://{}/v1/invocations?app=bench&function=nap&limit={PAGE}{after}",
            node.admin
        );
        let page = read(agent, Request::get(url).body(String::new())?)?;
        let listed = page["invocations"].as_array().context("no list")?;
        for one in listed {
            let (id, state) = (one["id"].as_str(), one["state"].as_str());
            let id = id.context("an invocation without an id")?.to_owned();
            all.insert(id, state.unwrap_or_default().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(all),
        }
    }
}

/// Calls without an outcome, or with one that the function cannot have had; requests that share an
/// outcome; and outcomes of calls that were made of a request besides the accepted one.
fn lost(accepted: &Accepted, found: &BTreeMap<String, String>) -> usize {
    let mut lost = 0;
    for (id, numbers) in accepted {
        let state = found.get(id).map_or("not there", String::as_str);
        if state != "succeeded" {
            eprintln!("✗ {id} is {state}");
            lost += 1;
        }
        if numbers.len() > 1 {
            eprintln!("✗ {id} is of the requests {numbers:?}");
            lost += numbers.len() - 1;
        }
    }
    for id in found.keys().filter(|id| !accepted.contains_key(*id)) {
        eprintln!("✗ {id} was accepted of nobody");
        lost += 1;
    }
    lost
}
