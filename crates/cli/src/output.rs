//! What commands print: tables for people, JSON for programs, progress only where someone watches.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::exit::{Exit, Failure, Outcome};
use crate::table::Table;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// The API's own JSON, one document.
    Json,
}

/// Where and how a command prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// The format that was asked for.
    pub format: Format,
}

/// How often a spinner moves.
const TICK: Duration = Duration::from_millis(100);

impl Output {
    /// Whether a person reads it, rather than a program.
    pub fn is_for_people(self) -> bool {
        self.format == Format::Table
    }

    /// Prints `value` as JSON, or the table that `table` makes of it.
    pub fn show<T: Serialize>(self, value: &T, table: impl FnOnce() -> Table) -> Outcome {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => {
                let term = console::Term::stdout();
                let width = term.size_checked().map(|(_, columns)| usize::from(columns));
                // Not a terminal: whoever reads it cuts for himself.
                let width = width.filter(|_| term.is_term());
                print(&table().render(width, |header| console::style(header).dim().to_string()))
            }
        }
    }

    /// Prints `value` as JSON, or the sentence for people.
    pub fn say<T: Serialize>(self, value: &T, sentence: impl FnOnce() -> String) -> Outcome {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => print(&format!("{}\n", sentence())),
        }
    }

    fn json<T: Serialize>(self, value: &T) -> Outcome {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::caused(Exit::Failure, error))?;
        print(&format!("{text}\n"))
    }
}

/// Writes `text` to stdout. A reader that went away (`| head`) is no failure.
pub fn print(text: &str) -> Outcome {
    print_bytes(text.as_bytes())
}

/// Writes `bytes` to stdout as they are.
pub fn print_bytes(bytes: &[u8]) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(Exit::Ok),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Ok),
        Err(error) => Err(Failure::caused(Exit::Failure, error)),
    }
}

/// Writes a line to stderr. There is nobody left to tell if that fails.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Progress on stderr, shown only on a terminal.
pub struct Progress(ProgressBar);

impl Progress {
    /// Work of `bytes` bytes, such as an upload.
    pub fn bytes(what: &str, bytes: u64) -> Self {
        let template = "{msg} {bar:30} {binary_bytes}/{binary_total_bytes}";
        Self::start(
            ProgressBar::with_draw_target(Some(bytes), target()),
            template,
            what,
        )
    }

    /// Work of unknown length, such as a compile.
    pub fn spinner(what: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, target());
        let progress = Self::start(bar, "{spinner} {msg} {elapsed}", what);
        progress.0.enable_steady_tick(TICK);
        progress
    }

    fn start(bar: ProgressBar, template: &str, what: &str) -> Self {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self(bar)
    }

    /// `bytes` more are done.
    pub fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}
