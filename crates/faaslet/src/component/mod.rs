//! Components: `wasi:http` 0.2 and 0.3 handlers and `wasi:cli` commands.
//!
//! ```text
//!   prepare ── read world ── check imports ── take apart ─┬─ compile the skeleton ─▶ .cwasm
//!                                                         └─ keep what it holds ───▶ .pages
//!              for each layer: run its loader over the image below, freeze what that leaves
//!   load ──── map .cwasm and .pages ── resolve imports and exports ──▶ Program
//!   invoke ── instantiate over a range or from the pool ── call ──▶ Completion; reset
//! ```
//!
//! A component with one large memory is taken apart ([`apart`]): code is then shared with all that
//! do the same, and memory page by page. Small ones, and those of an unusual make, go to the
//! engine's pool as they are.
//!
//! Invariants:
//! - Every call has an instance of its own; a sandbox is only a place in the pools.
//! - A guest reaches no file and no environment of the node's, and no host that it was not granted.
//! - A guest that computes yields each millisecond, and ends at its deadline.

mod apart;
mod asks;
mod command;
mod config;
mod drive;
mod egress;
mod engine;
mod filesystem;
mod freeze;
mod guest;
mod holding;
mod http;
mod link;
mod make;
mod memories;
mod program;
mod reply;
mod ticker;
mod world;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use files::Library;
use model::{Digest, VersionSpec};
use parking_lot::Mutex;
use sandbox::host::HostCall;
use sandbox::{Artifacts, EntryKind, LoadError, PrepareError, Prepared, Program};
use wasmtime::component::Component;

pub use config::ComponentConfig;

pub(crate) use engine::Flavour;
pub(crate) use guest::Guest;
pub(crate) use link::linker;

use engine::{Gate, Machine};
use sandbox::{Cache, CacheError};
use ticker::Ticker;

/// The part of the back-end that runs components; a cheap clone.
#[derive(Clone)]
pub struct Components(Arc<Inner>);

struct Inner {
    /// By flavour, the engine over its own pool and the one over our slab.
    plain: [Machine; 2],
    concurrent: [Machine; 2],
    /// Code that programs share, by its key.
    skeletons: Mutex<HashMap<Digest, Weak<Component>>>,
    /// Held while a skeleton is compiled, so that it is compiled once.
    compiling: Mutex<()>,
    cache: Arc<Cache>,
    gate: Arc<Gate>,
    ticker: Arc<Ticker>,
    connections_per_call_max: u32,
    files: Arc<Library>,
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
        files: Arc<Library>,
    ) -> Result<Self, ComponentsError> {
        let machine = |flavour| {
            let failed = |error: wasmtime::Error| ComponentsError::Engine {
                reason: format!("{error:#}"),
            };
            let pooled = Machine::pooled(flavour, config, table).map_err(failed)?;
            let over_slab = Machine::over_slab(flavour, config, table).map_err(failed)?;
            Ok([pooled, over_slab])
        };
        let (plain, concurrent) = (machine(Flavour::Plain)?, machine(Flavour::Concurrent)?);
        let machines = plain.iter().chain(&concurrent);
        let engines = machines.map(|machine| machine.engine.weak()).collect();
        Ok(Self(Arc::new(Inner {
            plain,
            concurrent,
            skeletons: Mutex::default(),
            compiling: Mutex::default(),
            cache,
            gate: Gate::new(config),
            connections_per_call_max: config.connections_per_call_max,
            files,
            ticker: Arc::new(Ticker::start(engines).map_err(ComponentsError::Ticker)?),
        })))
    }

    /// Checks and compiles a component; see [`sandbox::Backend::prepare`].
    pub async fn prepare(
        &self,
        spec: &VersionSpec,
        artifact: Bytes,
        layers: Vec<Bytes>,
    ) -> Result<Prepared, PrepareError> {
        self.blocking(spec, move |inner, spec| {
            inner
                .prepare(&spec, &artifact, &layers)
                .map(|(prepared, _)| prepared)
        })
        .await
    }

    /// Names what this node makes of a version; see [`sandbox::Portable::product`].
    pub(crate) fn product(&self, spec: &VersionSpec) -> Digest {
        self.0.product(spec)
    }

    /// Where that is; see [`sandbox::Portable::entries`].
    pub(crate) fn entries(
        &self,
        spec: &VersionSpec,
    ) -> Result<Option<Vec<(Digest, EntryKind)>>, CacheError> {
        self.0.entries(spec)
    }

    /// Loads what was prepared, or prepares it again; see [`sandbox::Backend::load`].
    pub async fn load(
        &self,
        spec: &VersionSpec,
        artifacts: &dyn Artifacts,
    ) -> Result<Arc<dyn Program>, LoadError> {
        if let Some(program) = self.find(spec).await? {
            return Ok(program);
        }
        let artifact = fetch(artifacts, spec.artifact).await?;
        let mut layers = Vec::new();
        for layer in &spec.settings.layers {
            layers.push(fetch(artifacts, *layer).await?);
        }
        let prepare = move |inner: &Inner, spec: VersionSpec| {
            let made = inner.prepare(&spec, &artifact, &layers);
            made.map(|(_, program)| program)
        };
        Ok(Arc::new(self.blocking(spec, prepare).await?))
    }

    /// Loads what was prepared, if it is in the cache.
    pub async fn find(&self, spec: &VersionSpec) -> Result<Option<Arc<dyn Program>>, PrepareError> {
        let load = |inner: &Inner, spec: VersionSpec| inner.load_cached(&spec);
        let found = self.blocking(spec, load).await?;
        Ok(found.map(|program| Arc::new(program) as _))
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

async fn fetch(artifacts: &dyn Artifacts, digest: Digest) -> Result<Bytes, LoadError> {
    let artifact = artifacts.artifact(&digest).await;
    artifact.map_err(|source| LoadError::Artifact { digest, source })
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
