//! A Linux program called from its image, against the same file as a process of the host's, and as
//! the only process of a container. Each is given the same input and must give the same reply.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use microvm::{Config, MicroVms};
use model::{Digest, Isolation, Kind, Limits, Settings, Snapshot, VersionSpec};
use sandbox::{Backend, Payload, Program, Sandbox};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::faaslets::{OneArtifact, call_of, expect_ok};
use crate::measure::{median, micros};
use crate::report::Report;

const INPUT: &[u8] = b"a request as small as most are";
const REPLY: &[u8] = b"A REQUEST AS SMALL AS MOST ARE";
/// Rounds, in each of which every contender runs in turn.
const ROUNDS: usize = 21;
/// Calls, and processes, in a round.
const CALLS: usize = 100;
const PROCESSES: usize = 20;
/// Containers in a round.
const CONTAINERS: usize = 2;

/// Measures all of it.
pub fn starts(report: &mut Report, runtime: &Runtime, root: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("a folder for the program")?;
    let program = build(root, folder.path())?;
    let function = Function::deploy(runtime, &program)?;
    let bundle = Bundle::of(&program, folder.path())?;
    let mut sandbox = function.program.sandbox()?;
    let (mut ours, mut processes, mut containers) = (Vec::new(), Vec::new(), Vec::new());
    // The first round warms all up and is not counted.
    for round in 0..=ROUNDS {
        let called = mean_us(CALLS, || function.call(runtime, &mut *sandbox))?;
        let spawned = mean_us(PROCESSES, || replies(&mut Command::new(&program)))?;
        let contained = mean_us(CONTAINERS, || replies(&mut bundle.command()))?;
        if round > 0 {
            ours.push(called);
            processes.push(spawned / called);
            containers.push(contained / called);
        }
    }
    for (against, figure, ratios) in [
        (
            "a process of the host's",
            "start_against_process",
            &processes,
        ),
        ("`runc run`", "start_against_runc", &containers),
    ] {
        let (us, ratio) = (median(&ours), median(ratios));
        let cells = [
            format!("{us:.1}"),
            against.to_owned(),
            format!("{ratio:.1}×"),
        ];
        report.row("a Linux program from its request loop", cells);
        report.figure(figure, ratio);
    }
    Ok(())
}

/// µs of one `what`, on the mean of `times`.
fn mean_us(times: usize, mut what: impl FnMut() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..times {
        what()?;
    }
    Ok(micros(begun.elapsed()) / times as f64)
}

/// The program, static, as it is deployed and as it is spawned.
fn build(root: &Path, folder: &Path) -> Result<PathBuf> {
    let program = folder.join("upper");
    let built = Command::new("rustc")
        .args(["--edition=2024", "-O", "-Ctarget-feature=+crt-static", "-o"])
        .arg(&program)
        .arg(root.join("benches/vm/upper.rs"))
        .status()
        .context("rustc")?;
    ensure!(built.success(), "the program does not compile");
    Ok(program)
}

/// Runs `command` with the input, and sees that it replies.
fn replies(command: &mut Command) -> Result<()> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("starting a process")?;
    let mut stdin = child.stdin.take().context("its input")?;
    stdin.write_all(INPUT)?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success() && output.stdout == REPLY,
        "{command:?} ended with {output:?}"
    );
    Ok(())
}

/// The program as a function.
struct Function {
    program: Arc<dyn Program>,
    spec: VersionSpec,
    limits: Arc<Limits>,
    _backend: MicroVms,
    _folder: TempDir,
}

impl Function {
    fn deploy(runtime: &Runtime, file: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for the cache")?;
        let backend = MicroVms::new(Config {
            shells: 1,
            ..Config::new(folder.path())
        })?;
        let artifact = Bytes::from(std::fs::read(file)?);
        let spec = VersionSpec {
            kind: Kind::Command,
            artifact: Digest::of(&artifact),
            settings: Settings {
                isolation: Isolation::Vm,
                // A deploy that does not freeze it fails.
                snapshot: Snapshot::Always,
                ..Settings::default()
            },
        };
        runtime.block_on(backend.prepare(&spec, artifact.clone(), Vec::new()))?;
        let program = runtime.block_on(backend.load(&spec, &OneArtifact::of(artifact)))?;
        let limits = Arc::new(spec.settings.limits.clone());
        Ok(Self {
            program,
            spec,
            limits,
            _backend: backend,
            _folder: folder,
        })
    }

    /// A call, and the reset that makes its sandbox ready for the next.
    fn call(&self, runtime: &Runtime, sandbox: &mut dyn Sandbox) -> Result<()> {
        let mut call = call_of(&self.spec, &self.limits, Vec::new());
        call.payload = Payload::Bytes {
            body: Bytes::from_static(INPUT),
            args: Vec::new(),
            env: Vec::new(),
        };
        let completion = runtime.block_on(sandbox.invoke(call));
        expect_ok(&completion)?;
        ensure!(
            completion.reply == REPLY,
            "it replied {:?}",
            completion.reply
        );
        Ok(sandbox.reset()?)
    }
}

/// A container with the program alone in its root, by runc's own template without a terminal.
struct Bundle(PathBuf);

impl Bundle {
    fn of(program: &Path, folder: &Path) -> Result<Self> {
        let bundle = folder.join("bundle");
        std::fs::create_dir_all(bundle.join("rootfs"))?;
        std::fs::copy(program, bundle.join("rootfs/upper"))?;
        let mut making = Command::new("runc");
        let made = making.arg("spec").current_dir(&bundle).status();
        let made = made.context("runc (apt-get install runc)")?;
        ensure!(made.success(), "runc spec failed");
        let config = bundle.join("config.json");
        let mut spec: Value = serde_json::from_slice(&std::fs::read(&config)?)?;
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["/upper"]);
        std::fs::write(&config, spec.to_string())?;
        Ok(Self(bundle))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("runc");
        let name = format!("dunlin-bench-{}", std::process::id());
        command.args(["run", "--bundle"]).arg(&self.0).arg(name);
        command
    }
}
