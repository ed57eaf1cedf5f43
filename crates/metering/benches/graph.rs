//! What the book of graphs costs a call: begin and end of a child, and the end of an invocation
//! that has no graph. Prints the medians over rounds, in nanoseconds.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints and may fail"
)]

use std::hint::black_box;
use std::time::Instant;

use metering::{Begun, GraphBook, GraphConfig, unix_us};
use model::{Digest, FunctionPath, InvocationId, Outcome, StartKind, Status, Usage};

const ROUNDS: usize = 41;
const CALLS: usize = 5_000;

fn median(mut samples: Vec<u64>) -> u64 {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

fn per_call(begun: Instant) -> u64 {
    begun.elapsed().as_nanos() as u64 / CALLS as u64
}

fn main() {
    let book = GraphBook::new(GraphConfig::default());
    let path: FunctionPath = "bench/child".parse().unwrap();
    let version = Digest::of(b"version");
    let outcome = Outcome {
        status: Status::Ok,
        start: StartKind::Restored,
        usage: Usage::default(),
    };
    let begin = |id| Begun {
        id,
        path: path.clone(),
        version,
        unix_us: unix_us(),
    };
    let (mut children, mut strangers) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let ids: Vec<_> = (0..CALLS).map(|_| InvocationId::new(0)).collect();
        let root = InvocationId::new(0);
        book.root(root, || begin(root));
        let begun = Instant::now();
        for id in &ids {
            book.child(root, root, begin(*id), false);
            book.ended(root, *id, &outcome);
        }
        children.push(per_call(begun));
        let begun = Instant::now();
        for id in &ids {
            book.ended(black_box(*id), *id, &outcome);
        }
        strangers.push(per_call(begun));
    }
    println!("begin and end of a child   {:>6} ns", median(children));
    println!("end without a graph        {:>6} ns", median(strangers));
}
