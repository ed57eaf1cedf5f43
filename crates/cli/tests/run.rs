//! `dunlin run`: programs with their arguments, environment, folders and exit codes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::path::PathBuf;

use support::guests::{CAT, ECHO, EXIT, PONG, STRANGER, TELL, TRAP};
use support::{command, finish};
use tempfile::TempDir;

struct Program {
    _folder: TempDir,
    file: PathBuf,
}

fn program(wat: &str) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("program.wasm");
    std::fs::write(&file, wat::parse_str(wat).unwrap()).unwrap();
    Program {
        _folder: folder,
        file,
    }
}

fn run(wat: &str, before: &[&str], after: &[&str], input: &[u8]) -> support::Ran {
    let program = program(wat);
    let file = program.file.to_str().unwrap();
    let words = [&["run"], before, &[file], after].concat();
    let mut command = command(&words);
    finish(command.env("INHERITED", "no").env("TAKEN", "yes"), input)
}

#[test]
fn stdin_stdout_and_stderr_are_ours() {
    let ran = run(ECHO, &[], &[], b"hello\0\xff").ok();
    assert_eq!(ran.stdout, b"hello\0\xff");
    assert_eq!(ran.stderr, "echoing\n");
}

#[test]
fn arguments_and_environment_are_those_that_are_given() {
    let before = ["--env", "A=1", "--env", "TAKEN"];
    for after in [&["--env", "B=2", "x"][..], &["--", "--env", "B=2", "x"]] {
        let ran = run(TELL, &before, after, b"").ok();
        let words: Vec<&str> = ran.text().split_terminator('\0').collect();
        assert_eq!(
            words[1..],
            ["--env", "B=2", "x", "A=1", "TAKEN=yes"],
            "{after:?}"
        );
    }
}

#[test]
fn folders_are_open_only_where_they_are_given() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in.txt"), "from a file").unwrap();
    let host = folder.path().to_str().unwrap();
    let ran = run(CAT, &["--dir", &format!("{host}::/data")], &[], b"").ok();
    assert_eq!(ran.text(), "from a file");
    // 8 is WASI's `badf`: without a folder there is no such descriptor.
    assert_eq!(run(CAT, &[], &[], b"").code, 8);
}

#[test]
fn exit_codes_are_passed_on_and_a_trap_is_134() {
    assert_eq!(run(EXIT, &[], &[], b"").code, 3);
    let trapped = run(TRAP, &[], &[], b"");
    assert_eq!(trapped.code, 134, "{}", trapped.stderr);
    assert!(trapped.stderr.contains("unreachable"), "{}", trapped.stderr);
}

#[test]
fn what_is_no_program_is_refused_with_a_next_step() {
    for wat in [PONG, STRANGER] {
        let refused = run(wat, &[], &[], b"");
        assert_eq!(refused.code, 4, "{}", refused.stderr);
        assert!(refused.stderr.contains("next: "), "{}", refused.stderr);
    }
    let missing = support::dunlin(&["run", "/nonexistent/file.wasm"]);
    assert_eq!(missing.code, 3, "{}", missing.stderr);
}
