//! Verbs that only start other programs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use xtask::command::{exists, succeeds};

/// The version that `ci` installs where cargo-deny is missing.
const DENY_VERSION: &str = "0.20.2";

/// Sets up the guest toolchains and builds the example functions.
pub fn guests(root: &Path) -> Result<bool> {
    Ok(succeeds(root, &["guests/setup.sh"])? && succeeds(root, &["guests/build.sh"])?)
}

/// Checks the files that run a node elsewhere: units, containers, charts, dashboards.
pub fn lint_deploy(root: &Path) -> Result<bool> {
    succeeds(root, &["deploy/lint.sh"])
}

/// As [`guests`], but a failure is an error: what follows needs them.
pub fn need_guests(root: &Path) -> Result<()> {
    match guests(root)? {
        true => Ok(()),
        false => bail!("the guests did not build"),
    }
}

/// Builds `dunlin` and the benches for release; where `dunlin` lies. Both at once and always: what
/// cargo builds together shares its features, and the engine is built once.
pub fn build_release(root: &Path) -> Result<PathBuf> {
    let line = [
        "cargo",
        "build",
        "--release",
        "--package",
        "cli",
        "--package",
        "benches",
    ];
    if !succeeds(root, &line)? {
        bail!("dunlin did not build");
    }
    Ok(target(root).join("release/dunlin"))
}

/// Where cargo puts what it builds.
pub fn target(root: &Path) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(path) => root.join(path),
        None => root.join("target"),
    }
}

/// Runs the benches in a release build.
pub fn bench(root: &Path, arguments: &[String]) -> Result<bool> {
    need_guests(root)?;
    build_release(root)?;
    let program = target(root).join("release/benches");
    let mut line = vec![program.to_str().context("the target folder is not UTF-8")?];
    line.extend(arguments.iter().map(String::as_str));
    succeeds(root, &line)
}

/// Licences, advisories, bans and sources of everything that is built.
pub fn deny(root: &Path) -> Result<bool> {
    if !exists(root, &["cargo", "deny", "--version"]) {
        eprintln!("cargo: cargo-deny {DENY_VERSION} (some minutes)");
        let version = format!("cargo-deny@{DENY_VERSION}");
        if !succeeds(root, &["cargo", "install", "--locked", &version])? {
            bail!("cargo-deny did not install");
        }
    }
    succeeds(root, &["cargo", "deny", "check"])
}
