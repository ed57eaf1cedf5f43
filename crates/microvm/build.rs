//! Builds the runtime that WebAssembly has inside of a micro-VM, `inside/`: a program for bare
//! machines, with features of wasmtime that no other crate here may get.
//!
//! It is built by the same cargo and compiler, offline where that is, for the standard library's
//! own target, so that nothing has to be installed for it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What a build of another program has set, and this one must not take over.
const NOT_OURS: [&str; 6] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_TARGET_DIR",
];

fn variable(name: &str) -> PathBuf {
    PathBuf::from(env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}")))
}

fn main() {
    let folder = variable("CARGO_MANIFEST_DIR").join("inside");
    for part in ["src", "memfd", ".cargo", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed=inside/{part}");
    }
    // The functions of memory, which guests in Rust have as well.
    println!("cargo::rerun-if-changed=../../sdk/rust-vm/src/memory.rs");
    let built = build(&folder, &variable("OUT_DIR").join("inside"));
    println!("cargo::rustc-env=DUNLIN_INSIDE={}", built.display());
}

/// Builds the program in `folder`; its executable.
fn build(folder: &Path, target: &Path) -> PathBuf {
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .current_dir(folder)
        .args(["build", "--release", "--locked", "--target", TARGET])
        .arg("--target-dir")
        .arg(target)
        .env("RUSTC", variable("RUSTC"));
    for name in NOT_OURS {
        cargo.env_remove(name);
    }
    let output = cargo
        .output()
        .unwrap_or_else(|error| panic!("cargo does not start: {error}"));
    assert!(
        output.status.success(),
        "the runtime in {} does not build:\n{}",
        folder.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    target.join(TARGET).join("release/inside")
}
