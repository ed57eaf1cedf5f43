//! The demo's table.

use std::time::Duration;

use xtask::catalogue::Entry;
use xtask::visit::Usage;

/// One function.
#[derive(Debug)]
pub struct Row {
    name: String,
    language: String,
    kind: String,
    /// Time of `dunlin deploy`.
    pub deploy: Option<Duration>,
    /// Time of the first call.
    pub first: Option<Duration>,
    /// Median time of all calls.
    pub median: Option<Duration>,
    /// What it used.
    pub usage: Option<Usage>,
    /// Calls made.
    pub invoked: usize,
    /// Calls that were not answered as they should be.
    pub failed: usize,
}

impl Row {
    /// The row of a function before anything is known of it.
    pub fn of(entry: &Entry) -> Self {
        Self {
            name: entry.name.clone(),
            language: entry.language.clone(),
            kind: entry.kind.clone(),
            deploy: None,
            first: None,
            median: None,
            usage: None,
            invoked: 0,
            failed: 0,
        }
    }

    fn cells(&self) -> [String; 9] {
        let usage = |show: fn(Usage) -> String| self.usage.map_or("-".into(), show);
        [
            self.name.clone(),
            self.language.clone(),
            self.kind.clone(),
            millis(self.deploy, 0),
            millis(self.first, 2),
            millis(self.median, 2),
            usage(|u| format!("{:.1} MiB", u.memory_peak_bytes as f64 / 1_048_576.0)),
            usage(|u| format!("{} ms, {:.6} GB-s", u.wall_ms, u.gb_s)),
            format!(
                "{}/{}",
                self.invoked - self.failed.min(self.invoked),
                self.invoked
            ),
        ]
    }
}

const HEAD: [&str; 9] = [
    "function",
    "language",
    "kind",
    "deploy ms",
    "first ms",
    "median ms",
    "memory",
    "billed",
    "ok",
];

/// The first three columns are words; the others are figures and stand to the right.
const WORD_COLUMNS: usize = 3;

/// The rows under their heading, columns aligned.
pub fn render(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let cell = match column < WORD_COLUMNS {
                true => format!("{cell:<width$}  "),
                false => format!("{cell:>width$}  "),
            };
            text.push_str(&cell);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn millis(time: Option<Duration>, digits: usize) -> String {
    time.map_or("-".into(), |time| {
        format!("{:.digits$}", time.as_secs_f64() * 1e3)
    })
}
