//! Host calls with hostile arguments: any numbers, pointers and lengths, in any order, from several
//! invocations at once, over mapped memory that they read, write, and grow beside.
//!
//! `./x fuzz 600` goes on for ten minutes; a seed that fails is printed, and `DUNLIN_FUZZ_SEED`
//! begins with it.

#[path = "hostile_parts/interpreter.rs"]
mod interpreter;
#[path = "hostile_parts/script.rs"]
mod script;
mod support;

use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sandbox::TreeLimits;
use serde_json::json;
use support::{Answer, World, config, says, wasm, world_of};

use interpreter::interpreter;
use script::Writer;

/// Rounds of one run, unless it is to go on for some time.
const ROUNDS: u64 = 120;
/// Most scripts that run at once.
const AT_ONCE_MAX: u64 = 4;

/// A reactor of another app that uses the same key: it keeps `good` there, and fails if it finds
/// anything else. With a body it sets it.
const KEEPS: &str = r#"(module
  (import "dunlin" "input_size" (func $size (result i32)))
  (import "dunlin" "state_set" (func $set (param i32 i32 i32 i32) (result i64)))
  (import "dunlin" "state_map" (func $map (param i32 i32 i64 i64 i32) (result i64)))
  (memory (export "memory") 1)
  (data (i32.const 0) "keygood")
  (func (export "handle") (result i32)
    (if (call $size) (then
      (return (i64.lt_s
        (call $set (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 4)) (i64.const 0)))))
    (i32.ne
      (i32.load (i32.const 3))
      (i32.load (i32.wrap_i64
        (call $map (i32.const 0) (i32.const 3) (i64.const 0) (i64.const 4) (i32.const 0)))))))"#;

async fn world() -> (World, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    config.state.value_bytes_max = 1 << 22;
    config.state.app_bytes_max = 1 << 24;
    config.state.app_keys_max = 256;
    config.hostcalls.tree = TreeLimits {
        calls_max: 200,
        depth_max: 8,
    };
    let world = world_of(config).await.expect("a node");
    world.deploy_command("good/says", &says("good")).await;
    let own = json!({ "allow": { "state": [{ "prefix": "key", "access": "write" }] } });
    deploy(&world, "good/keeps", KEEPS, own).await;
    let settings = json!({
        "allow": {
            "state": [{ "prefix": "", "access": "write" },
                      { "prefix": "k", "access": "write", "durability": "durable" }],
            "call": ["*"],
        },
        "limits": { "deadline_ms": 5_000, "memory_bytes_max": 32 << 20 },
    });
    for path in ["bad/self", "bad/other"] {
        deploy(&world, path, &interpreter(), settings.clone()).await;
    }
    (world, folder)
}

async fn deploy(world: &World, path: &str, text: &str, settings: serde_json::Value) {
    let deployed = world
        .deploy_with(path, "reactor", wasm(text), settings)
        .await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

const FAIR_ENDS: [&str; 3] = ["function-trapped", "function-timeout", "out-of-memory"];

/// Whether a guest may come to this end.
fn is_fair(answer: &Answer) -> bool {
    match answer.status {
        200 => true,
        // A pointer outside of the guest's memory, a write to what was mapped to read, all memory
        // used up by mappings or by growing, or all time: its own fault, and its own end.
        500 | 504 => FAIR_ENDS.contains(&&*answer.code()),
        _ => false,
    }
}

/// How many scripts were run, and how many of them to their end.
#[derive(Clone, Copy, Default)]
struct Ends {
    run: u64,
    whole: u64,
}

/// Runs the scripts of one seed at once, then looks after those who have nothing to do with them.
async fn round(world: &World, seed: u64) -> Ends {
    let mut random = StdRng::seed_from_u64(seed);
    let scripts: Vec<_> = (0..=seed % AT_ONCE_MAX)
        .map(|_| Writer::new(&mut random).script())
        .collect();
    let run = scripts
        .into_iter()
        .map(|script| world.call("/bad/self", script));
    let mut ends = Ends::default();
    for answer in join_all(run).await {
        ends.run += 1;
        ends.whole += u64::from(answer.status == 200);
        // A script that came to its end may have replied with anything.
        let (status, text) = (answer.status, String::from_utf8_lossy(&answer.body));
        assert!(is_fair(&answer), "seed {seed}: {status} {text}");
    }
    let good = world.call("/good/says", "").await;
    assert_eq!((good.status, good.text()), (200, "good"), "seed {seed}");
    let kept = world.call("/good/keeps", "").await;
    assert_eq!(kept.status, 200, "seed {seed}: {}", kept.text());
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn no_arguments_hurt_the_node() {
    let until = variable("DUNLIN_FUZZ_SECONDS").map(Duration::from_secs);
    let first = variable("DUNLIN_FUZZ_SEED").unwrap_or(1);
    let (world, _folder) = world().await;
    let kept = world.call("/good/keeps", "set").await;
    assert_eq!(kept.status, 200, "{}", kept.text());
    let (begun, mut ends) = (Instant::now(), Ends::default());
    for seed in first.. {
        let done = match until {
            Some(until) => begun.elapsed() >= until,
            None => seed >= first + ROUNDS,
        };
        if done {
            let Ends { run, whole } = ends;
            println!("{run} scripts were run, {whole} to their end");
            // Most traps are early ones, behind which nothing is tried.
            assert!(whole > run / 10, "{whole} of {run}");
            break;
        }
        let Ends { run, whole } = round(&world, seed).await;
        ends.run += run;
        ends.whole += whole;
    }
    assert!(world.node.shutdown().await);
}
