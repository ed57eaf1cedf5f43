//! Running other programs: each is announced, and its failure names it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// What `cargo run` tells a program of its own package. Build scripts of dependencies ask to be run
/// anew where it changes, so that a build from here would not share with one started by hand.
const OF_THIS_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// A program with its arguments, to be run in `root`.
pub fn program(root: &Path, line: &[&str]) -> Command {
    let mut command = Command::new(line[0]);
    command.args(&line[1..]).current_dir(root);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if OF_THIS_PACKAGE
            .iter()
            .any(|prefix| name_text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Announces and runs `line`; whether it succeeded.
pub fn succeeds(root: &Path, line: &[&str]) -> Result<bool> {
    eprintln!("▶ {}", line.join(" "));
    let status = program(root, line)
        .status()
        .with_context(|| format!("starting {}", line[0]))?;
    Ok(status.success())
}

/// Announces and runs `line`, passing its output on and handing each line to `look` as well.
/// Both of its streams come out on our stderr. Whether it succeeded.
pub fn watched(root: &Path, line: &[&str], look: &mut dyn FnMut(&str)) -> Result<bool> {
    eprintln!("▶ {}", line.join(" "));
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    let mut command = program(root, line);
    command.stdin(Stdio::null());
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command
        .spawn()
        .with_context(|| format!("starting {}", line[0]))?;
    // The command holds our copies of the pipe's end; the reader would wait for them for ever.
    drop(command);
    for text in BufReader::new(reader).lines() {
        let text = text.context("reading a program's output")?;
        eprintln!("{text}");
        look(&text);
    }
    Ok(child.wait()?.success())
}

/// Whether a program of this name answers `--version`.
pub fn exists(root: &Path, line: &[&str]) -> bool {
    program(root, line)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
