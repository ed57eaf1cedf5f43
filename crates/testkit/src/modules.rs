//! The guests of the suite of every wall, as WebAssembly.

use bytes::Bytes;
use model::Kind;
use sandbox::conformance::{Fixture, Fixtures};

const IMPORTS: &str = r#"
  (import "dunlin" "input_size" (func $size (result i32)))
  (import "dunlin" "input_read" (func $read (param i32 i32 i32) (result i32)))
  (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
  (import "dunlin" "log_write" (func $log (param i32 i32 i32)))"#;

/// Replies with the digit `value`.
const DIGIT: &str = r#"(func $digit (param $value i32)
    (i32.store8 (i32.const 60000) (i32.add (i32.const 48) (local.get $value)))
    (drop (call $write (i32.const 60000) (i32.const 1))))"#;

const ECHO: &str = "(drop (call $read (i32.const 0) (i32.const 0) (call $size)))
    (drop (call $write (i32.const 0) (call $size)))";

fn reactor(parts: &str, handle: &str) -> Fixture {
    let wat = format!(
        r#"(module {IMPORTS} (memory (export "memory") 16) {DIGIT} {parts}
           (func (export "handle") (local $n i32) {handle}))"#
    );
    Fixture {
        kind: Kind::Reactor,
        artifact: Bytes::from(wat::parse_str(wat).expect("WebAssembly text")),
    }
}

fn command(handle: &str) -> Fixture {
    let wat = format!(
        r#"(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (import "wasi_snapshot_preview1" "poll_oneoff"
            (func $poll (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1) (func (export "_start") {handle}))"#
    );
    Fixture {
        kind: Kind::Command,
        artifact: Bytes::from(wat::parse_str(wat).expect("WebAssembly text")),
    }
}

fn canary() -> Fixture {
    let parts = r#"
      (global $mark (mut i64) (i64.const 5))
      (type $f (func (result i32)))
      (table $t 2 funcref) (elem (i32.const 0) $clean $dirtied) (elem declare func $dirtied)
      (func $clean (type $f) (i32.const 1))
      (func $dirtied (type $f) (i32.const 0))
      (func $stack (param i32 i64 i64 i64) (result i64)
        (if (result i64) (local.get 0)
          (then (i64.add (local.get 1) (call $stack (i32.sub (local.get 0) (i32.const 1))
            (i64.const 0x5a5a5a5a5a5a5a5a) (local.get 1) (local.get 2))))
          (else (local.get 3))))
      (data (i32.const 70000) "clean")
      (data (i32.const 70016) "dirty")"#;
    let handle = "
      (local.set $n (i32.and
        (i32.and (i64.eq (global.get $mark) (i64.const 5))
          (call_indirect $t (type $f) (i32.const 0)))
        (i32.eqz (i32.or (i32.load (i32.const 0)) (i32.load (i32.const 500000))))))
      (global.set $mark (i64.const 9))
      (i32.store (i32.const 0) (i32.const 1)) (i32.store (i32.const 500000) (i32.const 1))
      (table.set $t (i32.const 0) (ref.func $dirtied))
      (drop (call $stack (i32.const 100) (i64.const 1) (i64.const 2) (i64.const 3)))
      (drop (call $write
        (select (i32.const 70000) (i32.const 70016) (local.get $n)) (i32.const 5)))";
    reactor(parts, handle)
}

/// The suite's guests as reactors. Two of them can only be commands: one exits, one waits.
pub fn modules() -> Fixtures {
    Fixtures {
        exit_7: Some(command("(call $exit (i32.const 7))")),
        wait: Some(command(
            "(i32.store (i32.const 144) (i32.const 1))
             (i64.store (i32.const 152) (i64.const 3600000000000))
             (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 8)))",
        )),
        ..reactors()
    }
}

/// The same without what only a command can do.
pub fn reactors() -> Fixtures {
    Fixtures {
        echo: reactor("", ECHO),
        counter: reactor(
            "",
            "(i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 1)))
             (call $digit (i32.load (i32.const 8)))",
        ),
        canary: canary(),
        trap: reactor("", "unreachable"),
        infinite_loop: reactor("", "(loop $l (br $l))"),
        infinite_recursion: reactor("(func $deep (call $deep) (call $deep))", "(call $deep)"),
        memory_hog: reactor(
            "",
            "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
        ),
        grow: reactor(
            "",
            "(call $digit (i32.div_u (memory.size) (i32.const 4)))
             (drop (memory.grow (i32.const 16)))
             (i32.store (i32.const 1900000) (i32.const 7))",
        ),
        exit_7: None,
        output_flood: reactor(
            "",
            "(loop $l (if (call $write (i32.const 0) (i32.const 65536)) (then unreachable))
             (br_if $l (i32.lt_s (local.tee $n (i32.add (local.get $n) (i32.const 1)))
             (i32.const 32))))",
        ),
        log_flood: reactor(
            "",
            "(loop $l (call $log (i32.const 2) (i32.const 0) (i32.const 1024))
             (br_if $l (i32.lt_s (local.tee $n (i32.add (local.get $n) (i32.const 1)))
             (i32.const 128))))",
        ),
        dirty_pages: reactor(
            "",
            &format!(
                "(loop $l (i32.store (i32.add (i32.const 65536)
                   (i32.mul (local.get $n) (i32.const 4096))) (i32.const 1))
                 (br_if $l (i32.lt_s (local.tee $n (i32.add (local.get $n) (i32.const 1)))
                 (i32.const 120)))) {ECHO}"
            ),
        ),
        wait: None,
    }
}
