//! Micro-VMs as a back-end: deploys, and programs loaded again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use memory::{Image, ImageBuilder, PAGE_BYTES, Slab, SlabConfig};
use model::{Digest, InvocationId, Kind, Settings, VersionSpec};
use sandbox::{
    Artifacts, Backend, BodyError, Cache, CacheError, CallLog, EntryKind, HeldLog, LoadError,
    LogSink, LogStream, PrepareError, Prepared, Program, Reply,
};

use crate::asks::Numbers;
use crate::config::Config;
use crate::elf::{Elf, ElfError, Symbols};
use crate::freestanding::{self, Heap};
use crate::frozen::{Frozen, FrozenError};
use crate::kvm::{Hypervisor, Kvm, Unavailable};
use crate::layout::{FRAMES, PAGE};
use crate::linux::command;
use crate::load::{LoadElfError, frames_needed};
use crate::machine::{Machine, MachineError};
use crate::microvm::{Ended, Given, Until};
use crate::program::{MicroVmProgram, Parts};
use crate::shells::Shells;
use crate::space::{Space, SpaceError};

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
        check_settings(&spec.settings)?;
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

/// Refuses what micro-VMs do not have, rather than leaving it out.
fn check_settings(settings: &Settings) -> Result<(), PrepareError> {
    let unsupported = match settings {
        settings if !settings.layers.is_empty() => "`layers`",
        settings if settings.files.is_some() => "`files`",
        _ => return Ok(()),
    };
    Err(PrepareError::Unsupported {
        reason: format!("functions in micro-VMs have no {unsupported}: leave them out"),
    })
}

/// A guest that has just been initialised.
struct Made {
    image: ImageBuilder,
    frozen: Frozen,
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
        if let Some(program) = self.find(spec)? {
            return Ok(Prepared {
                cached: true,
                code_bytes: artifact.len() as u64,
                image_bytes: program.0.image.stored_bytes() as u64,
            });
        }
        let made = self.initialise(spec, &elf, artifact)?;
        let key = key(spec);
        let features = self.shells.hypervisor().features();
        let meta = made.frozen.encode(features);
        let meta = meta.map_err(|error| platform("describe it", error))?;
        let image = made.image.encode();
        let names = Symbols::read(artifact).encode();
        for (kind, bytes) in [
            (EntryKind::Image, &image),
            (EntryKind::Names, &names),
            (EntryKind::Meta, &meta),
        ] {
            self.cache.store(&key, kind, bytes).map_err(full)?;
        }
        Ok(Prepared {
            cached: false,
            code_bytes: artifact.len() as u64,
            image_bytes: image.len() as u64,
        })
    }

    /// The program, if the cache holds all of it, made on a processor like this one.
    fn find(&self, spec: &VersionSpec) -> Result<Option<MicroVmProgram>, PrepareError> {
        let key = key(spec);
        let entry = |kind| self.cache.load(&key, kind).map_err(full);
        let (Some(image), Some(names), Some(meta)) = (
            entry(EntryKind::Image)?,
            entry(EntryKind::Names)?,
            entry(EntryKind::Meta)?,
        ) else {
            return Ok(None);
        };
        let loaded = || -> Result<MicroVmProgram, BodyError> {
            let features = self.shells.hypervisor().features();
            let cap = spec.settings.limits.memory_bytes_max;
            let frozen = Frozen::decode(&std::fs::read(&meta)?, cap, features)?;
            let image = Arc::new(Image::read(&image)?);
            Ok(MicroVmProgram(Arc::new(Parts {
                shells: self.shells.clone(),
                overlay: self.shells.overlay(&image),
                image,
                frozen,
                symbols: Symbols::decode(&std::fs::read(&names)?),
                settings: spec.settings.clone(),
                kind: spec.kind,
                table: self.table,
                numbers: self.numbers.clone(),
            })))
        };
        match loaded() {
            Ok(program) => Ok(Some(program)),
            Err(error) => {
                if error.downcast_ref::<FrozenError>().is_some() {
                    tracing::warn!(%error, artifact = %spec.artifact, "it is initialised anew");
                } else {
                    tracing::warn!(%error, artifact = %spec.artifact, "a cache entry is unusable");
                }
                Ok(None)
            }
        }
    }

    /// Loads a program and takes it as it stands: a freestanding one at its first `vm_next`, one of
    /// Linux at its first instruction.
    fn initialise(
        &self,
        spec: &VersionSpec,
        elf: &Elf,
        file: &Bytes,
    ) -> Result<Made, PrepareError> {
        let failed = |error: MachineError| platform("make a machine to initialise it in", error);
        let cap = spec.settings.limits.memory_bytes_max;
        let linux = spec.kind == Kind::Command;
        let extra = if linux { 0 } else { freestanding::EXTRA_BYTES };
        let needed = frames_needed(elf) + extra;
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
        let memory = machine.memory().clone();
        let written = machine.space.write_system(&memory);
        written.map_err(|error| platform("write its system pages", error))?;
        let begun = |error| platform("begin its initialisation", error);
        let (moved_by, guest) = if linux {
            let prepared = command::prepare(&memory, &mut machine.space, elf, file);
            let (moved_by, entry, guest) = prepared.map_err(unloadable)?;
            machine.cpu.begin(entry, 0).map_err(begun)?;
            (moved_by, guest)
        } else {
            let prepared = freestanding::prepare(&memory, &mut machine.space, elf, file);
            let (moved_by, entry, heap) = prepared.map_err(unloadable)?;
            let started = machine.cpu.begin(entry, crate::abi::STACK_END);
            started.map_err(begun)?;
            let heap = Heap { start: heap };
            self.run_init(&mut machine, spec, heap, file, moved_by)?;
            (moved_by, heap.encode())
        };
        machine.space.settle();
        let cpu = machine.cpu.save();
        let cpu = cpu.map_err(|error| platform("read its registers", error))?;
        let image = capture(&machine).map_err(|error| platform("take its image", error))?;
        Ok(Made {
            image,
            frozen: Frozen {
                cpu,
                space: machine.space.clone(),
                moved_by,
                guest,
            },
        })
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
            (Ended::Timeout | Ended::OverBudget, _) => init("it ran past its deadline".into()),
            (Ended::Platform(reason), _) => Err(PrepareError::Platform {
                reason,
                source: None,
            }),
        }
    }
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

/// An image depends on all settings of its version.
fn key(spec: &VersionSpec) -> Digest {
    Digest::of_parts([b"microvm 2".as_slice(), spec.digest().as_bytes()])
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
