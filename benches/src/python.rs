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
    drop(node);
    together(setting, &entry, &mut report)?;
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

/// A function of its own over packages that are shared.
const SMALL: &str = "
import json
from jinja2 import Template

PAGE = Template('<title>NAME</title>{{ path }}')

def handle(environ):
    return 200, {'content-type': 'text/html'}, PAGE.render(path=environ['PATH_INFO'])
";

/// Memory of a node with one function and with ten: each called, and idle.
fn together(setting: &Setting, entry: &Entry, report: &mut Report) -> Result<()> {
    let app = entry.layers.last().context("the example has no layers")?;
    let app = std::fs::read_to_string(setting.root.join(app)).context("reading a source")?;
    let app = app.replace("title: Notes", "title: NAME");
    let ratios = [("small", SMALL), ("app", app.as_str())].map(|(word, source)| {
        let [one, ten] = [1, FUNCTIONS].map(|count| holding(setting, entry, source, count));
        let (one, ten) = (one?, ten?);
        let mib = |kib: f64| [String::new(), format!("{:.1}", kib / 1024.0)];
        report.row(&format!("a node with one function ({word})"), mib(one));
        report.row(&format!("a node with ten functions ({word})"), mib(ten));
        Ok::<_, anyhow::Error>(ten / one)
    });
    let [small, app] = ratios;
    report.figure("ten_functions_ratio", small?);
    report.figure("ten_apps_ratio", app?);
    Ok(())
}

/// KiB that a node holds with `count` functions of `source`, each by a name of its own.
fn holding(setting: &Setting, entry: &Entry, source: &str, count: usize) -> Result<f64> {
    let folder = setting.target.join("bench-tools/python-functions");
    std::fs::create_dir_all(&folder).context("making a folder for sources")?;
    let mut node = Node::start(&setting.binary(), &visit::agent())?;
    let mut all = Vec::new();
    for number in 0..count {
        let name = format!("function-{number}");
        let file = folder.join(format!("{name}.py"));
        std::fs::write(&file, source.replace("NAME", &name)).context("writing a source")?;
        let mut function = entry.clone();
        function.reply = catalogue::Reply::Contains(format!("<title>{name}").into_bytes());
        function.name = name;
        *function.layers.last_mut().context("no layers")? = file.display().to_string();
        visit::deploy(&setting.root, &node, APP, &function)?;
        all.push(function);
    }
    held(setting, &mut node, &all)
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
