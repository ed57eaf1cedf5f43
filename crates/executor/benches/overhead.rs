//! What the executor adds to a sandbox's own call: processor time of a whole invocation (queue,
//! metering, outcome, reset) against invoke and reset of the same sandbox called directly.
//!
//! Both are loops on one thread of a current-thread runtime, so the reset that the executor spawns
//! is counted too. Beside them, in wall-clock time, a call that a parent waits for, made on the
//! guest runtime. Prints the medians over rounds that alternate, in nanoseconds.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints and may fail"
)]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use executor::{Config, Executor, Job};
use model::{InvocationId, Limits};
use rustix::time::{ClockId, clock_gettime};
use sandbox::{Artifacts, Backend, Call, CallLog, LogSink, Payload, Sandbox};
use testkit::{Guest, MemoryArtifacts, MockBackend, NoLog};

const ROUNDS: usize = 41;
const CALLS: u32 = 5_000;

fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn median(mut samples: Vec<u64>) -> u64 {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

async fn direct(sandbox: &mut Box<dyn Sandbox>, job: &Job, limits: &Arc<Limits>) -> u64 {
    let before = thread_ns();
    for _ in 0..CALLS {
        let log: Arc<dyn LogSink> = job.log.clone();
        let call = Call {
            id: job.id,
            payload: Payload::Bytes {
                body: Bytes::from_static(b"x"),
                args: Vec::new(),
                env: Vec::new(),
            },
            limits: limits.clone(),
            budget: None,
            log: Arc::new(CallLog::new(job.id, log, limits.log_bytes_max)),
            asks: None,
        };
        let completion = sandbox.invoke(call).await;
        assert_eq!(completion.reply.len(), 1);
        sandbox.reset().unwrap();
        tokio::task::yield_now().await;
    }
    (thread_ns() - before) / u64::from(CALLS)
}

async fn through(executor: &Executor, job: &Job) -> u64 {
    let before = thread_ns();
    for _ in 0..CALLS {
        let body = Bytes::from_static(b"x");
        let run = executor.invoke(job.clone(), body, Vec::new(), Vec::new());
        assert_eq!(run.await.unwrap().reply.len(), 1);
        // As a server does between requests: the reset gets its turn.
        tokio::task::yield_now().await;
    }
    (thread_ns() - before) / u64::from(CALLS)
}

/// Wall-clock time: its task may change threads.
async fn nested(executor: Executor, job: Job) -> u64 {
    let before = Instant::now();
    for _ in 0..CALLS {
        let body = Bytes::from_static(b"x");
        let run = executor.invoke_nested(job.clone(), body, Vec::new(), Vec::new());
        assert_eq!(run.await.unwrap().reply.len(), 1);
        tokio::task::yield_now().await;
    }
    (before.elapsed() / CALLS).as_nanos() as u64
}

fn clock_ns() -> u64 {
    let before = thread_ns();
    for _ in 0..CALLS {
        std::hint::black_box(thread_ns());
    }
    (thread_ns() - before) / u64::from(CALLS)
}

async fn bench(guests: tokio::runtime::Handle) {
    let backend = MockBackend::new();
    let artifacts = Arc::new(MemoryArtifacts::default());
    artifacts.put(Guest::Echo.artifact());
    let spec = Arc::new(Guest::Echo.spec(Limits::default()));
    let job = Job {
        id: InvocationId::new(1),
        path: "bench/echo".parse().unwrap(),
        version: spec.digest(),
        spec: spec.clone(),
        log: Arc::new(NoLog),
        trace: model::TraceParent::root(InvocationId::new(0)),
        branch: None,
    };
    let limits = Arc::new(spec.settings.limits.clone());
    let stored: Arc<dyn Artifacts> = artifacts;
    let program = backend.load(&spec, &*stored).await.unwrap();
    let mut sandbox = program.sandbox().unwrap();
    let executor = Executor::new(Config::default(), Arc::new(backend), stored, guests.clone());
    let (mut alone, mut whole, mut inner) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(direct(&mut sandbox, &job, &limits).await);
        whole.push(through(&executor, &job).await);
        let calls = guests.spawn(nested(executor.clone(), job.clone()));
        inner.push(calls.await.unwrap());
    }
    let (alone, whole) = (median(alone), median(whole));
    println!("sandbox alone      {alone:>6} ns");
    println!("through executor   {whole:>6} ns");
    println!("executor adds      {:>6} ns", whole.saturating_sub(alone));
    println!(
        "of it two readings of the thread clock: {} ns",
        2 * clock_ns()
    );
    println!("nested, wall clock {:>6} ns", median(inner));
}

fn main() {
    let guests = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let main = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    main.block_on(bench(guests.handle().clone()));
}
