//! The rules of the house, checked over every file that git knows or would take.
//!
//! `./x tidy` prints what breaks them, and the tests of this crate fail on it.

mod code;
mod crates;
mod facts;
mod texts;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use xtask::command::program;

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, from the repository's root.
    pub path: String,
    /// The line, from 1; 0 where the whole file is meant.
    pub line: usize,
    /// What is wrong, and what to do.
    pub text: String,
}

impl Finding {
    fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            text: text.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// A text file of the repository.
pub struct Source {
    /// From the repository's root, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// Prints what breaks the rules; whether nothing does.
pub fn run(root: &Path) -> Result<bool> {
    let findings = check(root)?;
    for finding in &findings {
        println!("{finding}");
    }
    eprintln!("tidy: {} found", findings.len());
    Ok(findings.is_empty())
}

/// Everything that breaks a rule, by file and line.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let sources = sources(root)?;
    let mut findings = Vec::new();
    for source in &sources {
        findings.extend(texts::check(source, root));
        if source.path.ends_with(".rs") {
            findings.extend(code::check(source));
        }
    }
    findings.extend(crates::check(root, &sources)?);
    findings.sort();
    Ok(findings)
}

/// Every text file that is tracked, or new and not ignored.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let list = [
        "git",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let output = program(root, &list).output().context("starting git")?;
    if !output.status.success() {
        bail!("git cannot list the files of {}", root.display());
    }
    let mut sources = Vec::new();
    for path in String::from_utf8_lossy(&output.stdout).split('\0') {
        // A file may be deleted and not committed so; a file that is not text has no rules.
        if let Ok(text) = std::fs::read_to_string(root.join(path)) {
            sources.push(Source {
                path: path.to_owned(),
                text,
            });
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tree_keeps_every_rule() {
        let findings = super::check(&crate::root()).unwrap();
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }
}
