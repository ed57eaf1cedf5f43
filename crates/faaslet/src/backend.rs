//! Both engines as one back-end.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use model::{Digest, Kind, VersionSpec};
use sandbox::{
    Artifacts, Backend, EntryKind, LoadError, Portable, PrepareError, Prepared, Program, all_there,
};

use crate::component::{Components, ComponentsError};
use crate::config::Config;
use crate::core_module::CoreEngine;
use sandbox::{Cache, CacheError};

/// The first bytes of every module and component.
const WASM_MAGIC: &[u8] = b"\0asm";
/// The four bytes after the magic number that tell a component from a module: version and layer.
const COMPONENT_VERSION: &[u8] = &[0x0d, 0, 1, 0];

/// Why the engines could not start.
#[derive(Debug, thiserror::Error)]
pub enum FaasletsError {
    /// The cache directory cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The engine refused its configuration.
    #[error("the engine could not start: {0:#}")]
    Engine(wasmtime::Error),
    /// The engines of components could not start.
    #[error(transparent)]
    Components(#[from] ComponentsError),
}

/// The WebAssembly back-end: core modules and components.
#[derive(Clone)]
pub struct Faaslets(Arc<Inner>);

struct Inner {
    cache: Arc<Cache>,
    core: Arc<CoreEngine>,
    components: Components,
}

impl Faaslets {
    /// Starts both engines.
    pub fn new(config: Config) -> Result<Self, FaasletsError> {
        let cache = Arc::new(Cache::new(&config.cache_dir)?.bounded(config.cache_bytes_max));
        let core = CoreEngine::new(config.sandboxes_max, config.table, config.files.clone())
            .map_err(FaasletsError::Engine)?;
        let components = Components::new(
            &config.components,
            config.table,
            cache.clone(),
            config.files,
        )?;
        let core = Arc::new(core);
        Ok(Self(Arc::new(Inner {
            cache,
            core,
            components,
        })))
    }
}

#[async_trait]
impl Backend for Faaslets {
    async fn prepare(
        &self,
        spec: &VersionSpec,
        artifact: Bytes,
        layers: Vec<Bytes>,
    ) -> Result<Prepared, PrepareError> {
        if spec.kind == Kind::Lambda {
            return Err(PrepareError::WrongKind {
                kind: spec.kind,
                reason: "the Lambda Runtime API is served in micro-VMs only: deploy a static \
                         Linux executable with `isolation = \"vm\"`"
                    .into(),
            });
        }
        check_magic(&artifact)?;
        if !spec.settings.snapshot.is_auto() {
            return Err(PrepareError::Unsupported {
                reason: "only Linux programs in micro-VMs take `snapshot`".into(),
            });
        }
        if is_component(&artifact) {
            return self.0.components.prepare(spec, artifact, layers).await;
        }
        if !layers.is_empty() {
            return Err(PrepareError::Unsupported {
                reason: "only components that are runtimes take `layers`".into(),
            });
        }
        let (inner, spec) = (self.0.clone(), spec.clone());
        off_the_request_path(move || inner.core.prepare(&inner.cache, &spec, &artifact)).await
    }

    async fn load(
        &self,
        spec: &VersionSpec,
        artifacts: &dyn Artifacts,
    ) -> Result<Arc<dyn Program>, LoadError> {
        if spec.kind == Kind::Http {
            return self.0.components.load(spec, artifacts).await;
        }
        let find = || {
            let (inner, spec) = (self.0.clone(), spec.clone());
            off_the_request_path(move || inner.core.find(&inner.cache, &spec))
        };
        if let Some(program) = find().await? {
            return Ok(Arc::new(program));
        }
        if let Some(program) = self.0.components.find(spec).await? {
            return Ok(program);
        }
        let digest = spec.artifact;
        let artifact = artifacts
            .artifact(&digest)
            .await
            .map_err(|source| LoadError::Artifact { digest, source })?;
        if is_component(&artifact) {
            return self.0.components.load(spec, artifacts).await;
        }
        self.prepare(spec, artifact, Vec::new()).await?;
        let program = find().await?.ok_or_else(|| PrepareError::Platform {
            reason: "the cache does not keep what was just put in it".into(),
            source: None,
        })?;
        Ok(Arc::new(program))
    }
}

impl Portable for Faaslets {
    fn product(&self, spec: &VersionSpec) -> Digest {
        let component = self.0.components.product(spec);
        if spec.kind == Kind::Http {
            return component;
        }
        // The artifact alone says which of the two it is.
        let core = self.0.core.image_key(spec);
        let parts = [b"faaslet".as_slice(), core.as_bytes(), component.as_bytes()];
        Digest::of_parts(parts)
    }

    fn entries(&self, spec: &VersionSpec) -> Result<Option<Vec<(Digest, EntryKind)>>, CacheError> {
        if spec.kind != Kind::Http {
            let core = self.0.core.entries(&self.0.cache, spec)?;
            if let Some(core) = core
                && let Some(all) = all_there(&self.0.cache, core.to_vec())?
            {
                return Ok(Some(all));
            }
        }
        self.0.components.entries(spec)
    }

    fn cache(&self) -> &Arc<Cache> {
        &self.0.cache
    }
}

pub(crate) fn is_component(artifact: &[u8]) -> bool {
    artifact
        .get(WASM_MAGIC.len()..)
        .is_some_and(|rest| rest.starts_with(COMPONENT_VERSION))
}

pub(crate) fn check_magic(artifact: &[u8]) -> Result<(), PrepareError> {
    if artifact.starts_with(WASM_MAGIC) {
        return Ok(());
    }
    let reason = match artifact.len() {
        _ if artifact.starts_with(b"\x7fELF") => {
            "it is an executable, which runs in a micro-VM: deploy it with `isolation = \"vm\"`"
                .to_owned()
        }
        0 => "it is empty".to_owned(),
        bytes => format!("its {bytes} bytes do not begin with the magic number `\\0asm`"),
    };
    Err(PrepareError::NotWasm { reason })
}

/// Runs what compiles or reads files where it may block.
async fn off_the_request_path<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PrepareError> + Send + 'static,
) -> Result<T, PrepareError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(PrepareError::Platform {
                reason: "the work was cut off".into(),
                source: Some(error.into()),
            })
        })
}
