//! Unknown keys of a TOML file: which, on what line, and which known key was likely meant.

use std::fmt;

use toml::de::{DeTable, DeValue};

/// Most problems that are shown at once.
pub const PROBLEMS_MAX: usize = 20;
/// Longest key that is shown, in characters.
const KEY_CHARS_MAX: usize = 40;

/// The keys that a place in a TOML file may have.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Anything: its own type decides.
    Value,
    /// A table with these keys.
    Table(&'static [(&'static str, Shape)]),
    /// A list of tables with these keys.
    Tables(&'static [(&'static str, Shape)]),
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; `None` where the whole file is meant.
    pub line: Option<usize>,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// Everything that is wrong with a file, at least one thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(Vec<Problem>);

impl Problem {
    /// A problem at a byte of `text`.
    pub fn at(text: &str, offset: usize, message: String) -> Self {
        let before = text.as_bytes().iter().take(offset);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        Self {
            line: Some(line),
            message,
        }
    }

    /// A problem of the whole file.
    pub fn whole(message: String) -> Self {
        Self {
            line: None,
            message,
        }
    }

    /// What a TOML reader said of `text`.
    pub fn of_toml(text: &str, error: &toml::de::Error) -> Self {
        let message = error.message().trim().replace('\n', ", ");
        match error.span() {
            Some(span) => Self::at(text, span.start, message),
            None => Self::whole(message),
        }
    }
}

impl Problems {
    /// Several problems; an empty list becomes a problem of its own, so that none is silent.
    pub fn new(mut problems: Vec<Problem>) -> Self {
        if problems.is_empty() {
            problems.push(Problem::whole("the file is not valid".into()));
        }
        Self(problems)
    }

    /// One problem.
    pub fn one(problem: Problem) -> Self {
        Self(vec![problem])
    }

    /// Each problem.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().take(PROBLEMS_MAX).enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        match self.0.len().saturating_sub(PROBLEMS_MAX) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// The keys of `text` that `shape` does not know. Fails where `text` is no TOML.
pub fn unknown(text: &str, shape: Shape) -> Result<Vec<Problem>, Problems> {
    let table =
        DeTable::parse(text).map_err(|error| Problems::one(Problem::of_toml(text, &error)))?;
    let mut problems = Vec::new();
    if let Shape::Table(known) = shape {
        walk(text, table.get_ref(), known, &mut problems);
    }
    Ok(problems)
}

fn walk(
    text: &str,
    table: &DeTable<'_>,
    known: &[(&'static str, Shape)],
    problems: &mut Vec<Problem>,
) {
    for (key, value) in table {
        let name: &str = key.get_ref();
        let Some((_, shape)) = known.iter().find(|(known, _)| *known == name) else {
            let message = unknown_key(name, known);
            problems.push(Problem::at(text, key.span().start, message));
            continue;
        };
        match (shape, value.get_ref()) {
            (Shape::Table(known), DeValue::Table(table)) => walk(text, table, known, problems),
            (Shape::Tables(known), DeValue::Array(array)) => {
                for table in array.iter().filter_map(|item| item.get_ref().as_table()) {
                    walk(text, table, known, problems);
                }
            }
            _ => {}
        }
    }
}

fn unknown_key(name: &str, known: &[(&'static str, Shape)]) -> String {
    let shown: String = name.chars().take(KEY_CHARS_MAX).collect();
    let names = known.iter().map(|(name, _)| *name);
    match nearest(&shown, names.clone()) {
        Some(near) => format!("unknown key `{shown}`: did you mean `{near}`?"),
        None => {
            let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
            format!("unknown key `{shown}`: known here are {}", names.join(", "))
        }
    }
}

/// The known word nearest to `word`, where one is near enough to be meant.
pub fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let likely = |name: &str| {
        let part = word.len() >= 4 && (name.starts_with(word) || word.starts_with(name));
        part || distance(word, name) <= 1 + name.len().min(word.len()) / 4
    };
    known
        .filter(|name| likely(name))
        .min_by_key(|name| distance(word, name))
}

/// Levenshtein distance in characters, by one row (Wagner and Fischer, 1974).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
