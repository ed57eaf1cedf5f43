//! The runtime inside is built of what the node is built of, so that whoever has fetched the one
//! can build the other, and an update of one is seen to be missing from the other.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::HashSet;
use std::path::Path;

/// Crates of the runtime's own.
const OWN: [&str; 2] = ["inside", "memfd"];

/// Names and versions in a lock file.
fn locked(path: &str) -> HashSet<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(path).unwrap();
    let value = |line: &str, name: &str| {
        let rest = line.strip_prefix(name)?.strip_prefix(" = \"")?;
        rest.strip_suffix('"').map(str::to_owned)
    };
    let lines: Vec<_> = text.lines().collect();
    let pairs = lines.windows(2);
    pairs
        .filter_map(|two| Some((value(two[0], "name")?, value(two[1], "version")?)))
        .collect()
}

#[test]
fn every_crate_inside_is_one_outside() {
    let (inside, outside) = (locked("inside/Cargo.lock"), locked("../../Cargo.lock"));
    assert!(inside.len() > 40);
    let others: Vec<_> = inside
        .difference(&outside)
        .filter(|(name, _)| !OWN.contains(&name.as_str()))
        .collect();
    assert!(
        others.is_empty(),
        "in crates/microvm/inside/Cargo.lock but not in Cargo.lock: {others:?}"
    );
}
