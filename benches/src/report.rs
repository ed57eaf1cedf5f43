//! What a bench found: a table for people, figures for budgets, both as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::budgets::Verdict;

/// A figure that a budget may bound; its full name is `BENCH.NAME`.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name within the bench.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
}

/// What one bench found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The bench.
    pub name: &'static str,
    /// The table's heading.
    pub head: Vec<&'static str>,
    /// The table's rows; the first cell is a word, the others are figures.
    pub rows: Vec<Vec<String>>,
    /// What the budgets look at.
    pub figures: Vec<Figure>,
}

impl Report {
    /// A report without rows.
    pub fn new(name: &'static str, head: &[&'static str]) -> Self {
        Self {
            name,
            head: head.to_vec(),
            rows: Vec::new(),
            figures: Vec::new(),
        }
    }

    /// Adds a row: a word and its figures.
    pub fn row(&mut self, word: &str, figures: impl IntoIterator<Item = String>) {
        self.rows
            .push([word.to_owned()].into_iter().chain(figures).collect());
    }

    /// Adds a figure.
    pub fn figure(&mut self, name: &'static str, value: f64) {
        self.figures.push(Figure { name, value });
    }

    /// The table.
    pub fn text(&self) -> String {
        let head: Vec<String> = self.head.iter().map(|cell| (*cell).to_owned()).collect();
        let lines: Vec<&Vec<String>> = [&head].into_iter().chain(&self.rows).collect();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        };
        let mut text = String::new();
        for line in &lines {
            for (column, cell) in line.iter().enumerate() {
                let width = width(column);
                // Writing to a String cannot fail.
                let _ = match column {
                    0 => write!(text, "{cell:<width$}"),
                    _ => write!(text, "  {cell:>width$}"),
                };
            }
            text.push('\n');
        }
        text
    }

    /// All of it, for machines.
    pub fn json(&self, verdicts: &[Verdict]) -> Value {
        let figures: Value = self
            .figures
            .iter()
            .map(|f| (f.name.to_owned(), json!(f.value)))
            .collect();
        let budgets: Vec<Value> = verdicts.iter().map(Verdict::json).collect();
        json!({
            "bench": self.name,
            "head": self.head,
            "rows": self.rows,
            "figures": figures,
            "budgets": budgets,
        })
    }
}
