//! `./x fuzz [SECONDS]`: the tests that draw their input at random, each for so long.
//!
//! Host calls have a test of their own, which knows how long it is to go on. The others are
//! property tests, run again and again with new seeds; proptest writes what failed beside the
//! test's source.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use xtask::command::program;

/// How long each target goes on unless told.
const SECONDS: u64 = 60;

/// Cases of one run of a property test that does not say how many it wants.
const CASES: &str = "20000";

/// Tests of a crate: how cargo finds them.
struct Target {
    name: &'static str,
    cargo: &'static [&'static str],
    /// What the tests' names begin with; empty for all of them.
    tests: &'static str,
}

const fn target(name: &'static str, cargo: &'static [&'static str], tests: &'static str) -> Target {
    Target { name, cargo, tests }
}

/// Runs until its time is over.
const HOST_CALLS: Target = target("host calls", &["--workspace", "--test", "hostile"], "");

/// Run until they have used up their time.
const PROPERTIES: [Target; 6] = [
    target("manifests", &["-p", "api", "--lib"], "manifest::tests::no_"),
    target(
        "memory, images and regions",
        &["-p", "memory", "--lib"],
        "tests::",
    ),
    target("the store", &["-p", "storage", "--test", "model"], ""),
    target("state and its locks", &["-p", "state", "--lib"], ""),
    target(
        "frames between nodes",
        &["-p", "transport", "--lib"],
        "frame_tests::no_",
    ),
    target(
        "calls between nodes",
        &["-p", "transport", "--lib"],
        "machine::model_tests::",
    ),
];

/// Runs every target; whether none found anything.
pub fn run(root: &Path, arguments: &[String]) -> Result<bool> {
    let seconds = match arguments {
        [] => SECONDS,
        [seconds] => seconds.parse().context("how many seconds")?,
        _ => anyhow::bail!("`fuzz` takes a number of seconds and nothing else"),
    };
    let mut clean = once(root, &HOST_CALLS, seconds)?;
    for target in &PROPERTIES {
        clean &= again_and_again(root, target, seconds)?;
    }
    println!(
        "{}",
        if clean {
            "nothing found"
        } else {
            "something was found"
        }
    );
    Ok(clean)
}

fn again_and_again(root: &Path, target: &Target, seconds: u64) -> Result<bool> {
    let begun = Instant::now();
    let mut runs = 0;
    while runs == 0 || begun.elapsed() < Duration::from_secs(seconds) {
        if !once(root, target, seconds)? {
            return Ok(false);
        }
        runs += 1;
    }
    eprintln!("  {}: {runs} runs", target.name);
    Ok(true)
}

fn once(root: &Path, target: &Target, seconds: u64) -> Result<bool> {
    let line = [
        &["cargo", "test", "--quiet"],
        target.cargo,
        &["--", target.tests],
    ]
    .concat();
    eprintln!("▶ {} ({})", target.name, line.join(" "));
    let mut command = program(root, &line);
    command.env("DUNLIN_FUZZ_SECONDS", seconds.to_string());
    command.env("PROPTEST_CASES", CASES);
    let status = command.status().context("starting cargo")?;
    Ok(status.success())
}
