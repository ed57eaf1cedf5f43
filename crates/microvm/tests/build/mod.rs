//! Guests of the tests, built by the system's compiler.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use bytes::Bytes;
use microvm::{Config, MicroVms, MicroVmsError};
use sandbox::host::HostCall;

/// What every guest is built with.
const FLAGS: [&str; 13] = [
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-uninitialized",
    "-Wno-infinite-recursion",
    "-Wno-unused-function",
    "-static",
    "-nostdlib",
    "-ffreestanding",
    "-fno-pie",
    "-no-pie",
    "-fno-stack-protector",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The program that `source` of `tests/guests` is with `defined`.
pub fn guest(source: &str, defined: &str, more: &[&str]) -> Bytes {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("guest");
    let built = Command::new("gcc")
        .args(FLAGS)
        .args(more)
        .arg(format!("-D{defined}"))
        .arg("-I")
        .arg(root().join("sdk/c"))
        .arg(root().join("crates/microvm/tests/guests").join(source))
        .arg("-o")
        .arg(&out)
        .output()
        .expect("gcc is there: apt install gcc");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    std::fs::read(out).unwrap().into()
}

/// The Linux program that `source` of `tests/guests` is with `defined`.
pub fn linux(source: &str, defined: &str) -> Bytes {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("program");
    let built = Command::new("gcc")
        .args(["-O2", "-w", "-static", &format!("-D{defined}")])
        .arg(root().join("crates/microvm/tests/guests").join(source))
        .arg("-o")
        .arg(&out)
        .output()
        .expect("gcc is there: apt install gcc");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    std::fs::read(out).unwrap().into()
}

/// The back-end, or none where there is no KVM and nobody insists.
pub fn backend(table: &'static [HostCall]) -> Option<(tempfile::TempDir, MicroVms)> {
    static SAID: OnceLock<()> = OnceLock::new();
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        shells: 2,
        table,
        ..Config::new(dir.path().join("cache"))
    };
    match MicroVms::new(config) {
        Ok(backend) => Some((dir, backend)),
        Err(error @ MicroVmsError::Unavailable(_)) => {
            assert!(std::env::var_os("REQUIRE_KVM").is_none(), "{error}");
            SAID.get_or_init(|| eprintln!("left out, since there is no KVM: {error}"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}
