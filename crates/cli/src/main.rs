//! `dunlin`: starts nodes and talks to them.
//!
//! ```text
//!  args ─▶ commands ─┬─▶ client ─HTTP─▶ a node's admin listener
//!                    ├─▶ node (up, run)
//!                    └─▶ files of a project (new, build, schema)
//!  results ─▶ stdout (table, JSON)   notes, progress, errors ─▶ stderr
//! ```

mod args;
mod cluster_config;
mod commands;
mod connect;
mod exit;
mod fileset;
mod infer;
mod node_config;
mod output;
mod project;
mod table;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use args::Cli;
use exit::{Exit, Failure};

/// Each call allocates and frees some hundreds of small objects, often on different threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match commands::dispatch(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            report(&failure);
            failure.exit.into()
        }
    }
}

/// Prints what the parser has to say: help and version are no errors.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell if printing fails.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok.into(),
        _ => Exit::Usage.into(),
    }
}

fn report(failure: &Failure) {
    let label = console::style("dunlin:").red().bold().for_stderr();
    output::note(&format!(
        "{label} {}",
        table::printable_lines(&failure.to_string())
    ));
}
