//! Functions in this process, through the `sandbox` trait, as the executor holds them.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use faaslet::Faaslets;
use model::{Digest, InvocationId, Kind, Limits, Settings, Status, VersionSpec};
use sandbox::{
    Artifacts, Backend, BodyError, Call, CallLog, Completion, End, LogSink, LogStream, Payload,
    Program,
};
use tempfile::TempDir;

/// The one artifact of a bench.
pub struct OneArtifact(Bytes);

impl OneArtifact {
    /// That artifact.
    pub fn of(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

#[async_trait]
impl Artifacts for OneArtifact {
    async fn artifact(&self, _: &Digest) -> Result<Bytes, BodyError> {
        Ok(self.0.clone())
    }
}

/// A log that nobody reads.
pub struct Nowhere;

impl LogSink for Nowhere {
    fn write(&self, _: InvocationId, _: LogStream, _: &[u8]) {}
}

/// A function that is deployed in this process.
pub struct Function {
    /// The back-end.
    pub backend: Arc<Faaslets>,
    /// What was deployed.
    pub spec: Arc<VersionSpec>,
    /// Where its artifact is read from.
    pub artifacts: Arc<OneArtifact>,
    /// Makes its sandboxes.
    pub program: Arc<dyn Program>,
    /// Holds the cache for as long as the function lives.
    _folder: TempDir,
}

impl Function {
    /// Prepares and loads `wasm`.
    pub async fn deploy(kind: Kind, wasm: Vec<u8>, sandboxes_max: usize) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for the cache")?;
        let config = faaslet::Config {
            sandboxes_max,
            ..faaslet::Config::new(folder.path())
        };
        let backend = Arc::new(Faaslets::new(config)?);
        let artifacts = Arc::new(OneArtifact(wasm.into()));
        let spec = VersionSpec {
            kind,
            artifact: Digest::of(&artifacts.0),
            settings: Settings::default(),
        };
        backend
            .prepare(&spec, artifacts.0.clone(), Vec::new())
            .await
            .context("preparing")?;
        let program = backend.load(&spec, &*artifacts).await.context("loading")?;
        Ok(Self {
            backend,
            spec: Arc::new(spec),
            artifacts,
            program,
            _folder: folder,
        })
    }
}

/// One call of a function with these arguments.
pub fn call_of(spec: &VersionSpec, limits: &Arc<Limits>, args: Vec<String>) -> Call {
    let id = InvocationId::new(0);
    Call {
        id,
        payload: Payload::Bytes {
            body: Bytes::new(),
            args,
            env: Vec::new(),
        },
        limits: limits.clone(),
        budget: None,
        log: Arc::new(CallLog::new(
            id,
            Arc::new(Nowhere),
            spec.settings.limits.log_bytes_max,
        )),
        asks: None,
    }
}

/// Refuses a call that did not end well.
pub fn expect_ok(completion: &Completion) -> Result<()> {
    match &completion.end {
        End::Done(Status::Ok) => Ok(()),
        other => bail!("a call ended {other:?}"),
    }
}
