//! `./x test`: every check in order of cost, all of them even when one fails, and one closing line.

use std::path::Path;

use anyhow::Result;

use xtask::command::{exists, succeeds, watched};

use crate::{chores, tidy};

/// What passed and what did not; a check (format, lints, …) counts as one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    fn count(&mut self, name: &str, passed: Result<bool>) {
        match passed {
            Ok(true) => self.passed += 1,
            Ok(false) => self.fail(name, "failed"),
            Err(error) => self.fail(name, &format!("{error:#}")),
        }
    }

    fn fail(&mut self, name: &str, why: &str) {
        eprintln!("✗ {name}: {why}");
        self.failed += 1;
    }

    /// Adds what a summary line of nextest or of the built-in harness counts.
    fn add_line(&mut self, line: &str) {
        let is_summary = line.trim_start().starts_with("Summary [");
        if !is_summary && !line.starts_with("test result:") {
            return;
        }
        self.passed += number_before(line, " passed");
        self.failed += number_before(line, " failed") + number_before(line, " timed out");
    }
}

/// The number that stands right before `word`; 0 if there is none.
fn number_before(line: &str, word: &str) -> u64 {
    let Some(end) = line.find(word) else { return 0 };
    let digits = line[..end]
        .trim_end_matches(|c: char| c.is_ascii_digit())
        .len();
    line[digits..end].parse().unwrap_or(0)
}

/// Runs everything; whether all of it passed.
pub fn run(root: &Path) -> Result<bool> {
    let mut tally = Tally::default();
    let format = ["cargo", "fmt", "--all", "--check"];
    tally.count("format", succeeds(root, &format));
    tally.count("tidy", tidy::run(root));
    tally.count("guests", chores::guests(root));
    tally.count("deploy", chores::lint_deploy(root));
    tests(root, &mut tally);
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

/// What clippy is told: what it says is an error.
const CLIPPY: [&str; 2] = ["env", "CLIPPY_ARGS=-Dwarnings__CLIPPY_HACKERY__"];
/// Has it compile our crates, so that lints need no build of their own, which would check all
/// dependencies once more. No variable says so: programs that tests compile are not ours to lint.
const LINTED: [&str; 2] = ["--config", "build.rustc-workspace-wrapper='clippy-driver'"];

/// Unit and integration tests, then the examples in the documentation.
fn tests(root: &Path, tally: &mut Tally) {
    let nextest = [
        "cargo",
        "nextest",
        "run",
        "--workspace",
        "--no-fail-fast",
        "--color",
        "never",
    ];
    let plain = [
        "cargo",
        "test",
        "--workspace",
        "--all-targets",
        "--no-fail-fast",
    ];
    let (name, line) = if exists(root, &["cargo", "nextest", "--version"]) {
        ("cargo nextest", &nextest[..])
    } else {
        eprintln!(
            "cargo-nextest is missing: `cargo test` runs the tests, one crate after the other"
        );
        ("cargo test", &plain[..])
    };
    counted(root, tally, name, &[&CLIPPY, line, &LINTED].concat());
    let docs = ["cargo", "test", "--workspace", "--doc", "--no-fail-fast"];
    counted(
        root,
        tally,
        "doc tests",
        &[&CLIPPY[..], &docs, &LINTED].concat(),
    );
    let benches = ["cargo", "build", "--workspace", "--benches"];
    let benches = succeeds(root, &[&CLIPPY[..], &benches, &LINTED].concat());
    tally.count("benches", benches);
}

/// Runs a harness and adds what it counted; one that fails without a failed test did not build.
fn counted(root: &Path, tally: &mut Tally, name: &str, line: &[&str]) {
    let before = tally.failed;
    match watched(root, line, &mut |text| tally.add_line(text)) {
        Ok(false) if tally.failed == before => tally.fail(name, "did not run"),
        Ok(_) => {}
        Err(error) => tally.fail(name, &format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, passed: u64, failed: u64) {
        let mut tally = Tally::default();
        tally.add_line(line);
        assert_eq!(tally, Tally { passed, failed }, "{line}");
    }

    #[test]
    fn the_summaries_of_both_harnesses_are_counted() {
        check(
            "     Summary [   0.01s] 3 tests run: 3 passed, 0 skipped",
            3,
            0,
        );
        check(
            "     Summary [   0.01s] 3 tests run: 1 passed, 2 failed, 1 skipped",
            1,
            2,
        );
        check(
            "     Summary [ 1.0s] 4 tests run: 1 passed (1 slow), 2 failed, 1 timed out",
            1,
            3,
        );
        check(
            "test result: FAILED. 12 passed; 34 failed; 0 ignored; 0 measured",
            12,
            34,
        );
        check("a line that says 7 passed of itself", 0, 0);
    }
}
