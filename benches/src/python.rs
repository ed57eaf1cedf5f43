//! `python`: a web-like function of seven packages, its first call against a plain interpreter that
//! starts, imports the same and answers the same; and what ten functions of one runtime hold.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use xtask::catalogue::{self, Entry};
use xtask::node::Node;
use xtask::visit;

use crate::Setting;
use crate::measure::{median, micros};
use crate::report::Report;
use crate::workloads::held;

/// The example that is measured.
const EXAMPLE: &str = "web-py";
const APP: &str = "bench";
/// Starts of node and interpreter, in turns.
const STARTS: usize = 15;
/// Functions that share the runtime.
const FUNCTIONS: usize = 10;
/// Calls of each before its memory is looked at.
const CALLS: usize = 20;

/// One request, as a test of the app would make it.
const NATIVE: &str = "import app; print(app.app.test_client().get('/?note=**hi**').text)";

/// Measures both.
pub fn run(setting: &Setting) -> Result<Report> {
    let entries = catalogue::read(&setting.root)?;
    let entry = entries.into_iter().find(|entry| entry.name == EXAMPLE);
    let entry = entry.context("the catalogue has no example in Python with layers")?;
    let agent = visit::agent();
    let mut node = Node::start(&setting.binary(), &agent)?;
    visit::deploy(&setting.root, &node, APP, &entry)?;
    let mut report = Report::new("python", &["", "median ms", "or MiB"]);
    first_calls(setting, &mut node, &entry, &mut report)?;
    together(setting, &mut node, &entry, &mut report)?;
    Ok(report)
}

fn first_calls(
    setting: &Setting,
    node: &mut Node,
    entry: &Entry,
    report: &mut Report,
) -> Result<()> {
    let agent = visit::agent();
    let packages = packages(setting, entry)?;
    let example = setting.root.join("examples").join(EXAMPLE);
    let (mut ours, mut again, mut native) = (Vec::new(), Vec::new(), Vec::new());
    // The first start of the interpreter writes its own cache of compiled modules.
    plain_interpreter(&packages, &example)?;
    for _ in 0..STARTS {
        node.restart(&agent)?;
        ours.push(call(&agent, setting, node, entry)?);
        again.push(call(&agent, setting, node, entry)?);
        native.push(plain_interpreter(&packages, &example)?);
    }
    let ms = |samples: &[f64]| format!("{:.1}", median(samples) / 1e3);
    report.row(
        "first call, of a node just started",
        [ms(&ours), String::new()],
    );
    report.row("second call", [ms(&again), String::new()]);
    report.row(
        "plain interpreter, imports, one request",
        [ms(&native), String::new()],
    );
    report.figure("first_call_speedup", median(&native) / median(&ours));
    report.figure("call_speedup", median(&native) / median(&again));
    Ok(())
}

/// Memory of the node with one function and with ten: each called, and idle.
fn together(setting: &Setting, node: &mut Node, entry: &Entry, report: &mut Report) -> Result<()> {
    let one = held(setting, node, std::slice::from_ref(entry))?;
    let folder = setting.target.join("bench-tools/python-functions");
    std::fs::create_dir_all(&folder).context("making a folder for sources")?;
    let mut all = vec![entry.clone()];
    let source = entry.layers.last().context("the example has no layers")?;
    let source = std::fs::read_to_string(setting.root.join(source)).context("reading a source")?;
    for number in 1..FUNCTIONS {
        let file = folder.join(format!("app-{number}.py"));
        let own = source.replace("Notes", &format!("Notes {number}:"));
        std::fs::write(&file, own).context("writing a source")?;
        let mut other = entry.clone();
        other.name = format!("{EXAMPLE}-{number}");
        other.reply = catalogue::Reply::Contains(format!("<title>Notes {number}: 1").into_bytes());
        *other.layers.last_mut().context("no layers")? = file.display().to_string();
        visit::deploy(&setting.root, node, APP, &other)?;
        all.push(other);
    }
    let ten = held(setting, node, &all)?;
    let mib = |kib: f64| [String::new(), format!("{:.1}", kib / 1024.0)];
    report.row("a node with one function", mib(one));
    report.row("a node with ten functions", mib(ten));
    report.figure("ten_functions_ratio", ten / one);
    Ok(())
}

/// KiB that the node holds after each of `entries` was called.
fn held(setting: &Setting, node: &mut Node, entries: &[Entry]) -> Result<f64> {
    let agent = visit::agent();
    node.restart(&agent)?;
    for entry in entries {
        for _ in 0..CALLS {
            call(&agent, setting, node, entry)?;
        }
    }
    Ok(held::bytes(node.pid()) / 1024.0)
}

fn call(agent: &ureq::Agent, setting: &Setting, node: &Node, entry: &Entry) -> Result<f64> {
    let request = visit::request(&setting.root, &node.data, APP, entry)?;
    match visit::call(agent, &request)? {
        (time, None) => Ok(micros(time)),
        (_, Some(fault)) => bail!("{} replies wrongly: {fault}", entry.name),
    }
}

/// The packages of the example, as files that the interpreter imports from.
fn packages(setting: &Setting, entry: &Entry) -> Result<PathBuf> {
    let archive = entry.layers.first().context("the example has no layers")?;
    let folder = setting.target.join("bench-tools/python-packages");
    let done = Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(setting.root.join(archive))
        .arg(&folder)
        .status();
    match done.context("starting python3")?.success() {
        true => Ok(folder),
        false => bail!("python3 could not unpack {archive}"),
    }
}

/// Microseconds from the start of an interpreter to its end.
fn plain_interpreter(packages: &Path, example: &Path) -> Result<f64> {
    let path = std::env::join_paths([packages, example]).context("naming the packages")?;
    let start = Instant::now();
    let output = Command::new("python3")
        .args(["-c", NATIVE])
        .env("PYTHONPATH", path)
        .stdin(Stdio::null())
        .output()
        .context("starting python3")?;
    let time = micros(start.elapsed());
    if output.status.success() && output.stdout.starts_with(b"<title>Notes 1</title>") {
        return Ok(time);
    }
    bail!(
        "python3: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )
}
