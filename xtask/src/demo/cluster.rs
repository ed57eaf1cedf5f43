//! `./x demo cluster`: three nodes, a chained workload over shared state, and one node killed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

use xtask::catalogue::{self, Entry};
use xtask::cluster::{Cluster, LEASE, Terms};
use xtask::node::Node;
use xtask::visit;

use crate::chores;

/// Orders that are given.
const ORDERS: usize = 600;

/// The node that is killed, when this many orders are accepted.
const VICTIM: usize = 1;
const KILLED_AFTER: usize = ORDERS / 3;

/// How long an order is offered again before it counts as not taken.
const OFFER_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long an accepted order may take to its end.
const END_WAIT_MAX: Duration = Duration::from_secs(60);

/// Most keys in one page of `dunlin state ls`.
const PAGE: &str = "1000";

const APP: &str = "demo";
const FUNCTION: &str = "orders";

/// One order: its invocation, and the node that accepted it.
struct Accepted {
    id: String,
    node: usize,
}

/// Gives orders to three nodes, kills one, and counts; whether none was lost.
pub fn run(root: &Path) -> Result<bool> {
    let entries = catalogue::read(root)?;
    let entry = entries.iter().find(|entry| entry.name == FUNCTION);
    let entry = entry.context("the catalogue has no function `orders`")?;
    chores::need_guests(root)?;
    let binary = chores::build_release(root)?;
    let agent = visit::agent();
    let mut cluster = Cluster::start(&binary, &agent, 3, Terms::default())?;
    println!("etcd, a bucket and three nodes run");
    print!(
        "{}",
        String::from_utf8_lossy(&cluster.nodes[0].cli(&["nodes"])?)
    );
    visit::deploy(root, &cluster.nodes[0], APP, entry)?;
    wait_until_all_know(&cluster, entry)?;

    let started = Instant::now();
    let mut accepted = Vec::with_capacity(ORDERS);
    for number in 0..ORDERS {
        if number == KILLED_AFTER {
            cluster.nodes[VICTIM].kill()?;
            println!("kill -9 of n{} after {number} orders", VICTIM + 1);
        }
        accepted.push(give(&agent, &cluster.nodes, number)?);
    }
    let given = started.elapsed();
    let unfinished = unfinished(&agent, &cluster.nodes, &accepted)?;
    let ended = started.elapsed();
    let of_victim = accepted.iter().filter(|order| order.node == VICTIM).count();
    println!(
        "{ORDERS} orders accepted in {:.1} s, {of_victim} of them by the node that was killed; \
         all ended after {:.1} s (a lease is {} s)",
        given.as_secs_f64(),
        ended.as_secs_f64(),
        LEASE.as_secs(),
    );
    let mut missing = 0;
    for (at, node) in living(&cluster.nodes) {
        let booked = booked(node)?;
        println!("n{} has {booked} orders in state", at + 1);
        missing = missing.max(ORDERS.saturating_sub(booked));
    }
    let lost = unfinished.max(missing);
    println!("{lost} lost");
    Ok(lost == 0)
}

fn living(nodes: &[Node]) -> impl Iterator<Item = (usize, &Node)> {
    nodes.iter().enumerate().filter(|(at, _)| *at != VICTIM)
}

/// A deploy is known to the other nodes a moment after it was acknowledged by one.
fn wait_until_all_know(cluster: &Cluster, entry: &Entry) -> Result<()> {
    let end = Instant::now() + OFFER_WAIT_MAX;
    for node in &cluster.nodes {
        while !knows(node, &entry.name)? {
            if Instant::now() > end {
                bail!("a node has not heard of `{}`:\n{}", entry.name, node.log());
            }
        }
    }
    Ok(())
}

fn knows(node: &Node, function: &str) -> Result<bool> {
    let listed = node.cli(&["functions", "--output", "json"])?;
    Ok(String::from_utf8_lossy(&listed).contains(&format!("\"{function}\"")))
}

/// Has an order accepted: by the node whose turn it is, or else by the next one. The key makes an
/// order that is offered twice one order.
fn give(agent: &Agent, nodes: &[Node], number: usize) -> Result<Accepted> {
    let end = Instant::now() + OFFER_WAIT_MAX;
    let mut last = String::new();
    for at in (0..nodes.len()).cycle().skip(number % nodes.len()) {
        if Instant::now() > end {
            break;
        }
        match offer(agent, &nodes[at], number) {
            Ok(id) => return Ok(Accepted { id, node: at }),
            Err(error) => last = format!("{error:#}"),
        }
    }
    bail!("order {number} was not taken: {last}")
}

fn offer(agent: &Agent, node: &Node, number: usize) -> Result<String> {
    let url = format!("http://{}/{APP}/{FUNCTION}", node.data);
    let request = Request::post(url)
        .header("prefer", "respond-async")
        .header("idempotency-key", format!("order-{number}"))
        .body(format!("take {number}"))?;
    let reply = read(agent, request)?;
    let id = reply["id"].as_str().context("no id")?;
    Ok(id.to_owned())
}

/// How many of the accepted orders have not ended well.
fn unfinished(agent: &Agent, nodes: &[Node], orders: &[Accepted]) -> Result<usize> {
    let end = Instant::now() + END_WAIT_MAX;
    let (_, node) = living(nodes).next().context("no node lives")?;
    let mut unfinished = 0;
    for Accepted { id, .. } in orders {
        let left = end.saturating_duration_since(Instant::now());
        let url = format!(
            "http://{}/v1/invocations/{id}?wait={}ms",
            node.admin,
            left.as_millis()
        );
        let invocation = read(agent, Request::get(url).body(String::new())?)?;
        if invocation["state"] != "succeeded" {
            eprintln!("✗ {invocation}");
            unfinished += 1;
        }
    }
    Ok(unfinished)
}

fn read(agent: &Agent, request: Request<String>) -> Result<Value> {
    let mut reply = agent.run(request)?;
    let status = reply.status();
    let body = reply.body_mut().read_to_string()?;
    if !status.is_success() {
        bail!("{status}: {body}");
    }
    Ok(serde_json::from_str(&body)?)
}

/// Orders in state, as `node` sees it.
fn booked(node: &Node) -> Result<usize> {
    let listed = node.cli(&[
        "state", "ls", APP, "orders/", "-n", PAGE, "--output", "json",
    ])?;
    let listed: Value = serde_json::from_slice(&listed)?;
    let values = listed["values"].as_array().context("no list of values")?;
    Ok(values.len())
}
