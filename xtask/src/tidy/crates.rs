//! Who may depend on whom: the `layers` block of ARCHITECTURE.md against cargo's metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use xtask::command::program;

use super::{Finding, Source};

const PAGE: &str = "ARCHITECTURE.md";

/// A crate of the workspace and the crates of the workspace that it names outside of its tests.
type Edges = BTreeMap<String, BTreeSet<String>>;

/// Every dependency that the list does not allow, and every crate that it does not know.
pub fn check(root: &Path, sources: &[Source]) -> Result<Vec<Finding>> {
    let Some(page) = sources.iter().find(|source| source.path == PAGE) else {
        return Ok(vec![Finding::new(PAGE, 0, "is missing")]);
    };
    let layers = match Layers::read(&page.text) {
        Ok(layers) => layers,
        Err(text) => return Ok(vec![Finding::new(PAGE, 0, text)]),
    };
    Ok(layers.breaches(&edges(root)?))
}

/// The list, in its order: a crate may use only what stands above it, and of that what it lists.
#[derive(Debug)]
struct Layers {
    allowed: Vec<(String, Vec<String>)>,
}

impl Layers {
    fn read(page: &str) -> Result<Self, String> {
        let block = page
            .split("```layers\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next());
        let Some(block) = block else {
            return Err("holds no ```layers block".into());
        };
        let mut allowed: Vec<(String, Vec<String>)> = Vec::new();
        for line in block.lines().filter(|line| !line.trim().is_empty()) {
            let Some((name, list)) = line.split_once(':') else {
                return Err(format!("layers: `{line}` is not `crate: crates`"));
            };
            let list: Vec<String> = list.split_whitespace().map(str::to_owned).collect();
            for used in &list {
                if !allowed.iter().any(|(above, _)| above == used) {
                    return Err(format!(
                        "layers: {name} lists {used}, which is not above it"
                    ));
                }
            }
            allowed.push((name.trim().to_owned(), list));
        }
        Ok(Self { allowed })
    }

    fn breaches(&self, edges: &Edges) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, used) in edges {
            let Some((_, list)) = self.allowed.iter().find(|(known, _)| known == name) else {
                let text = format!("the layers do not know the crate {name}");
                findings.push(Finding::new(PAGE, 0, text));
                continue;
            };
            for other in used.iter().filter(|other| !list.contains(other)) {
                let text = format!("{name} depends on {other}, which its layer does not allow");
                findings.push(Finding::new(&format!("crates/{name}/Cargo.toml"), 0, text));
            }
        }
        let gone = self
            .allowed
            .iter()
            .filter(|(name, _)| !edges.contains_key(name));
        findings.extend(gone.map(|(name, _)| {
            Finding::new(
                PAGE,
                0,
                format!("the layers name {name}, which is no crate"),
            )
        }));
        findings
    }
}

/// The edges inside the workspace; those that only tests use are left out.
fn edges(root: &Path) -> Result<Edges> {
    let line = ["cargo", "metadata", "--format-version", "1", "--no-deps"];
    let output = program(root, &line).output().context("starting cargo")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let mut edges = Edges::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let used = package["dependencies"].as_array().into_iter().flatten();
        let used = used.filter(|d| d["path"].is_string() && d["kind"].as_str() != Some("dev"));
        let used = used
            .filter_map(|d| d["name"].as_str().map(str::to_owned))
            .collect();
        edges.insert(
            package["name"].as_str().unwrap_or_default().to_owned(),
            used,
        );
    }
    Ok(edges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges_of(pairs: &[(&str, &[&str])]) -> Edges {
        pairs
            .iter()
            .map(|(name, used)| ((*name).into(), used.iter().map(|u| (*u).into()).collect()))
            .collect()
    }

    const PAGE_TEXT: &str = "words\n```layers\nmodel:\nmemory: model\nnode: model memory\n```\n";

    #[test]
    fn an_edge_that_is_not_listed_is_a_breach() {
        let layers = Layers::read(PAGE_TEXT).unwrap();
        let good = edges_of(&[
            ("model", &[]),
            ("memory", &["model"]),
            ("node", &["memory"]),
        ]);
        assert_eq!(layers.breaches(&good), []);
        let bad = edges_of(&[("model", &["memory"]), ("memory", &[]), ("stray", &[])]);
        let texts: Vec<_> = layers.breaches(&bad).into_iter().map(|f| f.text).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
    }

    #[test]
    fn a_list_that_looks_up_is_refused() {
        let page = "```layers\nmemory: model\nmodel:\n```";
        assert!(Layers::read(page).unwrap_err().contains("not above it"));
    }
}
