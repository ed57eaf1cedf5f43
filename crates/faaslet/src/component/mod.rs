//! Components: `wasi:http` 0.2 and 0.3 handlers and `wasi:cli` commands.
//!
//! ```text
//!   prepare ── read world ── check imports ── compile ──▶ cache (.cwasm)
//!   load ──── map .cwasm ── resolve imports and exports ──▶ Program
//!   invoke ── instantiate from the pool ── call ──▶ Completion; reset gives the instance back
//! ```
//!
//! Invariants:
//! - Every call has an instance of its own; a sandbox is only a place in the pools.
//! - A guest reaches no file and no environment of the node's, and no host that it was not granted.
//! - A guest that computes yields each millisecond, and ends at its deadline.

mod asks;
mod command;
mod config;
mod drive;
mod egress;
mod engine;
mod guest;
mod http;
mod link;
mod program;
mod reply;
mod ticker;
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::VersionSpec;
use sandbox::host::HostCall;
use sandbox::{Artifacts, LoadError, PrepareError, Prepared, Program};
use wasmtime::component::Component;

pub use config::ComponentConfig;

pub(crate) use engine::Flavour;
pub(crate) use guest::Guest;
pub(crate) use link::linker;

use crate::cache::{Cache, CacheError, EntryKind};
use egress::Rules;
use engine::{Gate, Machine};
use program::ComponentProgram;
use ticker::Ticker;
use world::{Entry, World};

const WASM_PAGE_BYTES: u64 = 1 << 16;

/// The part of the back-end that runs components; a cheap clone.
#[derive(Clone)]
pub struct Components(Arc<Inner>);

struct Inner {
    plain: Machine,
    concurrent: Machine,
    cache: Arc<Cache>,
    gate: Arc<Gate>,
    ticker: Arc<Ticker>,
    connections_per_call_max: u32,
}

/// Why the component engines could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ComponentsError {
    /// An engine was refused its configuration or its address space.
    #[error("the component engine could not be made: {reason}")]
    Engine {
        /// The engine's words.
        reason: String,
    },
    /// The thread that makes guests yield could not be started.
    #[error("the tick thread could not be started")]
    Ticker(#[source] std::io::Error),
}

impl Components {
    /// Makes the engines, whose guests may ask what `table` says; what they compile is kept in
    /// `cache`.
    pub fn new(
        config: &ComponentConfig,
        table: &'static [HostCall],
        cache: Arc<Cache>,
    ) -> Result<Self, ComponentsError> {
        let machine = |flavour| {
            Machine::new(flavour, config, table).map_err(|error| ComponentsError::Engine {
                reason: format!("{error:#}"),
            })
        };
        let (plain, concurrent) = (machine(Flavour::Plain)?, machine(Flavour::Concurrent)?);
        let engines = vec![plain.engine.weak(), concurrent.engine.weak()];
        Ok(Self(Arc::new(Inner {
            plain,
            concurrent,
            cache,
            gate: Gate::new(config),
            connections_per_call_max: config.connections_per_call_max,
            ticker: Arc::new(Ticker::start(engines).map_err(ComponentsError::Ticker)?),
        })))
    }

    /// Checks and compiles a component; see [`sandbox::Backend::prepare`].
    pub async fn prepare(
        &self,
        spec: &VersionSpec,
        artifact: Bytes,
    ) -> Result<Prepared, PrepareError> {
        self.blocking(spec, move |inner, spec| {
            inner
                .prepare(&spec, &artifact)
                .map(|(prepared, _)| prepared)
        })
        .await
    }

    /// Loads what was prepared, or prepares it again; see [`sandbox::Backend::load`].
    pub async fn load(
        &self,
        spec: &VersionSpec,
        artifacts: &dyn Artifacts,
    ) -> Result<Arc<dyn Program>, LoadError> {
        let cached = self
            .blocking(spec, |inner, spec| inner.load_cached(&spec))
            .await?;
        let program = match cached {
            Some(program) => program,
            None => {
                let digest = spec.artifact;
                let artifact = artifacts.artifact(&digest).await;
                let artifact = artifact.map_err(|source| LoadError::Artifact { digest, source })?;
                self.blocking(spec, move |inner, spec| {
                    inner.prepare(&spec, &artifact).map(|(_, program)| program)
                })
                .await?
            }
        };
        Ok(Arc::new(program))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        spec: &VersionSpec,
        work: impl FnOnce(&Inner, VersionSpec) -> Result<T, PrepareError> + Send + 'static,
    ) -> Result<T, PrepareError> {
        let (inner, spec) = (self.0.clone(), spec.clone());
        tokio::task::spawn_blocking(move || work(&inner, spec))
            .await
            .unwrap_or_else(|error| {
                Err(PrepareError::Platform {
                    reason: "the compiling task ended early".into(),
                    source: Some(error.into()),
                })
            })
    }
}

impl Inner {
    fn machine(&self, flavour: Flavour) -> &Machine {
        match flavour {
            Flavour::Plain => &self.plain,
            Flavour::Concurrent => &self.concurrent,
        }
    }

    fn prepare(
        &self,
        spec: &VersionSpec,
        artifact: &[u8],
    ) -> Result<(Prepared, ComponentProgram), PrepareError> {
        let world = world::read(artifact)?;
        let entry = world.entry(spec.kind)?;
        let machine = self.machine(world.flavour(entry));
        world.check_imports(machine)?;
        let (cached, path) = self.code(machine, spec, artifact)?;
        let component = map_code(machine, &path)?;
        check_sizes(&component, spec)?;
        let program = self.program(machine, &component, entry, spec)?;
        let prepared = Prepared {
            cached,
            code_bytes: path.metadata().map_or(0, |metadata| metadata.len()),
            image_bytes: 0,
        };
        Ok((prepared, program))
    }

    /// The cached code of the artifact, compiled if it is missing.
    fn code(
        &self,
        machine: &Machine,
        spec: &VersionSpec,
        artifact: &[u8],
    ) -> Result<(bool, PathBuf), PrepareError> {
        let key = machine.key(&spec.artifact);
        if let Some(path) = self
            .cache
            .load(&key, EntryKind::Code)
            .map_err(cache_failed)?
        {
            return Ok((true, path));
        }
        let code = machine
            .engine
            .precompile_component(artifact)
            .map_err(|error| PrepareError::Invalid {
                reason: format!("{error:#}"),
            })?;
        let path = self.cache.store(&key, EntryKind::Code, &code);
        Ok((false, path.map_err(cache_failed)?))
    }

    fn load_cached(&self, spec: &VersionSpec) -> Result<Option<ComponentProgram>, PrepareError> {
        for machine in Flavour::ALL.map(|flavour| self.machine(flavour)) {
            let key = machine.key(&spec.artifact);
            let Some(path) = self
                .cache
                .load(&key, EntryKind::Code)
                .map_err(cache_failed)?
            else {
                continue;
            };
            let component = map_code(machine, &path)?;
            let entry = exported_entry(&component, spec)?;
            return self.program(machine, &component, entry, spec).map(Some);
        }
        Ok(None)
    }

    fn program(
        &self,
        machine: &Machine,
        component: &Component,
        entry: Entry,
        spec: &VersionSpec,
    ) -> Result<ComponentProgram, PrepareError> {
        let shared = (self.gate.clone(), self.ticker.clone());
        let egress = Rules::of(&spec.settings.allow, self.connections_per_call_max);
        let program = ComponentProgram::new(machine, component, entry, spec, egress, shared);
        program.map_err(|error| PrepareError::Invalid {
            reason: format!("{error:#}"),
        })
    }
}

fn exported_entry(component: &Component, spec: &VersionSpec) -> Result<Entry, PrepareError> {
    let ty = component.component_type();
    let names = ty
        .exports(component.engine())
        .map(|(name, _)| name.to_owned());
    World::of_exports(names.collect()).entry(spec.kind)
}

fn map_code(machine: &Machine, path: &Path) -> Result<Component, PrepareError> {
    // SAFETY: the cache has compared the file with the digest of what an engine of this
    // configuration made, and its directory is written by this node alone.
    let component = unsafe { Component::deserialize_file(&machine.engine, path) };
    component.map_err(|error| PrepareError::Platform {
        reason: format!("mapping compiled code: {error:#}"),
        source: None,
    })
}

/// Refuses what would fail every call.
fn check_sizes(component: &Component, spec: &VersionSpec) -> Result<(), PrepareError> {
    let required = component.resources_required();
    let pages = required.and_then(|required| required.max_initial_memory_size);
    let bytes = pages.unwrap_or(0).saturating_mul(WASM_PAGE_BYTES);
    let bytes_max = spec.settings.limits.memory_bytes_max;
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(PrepareError::TooLarge {
        reason: format!(
            "a memory begins with {bytes} bytes, and `memory_bytes_max` is {bytes_max}"
        ),
    })
}

fn cache_failed(error: CacheError) -> PrepareError {
    match error {
        CacheError::Full { .. } => PrepareError::DiskFull,
        error => PrepareError::Platform {
            reason: "caching compiled code".into(),
            source: Some(error.into()),
        },
    }
}
