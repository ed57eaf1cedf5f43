//! Measures what BUDGETS.md promises: `benches [NAME…] [--check]`.
//!
//! Every figure is a median over interleaved rounds, and every ratio is of two things that ran in
//! turns in one run, so that a noisy machine slows both. Each bench prints a table and writes
//! `target/bench/NAME.json`.
#![allow(
    clippy::print_stdout,
    reason = "a program for a terminal: stdout is its reply"
)]

mod bare;
mod budgets;
mod chain;
mod child;
mod cluster;
mod density;
mod faaslets;
mod first_call;
mod front;
mod http;
mod images;
mod kernels;
mod load;
mod measure;
mod plain;
mod programs;
mod python;
mod redis;
mod report;
mod scheduler;
mod start;
mod state;
mod vm;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use report::Report;

/// A bench: measures, and reports.
type Bench = fn(&Setting) -> Result<Report>;

const BENCHES: [(&str, Bench); 15] = [
    ("start", start::run),
    ("http", http::run),
    ("density", density::run),
    ("kernels", kernels::run),
    ("first-call", first_call::run),
    ("state", state::run),
    ("chain", chain::run),
    ("sgd", workloads::sgd::run),
    ("matmul", workloads::matmul::run),
    ("inference", workloads::inference::run),
    ("python", python::run),
    ("vm", vm::run),
    ("scheduler", scheduler::run),
    ("cluster", cluster::run),
    ("images", images::run),
];

/// The environment's variable that names the `dunlin` to measure.
const BINARY: &str = "DUNLIN_BENCH_BINARY";

/// Where things lie.
struct Setting {
    /// The repository.
    root: PathBuf,
    /// Where cargo builds to.
    target: PathBuf,
}

impl Setting {
    /// `dunlin`, built for release unless [`BINARY`] names another.
    fn binary(&self) -> PathBuf {
        let built = || self.target.join("release/dunlin");
        std::env::var_os(BINARY).map_or_else(built, PathBuf::from)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the benches asked for; false when a figure is missed and `--check` was given.
fn run(arguments: &[String]) -> Result<bool> {
    if let [verb, address] = arguments
        && verb == plain::VERB
    {
        return plain::serve(address).map(|()| true);
    }
    if let [verb, address, folder] = arguments
        && verb == cluster::echo::VERB
    {
        return cluster::echo::serve(address, folder).map(|()| true);
    }
    if let [verb, address, workers, line @ ..] = arguments
        && verb == front::VERB
    {
        return front::serve(address, workers, line).map(|()| true);
    }
    let check = arguments.iter().any(|argument| argument == "--check");
    let names: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|name| *name != "--check")
        .collect();
    for name in &names {
        if !BENCHES.iter().any(|(known, _)| known == name) {
            let known = BENCHES.map(|(known, _)| known).join(", ");
            bail!("there is no bench `{name}`; there are: {known}");
        }
    }
    let setting = setting()?;
    let page = std::fs::read_to_string(setting.root.join(budgets::PAGE))
        .with_context(|| format!("reading {}", budgets::PAGE))?;
    let budgets = budgets::read(&page)?;
    let mut kept = true;
    for (name, bench) in BENCHES {
        if names.is_empty() || names.contains(&name) {
            eprintln!("▶ {name}");
            let report = bench(&setting).with_context(|| format!("the bench {name}"))?;
            kept &= conclude(
                &setting,
                &report,
                &budgets::verdicts(name, &budgets, &report),
            )?;
        }
    }
    Ok(kept || !check)
}

/// Prints a report and writes it; whether all its budgets are kept.
fn conclude(setting: &Setting, report: &Report, verdicts: &[budgets::Verdict]) -> Result<bool> {
    println!("\n{}", report.text());
    for verdict in verdicts {
        println!("{verdict}");
    }
    let folder = setting.target.join("bench");
    std::fs::create_dir_all(&folder).context("making target/bench")?;
    let file = folder.join(format!("{}.json", report.name));
    let json = serde_json::to_string_pretty(&report.json(verdicts))?;
    std::fs::write(&file, json).with_context(|| format!("writing {}", file.display()))?;
    Ok(verdicts.iter().all(|verdict| verdict.kept))
}

fn setting() -> Result<Setting> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here
        .parent()
        .context("the repository has no root")?
        .to_path_buf();
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(path) => root.join(path),
        None => root.join("target"),
    };
    Ok(Setting { root, target })
}
