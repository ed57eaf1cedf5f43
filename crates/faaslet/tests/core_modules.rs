//! Core modules behind the trait: what they may do, and what a reset takes back.
#![allow(clippy::unwrap_used, missing_docs)]

mod bench;

use std::time::Duration;

use bench::{Artifact, Bench, call_with, invoke, limits};
use bytes::Bytes;
use faaslet::{Config, Faaslets};
use model::{Digest, Kind, Limits, Settings, Status, TrapKind, VersionSpec};
use sandbox::{Backend, End, Portable, PrepareError};

const ECHO: &str = r#"(module
  (import "dunlin" "input_size" (func $size (result i32)))
  (import "dunlin" "input_read" (func $read (param i32 i32 i32) (result i32)))
  (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "handle") (result i32)
    (drop (call $read (i32.const 0) (i32.const 1024) (call $size)))
    (call $write (i32.const 1024) (call $size))))"#;

/// Counts its calls in memory, a global and a table-less heap page, and answers the count.
const COUNTER: &str = r#"(module
  (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (global $calls (mut i32) (i32.const 47))
  (global $wide (mut v128) (v128.const i64x2 7 9))
  (data (i32.const 8) "/")
  (func (export "handle") (result i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (i32.store8 (i32.const 8) (i32.add (i32.load8_u (i32.const 8)) (i32.const 1)))
    (i32.store8 (i32.const 9) (global.get $calls))
    (global.set $wide (i64x2.add (global.get $wide) (global.get $wide)))
    (i32.store8 (i32.const 10)
      (i32.add (i32.const 41) (i32.wrap_i64 (i64x2.extract_lane 0 (global.get $wide)))))
    (drop (memory.grow (i32.const 3)))
    (i32.store8 (i32.const 11) (i32.add (i32.const 48) (memory.size)))
    (i32.store8 (i32.const 12) (i32.add (i32.const 48) (i32.load8_u (i32.const 200000))))
    (i32.store8 (i32.const 200000) (i32.const 5))
    (call $write (i32.const 8) (i32.const 5))))"#;

#[tokio::test]
async fn a_reactor_answers_with_its_input() {
    let mut sandbox = Bench::new().reactor(ECHO).await;
    let completion = invoke(&mut sandbox, "hello").await;
    assert_eq!(completion.end, End::Done(Status::Ok));
    assert_eq!(completion.reply, "hello");
    assert_eq!(completion.memory_peak_bytes, 2 << 16);
}

#[tokio::test]
async fn nothing_of_a_call_is_left_for_the_next() {
    let mut sandbox = Bench::new().reactor(COUNTER).await;
    for _ in 0..3 {
        let completion = invoke(&mut sandbox, "").await;
        assert_eq!(
            (completion.end, &completion.reply[..]),
            (End::Done(Status::Ok), &b"00740"[..])
        );
        assert_eq!(completion.memory_peak_bytes, 4 << 16);
        sandbox.reset().unwrap();
    }
}

#[tokio::test]
async fn a_spent_sandbox_is_not_called() {
    let mut sandbox = Bench::new().reactor(ECHO).await;
    invoke(&mut sandbox, "").await;
    let second = invoke(&mut sandbox, "").await;
    assert!(matches!(second.end, End::Done(Status::Platform { .. })));
}

#[tokio::test]
async fn initialisation_runs_once_and_is_part_of_the_image() {
    let wat = r#"(module
      (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
      (memory 1)
      (global $ready (mut i32) (i32.const 0))
      (start $start)
      (func $start (i32.store8 (i32.const 0) (i32.const 115)))
      (func (export "_initialize") (i32.store8 (i32.const 1)
        (i32.add (i32.load8_u (i32.const 1)) (i32.const 105))))
      (func (export "init") (result i32) (global.set $ready (i32.const 114))
        (drop (memory.grow (i32.const 1))) (i32.store8 (i32.const 70000) (i32.const 103)) (i32.const 0))
      (func (export "handle")
        (i32.store8 (i32.const 2) (global.get $ready))
        (i32.store8 (i32.const 3) (i32.load8_u (i32.const 70000)))
        (drop (call $write (i32.const 0) (i32.const 4)))))"#;
    let mut sandbox = Bench::new().reactor(wat).await;
    for _ in 0..2 {
        assert_eq!(invoke(&mut sandbox, "").await.reply, "sirg");
        sandbox.reset().unwrap();
    }
}

#[tokio::test]
async fn a_program_that_writes_tables_and_drops_segments_starts_anew_each_time() {
    let wat = r#"(module
      (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
      (memory 1)
      (table $t 2 funcref)
      (elem (i32.const 0) $a $b)
      (data $d "x")
      (type $f (func (result i32)))
      (func $a (type $f) (i32.const 97))
      (func $b (type $f) (i32.const 98))
      (func (export "handle")
        (memory.init $d (i32.const 1) (i32.const 0) (i32.const 1))
        (data.drop $d)
        (i32.store8 (i32.const 0) (call_indirect $t (type $f) (i32.const 0)))
        (table.set $t (i32.const 0) (ref.func $b))
        (drop (call $write (i32.const 0) (i32.const 2)))))"#;
    let mut sandbox = Bench::new().reactor(wat).await;
    for _ in 0..3 {
        let completion = invoke(&mut sandbox, "").await;
        assert_eq!(
            (completion.end, &completion.reply[..]),
            (End::Done(Status::Ok), &b"ax"[..])
        );
        sandbox.reset().unwrap();
    }
}

#[tokio::test]
async fn each_fault_ends_only_its_own_call() {
    let faults = [
        ("unreachable", TrapKind::Unreachable),
        ("(drop (i32.load (i32.const 65536)))", TrapKind::OutOfBounds),
        (
            "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
            TrapKind::Arithmetic,
        ),
        ("(call $deep)", TrapKind::StackOverflow),
        (
            "(call_indirect $t (type $f) (i32.const 0))",
            TrapKind::BadCall,
        ),
        (
            "(drop (call $read (i32.const 0) (i32.const -4) (call $size)))",
            TrapKind::OutOfBounds,
        ),
    ];
    let bench = Bench::new();
    for (body, expected) in faults {
        let wat = format!(
            r#"(module
              (import "dunlin" "input_size" (func $size (result i32)))
              (import "dunlin" "input_read" (func $read (param i32 i32 i32) (result i32)))
              (memory 1) (type $f (func)) (table $t 1 funcref)
              (func $deep (call $deep) (call $deep))
              (func (export "handle") (if (call $size) (then {body}))))"#
        );
        let mut sandbox = bench.reactor(&wat).await;
        let completion = invoke(&mut sandbox, "fault").await;
        let End::Done(Status::Trap { kind, message }) = completion.end else {
            panic!("{body}: {:?}", completion.end);
        };
        assert_eq!(kind, expected, "{body}: {message}");
        sandbox.reset().unwrap();
        assert_eq!(
            invoke(&mut sandbox, "").await.end,
            End::Done(Status::Ok),
            "{body}"
        );
    }
}

const LOOPS: [&str; 4] = [
    "(loop $l (br $l))",
    "(loop $l (drop (i32.load (i32.const 0))) (br $l))",
    "(block $b (loop $l (br_if $b (i32.const 0)) (i32.store (i32.const 0) (i32.const 1)) (br $l)))",
    "(call $forks (i32.const 400))",
];

fn looping(body: &str) -> String {
    format!(
        r#"(module
          (import "dunlin" "input_size" (func $size (result i32)))
          (memory 1)
          (func $forks (param i32) (if (local.get 0) (then
            (call $forks (i32.sub (local.get 0) (i32.const 1)))
            (call $forks (i32.sub (local.get 0) (i32.const 1))))))
          (func (export "handle") (if (call $size) (then {body}))))"#
    )
}

#[tokio::test]
async fn a_guest_without_end_stops_at_its_deadline() {
    let bench = Bench::new();
    for body in LOOPS {
        let mut sandbox = bench.reactor(&looping(body)).await;
        let completion = sandbox.invoke(call_with("x", limits(30), None).0).await;
        assert_eq!(completion.end, End::Done(Status::Timeout), "{body}");
        sandbox.reset().unwrap();
        assert_eq!(
            invoke(&mut sandbox, "").await.end,
            End::Done(Status::Ok),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_guest_over_its_budget_may_be_called_again() {
    let mut sandbox = Bench::new().reactor(&looping(LOOPS[0])).await;
    let budget = Some(Duration::from_millis(1));
    let completion = sandbox
        .invoke(call_with("x", Limits::default(), budget).0)
        .await;
    assert_eq!(completion.end, End::OverBudget);
    sandbox.reset().unwrap();
    let quick = sandbox
        .invoke(call_with("", Limits::default(), budget).0)
        .await;
    assert_eq!(quick.end, End::Done(Status::Ok));
}

#[tokio::test]
async fn guests_on_many_threads_are_stopped_one_by_one() {
    let bench = Bench::new();
    let looping = looping(LOOPS[1]);
    let program = bench
        .deploy(Kind::Reactor, &looping, Settings::default())
        .await
        .unwrap();
    let threads: Vec<_> = (0..8u64)
        .map(|n| {
            let mut sandbox = program.sandbox().unwrap();
            std::thread::spawn(move || {
                for round in 0..20u64 {
                    let over = (round + n) % 3 == 0;
                    // Who is not to be stopped has time, also on a machine that is busy: a stop
                    // that is meant for another thread's guest would still end it.
                    let (input, deadline_ms) = if over { ("x", 3) } else { ("", 60_000) };
                    let (call, _) = call_with(input, limits(deadline_ms), None);
                    let end = tokio::runtime::Builder::new_current_thread()
                        .build()
                        .unwrap()
                        .block_on(sandbox.invoke(call))
                        .end;
                    let expected = if over { Status::Timeout } else { Status::Ok };
                    assert_eq!(end, End::Done(expected));
                    sandbox.reset().unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[tokio::test]
async fn memory_over_the_cap_is_refused_and_named() {
    let wat = r#"(module (memory 1)
      (func (export "handle") (loop $l
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (br $l))))"#;
    let settings = Settings {
        limits: Limits {
            memory_bytes_max: 8 << 20,
            ..Limits::default()
        },
        ..Settings::default()
    };
    let program = Bench::new()
        .deploy(Kind::Reactor, wat, settings)
        .await
        .unwrap();
    let mut sandbox = program.sandbox().unwrap();
    let completion = invoke(&mut sandbox, "").await;
    assert_eq!(completion.end, End::Done(Status::OutOfMemory));
    assert!(completion.memory_peak_bytes <= 8 << 20);
}

const WASI: &str = r#"
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read"
    (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $open
    (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $put (param $fd i32) (param $len i32)
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (local.get $len))
    (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
"#;

fn command(main: &str) -> String {
    format!("(module {WASI} (func (export \"_start\") {main}))")
}

#[tokio::test]
async fn a_command_reads_stdin_writes_stdout_and_logs_stderr() {
    let wat = command(
        "(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 100))
         (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
         (call $put (i32.const 1) (i32.load (i32.const 8)))
         (call $put (i32.const 2) (i32.const 3))
         (call $exit (i32.const 0))",
    );
    let mut sandbox = Bench::new().command(&wat).await;
    for _ in 0..3 {
        let (call, kept) = call_with("from stdin", Limits::default(), None);
        let completion = sandbox.invoke(call).await;
        assert_eq!(
            (completion.end, &completion.reply[..]),
            (End::Done(Status::Ok), &b"from stdin"[..])
        );
        assert_eq!(*kept.0.lock(), b"fro");
        sandbox.reset().unwrap();
    }
}

#[tokio::test]
async fn the_exit_code_is_the_outcome() {
    let mut sandbox = Bench::new()
        .command(&command("(call $exit (i32.const 3))"))
        .await;
    assert_eq!(
        invoke(&mut sandbox, "").await.end,
        End::Done(Status::Exit { code: 3 })
    );
}

#[tokio::test]
async fn a_reply_over_its_limit_ends_the_call() {
    let wat = command("(loop $l (call $put (i32.const 1) (i32.const 1000)) (br $l))");
    let mut sandbox = Bench::new().command(&wat).await;
    assert_eq!(
        invoke(&mut sandbox, "").await.end,
        End::Done(Status::OutputLimit)
    );
}

#[tokio::test]
async fn a_flooded_log_is_cut_at_its_limit() {
    let wat = command(
        "(local $n i32) (loop $l (call $put (i32.const 2) (i32.const 1000))
         (br_if $l (i32.lt_s (local.tee $n (i32.add (local.get $n) (i32.const 1)))
         (i32.const 1000))))",
    );
    let mut sandbox = Bench::new().command(&wat).await;
    let (call, kept) = call_with(
        "",
        Limits {
            log_bytes_max: 5000,
            ..Limits::default()
        },
        None,
    );
    assert_eq!(sandbox.invoke(call).await.end, End::Done(Status::Ok));
    assert_eq!(kept.0.lock().len(), 5000);
}

/// Sleeps for an hour: one relative monotonic clock subscription.
const SLEEP: &str = "(i32.store8 (i32.const 136) (i32.const 0))
    (i32.store (i32.const 144) (i32.const 1))
    (i64.store (i32.const 152) (i64.const 3600000000000))
    (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 8)))";

#[tokio::test]
async fn a_guest_that_sleeps_past_its_deadline_is_cut_off() {
    let mut sandbox = Bench::new().command(&command(SLEEP)).await;
    for _ in 0..2 {
        let completion = sandbox.invoke(call_with("", limits(20), None).0).await;
        assert_eq!(completion.end, End::Done(Status::Timeout));
        sandbox.reset().unwrap();
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_a_sandbox_that_resets() {
    let mut sandbox = Bench::new().command(&command(SLEEP)).await;
    {
        let mut running = sandbox.invoke(call_with("", Limits::default(), None).0);
        assert!(futures::poll!(&mut running).is_pending());
    }
    sandbox.reset().unwrap();
    let completion = sandbox.invoke(call_with("", limits(20), None).0).await;
    assert_eq!(completion.end, End::Done(Status::Timeout));
}

#[tokio::test]
async fn nothing_of_the_hosts_files_is_reachable() {
    let wat = command(
        r#"(call $exit (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 16)
           (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 8)))"#,
    )
    .replace(
        "(memory (export \"memory\") 1)",
        r#"(memory (export "memory") 1)
       (data (i32.const 64) "../../etc/passwd")"#,
    );
    let mut sandbox = Bench::new().command(&wat).await;
    const PERM: i32 = 63;
    assert_eq!(
        invoke(&mut sandbox, "").await.end,
        End::Done(Status::Exit { code: PERM })
    );
}

#[tokio::test]
async fn exceptions_are_caught_again_after_each_reset() {
    let wat = r#"(module
      (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
      (memory 1)
      (tag $thrown (param i32))
      (func $throws (throw $thrown (i32.const 116)))
      (func (export "handle")
        (i32.store8 (i32.const 0)
          (block $caught (result i32)
            (try_table (catch $thrown $caught) (call $throws))
            (i32.const 110)))
        (drop (call $write (i32.const 0) (i32.const 1)))))"#;
    let mut sandbox = Bench::new().reactor(wat).await;
    for _ in 0..3 {
        let completion = invoke(&mut sandbox, "").await;
        assert_eq!(
            (completion.end, &completion.reply[..]),
            (End::Done(Status::Ok), &b"t"[..])
        );
        sandbox.reset().unwrap();
    }
}

async fn refusal(kind: Kind, wat: &str) -> PrepareError {
    match Bench::new().deploy(kind, wat, Settings::default()).await {
        Err(error) => error,
        Ok(_) => panic!("it was accepted: {wat}"),
    }
}

#[tokio::test]
async fn unknown_imports_are_all_listed() {
    let wat = r#"(module
      (import "env" "b" (func)) (import "env" "a" (func)) (import "env" "m" (memory 1))
      (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
      (func (export "_start")))"#;
    let PrepareError::UnknownImports { names } = refusal(Kind::Command, wat).await else {
        panic!()
    };
    assert_eq!(names, ["env.a", "env.b", "env.m"]);
}

#[tokio::test]
async fn what_is_no_function_of_its_kind_is_refused() {
    let start = r#"(module (func (export "_start")))"#;
    assert!(matches!(
        refusal(Kind::Reactor, start).await,
        PrepareError::WrongKind { .. }
    ));
    assert!(matches!(
        refusal(Kind::Http, start).await,
        PrepareError::WrongKind { .. }
    ));
    let handle = r#"(module (func (export "handle") (param i32)))"#;
    assert!(matches!(
        refusal(Kind::Reactor, handle).await,
        PrepareError::WrongKind { .. }
    ));
    assert!(matches!(
        refusal(Kind::Command, handle).await,
        PrepareError::WrongKind { .. }
    ));
}

#[tokio::test]
async fn a_failing_initialisation_is_refused_with_its_reason() {
    let bodies = [
        ("unreachable", "unreachable"),
        ("(i32.const 4) return", "returned 4"),
        ("(call $exit (i32.const 7)) (i32.const 0)", "code 7"),
    ];
    for (body, reason) in bodies {
        let wat = format!(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
              (memory (export "memory") 1)
              (func (export "init") (result i32) {body}) (func (export "handle")))"#
        );
        let error = refusal(Kind::Reactor, &wat).await;
        assert!(
            matches!(error, PrepareError::Init { .. }) && error.to_string().contains(reason),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_is_not_wasm_is_refused() {
    let bench = Bench::new();
    let mut truncated = wat::parse_str(ECHO).unwrap();
    truncated.truncate(truncated.len() - 7);
    let artifacts: [(&[u8], bool); 4] = [
        (b"", true),
        (b"#!/bin/sh", true),
        (b"\0asm\x01\0\0", false),
        (&truncated, false),
    ];
    for (artifact, not_wasm) in artifacts {
        let spec = VersionSpec {
            kind: Kind::Reactor,
            artifact: Digest::of(artifact),
            settings: Settings::default(),
        };
        let error = bench
            .backend
            .prepare(&spec, Bytes::copy_from_slice(artifact), Vec::new())
            .await
            .unwrap_err();
        let named = matches!(error, PrepareError::NotWasm { .. });
        let invalid = matches!(error, PrepareError::Invalid { .. });
        assert!(if not_wasm { named } else { invalid }, "{error}");
    }
}

#[test]
fn what_is_made_is_named_by_the_settings_that_it_depends_on() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Faaslets::new(Config::new(dir.path())).unwrap();
    let product = |kind, change: fn(&mut VersionSpec)| {
        let mut spec = VersionSpec {
            kind,
            artifact: Digest::of(b"artifact"),
            settings: Settings::default(),
        };
        change(&mut spec);
        backend.product(&spec)
    };
    let env = |spec: &mut VersionSpec| {
        spec.settings.env.insert("COLOUR".into(), "blue".into());
    };
    let component = product(Kind::Http, |_| ());
    assert_eq!(component, product(Kind::Http, env));
    // Initialisation sees it, and is in the image.
    assert_ne!(product(Kind::Reactor, |_| ()), product(Kind::Reactor, env));
    let layered = |spec: &mut VersionSpec| spec.settings.layers.push(Digest::of(b"layer"));
    assert_ne!(component, product(Kind::Http, layered));
    let other = |spec: &mut VersionSpec| spec.artifact = Digest::of(b"other");
    assert_ne!(component, product(Kind::Http, other));
}

#[tokio::test]
async fn a_spoiled_or_emptied_cache_is_filled_again() {
    let dir = tempfile::tempdir().unwrap();
    let wasm = Bytes::from(wat::parse_str(ECHO).unwrap());
    let spec = VersionSpec {
        kind: Kind::Reactor,
        artifact: Digest::of(&wasm),
        settings: Settings::default(),
    };
    let backend = Faaslets::new(Config::new(dir.path())).unwrap();
    assert!(
        !backend
            .prepare(&spec, wasm.clone(), Vec::new())
            .await
            .unwrap()
            .cached
    );
    assert!(
        backend
            .prepare(&spec, wasm.clone(), Vec::new())
            .await
            .unwrap()
            .cached
    );
    for extension in ["cwasm", "image", "meta"] {
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|found| found == extension) {
                let mut bytes = std::fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0xff;
                std::fs::write(&path, bytes).unwrap();
            }
        }
        let backend = Faaslets::new(Config::new(dir.path())).unwrap();
        let program = backend.load(&spec, &Artifact(wasm.clone())).await.unwrap();
        let mut sandbox = program.sandbox().unwrap();
        assert_eq!(
            invoke(&mut sandbox, "again").await.reply,
            "again",
            "{extension}"
        );
    }
}
