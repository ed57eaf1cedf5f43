//! `vm`: what a hardware wall costs: resets, starts, computing, and a reply over HTTP.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use faaslet::{InsideCompiler, Reservations};
use memory::{Image, ImageBuilder, PAGE_BYTES, Slab, SlabConfig};
use microvm::inside::{self, Compile};
use microvm::kvm::Kvm;
use microvm::machine::{Machine, OVERHEAD, Stop};
use microvm::space::{Protection, Space};
use microvm::{Config, MicroVms};
use model::{Digest, Isolation, Kind, Limits, Settings, VersionSpec};
use sandbox::{Backend, Completion, Program, Sandbox};
use tokio::runtime::Runtime;
use xtask::node::Node;
use xtask::visit;

use crate::Setting;
use crate::faaslets::{Function as Faaslet, OneArtifact, call_of, expect_ok};
use crate::load::load;
use crate::measure::{median, micros, status_kib};
use crate::programs;
use crate::report::Report;
use crate::start::replier;

const FOLDER: &str = "guests/out/vm";
/// Rounds, in each of which every contender runs in turn.
const ROUNDS: usize = 21;
/// Calls, or exits, in a round.
const CALLS: usize = 300;
/// Machines that are made in turns with bare ones.
const STARTS: usize = 60;
/// Micro-VMs that are idle at once.
const IDLE: usize = 1_000;
/// Rounds and seconds under load.
const LOAD_ROUNDS: usize = 3;
const LOAD_SECONDS: u32 = 3;
/// Bytes of frames of a bare machine: those of the ones that are compared with it.
const BARE_BYTES: u64 = 32 << 20;
/// `out 0xd0, eax; jmp` back to it.
const EXITS: [u8; 4] = [0xe7, 0xd0, 0xeb, 0xfc];
const CODE: u64 = 0x40_0000;

/// Measures all of it.
pub fn run(setting: &Setting) -> Result<Report> {
    let folder = setting.root.join(FOLDER);
    let mut report = Report::new("vm", &["what", "µs", "against", "ratio"]);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("a runtime")?;
    resets(&mut report, &runtime, &folder)?;
    starts(&mut report, &runtime, &folder)?;
    programs::starts(&mut report, &runtime, &setting.root)?;
    computing(&mut report, &runtime, &folder)?;
    computing_inside(&mut report, &runtime, &folder)?;
    idle(&mut report, &runtime, &folder)?;
    http(&mut report, setting, &folder)?;
    Ok(report)
}

/// What compiles WebAssembly for the runtime inside, as the node does.
fn compiler() -> Result<Arc<Compile>> {
    let reservations = Reservations {
        memory_bytes: inside::MEMORY_BYTES,
        guard_bytes: inside::GUARD_BYTES,
        engine_bytes: inside::ENGINE_BYTES,
    };
    let compiler = InsideCompiler::new(reservations, &[])?;
    Ok(Arc::new(move |spec, wasm| compiler.compile(spec, wasm)))
}

/// A function in micro-VMs of this process.
struct Function {
    backend: MicroVms,
    program: Arc<dyn Program>,
    spec: VersionSpec,
    limits: Arc<Limits>,
    _folder: tempfile::TempDir,
}

impl Function {
    fn deploy(runtime: &Runtime, file: &Path, shells: usize) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for the cache")?;
        let config = Config {
            shells,
            compiler: Some(compiler()?),
            ..Config::new(folder.path())
        };
        let isolation = match file.extension() {
            Some(extension) if extension == "wasm" => Isolation::WasmVm,
            _ => Isolation::Vm,
        };
        let backend = MicroVms::new(config)?;
        let artifact = std::fs::read(file).with_context(|| format!("{}", file.display()))?;
        let artifact = Bytes::from(artifact);
        let spec = VersionSpec {
            kind: Kind::Reactor,
            artifact: Digest::of(&artifact),
            settings: Settings {
                isolation,
                ..Settings::default()
            },
        };
        runtime.block_on(backend.prepare(&spec, artifact.clone(), Vec::new()))?;
        let program = runtime.block_on(backend.load(&spec, &OneArtifact::of(artifact)))?;
        let limits = Arc::new(spec.settings.limits.clone());
        Ok(Self {
            backend,
            program,
            spec,
            limits,
            _folder: folder,
        })
    }

    fn call(&self, runtime: &Runtime, sandbox: &mut dyn Sandbox) -> Result<Completion> {
        let call = call_of(&self.spec, &self.limits, Vec::new());
        let completion = runtime.block_on(sandbox.invoke(call));
        expect_ok(&completion)?;
        Ok(completion)
    }

    /// µs of a call and a reset, on the mean of [`CALLS`].
    fn cycle_us(&self, runtime: &Runtime, sandbox: &mut dyn Sandbox) -> Result<f64> {
        let begun = Instant::now();
        for _ in 0..CALLS {
            self.call(runtime, sandbox)?;
            sandbox.reset()?;
        }
        Ok(micros(begun.elapsed()) / CALLS as f64)
    }
}

/// What makes bare machines.
struct Bare {
    kvm: Kvm,
    slab: Slab,
    empty: Arc<Image>,
}

impl Bare {
    fn new() -> Result<Self> {
        Ok(Self {
            kvm: Kvm::open()?,
            slab: Slab::new(SlabConfig {
                ranges_max: 16,
                reservation_bytes: 1 << 30,
                guard_bytes: 0,
                idle_max: 0,
            }),
            empty: Arc::new(ImageBuilder::new(0).freeze()?),
        })
    }

    fn machine(&self) -> Result<Machine> {
        let range = self.slab.take(&self.empty)?;
        let bytes = OVERHEAD + BARE_BYTES;
        let space = Space::new(BARE_BYTES);
        Ok(Machine::new(&self.kvm, range, bytes, space)?)
    }

    /// A machine over the image of one that leaves, which has left it once: making a machine is
    /// over when it runs, and hypervisors put much of the work off until then.
    fn that_ran(&self, image: &Arc<Image>) -> Result<Machine> {
        let range = self.slab.take(image)?;
        let bytes = OVERHEAD + BARE_BYTES;
        let mut machine = Machine::new(&self.kvm, range, bytes, Space::new(BARE_BYTES))?;
        machine.cpu.begin(CODE, CODE)?;
        leave(&mut machine)?;
        Ok(machine)
    }

    /// A machine whose guest does nothing but leave it.
    fn leaving(&self) -> Result<Machine> {
        let mut machine = self.machine()?;
        machine.memory().keep((OVERHEAD + BARE_BYTES) as usize)?;
        let memory = machine.memory().clone();
        machine.space.write_system(&memory)?;
        machine.map(CODE, 4096, Protection::READ_WRITE)?;
        machine.view().write(CODE, &EXITS)?;
        machine.protect(CODE, 4096, Protection::READ_EXECUTE)?;
        machine.cpu.begin(CODE, CODE)?;
        Ok(machine)
    }
}

/// What [`Bare::leaving`] holds, as an image.
fn image_of(machine: &Machine) -> Result<Arc<Image>> {
    let contents = machine.memory().contents();
    let mut image = ImageBuilder::new(contents.len());
    for (number, page) in contents.chunks(PAGE_BYTES).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            image.write(number * PAGE_BYTES, page);
        }
    }
    Ok(Arc::new(image.freeze()?))
}

/// µs of one exit, on the mean of [`CALLS`].
fn exit_us(machine: &mut Machine) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..CALLS {
        leave(machine)?;
    }
    Ok(micros(begun.elapsed()) / CALLS as f64)
}

/// One exit.
fn leave(machine: &mut Machine) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(30);
    let stop = machine.cpu.run(until)?;
    ensure!(matches!(stop, Stop::HostCall(_)), "it left by {stop:?}");
    Ok(())
}

/// A figure against another of the same round, over rounds.
#[derive(Default)]
struct Pair {
    ours: Vec<f64>,
    ratios: Vec<f64>,
}

impl Pair {
    fn add(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.ratios.push(ours / theirs);
    }

    fn report(&self, report: &mut Report, what: &str, against: &str, figure: &'static str) {
        let ratio = median(&self.ratios);
        let cells = [
            format!("{:.1}", median(&self.ours)),
            against.to_owned(),
            format!("{ratio:.2}×"),
        ];
        report.row(what, cells);
        report.figure(figure, ratio);
    }
}

const EXIT: &str = "a bare exit";

fn resets(report: &mut Report, runtime: &Runtime, folder: &Path) -> Result<()> {
    let bare = Bare::new()?;
    let mut leaving = bare.leaving()?;
    let noop = Function::deploy(runtime, &folder.join("noop.elf"), 2)?;
    let dirty = Function::deploy(runtime, &folder.join("dirty.elf"), 2)?;
    let (mut noops, mut dirtied) = (noop.program.sandbox()?, dirty.program.sandbox()?);
    let (mut exits, mut reset, mut pages) = (Vec::new(), Pair::default(), Pair::default());
    // The first round warms all up and is not counted.
    for round in 0..=ROUNDS {
        let exit = exit_us(&mut leaving)?;
        let noop = noop.cycle_us(runtime, &mut *noops)?;
        let dirty = dirty.cycle_us(runtime, &mut *dirtied)?;
        if round > 0 {
            exits.push(exit);
            reset.add(noop, exit);
            pages.add(dirty, exit);
        }
    }
    report.row(
        "a bare exit",
        [
            format!("{:.1}", median(&exits)),
            String::new(),
            String::new(),
        ],
    );
    reset.report(report, "reset, and a call of a no-op", EXIT, "reset_noop");
    pages.report(
        report,
        "the same with 64 dirty pages",
        EXIT,
        "reset_64_pages",
    );
    let mut shells = Pair::default();
    let until = Instant::now() + Duration::from_secs(60);
    while shells.ours.len() < STARTS && Instant::now() < until {
        if noop.backend.shells_ready() == 0 {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        let exit = exit_us(&mut leaving)?;
        let begun = Instant::now();
        let mut sandbox = noop.program.sandbox()?;
        noop.call(runtime, &mut *sandbox)?;
        shells.add(micros(begun.elapsed()), exit);
    }
    ensure!(!shells.ours.is_empty(), "no shell was ready in a minute");
    shells.report(report, "a shell over an image, and a call", EXIT, "shell");
    Ok(())
}

fn starts(report: &mut Report, runtime: &Runtime, folder: &Path) -> Result<()> {
    let bare = Bare::new()?;
    let noop = Function::deploy(runtime, &folder.join("noop.elf"), 0)?;
    let image = image_of(&bare.leaving()?)?;
    let mut cold = Pair::default();
    for round in 0..=STARTS {
        let begun = Instant::now();
        let machine = bare.that_ran(&image)?;
        let theirs = micros(begun.elapsed());
        let begun = Instant::now();
        let mut sandbox = noop.program.sandbox()?;
        noop.call(runtime, &mut *sandbox)?;
        let ours = micros(begun.elapsed());
        drop((machine, sandbox));
        if round > 0 {
            cold.add(ours, theirs);
        }
    }
    let against = "making a bare machine that runs";
    cold.report(
        report,
        "a machine made, an image, and a call",
        against,
        "cold",
    );
    Ok(())
}

fn computing(report: &mut Report, runtime: &Runtime, folder: &Path) -> Result<()> {
    let function = Function::deploy(runtime, &folder.join("sha256.elf"), 1)?;
    let mut sandbox = function.program.sandbox()?;
    let mut times = Pair::default();
    for round in 0..=LOAD_ROUNDS * 2 {
        let native = Command::new(folder.join("sha256-native")).output()?;
        let text = String::from_utf8(native.stdout)?;
        let (theirs, digest) = text.split_once(' ').context("the native program's words")?;
        let begun = Instant::now();
        let completion = function.call(runtime, &mut *sandbox)?;
        let ours = micros(begun.elapsed());
        sandbox.reset()?;
        let found: String = completion
            .reply
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        ensure!(found == digest, "the digests differ: {found}, {digest}");
        if round > 0 {
            times.add(ours, theirs.parse()?);
        }
    }
    times.report(report, "SHA-256 of 32 MiB", "the native program", "compute");
    Ok(())
}

/// The same module inside of a micro-VM and in a faaslet.
fn computing_inside(report: &mut Report, runtime: &Runtime, folder: &Path) -> Result<()> {
    let file = folder.join("sha256.wasm");
    let function = Function::deploy(runtime, &file, 1)?;
    let wasm = std::fs::read(&file).with_context(|| format!("{}", file.display()))?;
    let outside = runtime.block_on(Faaslet::deploy(Kind::Reactor, wasm, 16))?;
    let (mut inside, mut faaslet) = (function.program.sandbox()?, outside.program.sandbox()?);
    let timed = |sandbox: &mut dyn Sandbox| -> Result<(f64, Bytes)> {
        let begun = Instant::now();
        let completion = function.call(runtime, sandbox)?;
        let us = micros(begun.elapsed());
        sandbox.reset()?;
        Ok((us, completion.reply))
    };
    let mut times = Pair::default();
    for round in 0..=LOAD_ROUNDS * 2 {
        let (theirs, expected) = timed(&mut *faaslet)?;
        let (ours, found) = timed(&mut *inside)?;
        ensure!(
            found == expected,
            "the digests differ: {found:x}, {expected:x}"
        );
        if round > 0 {
            times.add(ours, theirs);
        }
    }
    let against = "the same module in a faaslet";
    times.report(report, "SHA-256 in wasm inside", against, "inside_compute");
    Ok(())
}

fn idle(report: &mut Report, runtime: &Runtime, folder: &Path) -> Result<()> {
    let function = Function::deploy(runtime, &folder.join("noop.elf"), 0)?;
    let kib = || -> Result<[f64; 3]> {
        let own = status_kib("VmRSS")? + status_kib("VmPTE")?;
        Ok([own, kernel_kib("Slab")?, kernel_kib("VmallocUsed")?])
    };
    let before = kib()?;
    let mut all = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let mut sandbox = function.program.sandbox()?;
        function.call(runtime, &mut *sandbox)?;
        sandbox.reset()?;
        all.push(sandbox);
    }
    let after = kib()?;
    for sandbox in &mut all {
        function.call(runtime, &mut **sandbox)?;
    }
    let [own, slab, vmalloc] = std::array::from_fn(|at| (after[at] - before[at]) / IDLE as f64);
    let words = format!("{IDLE} idle: KiB each in the process, the kernel's slabs, vmalloc");
    report.row(&words, [own, slab, vmalloc].map(|kib| format!("{kib:.1}")));
    report.figure("idle_kib", own + slab + vmalloc);
    Ok(())
}

/// KiB that a field of `/proc/meminfo` counts.
fn kernel_kib(field: &str) -> Result<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("/proc/meminfo has no {field}"))
}

fn http(report: &mut Report, setting: &Setting, folder: &Path) -> Result<()> {
    let node = Node::start(&setting.binary(), &visit::agent())?;
    let reactor = replier()?;
    let deploy = |name: &str, isolation: &str, file: PathBuf| -> Result<()> {
        let file = file.to_str().context("a path is not UTF-8")?.to_owned();
        let isolation = format!("--isolation={isolation}");
        let line = [
            "deploy", "--app", "bench", "--name", name, "--kind", "reactor",
        ];
        node.cli(&[&line[..], &[&isolation, &file]].concat())?;
        Ok(())
    };
    deploy("faaslet", "wasm", reactor.path().to_owned())?;
    deploy("vm", "vm", folder.join("echo.elf"))?;
    let url = |name: &str| format!("http://{}/bench/{name}/", node.data);
    let mut rates = Pair::default();
    for round in 0..=LOAD_ROUNDS {
        let theirs = load(&url("faaslet"), node.pid(), LOAD_SECONDS)?.per_second;
        let ours = load(&url("vm"), node.pid(), LOAD_SECONDS)?.per_second;
        if round > 0 {
            rates.add(ours, theirs);
        }
    }
    if rates.ours.iter().any(|rate| *rate <= 0.0) {
        bail!("nothing was answered");
    }
    rates.report(
        report,
        "requests/s of a micro-VM for each",
        "a faaslet for each",
        "http",
    );
    Ok(())
}
