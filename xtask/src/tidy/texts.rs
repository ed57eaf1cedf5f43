//! Rules over texts of any kind: paths of somebody's machine, and pages that must exist.

use std::path::Path;

use super::{Finding, Source};

/// Where homes lie; the project must not know any.
const HOMES: [&str; 3] = ["/home/", "/root/", "/Users/"];

/// Longest allowed architecture description.
const ARCHITECTURE_LINES_MAX: usize = 400;

/// Everything that `source` breaks.
pub fn check(source: &Source, root: &Path) -> Vec<Finding> {
    let path = source.path.as_str();
    let mut findings = Vec::new();
    let checkout = format!("{}/", root.display());
    // This file has to name what it looks for.
    let looked_at = path != "xtask/src/tidy/texts.rs" && path != "LICENSE";
    for (at, line) in source.text.lines().enumerate() {
        if looked_at && names_a_machine(line, &checkout) {
            findings.push(Finding::new(
                path,
                at + 1,
                "names a path of somebody's machine",
            ));
        }
    }
    let count = source.text.lines().count();
    if path == "ARCHITECTURE.md" && count > ARCHITECTURE_LINES_MAX {
        let text = format!("{count} lines, {ARCHITECTURE_LINES_MAX} are the most");
        findings.push(Finding::new(path, 0, text));
    }
    findings
}

/// Whether `line` holds an absolute path below a home or below the checkout.
fn names_a_machine(line: &str, checkout: &str) -> bool {
    // A checkout right below `/`, such as `/src/`, would match ordinary relative paths.
    let deep = checkout.matches('/').count() > 2;
    HOMES
        .iter()
        .copied()
        .chain(deep.then_some(checkout))
        .any(|prefix| {
            line.match_indices(prefix)
                .any(|(at, _)| starts_a_path(&line[..at]))
        })
}

fn starts_a_path(before: &str) -> bool {
    !before.ends_with(|c: char| c.is_alphanumeric() || "._-/}$)*".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_homes_and_of_the_checkout_are_found() {
        let check = |line: &str| names_a_machine(line, "/srv/dunlin/");
        assert!(check("see /home/ada/notes"));
        assert!(check("open(\"/srv/dunlin/x\")"));
        assert!(!check("docs/home/index"));
        assert!(!check("$PREFIX/root/bin"));
        assert!(!names_a_machine("crates/a/src/lib.rs and /src/x", "/src/"));
    }
}
