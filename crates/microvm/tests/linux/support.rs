//! Builds programs, and runs them on machines.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use files::{Files, LayerBuilder, Quota};
use memory::{ImageBuilder, Slab, SlabConfig};
use microvm::elf::Elf;
use microvm::kvm::Kvm;
use microvm::linux::{self, Egress, End, World};
use microvm::load;
use microvm::machine::Machine;
use microvm::space::Space;
use model::Grants;
use parking_lot::Mutex;

pub const MIB: u64 = 1 << 20;

pub fn slab() -> &'static Slab {
    static SLAB: OnceLock<Slab> = OnceLock::new();
    SLAB.get_or_init(|| {
        Slab::new(SlabConfig {
            ranges_max: 64,
            reservation_bytes: 4 << 30,
            guard_bytes: 0,
            idle_max: 4,
        })
    })
}

/// KVM, or none where there is none and nobody insists.
pub fn kvm() -> Option<&'static Kvm> {
    static KVM: OnceLock<Option<Kvm>> = OnceLock::new();
    let open = || match Kvm::open() {
        Ok(kvm) => Some(kvm),
        Err(error) => {
            assert!(std::env::var_os("REQUIRE_KVM").is_none(), "{error}");
            eprintln!("left out, since there is no KVM: {error}");
            None
        }
    };
    KVM.get_or_init(open).as_ref()
}

/// What no other build is called: tests run at once, in one process or in several.
fn unique() -> String {
    static BUILDS: AtomicU32 = AtomicU32::new(0);
    let build = BUILDS.fetch_add(1, Ordering::Relaxed);
    format!("{}-{build}", std::process::id())
}

/// A program of this folder, built by `compiler` with `flags`; once a run of the tests.
pub fn build(source: &str, compiler: &str, flags: &[&str]) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/linux");
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let name = source.replace(['.', '/'], "-");
    let program = out.join(format!("{name}-{compiler}-{}", unique()));
    let status = Command::new(compiler)
        .args(["-static", "-O1", "-o"])
        .arg(&program)
        .arg(folder.join(source))
        .args(flags)
        .status();
    let status = status.unwrap_or_else(|error| panic!("{compiler} is missing: {error}"));
    assert!(status.success(), "{source} does not compile");
    let bytes = std::fs::read(&program).unwrap();
    std::fs::remove_file(&program).unwrap();
    bytes
}

/// A program of this folder in Rust.
pub fn rust(source: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/linux");
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let program = out.join(format!("{source}-{}", unique()));
    let status = Command::new("rustc")
        .args([
            "--edition=2024",
            "-Copt-level=1",
            "-Ctarget-feature=+crt-static",
            "-o",
        ])
        .arg(&program)
        .arg(folder.join(source))
        .status();
    assert!(status.unwrap().success(), "{source} does not compile");
    let bytes = std::fs::read(&program).unwrap();
    std::fs::remove_file(&program).unwrap();
    bytes
}

/// The program of a crate in this folder.
pub fn package(name: &str) -> Vec<u8> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/linux")
        .join(name);
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let built = Command::new("cargo")
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&out)
        .current_dir(folder)
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Copt-level=1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{name} does not compile: {said}");
    std::fs::read(out.join(TARGET).join("release").join(name)).unwrap()
}

#[derive(Default)]
struct Said {
    reply: Vec<u8>,
    log: Vec<u8>,
}

struct TestWorld(Arc<Mutex<Said>>, Egress);

impl World for TestWorld {
    fn random(&mut self, out: &mut [u8]) {
        getrandom::fill(out).unwrap();
    }

    fn reply(&mut self, data: &[u8]) -> bool {
        self.0.lock().reply.extend_from_slice(data);
        true
    }

    fn log(&mut self, data: &[u8]) -> bool {
        self.0.lock().log.extend_from_slice(data);
        true
    }

    fn network(&mut self) -> &mut dyn linux::Network {
        &mut self.1
    }
}

/// What a program is run with.
pub struct Run<'a> {
    pub args: &'a [&'a str],
    pub env: &'a [&'a str],
    pub input: &'a [u8],
    pub memory_bytes: u64,
    pub time: Duration,
    /// Threads that run at once.
    pub processors: u32,
    pub egress: &'a [&'a str],
}

impl Default for Run<'_> {
    fn default() -> Self {
        Self {
            args: &["program"],
            env: &[],
            input: b"",
            memory_bytes: 256 * MIB,
            time: Duration::from_secs(60),
            processors: 1,
            egress: &[],
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Ran {
    pub end: End,
    pub reply: Vec<u8>,
    pub log: Vec<u8>,
    pub unknown: Vec<(String, u64)>,
    #[expect(dead_code, reason = "a failed test prints it")]
    pub took: Duration,
}

impl Ran {
    pub fn code(&self) -> u8 {
        match &self.end {
            End::Exit(linux::Exit::Code(code)) => *code,
            other => panic!("{other:?}, after {}", self.text()),
        }
    }

    pub fn text(&self) -> String {
        let (reply, log) = (
            String::from_utf8_lossy(&self.reply),
            String::from_utf8_lossy(&self.log),
        );
        format!(
            "reply: {reply}\nlog: {log}\nnot offered: {:?}",
            self.unknown
        )
    }

    /// The reply of a program that ended well.
    pub fn reply(&self) -> String {
        assert_eq!(self.code(), 0, "{}", self.text());
        String::from_utf8_lossy(&self.reply).into_owned()
    }
}

/// Runs `program`; none without KVM.
pub fn run(program: &[u8], run: &Run<'_>) -> Option<Ran> {
    let kvm = kvm()?;
    let elf = Elf::parse(program).unwrap();
    let image = Arc::new(ImageBuilder::new(0).freeze().unwrap());
    let range = slab().take(&image).unwrap();
    load::make_room(&range, load::frames_needed(&elf)).unwrap();
    let mut space = Space::new(run.memory_bytes);
    space.write_system(&range).unwrap();
    let loaded = load::load(&range, &mut space, &elf, program).unwrap();
    let bytes = range.bytes() as u64;
    let mut machine = Machine::new(kvm, range, bytes, space).unwrap();
    let said = Arc::new(Mutex::new(Said::default()));
    let mut layer = LayerBuilder::default();
    layer.directory("tmp").unwrap();
    let quota = Quota {
        bytes_max: 64 * MIB,
        inodes_max: 10_000,
    };
    let text = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    let grants = Grants {
        egress: run
            .egress
            .iter()
            .map(|text| text.parse().unwrap())
            .collect(),
        ..Grants::default()
    };
    let begin = Instant::now();
    let program = linux::Program::new(&elf, &loaded);
    let running = linux::run(
        &mut machine,
        linux::Start {
            program: &program,
            args: text(run.args),
            env: text(run.env),
            input: Bytes::copy_from_slice(run.input),
            files: Files::new(Arc::new(layer.build()), quota),
            world: Box::new(TestWorld(
                said.clone(),
                Egress::new(grants, begin + run.time),
            )),
            deadline: begin + run.time,
            processors: run.processors,
            lambda: None,
        },
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime.unwrap().block_on(running);
    let took = begin.elapsed();
    drop(ended.world);
    let said = std::mem::take(&mut *said.lock());
    Some(Ran {
        end: ended.end,
        reply: said.reply,
        log: said.log,
        unknown: ended.unknown,
        took,
    })
}
