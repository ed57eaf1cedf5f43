//! The walls of a node: which back-end a version runs behind is a line of its settings.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use faaslet::{Faaslets, InsideCompiler, Reservations};
use files::Library;
use microvm::inside::{self, Compile};
use microvm::{MicroVms, MicroVmsError};
use model::{Isolation, VersionSpec};
use parking_lot::Mutex;
use sandbox::{
    Artifacts, Backend, LoadError, Portable, PrepareError, Prepared, Presence, Program, Sandbox,
    SandboxError,
};
use storage::Pinned;

use crate::travel::{Brought, Travel};

/// Folder of the cache that holds images of micro-VMs.
const IMAGES: &str = "microvm";

/// Every wall. Machines are made ahead only once a version asks for one.
pub(crate) struct Walls {
    faaslets: Faaslets,
    micro_vms: Mutex<Option<Arc<MicroVms>>>,
    /// The folder of what deploys make, and how much each back-end may keep there.
    cache: (PathBuf, u64),
    files: Arc<Library>,
    travel: Option<Travel>,
}

/// Why no micro-VM can run on this machine; none if one can.
pub fn micro_vms_missing() -> Option<String> {
    microvm::kvm::Kvm::open()
        .err()
        .map(|error| error.to_string())
}

impl Walls {
    pub fn new(faaslets: Faaslets, cache: (PathBuf, u64), files: Arc<Library>) -> Self {
        Self {
            faaslets,
            micro_vms: Mutex::default(),
            cache,
            files,
            travel: None,
        }
    }

    /// Shares what deploys make with the other nodes of a cluster.
    pub fn among(mut self, travel: Travel) -> Self {
        travel.offer(self.faaslets.cache().clone());
        self.travel = Some(travel);
        self
    }

    /// The micro-VMs, opened at the first call that finds them possible.
    fn micro_vms(&self) -> Result<Arc<MicroVms>, PrepareError> {
        let mut opened = self.micro_vms.lock();
        if let Some(micro_vms) = opened.as_ref() {
            return Ok(micro_vms.clone());
        }
        let (dir, cache_bytes_max) = &self.cache;
        let config = microvm::Config {
            cache_bytes_max: *cache_bytes_max,
            table: hostcalls::TABLE,
            files: self.files.clone(),
            compiler: Some(compiler()?),
            ..microvm::Config::new(dir.join(IMAGES))
        };
        let micro_vms = MicroVms::new(config).map_err(|error| match error {
            MicroVmsError::Unavailable(reason) => PrepareError::NoMicroVms {
                reason: reason.to_string(),
            },
            other => PrepareError::Platform {
                reason: format!("it could not start micro-VMs: {other}"),
                source: Some(other.into()),
            },
        })?;
        if let Some(travel) = &self.travel {
            travel.offer(micro_vms.cache().clone());
        }
        Ok(opened.insert(Arc::new(micro_vms)).clone())
    }

    fn of(&self, spec: &VersionSpec) -> Result<Arc<dyn Backend>, PrepareError> {
        match spec.settings.isolation {
            Isolation::Wasm => Ok(Arc::new(self.faaslets.clone())),
            Isolation::Vm | Isolation::WasmVm => Ok(self.micro_vms()?),
        }
    }

    fn portable(&self, spec: &VersionSpec) -> Result<Arc<dyn Portable>, PrepareError> {
        match spec.settings.isolation {
            Isolation::Wasm => Ok(Arc::new(self.faaslets.clone())),
            Isolation::Vm | Isolation::WasmVm => Ok(self.micro_vms()?),
        }
    }
}

/// A program whose blobs stay where they are while it is loaded.
struct Kept {
    program: Arc<dyn Program>,
    _blobs: Pinned,
}

impl Program for Kept {
    fn sandbox(&self) -> Result<Box<dyn Sandbox>, SandboxError> {
        self.program.sandbox()
    }

    fn cooperative(&self) -> bool {
        self.program.cooperative()
    }

    fn presence(&self) -> Presence {
        self.program.presence()
    }

    fn asks(&self) -> bool {
        self.program.asks()
    }
}

/// What compiles WebAssembly, as faaslets know how, for the runtime that micro-VMs have inside.
fn compiler() -> Result<Arc<Compile>, PrepareError> {
    let reservations = Reservations {
        memory_bytes: inside::MEMORY_BYTES,
        guard_bytes: inside::GUARD_BYTES,
        engine_bytes: inside::ENGINE_BYTES,
    };
    let compiler = InsideCompiler::new(reservations, hostcalls::TABLE);
    let compiler = compiler.map_err(|error| PrepareError::Platform {
        reason: format!("it could not start a compiler: {error}"),
        source: Some(error.into()),
    })?;
    Ok(Arc::new(move |spec, wasm| compiler.compile(spec, wasm)))
}

#[async_trait]
impl Backend for Walls {
    async fn prepare(
        &self,
        spec: &VersionSpec,
        artifact: Bytes,
        layers: Vec<Bytes>,
    ) -> Result<Prepared, PrepareError> {
        let backend = self.of(spec)?;
        let Some(travel) = &self.travel else {
            return backend.prepare(spec, artifact, layers).await;
        };
        let portable = self.portable(spec)?;
        let brought = travel.bring(&portable, spec).await;
        let prepared = backend.prepare(spec, artifact, layers).await?;
        match brought {
            Brought::Missing(stale) => travel.tell(&portable, spec, stale).await,
            Brought::WasHere => travel.tell_if_nobody_did(&portable, spec).await,
            Brought::Came => {}
        }
        Ok(prepared)
    }

    async fn load(
        &self,
        spec: &VersionSpec,
        artifacts: &dyn Artifacts,
    ) -> Result<Arc<dyn Program>, LoadError> {
        let backend = self.of(spec)?;
        let Some(travel) = &self.travel else {
            return backend.load(spec, artifacts).await;
        };
        let portable = self.portable(spec)?;
        let _kept_meanwhile = travel.pin(spec).await;
        let brought = travel.bring(&portable, spec).await;
        let program = backend.load(spec, artifacts).await?;
        if let Brought::Missing(stale) = brought {
            travel.tell(&portable, spec, stale).await;
        }
        // Once more: now the list of its files is here.
        let _blobs = travel.pin(spec).await;
        Ok(Arc::new(Kept { program, _blobs }))
    }
}

#[cfg(test)]
#[path = "walls_tests.rs"]
mod tests;
