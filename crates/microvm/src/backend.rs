//! Micro-VMs as a back-end: deploys, and programs loaded again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use memory::{ImageBuilder, PAGE_BYTES, Slab, SlabConfig};
use model::{InvocationId, Kind, Snapshot, VersionSpec};
use sandbox::{
    Artifacts, Backend, BodyError, Cache, CacheError, CallLog, HeldLog, LoadError, LogSink,
    LogStream, PrepareError, Prepared, Program, Reply,
};

use crate::asks::Numbers;
use crate::config::Config;
use crate::elf::{Elf, ElfError, Symbols};
use crate::freestanding::{self, Heap};
use crate::frozen::{Frozen, FrozenError};
use crate::kvm::{Hypervisor, Kvm, Unavailable};
use crate::layout::{FRAMES, PAGE};
use crate::linux::{NotFrozen, Saved, SavedError, command, lambda};
use crate::load::{LoadElfError, frames_needed};
use crate::machine::{Machine, MachineError};
use crate::microvm::{Ended, Given, Until};
use crate::program::{MicroVmProgram, Parts};
use crate::shells::Shells;
use crate::space::{Space, SpaceError};
use crate::stored::{self, Made, StoreError, Taken};

/// What initialisation may reply or log: nothing is kept of it.
const INIT_REPLY_BYTES_MAX: u64 = 1 << 20;
/// Address space of one machine: the largest guest, its page tables, and what it maps.
const RESERVATION_BYTES: usize = 6 << 30;

/// Why micro-VMs could not start.
#[derive(Debug, thiserror::Error)]
pub enum MicroVmsError {
    /// There is no KVM that could be used.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The cache directory cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A machine could not be made.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// The micro-VM back-end. Cheap to clone.
#[derive(Clone)]
pub struct MicroVms(Arc<Inner>);

struct Inner {
    cache: Cache,
    slab: Slab,
    shells: Shells,
    table: &'static [sandbox::host::HostCall],
    numbers: Arc<Numbers>,
}

impl MicroVms {
    /// Opens KVM, and begins to make machines.
    pub fn new(config: Config) -> Result<Self, MicroVmsError> {
        let kvm = Kvm::open()?;
        Self::over(Arc::new(kvm), config)
    }

    fn over(hypervisor: Arc<dyn Hypervisor>, config: Config) -> Result<Self, MicroVmsError> {
        let cache = Cache::new(&config.cache_dir)?;
        let slab = Slab::new(SlabConfig {
            ranges_max: config.machines_max,
            reservation_bytes: RESERVATION_BYTES,
            guard_bytes: 0,
            // A range of a machine's is never taken by another.
            idle_max: 0,
        });
        let shells = Shells::new(hypervisor, slab.clone(), config.shells)?;
        Ok(Self(Arc::new(Inner {
            cache,
            slab,
            shells,
            table: config.table,
            numbers: Arc::new(Numbers::of(config.table)),
        })))
    }

    /// Machines that are ready for a guest.
    pub fn shells_ready(&self) -> usize {
        self.0.shells.ready()
    }

    /// Machines that live, with a guest or without.
    pub fn machines_live(&self) -> usize {
        self.0.slab.live()
    }
}

#[async_trait]
impl Backend for MicroVms {
    async fn prepare(
        &self,
        spec: &VersionSpec,
        artifact: Bytes,
        _: Vec<Bytes>,
    ) -> Result<Prepared, PrepareError> {
        check_settings(spec)?;
        let (inner, spec) = (self.0.clone(), spec.clone());
        off_the_request_path(move || inner.prepare(&spec, &artifact)).await
    }

    async fn load(
        &self,
        spec: &VersionSpec,
        artifacts: &dyn Artifacts,
    ) -> Result<Arc<dyn Program>, LoadError> {
        let find = || {
            let (inner, spec) = (self.0.clone(), spec.clone());
            off_the_request_path(move || inner.find(&spec))
        };
        if let Some(program) = find().await? {
            return Ok(Arc::new(program));
        }
        let digest = spec.artifact;
        let artifact = artifacts.artifact(&digest).await;
        let artifact = artifact.map_err(|source| LoadError::Artifact { digest, source })?;
        self.prepare(spec, artifact, Vec::new()).await?;
        let program = find().await?.ok_or_else(|| PrepareError::Platform {
            reason: "the cache does not keep what was just put in it".into(),
            source: None,
        })?;
        Ok(Arc::new(program))
    }
}

/// Whether functions of a kind are Linux programs.
fn runs_linux(kind: Kind) -> bool {
    matches!(kind, Kind::Command | Kind::Lambda)
}

/// What a deploy tells of a program that is not frozen at its request loop.
pub(crate) fn note(reason: &str) -> String {
    format!("each call begins at its first instruction: {reason}")
}

/// Refuses what micro-VMs do not have, rather than leaving it out.
fn check_settings(spec: &VersionSpec) -> Result<(), PrepareError> {
    let unsupported = match &spec.settings {
        settings if !settings.layers.is_empty() => "`layers`",
        settings if settings.files.is_some() => "`files`",
        settings if !settings.snapshot.is_auto() && !runs_linux(spec.kind) => {
            "`snapshot`, unless they are Linux programs"
        }
        _ => return Ok(()),
    };
    Err(PrepareError::Unsupported {
        reason: format!("functions in micro-VMs have no {unsupported}: leave them out"),
    })
}

impl Inner {
    fn prepare(&self, spec: &VersionSpec, artifact: &Bytes) -> Result<Prepared, PrepareError> {
        let elf = Elf::parse(artifact).map_err(|error| refused(&error))?;
        if spec.kind == Kind::Http {
            return Err(PrepareError::WrongKind {
                kind: spec.kind,
                reason: "a Linux program is a command, and an executable with the calls of \
                         `dunlin_vm.h` a reactor: deploy it with `kind = \"command\"` or \
                         `kind = \"reactor\"`"
                    .into(),
            });
        }
        let code_bytes = artifact.len() as u64;
        if let Some(program) = self.find(spec)? {
            return Ok(Prepared {
                cached: true,
                code_bytes,
                image_bytes: program.0.image_bytes(),
                note: program.0.not_frozen.as_deref().map(note),
            });
        }
        let made = self.initialise(spec, &elf, artifact)?;
        let features = self.shells.hypervisor().features();
        let stored = stored::store(&self.cache, spec, &made, artifact, features);
        let image_bytes = stored.map_err(|error| match error {
            StoreError::Cache(error) => full(error),
            StoreError::Describe(error) => platform("describe it", error),
        })?;
        Ok(Prepared {
            cached: false,
            code_bytes,
            image_bytes,
            note: made.note(),
        })
    }

    /// The program, if the cache holds all of it, made on a processor like this one.
    fn find(&self, spec: &VersionSpec) -> Result<Option<MicroVmProgram>, PrepareError> {
        let Some(paths) = stored::find(&self.cache, spec).map_err(full)? else {
            return Ok(None);
        };
        let features = self.shells.hypervisor().features();
        match stored::load(&paths, spec, features, &self.shells) {
            Ok(found) => Ok(Some(MicroVmProgram(Arc::new(Parts {
                shells: self.shells.clone(),
                entry: found.entry,
                request_loop: found.request_loop,
                not_frozen: found.not_frozen,
                symbols: found.symbols,
                settings: spec.settings.clone(),
                kind: spec.kind,
                table: self.table,
                numbers: self.numbers.clone(),
            })))),
            Err(error) => {
                if error.is::<FrozenError>() || error.is::<SavedError>() {
                    tracing::warn!(%error, artifact = %spec.artifact, "it is initialised anew");
                } else {
                    tracing::warn!(%error, artifact = %spec.artifact, "a cache entry is unusable");
                }
                Ok(None)
            }
        }
    }

    /// Loads a program and takes it as it stands: a freestanding one at its first `vm_next`, one of
    /// Linux at its first instruction, and then at its request loop.
    fn initialise(
        &self,
        spec: &VersionSpec,
        elf: &Elf,
        file: &Bytes,
    ) -> Result<Made, PrepareError> {
        let linux = runs_linux(spec.kind);
        let extra = if linux { 0 } else { freestanding::EXTRA_BYTES };
        let mut machine = self.machine_for(spec, frames_needed(elf) + extra)?;
        let memory = machine.memory().clone();
        let begun = |error| platform("begin its initialisation", error);
        if !linux {
            let prepared = freestanding::prepare(&memory, &mut machine.space, elf, file);
            let (moved_by, entry, heap) = prepared.map_err(unloadable)?;
            let started = machine.cpu.begin(entry, crate::abi::STACK_END);
            started.map_err(begun)?;
            let heap = Heap { start: heap };
            self.run_init(&mut machine, spec, heap, file, moved_by)?;
            return Ok(Made {
                entry: take(&mut machine, moved_by, heap.encode())?,
                request_loop: None,
            });
        }
        let prepared = command::prepare(&memory, &mut machine.space, elf, file);
        let (moved_by, entry, guest) = prepared.map_err(unloadable)?;
        machine.cpu.begin(entry, 0).map_err(begun)?;
        let entry = take(&mut machine, moved_by, guest)?;
        let request_loop = self.to_request_loop(&mut machine, spec, &entry.frozen)?;
        Ok(Made {
            entry,
            request_loop: Some(request_loop),
        })
    }

    /// A machine with `needed` bytes of frames and nothing in them.
    fn machine_for(&self, spec: &VersionSpec, needed: u64) -> Result<Machine, PrepareError> {
        let failed = |error: MachineError| platform("make a machine to initialise it in", error);
        let cap = spec.settings.limits.memory_bytes_max;
        if needed > cap {
            return Err(PrepareError::TooLarge {
                reason: format!(
                    "it begins with {needed} bytes of memory, and `memory_bytes_max` is {cap}"
                ),
            });
        }
        let mut machine = self.shells.make().map_err(failed)?;
        let end = FRAMES + needed.next_multiple_of(PAGE);
        machine.grow_to(end).map_err(failed)?;
        machine.space = Space::new(cap);
        let written = machine.space.write_system(machine.memory());
        written.map_err(|error| platform("write its system pages", error))?;
        Ok(machine)
    }

    /// Runs a Linux program up to where it waits for a call, and takes it there if that can be.
    fn to_request_loop(
        &self,
        machine: &mut Machine,
        spec: &VersionSpec,
        entry: &Frozen,
    ) -> Result<Result<(Taken, Saved), NotFrozen>, PrepareError> {
        let settings = &spec.settings;
        if settings.snapshot == Snapshot::Never {
            return Ok(Err(NotFrozen::Never));
        }
        let is_lambda = spec.kind == Kind::Lambda;
        let frozen = futures::executor::block_on(async {
            match is_lambda {
                true => lambda::freeze(machine, settings, &entry.guest).await,
                false => command::freeze(machine, settings, &entry.guest).await,
            }
        });
        match frozen {
            Ok(saved) => {
                let taken = take(machine, entry.moved_by, entry.guest.clone())?;
                Ok(Ok((taken, saved)))
            }
            Err(NotFrozen::Platform(reason)) => Err(PrepareError::Platform {
                reason,
                source: None,
            }),
            Err(
                reason @ (NotFrozen::Reported(_) | NotFrozen::Ended(_) | NotFrozen::Deadline(_)),
            ) if is_lambda => Err(PrepareError::Init {
                reason: reason.to_string(),
            }),
            Err(reason) if settings.snapshot == Snapshot::Always => Err(PrepareError::Init {
                reason: format!(
                    "`snapshot = \"always\"` asks that it is frozen at its request loop: {reason}"
                ),
            }),
            Err(reason) => Ok(Err(reason)),
        }
    }

    fn run_init(
        &self,
        machine: &mut Machine,
        spec: &VersionSpec,
        heap: Heap,
        file: &Bytes,
        moved_by: u64,
    ) -> Result<(), PrepareError> {
        let limits = &spec.settings.limits;
        let log = HeldLog::new(discard(), false);
        let given = Given {
            table: self.table,
            numbers: &self.numbers,
            input: Bytes::new(),
            reply: &Reply::new(INIT_REPLY_BYTES_MAX),
            log: &log,
            until: Until {
                deadline: Instant::now() + Duration::from_millis(limits.deadline_ms),
                budget: None,
            },
            asks: None,
        };
        let init = |reason: String| Err(PrepareError::Init { reason });
        // Nothing of it waits: without a session there is nobody to wait for.
        let running = freestanding::initialise(machine, given, heap);
        let ended = futures::executor::block_on(running);
        match ended {
            (Ended::Code(0), _) => Ok(()),
            (Ended::Code(code), _) => init(format!("it returned {code}")),
            (_, true) => init("it needs more memory than its limit".into()),
            (Ended::Fault(fault), _) => {
                let symbols = Symbols::read(file);
                let at = symbols.function(fault.rip.wrapping_sub(moved_by));
                let place = at
                    .map(|(name, _)| format!(" in `{name}`"))
                    .unwrap_or_default();
                init(format!("{fault}{place}"))
            }
            (Ended::Killed(reason), _) => init(reason),
            (Ended::Told(status), _) => init(status.to_string()),
            (Ended::Timeout | Ended::OverBudget, _) => init("it ran past its deadline".into()),
            (Ended::Platform(reason), _) => Err(PrepareError::Platform {
                reason,
                source: None,
            }),
        }
    }
}

/// Takes what a machine holds as it stands.
fn take(machine: &mut Machine, moved_by: u64, guest: Vec<u8>) -> Result<Taken, PrepareError> {
    machine.space.settle();
    let cpu = machine.cpu.save();
    let cpu = cpu.map_err(|error| platform("read its registers", error))?;
    let image = capture(machine).map_err(|error| platform("take its image", error))?;
    Ok(Taken {
        image,
        frozen: Frozen {
            cpu,
            space: machine.space.clone(),
            moved_by,
            guest,
        },
    })
}

/// A machine's memory up to the last page that holds anything: what is behind it is zero, and
/// cheaper as memory that no file is under.
pub(crate) fn capture(machine: &Machine) -> Result<ImageBuilder, memory::MemoryError> {
    let end = machine.space.frames_end() as usize;
    let mut page = [0; PAGE_BYTES];
    let mut pages = Vec::new();
    for at in (0..end).step_by(PAGE_BYTES) {
        machine.memory().read(at, &mut page)?;
        if page.iter().any(|byte| *byte != 0) {
            pages.push((at, Box::new(page)));
        }
    }
    let end = pages.last().map_or(0, |(at, _)| at + PAGE_BYTES);
    let mut image = ImageBuilder::new(end);
    for (at, page) in pages {
        image.write(at, page.as_slice());
    }
    Ok(image)
}

fn refused(error: &ElfError) -> PrepareError {
    PrepareError::NotExecutable {
        reason: error.to_string(),
    }
}

fn unloadable(error: LoadElfError) -> PrepareError {
    match error {
        LoadElfError::Space(error @ SpaceError::Full { .. }) => PrepareError::TooLarge {
            reason: error.to_string(),
        },
        LoadElfError::Space(SpaceError::Memory(error)) => platform("load it", error),
        other => PrepareError::NotExecutable {
            reason: other.to_string(),
        },
    }
}

fn full(error: CacheError) -> PrepareError {
    match error {
        CacheError::Full { .. } => PrepareError::DiskFull,
        other => platform("use its cache", other),
    }
}

fn platform<E: Into<BodyError>>(doing: &str, error: E) -> PrepareError {
    let source = error.into();
    PrepareError::Platform {
        reason: format!("it could not {doing}: {source}"),
        source: Some(source),
    }
}

/// A log that goes nowhere, for guest code that runs at deploy.
fn discard() -> Arc<CallLog> {
    struct Nowhere;
    impl LogSink for Nowhere {
        fn write(&self, _: InvocationId, _: LogStream, _: &[u8]) {}
    }
    Arc::new(CallLog::new(InvocationId::new(0), Arc::new(Nowhere), 0))
}

/// Runs what blocks where it may.
async fn off_the_request_path<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PrepareError> + Send + 'static,
) -> Result<T, PrepareError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(platform("finish its work", error)))
}
