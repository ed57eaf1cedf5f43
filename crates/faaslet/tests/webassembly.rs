//! What core modules may be made of: start functions, tables, objects, references.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bench;

use bench::{Bench, call_with, invoke, limits};
use model::{Kind, Limits, Settings, Status};
use sandbox::{End, PrepareError};

/// Its start function fills a table and memory from segments that it drops, and so does
/// `_initialize` of another: what they change is not all memory.
fn starts_with_tables(kind: Kind) -> String {
    let (starts, entry) = match kind {
        Kind::Command => ("(start $starts)", "_start"),
        _ => ("(export \"_initialize\" (func $starts))", "handle"),
    };
    format!(
        r#"(module
          (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
          (memory 1)
          (table $t 1 funcref)
          (elem $e func $a)
          (data $d "x")
          (global $runs (mut i32) (i32.const 48))
          (type $f (func (result i32)))
          (func $a (type $f) (i32.const 97))
          (func $starts
            (memory.init $d (i32.const 1) (i32.const 0) (i32.const 1))
            (data.drop $d)
            (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1))
            (elem.drop $e)
            (global.set $runs (i32.add (global.get $runs) (i32.const 1)))
            (i32.store8 (i32.const 2) (global.get $runs)))
          {starts}
          (func (export "{entry}")
            (i32.store8 (i32.const 0) (call_indirect $t (type $f) (i32.const 0)))
            (drop (call $write (i32.const 0) (i32.const 3)))
            (i32.store8 (i32.const 2) (i32.add (i32.load8_u (i32.const 2)) (i32.const 1)))))"#
    )
}

#[tokio::test]
async fn what_starts_a_program_may_fill_tables_and_drop_segments() {
    let bench = Bench::new();
    for kind in [Kind::Command, Kind::Reactor] {
        let wat = starts_with_tables(kind);
        let deployed = bench.deploy(kind, &wat, Settings::default()).await;
        let mut sandbox = deployed.unwrap().sandbox().unwrap();
        for _ in 0..2 {
            let completion = invoke(&mut sandbox, "").await;
            assert_eq!(
                (completion.end, &completion.reply[..]),
                (End::Done(Status::Ok), &b"ax1"[..]),
                "{kind}"
            );
            sandbox.reset().unwrap();
        }
    }
}

#[tokio::test]
async fn a_kept_instance_is_started_once() {
    let mut sandbox = Bench::new()
        .reactor(&starts_with_tables(Kind::Reactor))
        .await;
    for expected in ["ax1", "ax2", "ax3"] {
        assert_eq!(invoke(&mut sandbox, "").await.reply, expected);
        assert!(sandbox.keep());
    }
}

#[tokio::test]
async fn a_start_that_fails_is_refused_at_deploy_though_tables_may_change() {
    let wat = r#"(module (table 1 funcref) (start $starts)
      (func $starts (table.set (i32.const 7) (ref.null func)))
      (func (export "_start")))"#;
    let refused = Bench::new()
        .deploy(Kind::Command, wat, Settings::default())
        .await;
    assert!(matches!(refused.err(), Some(PrepareError::Init { .. })));
}

/// Makes a list of arrays of 100 kB, as many as the input has bytes, and replies with `k` and with
/// what its start function put into an object that a global holds.
const OBJECTS: &str = r#"(module
  (import "dunlin" "input_size" (func $size (result i32)))
  (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
  (memory 1)
  (type $bytes (array (mut i8)))
  (type $node (struct (field (mut (ref null $node))) (field (ref $bytes))))
  (type $run (func (param (ref null $node)) (result (ref null $node))))
  (global $at i32 (i32.const 4))
  (global $kept (ref $bytes) (array.new $bytes (i32.const 97) (i32.const 8)))
  (data (global.get $at) "k")
  (elem declare func $more)
  (start $starts)
  (func $starts
    (array.set $bytes (global.get $kept) (i32.const 0)
      (i32.add (array.get_u $bytes (global.get $kept) (i32.const 0)) (i32.const 1))))
  (func $more (type $run)
    (struct.new $node (local.get 0) (array.new $bytes (i32.const 1) (i32.const 100000))))
  (func (export "handle") (local $n i32) (local $list (ref null $node))
    (local.set $n (call $size))
    (block $made
      (loop $make
        (br_if $made (i32.eqz (local.get $n)))
        (local.set $list (call_ref $run (local.get $list) (ref.func $more)))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br $make)))
    (i32.store8 (i32.const 5) (array.get_u $bytes (global.get $kept) (i32.const 0)))
    (drop (call $write (i32.const 4) (i32.const 2)))))"#;

#[tokio::test]
async fn objects_live_in_a_heap_that_counts_as_memory_and_ends_with_the_call() {
    let limits = Limits {
        memory_bytes_max: 4 << 20,
        ..Limits::default()
    };
    let settings = Settings {
        limits: limits.clone(),
        ..Settings::default()
    };
    let program = Bench::new().deploy(Kind::Reactor, OBJECTS, settings).await;
    let mut sandbox = program.unwrap().sandbox().unwrap();
    for _ in 0..2 {
        let few = sandbox.invoke(call_with("few", limits.clone(), None).0);
        let few = few.await;
        assert_eq!(
            (few.end, &few.reply[..]),
            (End::Done(Status::Ok), &b"kb"[..])
        );
        assert!(few.memory_peak_bytes > 300_000, "{}", few.memory_peak_bytes);
        sandbox.reset().unwrap();
        let many = "x".repeat(1000);
        let many = sandbox.invoke(call_with(&many, limits.clone(), None).0);
        assert_eq!(many.await.end, End::Done(Status::OutOfMemory));
        sandbox.reset().unwrap();
    }
}

#[tokio::test]
async fn a_guest_that_calls_itself_by_reference_without_end_is_cut_off() {
    let wat = r#"(module (type $f (func)) (elem declare func $again)
      (func $again (type $f) (return_call_ref $f (ref.func $again)))
      (func (export "handle") (call $again)))"#;
    let mut sandbox = Bench::new().reactor(wat).await;
    let call = call_with("", limits(20), None).0;
    assert_eq!(sandbox.invoke(call).await.end, End::Done(Status::Timeout));
}

#[tokio::test]
async fn a_table_that_is_too_large_is_refused_by_its_size() {
    let wat = "(module (table 2000000 funcref) (func (export \"_start\")))";
    let refused = Bench::new()
        .deploy(Kind::Command, wat, Settings::default())
        .await;
    let Some(PrepareError::TooLarge { reason }) = refused.err() else {
        panic!("it was taken, or refused for another reason");
    };
    assert!(reason.contains("2000000 elements"), "{reason}");
}

#[tokio::test]
async fn memories_of_other_kinds_are_refused_with_the_reason() {
    let bench = Bench::new();
    for (memories, expected) in [
        ("(memory 1) (memory 1)", "multiple memories"),
        ("(memory i64 1)", "64-bit memories"),
        ("(memory 1 2 shared)", "it defines a shared memory"),
    ] {
        let wat = format!("(module {memories} (func (export \"_start\")))");
        let refused = bench.deploy(Kind::Command, &wat, Settings::default()).await;
        let refused = refused.err().map(|error| error.to_string());
        assert!(
            refused
                .as_ref()
                .is_some_and(|error| error.contains(expected)),
            "{memories}: {refused:?}"
        );
    }
}
