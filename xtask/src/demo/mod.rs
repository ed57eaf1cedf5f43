//! `./x demo`: a node, every function of the catalogue deployed and called, and a table of it.

pub mod cluster;
mod table;

use std::path::Path;

use anyhow::{Context, Result};

use xtask::catalogue::{self, Entry};
use xtask::node::Node;
use xtask::visit;

use crate::chores;

/// Calls of each function.
const CALLS: usize = 100;

/// A demo of fewer functions is a failed demo.
const FUNCTIONS_MIN: usize = 8;

/// The app that the functions are deployed in.
const APP: &str = "demo";

/// Builds, deploys, calls, checks; whether every call was answered as the catalogue says.
pub fn run(root: &Path) -> Result<bool> {
    let entries = catalogue::read(root)?;
    chores::need_guests(root)?;
    let binary = chores::build_release(root)?;
    let agent = visit::agent();
    let node = Node::start(&binary, &agent)?;
    println!(
        "a node listens at http://{}, its admin at http://{}",
        node.data, node.admin
    );

    let mut rows = Vec::new();
    for entry in &entries {
        eprintln!("  {} ({}, {})", entry.name, entry.language, entry.kind);
        rows.push(row(root, &node, &agent, entry));
    }
    print!("{}", table::render(&rows));
    let invoked: usize = rows.iter().map(|row| row.invoked).sum();
    let failed: usize = rows.iter().map(|row| row.failed).sum();
    let enough = rows.len() >= FUNCTIONS_MIN;
    if !enough {
        println!(
            "only {} functions, {FUNCTIONS_MIN} are the least",
            rows.len()
        );
    }
    println!("{invoked} invoked, {failed} failed");
    Ok(failed == 0 && enough)
}

/// One function's line; a function that did not deploy counts as one failed invocation.
fn row(root: &Path, node: &Node, agent: &ureq::Agent, entry: &Entry) -> table::Row {
    let mut row = table::Row::of(entry);
    if let Err(error) = fill(root, node, agent, entry, &mut row) {
        eprintln!("✗ {}: {error:#}", entry.name);
        row.failed = row.failed.max(1);
    }
    row
}

fn fill(
    root: &Path,
    node: &Node,
    agent: &ureq::Agent,
    entry: &Entry,
    row: &mut table::Row,
) -> Result<()> {
    row.deploy = Some(visit::deploy(root, node, APP, entry)?);
    let request = visit::request(root, &node.data, APP, entry)?;
    let mut times = Vec::with_capacity(CALLS);
    for at in 0..CALLS {
        row.invoked += 1;
        let (time, fault) = visit::call(agent, &request)?;
        if let Some(fault) = fault {
            row.failed += 1;
            eprintln!("✗ {} call {at}: {fault}", entry.name);
        }
        times.push(time);
    }
    row.first = times.first().copied();
    times.sort();
    row.median = times.get(times.len() / 2).copied();
    row.usage = Some(visit::usage(node, APP, entry).context("reading its usage")?);
    Ok(())
}
