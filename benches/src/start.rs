//! `start`: what a fresh sandbox for every call costs, and what a platform adds to it.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use executor::{Executor, Job};
use metering::{Ledger, LedgerConfig, LogBook, LogConfig};
use model::{FunctionPath, InvocationId, Kind, Limits, Status};
use sandbox::{LogSink, Sandbox};
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;
use xtask::node::Node;
use xtask::visit;

use crate::bare::Bare;
use crate::faaslets::{Function, call_of, expect_ok};
use crate::load::load;
use crate::measure::{median, process_cpu_us, wall_us};
use crate::report::Report;
use crate::{Setting, plain};

/// Rounds, in each of which every contender runs in turn.
const ROUNDS: usize = 21;

/// Calls in a round.
const CALLS: u32 = 2_000;

/// Callers of the executor at once.
const CALLERS: u32 = 8;

/// Rounds and seconds under load, for what a gateway adds.
const LOAD_ROUNDS: usize = 5;
const LOAD_SECONDS: u32 = 3;

/// A reactor that writes a byte to each of `pages` pages, which its image has bytes in as well.
pub fn toucher(pages: u32) -> Result<Vec<u8>> {
    let wasm_pages = (pages * 4096).div_ceil(65_536) + 1;
    let data: String = (0..pages)
        .map(|page| format!("(data (i32.const {}) \"dunlin\")\n", page * 4096))
        .collect();
    let text = format!(
        r#"(module
            (memory (export "memory") {wasm_pages})
            {data}
            (func (export "handle") (local $page i32)
                (loop $next
                    (i32.store8 (i32.shl (local.get $page) (i32.const 12)) (i32.const 7))
                    (local.set $page (i32.add (local.get $page) (i32.const 1)))
                    (br_if $next (i32.lt_u (local.get $page) (i32.const {pages}))))))"#
    );
    wat::parse_str(text).context("the bench's module")
}

/// A file of a reactor that replies `hello`.
pub fn replier() -> Result<NamedTempFile> {
    let text = r#"(module
        (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "hello\n")
        (func (export "handle") (result i32) (call $write (i32.const 0) (i32.const 6))))"#;
    let mut file = NamedTempFile::with_suffix(".wasm").context("a file for the bench's module")?;
    file.write_all(&wat::parse_str(text)?)
        .context("writing the bench's module")?;
    Ok(file)
}

/// Measures all three parts.
pub fn run(setting: &Setting) -> Result<Report> {
    let head = ["one call", "theirs µs", "ours µs", "figure"];
    let mut report = Report::new("start", &head);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("a runtime")?;
    for (pages, figure) in [(1, "speedup_1_page"), (100, "speedup_100_pages")] {
        let [theirs, ours, ratio] = against_bare(&runtime, pages)?;
        let cells = [
            format!("{theirs:.2}"),
            format!("{ours:.2}"),
            format!("{ratio:.2}×"),
        ];
        report.row(
            &format!("wasmtime's pool, ours; {pages} dirty pages; wall"),
            cells,
        );
        report.figure(figure, ratio);
    }
    let [sandbox, whole, added] = through_the_executor(&runtime)?;
    let cells = [
        format!("{sandbox:.2}"),
        format!("{whole:.2}"),
        format!("+{added:.2}"),
    ];
    report.row("our sandbox, our executor; CPU", cells);
    report.figure("executor_cpu_us", added);
    let [plain, gateway, added] = through_the_gateway(setting)?;
    let cells = [
        format!("{plain:.2}"),
        format!("{gateway:.2}"),
        format!("+{added:.2}"),
    ];
    report.row("plain hyper, our gateway; CPU", cells);
    report.figure("gateway_cpu_us", added);
    Ok(report)
}

/// Wall time of a call: wasmtime alone, ours, and how many times ours is faster.
fn against_bare(runtime: &Runtime, pages: u32) -> Result<[f64; 3]> {
    let wasm = toucher(pages)?;
    let bare = Bare::new(&wasm)?;
    let function = runtime.block_on(Function::deploy(Kind::Reactor, wasm, 64))?;
    let limits = Arc::new(function.spec.settings.limits.clone());
    let mut sandbox = function.program.sandbox()?;
    let mut samples = [const { Vec::new() }; 3];
    // The first round warms both up and is not counted.
    for round in 0..=ROUNDS {
        let theirs = wall_us(|| (0..CALLS).try_for_each(|_| bare.call()))?;
        let ours = wall_us(|| runtime.block_on(cycles(&function, &limits, &mut *sandbox)))?;
        if round > 0 {
            let figures = [
                theirs / f64::from(CALLS),
                ours / f64::from(CALLS),
                theirs / ours,
            ];
            samples
                .iter_mut()
                .zip(figures)
                .for_each(|(samples, figure)| samples.push(figure));
        }
    }
    Ok(samples.map(|samples| median(&samples)))
}

/// [`CALLS`] times: call, reset.
async fn cycles(
    function: &Function,
    limits: &Arc<Limits>,
    sandbox: &mut dyn Sandbox,
) -> Result<()> {
    for _ in 0..CALLS {
        expect_ok(
            &sandbox
                .invoke(call_of(&function.spec, limits, Vec::new()))
                .await,
        )?;
        sandbox.reset()?;
    }
    Ok(())
}

/// Processor time of a call: sandbox alone, whole invocation, and what is added.
fn through_the_executor(runtime: &Runtime) -> Result<[f64; 3]> {
    let function = runtime.block_on(Function::deploy(Kind::Reactor, toucher(1)?, 64))?;
    let limits = Arc::new(function.spec.settings.limits.clone());
    let mut sandbox = function.program.sandbox()?;
    let metered = Metered::new(runtime, &function)?;
    let mut samples = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        let start = process_cpu_us();
        runtime.block_on(cycles(&function, &limits, &mut *sandbox))?;
        let middle = process_cpu_us();
        runtime.block_on(metered.round())?;
        let end = process_cpu_us();
        if round > 0 {
            let alone = (middle - start) / f64::from(CALLS);
            let whole = (end - middle) / f64::from(CALLS);
            let figures = [alone, whole, whole - alone];
            samples
                .iter_mut()
                .zip(figures)
                .for_each(|(samples, figure)| samples.push(figure));
        }
    }
    Ok(samples.map(|samples| median(&samples)))
}

/// A function behind an executor that keeps logs and a ledger, as a node's does.
#[derive(Clone)]
struct Metered {
    executor: Executor,
    job: Job,
}

impl Metered {
    fn new(runtime: &Runtime, function: &Function) -> Result<Self> {
        let path: FunctionPath = "bench/touch".parse().context("the function's name")?;
        let log = LogBook::new(LogConfig::default()).function(&path);
        let ledger = Ledger::new(LedgerConfig::default());
        let printed = log.clone();
        let on_outcome = move |job: &Job, outcome: &model::Outcome| {
            ledger.record(&job.path, &job.version, outcome);
            printed.finish(job.id);
        };
        let config = executor::Config {
            on_outcome: Arc::new(on_outcome),
            ..executor::Config::default()
        };
        let artifacts = function.artifacts.clone();
        let backend = function.backend.clone();
        let guests = runtime.handle().clone();
        let job = Job {
            id: InvocationId::new(0),
            path,
            version: function.spec.digest(),
            spec: function.spec.clone(),
            log: log as Arc<dyn LogSink>,
            trace: model::TraceParent::root(InvocationId::new(0)),
            branch: None,
        };
        Ok(Self {
            executor: Executor::new(config, backend, artifacts, guests),
            job,
        })
    }

    /// [`CALLS`] whole invocations, made by [`CALLERS`] at once: a lone caller would measure how
    /// the runtime's idle thread is woken and sleeps again for each reset.
    async fn round(&self) -> Result<()> {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let caller = self.clone();
                tokio::spawn(async move { caller.calls(CALLS / CALLERS).await })
            })
            .collect();
        for caller in callers {
            caller.await.context("a caller broke off")??;
        }
        Ok(())
    }

    async fn calls(&self, count: u32) -> Result<()> {
        for at in 0..count {
            let id = InvocationId::new(at.into());
            let job = Job {
                id,
                ..self.job.clone()
            };
            let done = self
                .executor
                .invoke(job, Bytes::new(), Vec::new(), Vec::new())
                .await;
            let status = done.context("an invocation was refused")?.outcome.status;
            if status != Status::Ok {
                bail!("an invocation ended {status}");
            }
            // As between two requests of a connection: the reset of the sandbox gets its turn.
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// Processor time of the serving process for each reply: plain hyper, a node, and what is added.
fn through_the_gateway(setting: &Setting) -> Result<[f64; 3]> {
    let node = Node::start(&setting.binary(), &visit::agent())?;
    let file = replier()?;
    let path = file
        .path()
        .to_str()
        .context("the temporary folder is not UTF-8")?;
    node.cli(&[
        "deploy", "--app", "bench", "--name", "reply", "--kind", "reactor", path,
    ])?;
    let plain = plain::start()?;
    let ours = format!("http://{}/bench/reply/", node.data);
    let theirs = format!("http://{}/", plain.address);
    let mut samples = [const { Vec::new() }; 3];
    for round in 0..=LOAD_ROUNDS {
        let plain = load(&theirs, plain.pid(), LOAD_SECONDS)?.cpu_us;
        let gateway = load(&ours, node.pid(), LOAD_SECONDS)?.cpu_us;
        if round > 0 {
            let figures = [plain, gateway, gateway - plain];
            samples
                .iter_mut()
                .zip(figures)
                .for_each(|(samples, figure)| samples.push(figure));
        }
    }
    Ok(samples.map(|samples| median(&samples)))
}
