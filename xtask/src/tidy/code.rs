//! Rules over one Rust file.

use super::facts::Facts;
use super::{Finding, Source};

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 100;

/// Names that say nothing about what is inside.
const BANNED_NAMES: [&str; 7] = [
    "utils", "util", "helpers", "helper", "common", "misc", "core",
];

/// The only places where `unsafe` may stand; guests live behind the wall.
const UNSAFE_ALLOWED: [&str; 6] = [
    "crates/memory/",
    "crates/faaslet/",
    "crates/microvm/",
    "sdk/",
    "examples/",
    "guests/",
];

/// The only places that serde may shape: wire types, records on disk, configuration.
const SERDE_ALLOWED: [&str; 24] = [
    "crates/model/",
    "crates/api/",
    "crates/transport/",
    "crates/storage/",
    "crates/invoker/src/",
    "crates/metering/src/",
    "crates/membership/src/record",
    "crates/faaslet/src/cache",
    "crates/faaslet/src/component/holding",
    "crates/faaslet/src/core_module/",
    "crates/microvm/src/frozen",
    // Processes and their files are frozen whole.
    "crates/microvm/src/linux/",
    "crates/files/src/",
    "crates/gateway/src/admin/",
    // Which lines of a log are wanted, of this node or another.
    "crates/gateway/src/cluster",
    "crates/gateway/src/tokens",
    "crates/node/src/config",
    "crates/node/src/cluster/logs",
    "crates/node/src/cluster/wire",
    // What was made of a version, as the cluster's store has it.
    "crates/node/src/travel",
    "crates/cli/src/",
    "examples/",
    "guests/",
    "sdk/",
];

/// Everything that `source` breaks.
pub fn check(source: &Source) -> Vec<Finding> {
    let mut findings = lines(source);
    let path = source.path.as_str();
    match Facts::of(&source.text) {
        Ok(facts) => findings.extend(facts_of(path, &facts)),
        Err(reason) => findings.push(Finding::new(path, 0, format!("is not Rust: {reason}"))),
    }
    let named = path.split('/').map(|part| part.trim_end_matches(".rs"));
    for part in named.filter(|part| BANNED_NAMES.contains(part)) {
        findings.push(Finding::new(
            path,
            0,
            format!("`{part}` says nothing: name the noun"),
        ));
    }
    findings
}

fn lines(source: &Source) -> Vec<Finding> {
    let path = source.path.as_str();
    let mut findings = Vec::new();
    if !source.text.starts_with("//!") {
        findings.push(Finding::new(
            path,
            1,
            "must begin with `//!`: say what the file is",
        ));
    }
    let count = source.text.lines().count();
    if count > FILE_LINES_MAX {
        let text = format!("{count} lines, {FILE_LINES_MAX} are the most: split it by noun");
        findings.push(Finding::new(path, 0, text));
    }
    for (at, line) in source.text.lines().enumerate() {
        // Code is broken by rustfmt, which leaves alone what cannot be broken.
        let columns = line.chars().count();
        if columns > LINE_COLUMNS_MAX && line.trim_start().starts_with("//") {
            let text = format!("{columns} columns, {LINE_COLUMNS_MAX} are the most");
            findings.push(Finding::new(path, at + 1, text));
        }
    }
    findings
}

fn facts_of(path: &str, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |line: usize, text: String| findings.push(Finding::new(path, line, text));
    for function in &facts.functions {
        if function.lines > FUNCTION_LINES_MAX {
            let (name, lines) = (&function.name, function.lines);
            let text = format!("`{name}` has {lines} lines, {FUNCTION_LINES_MAX} are the most");
            add(function.line, text);
        }
    }
    for line in &facts.ignores {
        add(*line, "no test is left out: mend it or remove it".into());
    }
    if !is_test(path) {
        for line in &facts.unwraps {
            add(
                *line,
                "no unwrap() outside of tests: handle it, or say why it cannot fail".into(),
            );
        }
    }
    if !is_under(path, &UNSAFE_ALLOWED) {
        for line in &facts.unsafes {
            add(
                *line,
                "no unsafe here: it belongs to memory, a back-end or the sdk".into(),
            );
        }
    }
    if !is_under(path, &SERDE_ALLOWED) && !is_test(path) {
        for line in &facts.serdes {
            add(
                *line,
                "no serde here: it shapes wire types, records and configuration".into(),
            );
        }
    }
    for (name, line) in facts
        .modules
        .iter()
        .filter(|(n, _)| BANNED_NAMES.contains(&n.as_str()))
    {
        add(*line, format!("`{name}` says nothing: name the noun"));
    }
    for (name, line) in facts
        .types
        .iter()
        .filter(|(name, _)| name.ends_with("Manager"))
    {
        add(
            *line,
            format!("`{name}`: say what it does, not that it manages"),
        );
    }
    findings
}

/// Whether all of a file is test code: suites, fixtures and harnesses that only tests call.
fn is_test(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    let in_crate = path
        .strip_prefix("crates/")
        .and_then(|path| path.split('/').nth(1));
    file.ends_with("tests.rs")
        || path
            .split('/')
            .any(|part| part == "tests" || part == "testkit")
        || matches!(in_crate, Some("benches" | "examples"))
        || path.contains("/conformance")
}

fn is_under(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(path: &str, text: &str, expected: &[&str]) {
        let source = Source {
            path: path.into(),
            text: text.into(),
        };
        let found: Vec<String> = check(&source).into_iter().map(|f| f.text).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (text, part) in found.iter().zip(expected) {
            assert!(text.contains(part), "{text:?} does not contain {part:?}");
        }
    }

    #[test]
    fn a_file_that_keeps_the_rules_is_quiet() {
        check_text("crates/model/src/a.rs", "//! Words.\nfn f() {}\n", &[]);
    }

    #[test]
    fn each_rule_over_a_file_finds_its_breach() {
        check_text("crates/model/src/a.rs", "fn f() {}\n", &["begin with"]);
        check_text("crates/model/src/utils.rs", "//! A.\n", &["says nothing"]);
        check_text(
            "crates/model/src/a.rs",
            "//! A.\nmod common;\n",
            &["says nothing"],
        );
        check_text(
            "crates/model/src/a.rs",
            "//! A.\nstruct PoolManager;\n",
            &["manages"],
        );
        check_text(
            "crates/model/src/a.rs",
            "//! A.\nfn f() { g().unwrap() }\n",
            &["unwrap"],
        );
        check_text(
            "crates/model/src/a.rs",
            "//! A.\nunsafe fn f() {}\n",
            &["unsafe"],
        );
        let shaped = "//! A.\n#[derive(Serialize)]\nstruct A;\n";
        check_text("crates/executor/src/a.rs", shaped, &["serde"]);
        let long = format!("//! A.\n// {}\n", "x".repeat(100));
        check_text("crates/model/src/a.rs", &long, &["columns"]);
        let tall = format!("//! A.\nfn f() {{\n{}}}\n", "    g();\n".repeat(70));
        check_text("crates/model/src/a.rs", &tall, &["72 lines"]);
        let huge = format!("//! A.\n{}", "\n".repeat(800));
        check_text("crates/model/src/a.rs", &huge, &["801 lines"]);
    }

    #[test]
    fn tests_and_back_ends_may_do_what_others_may_not() {
        check_text(
            "crates/model/src/tests.rs",
            "//! A.\nfn f() { g().unwrap() }\n",
            &[],
        );
        check_text("crates/memory/src/a.rs", "//! A.\nunsafe fn f() {}\n", &[]);
    }
}
