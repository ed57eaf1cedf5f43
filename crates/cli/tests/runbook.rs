//! `docs/runbook.md` as it stands: every block of commands, one after the other, in one shell, with
//! real members of etcd and real nodes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

/// A paste goes on after a failure; a check must not. What runs in the background ends with the
/// shell, which waits for it, so that nothing writes to a folder that is being removed.
const HEAD: &str = "set -euo pipefail\n\
    trap 'for job in $(jobs -p); do kill -9 \"$job\" && wait \"$job\" || true; done' EXIT\n";

/// The bodies of the blocks that are marked `sh`.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in page.lines() {
        match (&mut open, line) {
            (None, "```sh") => open = Some(String::new()),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), line) => block.push_str(&format!("{line}\n")),
            (None, _) => {}
        }
    }
    assert!(open.is_none(), "a block has no end");
    blocks
}

/// An address of loopback that no other process's test has.
fn own_host() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | high, middle, low)
}

/// The last lines of every log, to be shown when something went wrong.
fn logs(folder: &Path) -> String {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let logs = files.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
    let shown = logs.map(|file| {
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(15)..].join("\n");
        format!("── {}\n{last}\n", file.path().display())
    });
    shown.collect()
}

#[test]
fn the_commands_of_the_runbook_work_in_its_order() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbook.md");
    let blocks = blocks(&std::fs::read_to_string(page).unwrap());
    assert!(blocks.len() > 10, "{} blocks", blocks.len());
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_dunlin")).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let script = format!("{HEAD}{}", blocks.join("\n"));
    let mut shell = Command::new("bash");
    shell.args(["-x", "-c", &script]).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("DUNLIN_"))
        {
            shell.env_remove(name);
        }
    }
    shell
        .current_dir(folder.path())
        .env("PATH", format!("{}:{path}", program.display()))
        .env("HOST", own_host().to_string())
        .env("WORK", &work);
    let ran = shell.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    let said: Vec<_> = said.lines().collect();
    let last = said[said.len().saturating_sub(60)..].join("\n");
    assert!(ran.status.success(), "{last}\n{}", logs(&work));
    assert!(
        !work.exists(),
        "the last block removes what the first one made"
    );
}
