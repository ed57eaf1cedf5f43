//! What it costs to open a key that is here and read 64 bytes of it, and to map a mebibyte.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench says what it measured"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use memory::Access;
use state::{Config, Durability, EmbeddedGlobal, Open, State};
use storage::RedbStore;

const ROUNDS: u32 = 1_000_000;
const MAPS: u32 = 100_000;
const OPEN: Open = Open {
    create: Some(Durability::Ephemeral),
};

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let store = RedbStore::in_memory(storage::Config::default()).unwrap();
    let global = EmbeddedGlobal::open(Arc::new(store)).await.unwrap();
    let app = State::new(Arc::new(global), Config::default()).app(&"shop".parse().unwrap());
    for (what, bytes) in [("small", 64), ("shared", 1 << 20)] {
        let key = what.parse().unwrap();
        let value = app.value(&key, OPEN).await.unwrap();
        value.set(&vec![1; bytes]).await.unwrap();
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            let value = app.value(&key, OPEN).await.unwrap();
            let mut out = [0; 64];
            value.read(0, &mut out).await.unwrap();
            black_box(out);
        }
        let ns = begun.elapsed().as_nanos() / u128::from(ROUNDS);
        println!("open and read 64 bytes, {what}: {ns} ns");
    }
    let value = app.value(&"shared".parse().unwrap(), OPEN).await.unwrap();
    let begun = Instant::now();
    for _ in 0..MAPS {
        black_box(
            value
                .map_span(0, 1 << 20, Access::Write, false)
                .await
                .unwrap(),
        );
    }
    let ns = begun.elapsed().as_nanos() / u128::from(MAPS);
    println!("the span of a mebibyte: {ns} ns");
}
