//! The budgets of BUDGETS.md: the table there is what `--check` holds figures against.

use std::fmt;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::report::Report;

/// Where the budgets are.
pub const PAGE: &str = "BUDGETS.md";

/// A promised bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// `BENCH.NAME`.
    pub figure: String,
    /// What it may be.
    pub bound: Bound,
}

/// What a figure may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtLeast(bound) => write!(f, "≥ {bound}"),
            Bound::AtMost(bound) => write!(f, "≤ {bound}"),
        }
    }
}

/// A budget and what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The budget.
    pub budget: Budget,
    /// The figure; none if the bench did not give it.
    pub value: Option<f64>,
    /// Whether it is kept.
    pub kept: bool,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.kept { "kept" } else { "MISSED" };
        let Budget { figure, bound } = &self.budget;
        match self.value {
            Some(value) => write!(f, "{mark}  {figure} is {value:.2}, promised {bound}"),
            None => write!(f, "{mark}  {figure} was not measured, promised {bound}"),
        }
    }
}

impl Verdict {
    /// For machines.
    pub fn json(&self) -> Value {
        json!({
            "figure": self.budget.figure,
            "value": self.value,
            "promised": self.budget.bound.to_string(),
            "kept": self.kept,
        })
    }
}

/// Reads the rows of `page` whose first cell is a figure's name in backquotes and whose second is a
/// bound.
pub fn read(page: &str) -> Result<Vec<Budget>> {
    let mut budgets = Vec::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, bound, ..] = cells[..] else {
            continue;
        };
        let figure = name.trim_matches('`');
        // Only a figure has a bench and a point before its name: other tables have other names.
        if figure == name || !figure.contains('.') {
            continue;
        }
        let bound = read_bound(bound).with_context(|| format!("{PAGE}: {line}"))?;
        budgets.push(Budget {
            figure: figure.to_owned(),
            bound,
        });
    }
    if budgets.is_empty() {
        bail!("{PAGE} promises nothing");
    }
    Ok(budgets)
}

fn read_bound(text: &str) -> Result<Bound> {
    let mut parts = text.split_whitespace();
    let sign = parts.next().unwrap_or_default();
    let number: f64 = parts
        .next()
        .unwrap_or_default()
        .parse()
        .context("no number")?;
    match sign {
        "≥" => Ok(Bound::AtLeast(number)),
        "≤" => Ok(Bound::AtMost(number)),
        _ => bail!("`{sign}` is neither ≥ nor ≤"),
    }
}

/// The budgets of bench `name` against what it found.
pub fn verdicts(name: &str, budgets: &[Budget], report: &Report) -> Vec<Verdict> {
    let of_bench = |budget: &&Budget| {
        budget
            .figure
            .split_once('.')
            .is_some_and(|(bench, _)| bench == name)
    };
    budgets
        .iter()
        .filter(of_bench)
        .map(|budget| verdict(budget, report))
        .collect()
}

fn verdict(budget: &Budget, report: &Report) -> Verdict {
    let figure = report
        .figures
        .iter()
        .find(|f| budget.figure.ends_with(&format!(".{}", f.name)));
    let value = figure.map(|figure| figure.value);
    let kept = value.is_some_and(|value| budget.bound.holds(value));
    Verdict {
        budget: budget.clone(),
        value,
        kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "| figure | budget |\n|---|---|\n| `a.x` | ≥ 1.5 |\n| `a.y` | ≤ 24 KiB |\n\n| `a` | a minute |\n";

    fn report(x: f64) -> Report {
        let mut report = Report::new("a", &[]);
        report.figure("x", x);
        report
    }

    #[test]
    fn a_figure_that_is_missed_or_missing_is_not_kept() {
        let budgets = read(TABLE).unwrap();
        let kept = |x| {
            verdicts("a", &budgets, &report(x))
                .iter()
                .map(|v| v.kept)
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(1.5), [true, false]);
        assert_eq!(kept(1.4), [false, false]);
        assert_eq!(kept(f64::NAN), [false, false]);
    }

    #[test]
    fn a_bench_is_held_to_its_own_budgets_only() {
        assert!(verdicts("b", &read(TABLE).unwrap(), &report(1.0)).is_empty());
    }

    #[test]
    fn the_page_of_the_project_can_be_read() {
        read(include_str!("../../BUDGETS.md")).unwrap();
    }
}
