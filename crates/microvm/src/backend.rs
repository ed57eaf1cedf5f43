//! Micro-VMs as a back-end: deploys, and programs loaded again.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use files::{Layer, Library};
use memory::{Slab, SlabConfig};
use model::{Digest, Isolation, Kind, VersionSpec};
use sandbox::{
    Artifacts, Backend, Cache, CacheError, EntryKind, LoadError, Portable, PrepareError, Prepared,
    Program,
};

use crate::asks::Numbers;
use crate::config::Config;
use crate::deploy::{platform, refused};
use crate::elf::Elf;
use crate::frozen::FrozenError;
use crate::inside::{self, Compile, Inside};
use crate::kvm::{Hypervisor, Kvm, Unavailable};
use crate::linux::{SavedError, base};
use crate::machine::MachineError;
use crate::program::{MicroVmProgram, Parts};
use crate::shells::Shells;
use crate::stored::{self, Made, StoreError};
use crate::turns::Turns;

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

pub(crate) struct Inner {
    cache: Arc<Cache>,
    slab: Slab,
    pub shells: Shells,
    pub table: &'static [sandbox::host::HostCall],
    pub numbers: Arc<Numbers>,
    files: Arc<Library>,
    compiler: Option<Arc<Compile>>,
    turns: Turns,
}

impl MicroVms {
    /// Opens KVM, and begins to make machines.
    pub fn new(config: Config) -> Result<Self, MicroVmsError> {
        let kvm = Kvm::open()?;
        Self::over(Arc::new(kvm), config)
    }

    fn over(hypervisor: Arc<dyn Hypervisor>, config: Config) -> Result<Self, MicroVmsError> {
        let cache = Arc::new(Cache::new(&config.cache_dir)?.bounded(config.cache_bytes_max));
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
            files: config.files,
            compiler: config.compiler,
            turns: Turns::default(),
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

impl Portable for MicroVms {
    fn product(&self, spec: &VersionSpec) -> Digest {
        stored::product(spec, self.0.shells.hypervisor().features())
    }

    fn entries(&self, spec: &VersionSpec) -> Result<Option<Vec<(Digest, EntryKind)>>, CacheError> {
        stored::entries(&self.0.cache, spec)
    }

    fn cache(&self) -> &Arc<Cache> {
        &self.0.cache
    }
}

/// Whether functions of a kind are Linux programs.
pub(crate) fn runs_linux(kind: Kind) -> bool {
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
        settings if settings.files.is_some() && !runs_linux(spec.kind) => {
            "`files`, unless they are Linux programs"
        }
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
        let _turn = self.turns.enter(spec.digest());
        if spec.settings.isolation == Isolation::WasmVm {
            return self.prepare_inside(spec, artifact);
        }
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
            return Ok(cached(&program, artifact));
        }
        let made = self.initialise(spec, &elf, artifact)?;
        self.keep(spec, &made, artifact, artifact.len() as u64)
    }

    fn prepare_inside(
        &self,
        spec: &VersionSpec,
        artifact: &Bytes,
    ) -> Result<Prepared, PrepareError> {
        if let Some(program) = self.find(spec)? {
            return Ok(cached(&program, artifact));
        }
        let Some(compile) = &self.compiler else {
            return Err(PrepareError::NoMicroVms {
                reason: "it has no compiler for WebAssembly".into(),
            });
        };
        let code = compile(spec, artifact)?;
        let code_bytes = code.len() as u64;
        let inside = Inside::new(self.table, code)
            .map_err(|error| platform("read the runtime that it has inside", error))?;
        let made = self.initialise_inside(spec, &inside)?;
        self.keep(spec, &made, inside::RUNTIME, code_bytes)
    }

    /// Keeps what a deploy has made of an executable.
    fn keep(
        &self,
        spec: &VersionSpec,
        made: &Made,
        executable: &[u8],
        code_bytes: u64,
    ) -> Result<Prepared, PrepareError> {
        let features = self.shells.hypervisor().features();
        let stored = stored::store(&self.cache, spec, made, executable, features);
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

    /// What lies under the private files of a version.
    pub fn layer(&self, spec: &VersionSpec) -> Result<Arc<Layer>, PrepareError> {
        if !runs_linux(spec.kind) {
            return Ok(Layer::empty());
        }
        let layer = base::layer(&self.files, spec.kind, &spec.settings);
        layer.map_err(|error| platform("open its files", error))
    }

    /// The program, if the cache holds all of it, made on a processor like this one.
    fn find(&self, spec: &VersionSpec) -> Result<Option<MicroVmProgram>, PrepareError> {
        let Some(paths) = stored::find(&self.cache, spec).map_err(full)? else {
            return Ok(None);
        };
        let features = self.shells.hypervisor().features();
        let layer = self.layer(spec)?;
        match stored::load(&paths, spec, features, &self.shells, &layer) {
            Ok(found) => Ok(Some(MicroVmProgram(Arc::new(Parts {
                shells: self.shells.clone(),
                entry: found.entry,
                request_loop: found.request_loop,
                not_frozen: found.not_frozen,
                symbols: found.symbols,
                settings: spec.settings.clone(),
                layer,
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
}

fn cached(program: &MicroVmProgram, artifact: &Bytes) -> Prepared {
    Prepared {
        cached: true,
        code_bytes: artifact.len() as u64,
        image_bytes: program.0.image_bytes(),
        note: program.0.not_frozen.as_deref().map(note),
    }
}

fn full(error: CacheError) -> PrepareError {
    match error {
        CacheError::Full { .. } => PrepareError::DiskFull,
        other => platform("use its cache", other),
    }
}

/// Runs what blocks where it may.
async fn off_the_request_path<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PrepareError> + Send + 'static,
) -> Result<T, PrepareError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(platform("finish its work", error)))
}
