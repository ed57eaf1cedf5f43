//! `./x tour`: what a newcomer pastes from the README, run in one shell, as it stands there.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Where the tour is.
const PAGE: &str = "README.md";

/// Runs every ```` ```sh ```` block of the README, one after the other, in one shell.
pub fn run(root: &Path) -> Result<bool> {
    let page =
        std::fs::read_to_string(root.join(PAGE)).with_context(|| format!("reading {PAGE}"))?;
    let blocks = blocks(&page);
    if blocks.is_empty() {
        bail!("{PAGE} holds no ```sh block");
    }
    // A paste goes on after a failure; a check must not. Whatever ran in the background ends with
    // the shell, and is waited for, so that its data is not removed under it.
    let head = "set -euo pipefail\n\
        trap 'for job in $(jobs -p); do kill \"$job\" && wait \"$job\" || true; done' EXIT\n";
    let script = format!("{head}{}", blocks.join("\n"));
    let status = Command::new("bash")
        .args(["-x", "-c", &script])
        .current_dir(root)
        .status()
        .context("starting bash")?;
    println!("the tour of {PAGE}: {} blocks, {status}", blocks.len());
    Ok(status.success())
}

/// The bodies of the blocks that are marked `sh`.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in page.lines() {
        match (&mut open, line) {
            (None, "```sh") => open = Some(String::new()),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), line) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_marked_sh_are_run() {
        let page = "a\n```sh\none\ntwo\n```\n```text\nno\n```\n```sh\nthree\n```\n";
        assert_eq!(blocks(page), ["one\ntwo\n", "three\n"]);
    }
}
