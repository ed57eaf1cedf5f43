//! Host calls with hostile arguments: any numbers, pointers and lengths, in any order.
//!
//! `DUNLIN_FUZZ_SECONDS=600 cargo nextest run --test hostile` goes on for ten minutes; a seed that
//! fails is printed, and `DUNLIN_FUZZ_SEED` begins with it.

mod support;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use hostcalls::TABLE;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sandbox::host::Type;
use serde_json::json;
use support::{World, config, says, wasm, world_of};

/// Invocations of one run, unless it is to go on for some time.
const ROUNDS: u64 = 150;
/// Calls of one invocation.
const CALLS: usize = 48;
/// Bytes of one argument in a script, and most arguments of a call.
const ARGUMENT_BYTES: usize = 8;
const ARGUMENTS_MAX: usize = 8;
/// Where the guest keeps its script, and what comes first in its memory.
const SCRIPT_AT: u32 = 65_536;
const WORDS: [&str; 6] = ["key", "other", "self", "k\u{7f}", "", "a/b/c"];

/// The types of a call's arguments as a core module passes them.
fn lowered(types: impl Iterator<Item = Type>) -> Vec<&'static str> {
    types
        .flat_map(|ty| match ty {
            Type::U32 => vec!["i32"],
            Type::U64 => vec!["i64"],
            Type::Str | Type::Bytes | Type::Out => vec!["i32", "i32"],
        })
        .collect()
}

/// A reactor that makes the calls of a script: records of a call's number and its arguments.
fn interpreter() -> String {
    let (mut imports, mut cases) = (String::new(), String::new());
    for (index, call) in TABLE.iter().enumerate() {
        let params = lowered(call.params.iter().map(|param| param.ty));
        let name = call.name;
        let types = params.join(" ");
        writeln!(
            imports,
            r#"(import "dunlin" "{name}" (func ${name} (param {types}) (result i64)))"#
        )
        .expect("text");
        let arguments: String = (1..=params.len())
            .zip(&params)
            .map(|(at, ty)| {
                let offset = at * ARGUMENT_BYTES;
                format!("({ty}.load offset={offset} (local.get $at)) ")
            })
            .collect();
        writeln!(
            cases,
            "(if (i32.eq (local.get $call) (i32.const {index}))
               (then (drop (call ${name} {arguments}))))"
        )
        .expect("text");
    }
    let record = (ARGUMENTS_MAX + 1) * ARGUMENT_BYTES;
    format!(
        r#"(module {imports}
  (import "dunlin" "input_size" (func $size (result i32)))
  (import "dunlin" "input_read" (func $read (param i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  (data (i32.const 0) "keyotherselfa/b/ck\7f")
  (func (export "handle") (result i32) (local $at i32) (local $end i32) (local $call i32)
    (local.set $at (i32.const {SCRIPT_AT}))
    (local.set $end (i32.add (local.get $at)
      (call $read (i32.const 0) (local.get $at) (call $size))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (local.set $call (i32.load (local.get $at)))
      {cases}
      (local.set $at (i32.add (local.get $at) (i32.const {record})))
      (br $next)))
    (i32.const 0)))"#
    )
}

/// A number that something is likely to go wrong with.
fn number(random: &mut StdRng) -> u64 {
    const EDGES: [u64; 14] = [
        0,
        1,
        2,
        3,
        7,
        4095,
        65_535,
        65_536,
        262_143,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 40,
        u64::MAX,
    ];
    match random.random_range(0..4) {
        0 => random.random(),
        1 => random.random_range(0..64),
        _ => EDGES[random.random_range(0..EDGES.len())],
    }
}

/// The place and length of a word in the guest's memory, or anything.
fn span(random: &mut StdRng) -> [u64; 2] {
    const TEXT: &str = "keyotherselfa/b/ck\u{7f}";
    let word = WORDS[random.random_range(0..WORDS.len())];
    match TEXT.find(word) {
        Some(at) if random.random_range(0..8) > 0 => [at as u64, word.len() as u64],
        _ => [number(random), number(random)],
    }
}

fn script(random: &mut StdRng) -> Vec<u8> {
    let mut script = Vec::new();
    for _ in 0..CALLS {
        let index = random.random_range(0..TABLE.len());
        let mut record = vec![index as u64];
        for param in TABLE[index].params {
            match param.ty {
                Type::Str | Type::Bytes => record.extend(span(random)),
                Type::Out if random.random_range(0..8) > 0 => {
                    record.extend([1024, random.random_range(0..4096)]);
                }
                Type::Out => record.extend([number(random), number(random)]),
                // A wait of ages is no fault, but it takes ages.
                Type::U64 if param.name.ends_with("_ms") => record.push(number(random) % 3),
                Type::U32 | Type::U64 => record.push(number(random)),
            }
        }
        record.resize(ARGUMENTS_MAX + 1, 0);
        script.extend(record.iter().flat_map(|number| number.to_le_bytes()));
    }
    script
}

async fn world() -> (World, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    config.state.value_bytes_max = 1 << 22;
    config.state.app_bytes_max = 1 << 24;
    config.state.app_keys_max = 256;
    let world = world_of(config).await.expect("a node");
    world.deploy_command("good/says", &says("good")).await;
    let settings = json!({
        "allow": {
            "state": [{ "prefix": "", "access": "write" },
                      { "prefix": "k", "access": "write", "durability": "durable" }],
            "call": ["*"],
        },
        "limits": { "deadline_ms": 5_000, "memory_bytes_max": 32 << 20 },
    });
    for name in ["self", "other"] {
        let path = format!("bad/{name}");
        let module = wasm(&interpreter());
        let deployed = world
            .deploy_with(&path, "reactor", module, settings.clone())
            .await;
        assert_eq!(deployed.status, 201, "{}", deployed.text());
    }
    (world, folder)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_arguments_hurt_the_node() {
    let until = variable("DUNLIN_FUZZ_SECONDS").map(Duration::from_secs);
    let first = variable("DUNLIN_FUZZ_SEED").unwrap_or(1);
    let (world, _folder) = world().await;
    let begun = Instant::now();
    for seed in first.. {
        let done = match until {
            Some(until) => begun.elapsed() >= until,
            None => seed >= first + ROUNDS,
        };
        if done {
            break;
        }
        let script = script(&mut StdRng::seed_from_u64(seed));
        let answer = world.call("/bad/self", script).await;
        let expected = match answer.status {
            200 => true,
            // A pointer outside of the guest's memory, a write to what was mapped to read, or all
            // memory used up by mappings: its own fault, and its own end.
            500 | 504 => ["function-trapped", "function-timeout"].contains(&&*answer.code()),
            _ => false,
        };
        assert!(expected, "seed {seed}: {} {}", answer.status, answer.text());
        let good = world.call("/good/says", "").await;
        assert_eq!((good.status, good.text()), (200, "good"), "seed {seed}");
    }
    assert!(world.node.shutdown().await);
}
