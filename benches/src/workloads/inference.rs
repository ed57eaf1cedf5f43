//! `inference`: a small neural network that is served by functions, its weights in state, and by
//! processes that each load their own.
//!
//! One call of twenty is a cold start. To a function: it is one that has not been called since the
//! node started, so that its code and image are read from disk, and its sandbox is made. To a
//! process: it is a fresh one. All send the same files in the same order.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use ureq::Agent;
use xtask::node::Node;
use xtask::visit;

use super::held::{self, Watch};
use crate::child::Server;
use crate::measure::{median, percentile};
use crate::report::Report;
use crate::{Setting, front};

/// Clients at once, and workers of each server.
const WORKERS: usize = 4;
const REQUESTS: usize = 600;
const COLD_EVERY: usize = 20;
const ROUNDS: usize = 5;
/// Requests before the clock runs.
const WARM_UP: usize = 64;
/// Larger files are not sent.
const BODY_BYTES_MAX: u64 = 256 << 10;
/// How far two scores of a file may lie apart.
const SCORES_APART_MAX: f64 = 1e-3;

const APP: &str = "bench";
const FUNCTION: &str = "file-type";
const ARTIFACT: &str = "guests/out/file-type.wasm";
const WEIGHTS: &str = "guests/out/file-type.weights";
const KEY: &str = "file-type/weights";
const NATIVE: &str = "guests/out/workers/inference";
const PYTHON: &str = "benches/workloads/inference-worker.py";
const REQUIREMENTS: &str = "benches/workloads/inference-requirements.txt";
/// Where the files are that are sent.
const FOLDERS: [&str; 5] = ["examples", "sdk", "docs", "crates/model/src", "guests/out"];

/// One that answers, and how.
struct Served {
    name: &'static str,
    server: Server,
}

/// What one server did in one round.
#[derive(Default)]
struct Took {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Has all of them serve in turns.
pub fn run(setting: &Setting) -> Result<Report> {
    let files = files(&setting.root)?;
    let mut node = Node::start(&setting.binary(), &visit::agent())?;
    deploy(setting, &node)?;
    let workers = workers(setting)?;
    let agrees = |file: &Vec<u8>| agree(&node, &workers, file);
    files.iter().try_for_each(agrees)?;
    let mut took = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        node.restart(&visit::agent())?;
        took[0].push(node_round(&node, &files)?);
        for (at, served) in workers.iter().enumerate() {
            took[at + 1].push(served_round(served, &files)?);
        }
    }
    // As the workers do, the node holds no more then than the warm function needs.
    node.restart(&visit::agent())?;
    let held = held(&node, &workers, &files)?;
    Ok(report(&workers, &took, &held))
}

fn report(workers: &[Served], took: &[Vec<Took>; 3], held: &[f64]) -> Report {
    let head = ["inference, 5 % cold", "calls/s", "p50 ms", "p99 ms", "MiB"];
    let mut report = Report::new("inference", &head);
    let names = workers.iter().map(|served| served.name);
    for (at, name) in ["functions, weights in state"]
        .into_iter()
        .chain(names)
        .enumerate()
    {
        let of = |of: fn(&Took) -> f64| median(&took[at].iter().map(of).collect::<Vec<_>>());
        let figures = [
            of(|took| took.per_second),
            of(|took| took.p50_ms),
            of(|took| took.p99_ms),
        ];
        let figures = figures.into_iter().chain([held[at] / f64::from(1 << 20)]);
        report.row(name, figures.map(|figure| format!("{figure:.1}")));
    }
    let ratio = |at: usize, of: fn(&Took, &Took) -> f64| {
        let pairs = took[0].iter().zip(&took[at]);
        median(
            &pairs
                .map(|(ours, theirs)| of(ours, theirs))
                .collect::<Vec<_>>(),
        )
    };
    let faster = |ours: &Took, theirs: &Took| ours.per_second / theirs.per_second;
    let sooner = |ours: &Took, theirs: &Took| theirs.p99_ms / ours.p99_ms;
    report.figure("throughput_ratio", ratio(1, faster));
    report.figure("p99_ratio", ratio(1, sooner));
    report.figure("memory_ratio", held[1] / held[0]);
    report.figure("native_throughput_ratio", ratio(2, faster));
    report.figure("native_p99_ratio", ratio(2, sooner));
    report.figure("native_memory_ratio", held[2] / held[0]);
    report
}

/// Puts the weights in state, and deploys the function and those that are called cold.
fn deploy(setting: &Setting, node: &Node) -> Result<()> {
    let artifact = path(setting.root.join(ARTIFACT))?;
    let weights = format!("@{}", path(setting.root.join(WEIGHTS))?);
    node.cli(&["state", "put", "--durable", APP, KEY, &weights])?;
    let allow = format!("--allow-state={KEY}=read");
    let deploy = |name: &str, more: &str| {
        let flags = [
            "deploy", "--app", APP, "--name", name, &allow, more, &artifact,
        ];
        node.cli(&flags).map(drop)
    };
    deploy(FUNCTION, "--kind=reactor")?;
    // The variable makes each another version, with which nothing is shared but the weights.
    let mut cold = (0..REQUESTS / COLD_EVERY).map(|at| (cold_name(at), format!("--env=COLD={at}")));
    cold.try_for_each(|(name, variable)| deploy(&name, &variable))
}

/// Starts the processes that load their own weights, behind an HTTP server.
fn workers(setting: &Setting) -> Result<[Served; 2]> {
    let python = vec![
        path(python(setting)?)?,
        "-I".to_owned(),
        path(setting.root.join(PYTHON))?,
    ];
    let native = [NATIVE, WEIGHTS].map(|file| path(setting.root.join(file)));
    let native = native.into_iter().collect::<Result<Vec<_>>>()?;
    let serve = |name, line: &[String]| -> Result<Served> {
        let server = front::start(WORKERS, line)?;
        Ok(Served { name, server })
    };
    Ok([
        serve("processes, onnxruntime", &python)?,
        serve("processes, the same C", &native)?,
    ])
}

/// A Python with what the worker imports, installed if it is not there.
fn python(setting: &Setting) -> Result<PathBuf> {
    let folder = setting.target.join("bench-tools/inference");
    let (wanted, stamp) = (
        setting.root.join(REQUIREMENTS),
        folder.join("requirements.txt"),
    );
    let program = folder.join("bin/python3");
    if std::fs::read(&stamp).ok() != std::fs::read(&wanted).ok() {
        eprintln!("pip: {REQUIREMENTS}");
        let made = Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&folder)
            .status();
        let made = made.context("starting python3 (apt-get install python3-venv)")?;
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "-r",
            REQUIREMENTS,
        ];
        let pip = Command::new(&program)
            .args(pip)
            .current_dir(&setting.root)
            .status();
        ensure!(
            made.success() && pip?.success(),
            "{REQUIREMENTS} did not install"
        );
        std::fs::copy(&wanted, &stamp)?;
    }
    Ok(program)
}

fn path(path: PathBuf) -> Result<String> {
    let path = path.into_os_string().into_string();
    path.map_err(|path| anyhow::anyhow!("{} is not UTF-8", path.display()))
}

/// What is sent: the files of some folders, in an order that depends on their names alone.
fn files(root: &Path) -> Result<Vec<Vec<u8>>> {
    let (mut open, mut names) = (FOLDERS.map(|folder| root.join(folder)).to_vec(), Vec::new());
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let (entry, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            match kind.is_dir() {
                true => open.push(entry),
                false => names.push(entry),
            }
        }
    }
    names.sort();
    let mut files = Vec::new();
    for name in names {
        if name.metadata()?.len() <= BODY_BYTES_MAX {
            files.push(std::fs::read(&name)?);
        }
    }
    Ok(files)
}

/// The server's address for the node's function, or another function of the app.
fn url(node: &Node, function: &str) -> String {
    format!("http://{}/{APP}/{function}", node.data)
}

fn cold_name(at: usize) -> String {
    format!("cold-{at}")
}

/// Whether request `at` is the one cold start of its twenty.
fn is_cold(at: usize) -> bool {
    at % COLD_EVERY == drawn(at / COLD_EVERY) as usize % COLD_EVERY
}

/// Number `at` of a sequence that is always the same.
fn drawn(at: usize) -> u64 {
    let mut x = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Sends one file; the reply, and how the node says that it started.
fn ask(agent: &Agent, url: &str, cold: bool, file: &[u8]) -> Result<(String, String)> {
    let mut request = agent.post(url);
    if cold {
        request = request.header(front::COLD, "1");
    }
    let mut reply = request.send(file)?;
    let start = reply
        .headers()
        .get("dunlin-start")
        .map(|start| start.to_str());
    let start = start.transpose()?.unwrap_or_default().to_owned();
    let text = reply.body_mut().read_to_string()?;
    ensure!(reply.status() == 200, "{url}: {text}");
    Ok((text, start))
}

/// Checks that all say the same of a file.
fn agree(node: &Node, workers: &[Served], file: &[u8]) -> Result<()> {
    let agent = visit::agent();
    let (ours, _) = ask(&agent, &url(node, FUNCTION), false, file)?;
    for served in workers {
        let url = format!("http://{}/", served.server.address);
        let (theirs, _) = ask(&agent, &url, false, file)?;
        let (ours, theirs) = (said(&ours)?, said(&theirs)?);
        let apart = (ours.1 - theirs.1).abs();
        ensure!(
            ours.0 == theirs.0 && apart <= SCORES_APART_MAX,
            "{ours:?} is not {theirs:?}"
        );
    }
    Ok(())
}

/// A reply's label and score.
fn said(reply: &str) -> Result<(&str, f64)> {
    let words = reply.trim_end().split_once(' ');
    let (label, score) = words.with_context(|| format!("a reply is {reply:?}"))?;
    Ok((label, score.parse()?))
}

/// Sends requests from [`WORKERS`] clients at once, the next one as soon as one is answered.
fn sent<F: Fn(&Agent, usize) -> Result<()> + Sync>(count: usize, send: F) -> Result<Took> {
    let (next, begun) = (AtomicUsize::new(0), Instant::now());
    let client = || -> Result<Vec<f64>> {
        let (agent, mut times) = (visit::agent(), Vec::new());
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(times);
            }
            let begun = Instant::now();
            send(&agent, at)?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    };
    let times = std::thread::scope(|scope| {
        let clients = [(); WORKERS].map(|()| scope.spawn(client));
        let times = clients.map(|client| match client.join() {
            Ok(times) => times,
            Err(_) => bail!("a client panicked"),
        });
        times.into_iter().collect::<Result<Vec<_>>>()
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let times = times.concat();
    Ok(Took {
        per_second: count as f64 / seconds,
        p50_ms: median(&times),
        p99_ms: percentile(&times, 99),
    })
}

/// The file of request `at`.
fn file(files: &[Vec<u8>], at: usize) -> &[u8] {
    &files[drawn(at) as usize % files.len()]
}

fn node_round(node: &Node, files: &[Vec<u8>]) -> Result<Took> {
    let warm = url(node, FUNCTION);
    sent(WARM_UP, |agent, at| {
        ask(agent, &warm, false, file(files, at)).map(drop)
    })?;
    sent(REQUESTS, |agent, at| {
        let cold = is_cold(at).then(|| url(node, &cold_name(at / COLD_EVERY)));
        let url = cold.as_deref().unwrap_or(&warm);
        let (_, start) = ask(agent, url, false, file(files, at))?;
        ensure!(
            (start == "cold") == is_cold(at),
            "call {at} of {url} started {start}"
        );
        Ok(())
    })
}

fn served_round(served: &Served, files: &[Vec<u8>]) -> Result<Took> {
    let url = format!("http://{}/", served.server.address);
    sent(WARM_UP, |agent, at| {
        ask(agent, &url, false, file(files, at)).map(drop)
    })?;
    sent(REQUESTS, |agent, at| {
        ask(agent, &url, is_cold(at), file(files, at)).map(drop)
    })
}

/// Most bytes that the node and the workers hold, in a round that nobody times.
fn held(node: &Node, workers: &[Served], files: &[Vec<u8>]) -> Result<Vec<f64>> {
    let warm = url(node, FUNCTION);
    let mut peaks = Vec::new();
    let pid = node.pid();
    let watch = Watch::start(move || held::bytes(pid));
    sent(REQUESTS, |agent, at| {
        ask(agent, &warm, false, file(files, at)).map(drop)
    })?;
    peaks.push(watch.peak_bytes());
    for served in workers {
        let pid = served.server.pid();
        let watch = Watch::start(move || held::children(pid).into_iter().map(held::bytes).sum());
        let url = format!("http://{}/", served.server.address);
        sent(REQUESTS, |agent, at| {
            ask(agent, &url, false, file(files, at)).map(drop)
        })?;
        peaks.push(watch.peak_bytes());
    }
    Ok(peaks)
}
