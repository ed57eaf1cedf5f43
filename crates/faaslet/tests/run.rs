//! `run` on preview-1 modules and `wasi:cli` components.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::fs;
use std::path::PathBuf;

use faaslet::run::{RunError, RunOptions, run};
use tempfile::TempDir;

const COMMAND: &str = include_str!("wat/command.wat");
/// The errno of a missing file, in preview 1.
const NOENT: i32 = 44;
/// The errno of a path that leads out of its directory.
const PERM: i32 = 63;

/// A module whose `_start` is `body`; results of WASI calls are at 0, and text is at 1000.
fn module(body: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (import "wasi_snapshot_preview1" "args_sizes_get"
            (func $args_sizes (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "environ_sizes_get"
            (func $env_sizes (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_read"
            (func $read (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 1000) "in.txt")
          (data (i32.const 1010) "../secret")
          (func (export "_start") (local $n i32)
            {body}))"#
    )
}

/// Opens `len` bytes of path at `at` in the first directory, with these flags and rights, and exits
/// with the errno if it cannot.
fn open(at: u32, len: u32, flags: u32, rights: u64) -> String {
    format!(
        "(local.set $n (call $open (i32.const 3) (i32.const 0) (i32.const {at}) (i32.const {len})
           (i32.const {flags}) (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 0)))
         (if (local.get $n) (then (call $exit (local.get $n))))"
    )
}

/// Reads or writes up to 50 bytes at 2000 through the file that was opened.
fn transfer(function: &str, len: u32) -> String {
    format!(
        "(i32.store (i32.const 8) (i32.const 2000)) (i32.store (i32.const 12) (i32.const {len}))
         (local.set $n (call {function} (i32.load (i32.const 0)) (i32.const 8) (i32.const 1)
           (i32.const 16)))
         (if (local.get $n) (then (call $exit (local.get $n))))"
    )
}

struct Bed(TempDir);

impl Bed {
    fn new() -> Self {
        let bed = Self(tempfile::tempdir().unwrap());
        fs::create_dir(bed.path("given")).unwrap();
        fs::write(bed.path("given/in.txt"), "Hi").unwrap();
        fs::write(bed.path("secret"), "no").unwrap();
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn options(&self, program: &str) -> RunOptions {
        fs::write(self.path("program.wat"), program).unwrap();
        RunOptions {
            file: self.path("program.wat"),
            cache_dir: Some(self.path("cache")),
            dirs: vec![(self.path("given"), "/".into())],
            ..RunOptions::default()
        }
    }

    fn run(&self, body: &str) -> i32 {
        run(self.options(&module(body))).unwrap()
    }
}

#[test]
fn the_exit_code_is_the_programs() {
    let bed = Bed::new();
    for code in [0, 1, 7, 125] {
        let body = format!("(call $exit (i32.const {code}))");
        assert_eq!(bed.run(&body), code);
    }
    assert_eq!(bed.run(""), 0);
}

#[test]
fn an_exit_code_out_of_range_is_an_error() {
    let bed = Bed::new();
    let failed = run(bed.options(&module("(call $exit (i32.const 126))")));
    assert!(matches!(failed, Err(RunError::Failed { .. })), "{failed:?}");
}

#[test]
fn what_a_program_returns_is_its_exit_code() {
    let program = "(module (func (export \"_start\") (result i32) (i32.const 3)))";
    let bed = Bed::new();
    assert_eq!(run(bed.options(program)).unwrap(), 3);
}

#[test]
fn a_trap_is_134() {
    assert_eq!(Bed::new().run("unreachable"), 134);
    let bed = Bed::new();
    let program = "(module (func $f unreachable) (start $f) (func (export \"_start\")))";
    assert_eq!(run(bed.options(program)).unwrap(), 134);
}

#[test]
fn arguments_begin_with_the_name_of_the_file() {
    let bed = Bed::new();
    let count = "(drop (call $args_sizes (i32.const 0) (i32.const 4)))
                 (call $exit (i32.load (i32.const 0)))";
    let first = "(drop (call $args (i32.const 0) (i32.const 2000)))
                 (call $exit (i32.load8_u (i32.load (i32.const 0))))";
    let third = "(drop (call $args (i32.const 0) (i32.const 2000)))
                 (call $exit (i32.load8_u (i32.load (i32.const 8))))";
    for (body, expected) in [(count, 3), (first, b'p'.into()), (third, b'y'.into())] {
        let mut options = bed.options(&module(body));
        options.args = vec!["x".into(), "y".into()];
        assert_eq!(run(options).unwrap(), expected);
    }
}

#[test]
fn the_environment_is_what_was_given_and_nothing_else() {
    let bed = Bed::new();
    let count = "(drop (call $env_sizes (i32.const 0) (i32.const 4)))
                 (call $exit (i32.load (i32.const 0)))";
    assert_eq!(bed.run(count), 0);
    let value = "(drop (call $env (i32.const 0) (i32.const 2000)))
                 (call $exit (i32.load8_u offset=2 (i32.load (i32.const 0))))";
    let mut options = bed.options(&module(value));
    options.env = vec![("K".into(), "V".into())];
    assert_eq!(run(options).unwrap(), i32::from(b'V'));
}

#[test]
fn files_are_read_and_written_in_the_given_directory_only() {
    let bed = Bed::new();
    let read = open(1000, 6, 0, 2) + &transfer("$read", 50);
    let first = "(call $exit (i32.load8_u (i32.const 2000)))";
    assert_eq!(bed.run(&(read + first)), i32::from(b'H'));
    // `in` is missing; with flag 1 it is created.
    assert_eq!(bed.run(&open(1000, 2, 0, 2)), NOENT);
    let write = open(1000, 2, 1, 64) + "(i32.store8 (i32.const 2000) (i32.const 33))";
    assert_eq!(bed.run(&(write + &transfer("$write", 1))), 0);
    assert_eq!(fs::read_to_string(bed.path("given/in")).unwrap(), "!");
    assert_eq!(bed.run(&open(1010, 9, 0, 2)), PERM);
}

#[test]
fn a_large_file_is_read_in_one_call() {
    // More than the engine lets a guest hand over at a time unless told.
    const BYTES: u64 = 130 << 20;
    let bed = Bed::new();
    let large = fs::File::create(bed.path("given/in.txt")).unwrap();
    large.set_len(BYTES).unwrap();
    let read = open(1000, 6, 0, 2) + &transfer("$read", BYTES as u32);
    let count = format!("(call $exit (i32.ne (i32.load (i32.const 16)) (i32.const {BYTES})))");
    let program = module(&(read + &count)).replace("\"memory\") 1)", "\"memory\") 2200)");
    assert_eq!(run(bed.options(&program)).unwrap(), 0);
}

#[test]
fn what_came_before_preview_1_runs_as_well() {
    let bed = Bed::new();
    let program = module("(call $exit (i32.const 9))").replace("_snapshot_preview1", "_unstable");
    assert_eq!(run(bed.options(&program)).unwrap(), 9);
}

#[test]
fn components_run_as_well() {
    let bed = Bed::new();
    for (body, code) in [
        ("(i32.const 0)", 0),
        ("(i32.const 1)", 1),
        ("(call $exit (i32.const 1)) (i32.const 0)", 1),
        ("unreachable", 134),
    ] {
        let options = bed.options(&COMMAND.replace(";; RUN\n", body));
        assert_eq!(run(options).unwrap(), code, "{body}");
    }
}

#[test]
fn code_is_compiled_once_and_again_when_it_is_spoiled() {
    let bed = Bed::new();
    let entries = || {
        let files = fs::read_dir(bed.path("cache")).unwrap();
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        paths
    };
    assert_eq!(bed.run("(call $exit (i32.const 5))"), 5);
    let first = entries();
    assert_eq!(bed.run("(call $exit (i32.const 5))"), 5);
    assert_eq!(entries(), first);
    fs::write(&first[0], b"spoiled").unwrap();
    assert_eq!(bed.run("(call $exit (i32.const 5))"), 5);
    assert_eq!(entries(), first);
}

#[test]
fn what_is_no_program_is_refused_with_the_reason() {
    let bed = Bed::new();
    let cases = [
        ("(module (func (export \"_initialize\")))", "is a reactor"),
        ("(module)", "does not export `_start`"),
        ("(component)", "does not export `wasi:cli/run`"),
        (
            "(module (func (export \"_start\") (param i32)))",
            "must take nothing and return nothing or an i32",
        ),
        ("not wasm", "is not valid WebAssembly"),
        (
            "(module (import \"wasi_snapshot_preview1\" \"sched_yield\" (func))
              (func (export \"_start\")))",
            "is not valid WebAssembly: incompatible import type",
        ),
        (
            "(module (import \"env\" \"a\" (func)) (import \"env\" \"b\" (func))
              (func (export \"_start\")))",
            "imports what is not offered: env.a, env.b",
        ),
    ];
    for (program, expected) in cases {
        let error = run(bed.options(program)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let bed = Bed::new();
    let mut options = bed.options(&module(""));
    options.dirs = vec![(bed.path("nowhere"), "/".into())];
    let error = run(options.clone()).unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
    options.file = bed.path("missing.wasm");
    assert!(matches!(run(options), Err(RunError::Read { .. })));
}
