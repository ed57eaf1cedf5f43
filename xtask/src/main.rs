//! The project's own chores, called through `./x`.
//!
//! ```text
//! ./x VERB ─▶ cargo xtask VERB ─┬─ test   fmt, clippy, tidy, guests, tests
//!                               ├─ demo   a node, every example, a table
//!                               ├─ tour   runs the shell blocks of README.md
//!                               ├─ bench  the figures of BUDGETS.md
//!                               ├─ fuzz   tests that draw their input, for some time
//!                               ├─ guests builds the example functions
//!                               ├─ ci     test, then cargo deny
//!                               └─ tidy   the rules of the house
//! ```
#![allow(
    clippy::print_stdout,
    reason = "a program for a terminal: stdout is its reply"
)]

mod chores;
mod demo;
mod fuzz;
mod suite;
mod tidy;
mod tour;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
usage: ./x VERB [ARGUMENTS]

  test                    format, lints, tidy rules, guests, every test
  demo                    builds all, starts a node, deploys and calls every example
  demo cluster            starts etcd, a bucket and three nodes, and kills one during the work
  tour                    runs the shell blocks of README.md, as pasted
  bench [NAME…] [--check] measures; --check fails when a figure of BUDGETS.md is missed
                          names: start http density kernels first-call state
                          chain sgd matmul inference (default: all)
  fuzz [SECONDS]          each test that draws its input at random, for so long (default: 60)
  guests                  builds the example functions
  ci                      test, then cargo deny
  tidy                    the rules of the house
  help                    this text
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    match dispatch(&root(), &verb, &rest) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one verb; false when what it checked is not as it should be.
fn dispatch(root: &Path, verb: &str, rest: &[String]) -> Result<bool> {
    if !rest.is_empty() && !["bench", "demo", "fuzz"].contains(&verb) {
        bail!("`{verb}` takes no arguments\n{HELP}");
    }
    match verb {
        "test" => suite::run(root),
        "ci" => Ok(suite::run(root)? & chores::deny(root)?),
        "demo" => match rest.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => demo::run(root),
            ["cluster"] => demo::cluster::run(root),
            _ => bail!("`demo` takes `cluster` or nothing\n{HELP}"),
        },
        "tour" => tour::run(root),
        "bench" => chores::bench(root, rest),
        "fuzz" => fuzz::run(root, rest),
        "guests" => chores::guests(root),
        "tidy" => tidy::run(root),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(true)
        }
        "" => bail!("which verb?\n{HELP}"),
        other => bail!("`{other}` is not a verb\n{HELP}"),
    }
}

/// The repository's root: xtask is a folder in it.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
