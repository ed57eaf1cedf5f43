//! `http`: requests a second of the same hello, from this platform and from others.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use xtask::node::{Node, free_address};
use xtask::{command, visit};

use crate::child::Server;
use crate::load::load;
use crate::measure::median;
use crate::report::Report;
use crate::start::replier;
use crate::{Setting, plain};

/// The wasmtime that is measured against.
const WASMTIME_VERSION: &str = "48.0.8";

/// Rounds, each of which loads every server in turn.
const ROUNDS: usize = 5;

/// Seconds that each server is loaded in a round.
const SECONDS: u32 = 5;

const COMPONENT: &str = "guests/out/hello-http.wasm";

/// Loads `wasmtime serve`, a node's component and reactor, and a plain hyper server in turns.
pub fn run(setting: &Setting) -> Result<Report> {
    let wasmtime = wasmtime_serve(setting)?;
    let node = Node::start(&setting.binary(), &visit::agent())?;
    let component = setting.root.join(COMPONENT);
    let component = component
        .to_str()
        .context("the repository's path is not UTF-8")?;
    node.cli(&[
        "deploy", "--app", "bench", "--name", "hello", "--kind", "http", component,
    ])?;
    let reactor = replier()?;
    let reactor = reactor
        .path()
        .to_str()
        .context("the temporary folder is not UTF-8")?;
    node.cli(&[
        "deploy", "--app", "bench", "--name", "reply", "--kind", "reactor", reactor,
    ])?;
    let plain = plain::start()?;

    let servers = [
        (
            "wasmtime serve 48, component",
            url(&wasmtime.address, ""),
            wasmtime.pid(),
        ),
        (
            "dunlin, component",
            url(&node.data, "bench/hello/"),
            node.pid(),
        ),
        ("plain hyper", url(&plain.address, ""), plain.pid()),
        (
            "dunlin, reactor",
            url(&node.data, "bench/reply/"),
            node.pid(),
        ),
    ];
    for (_, url, pid) in &servers {
        load(url, *pid, 1)?;
    }
    let mut rates = [const { Vec::new() }; 4];
    let mut cpu = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        for (at, (_, url, pid)) in servers.iter().enumerate() {
            let load = load(url, *pid, SECONDS)?;
            rates[at].push(load.per_second);
            cpu[at].push(load.cpu_us);
        }
    }
    let mut report = Report::new("http", &["server", "requests/s", "CPU µs/request"]);
    for (at, (name, _, _)) in servers.iter().enumerate() {
        let figures = [median(&rates[at]), median(&cpu[at])];
        report.row(name, figures.map(|figure| format!("{figure:.1}")));
    }
    report.figure("component_ratio", ratio(&rates[1], &rates[0]));
    report.figure("reactor_ratio", ratio(&rates[3], &rates[2]));
    Ok(report)
}

/// The median over rounds of what one did against what the other did in the same round.
fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    let ratios: Vec<f64> = ours
        .iter()
        .zip(theirs)
        .map(|(ours, theirs)| ours / theirs)
        .collect();
    median(&ratios)
}

fn url(address: &str, path: &str) -> String {
    format!("http://{address}/{path}")
}

/// Starts `wasmtime serve` on the component, installed if it is not there.
fn wasmtime_serve(setting: &Setting) -> Result<Server> {
    let binary = wasmtime(setting)?;
    let address = free_address()?;
    let mut command = Command::new(binary);
    // Rust's std imports wasi:cli; one request for each instance is what we do as well.
    command.args([
        "serve",
        "-Scli",
        "--max-instance-reuse-count",
        "1",
        "--addr",
        &address,
    ]);
    command.arg(setting.root.join(COMPONENT));
    Server::start(command, &address)
}

/// `target/bench-tools/bin/wasmtime` of [`WASMTIME_VERSION`].
fn wasmtime(setting: &Setting) -> Result<PathBuf> {
    let folder = setting.target.join("bench-tools");
    let binary = folder.join("bin/wasmtime");
    let version = Command::new(&binary).arg("--version").output();
    let is_wanted = |output: std::process::Output| {
        String::from_utf8_lossy(&output.stdout).contains(&format!(" {WASMTIME_VERSION}"))
    };
    if !version.is_ok_and(is_wanted) {
        eprintln!("cargo: wasmtime-cli {WASMTIME_VERSION} (about ten minutes)");
        let root = folder.to_str().context("the target folder is not UTF-8")?;
        let package = format!("wasmtime-cli@{WASMTIME_VERSION}");
        let line = [
            "cargo", "install", "--locked", "--quiet", "--root", root, &package,
        ];
        if !command::succeeds(&setting.root, &line)? {
            bail!("wasmtime-cli did not install");
        }
    }
    Ok(binary)
}
