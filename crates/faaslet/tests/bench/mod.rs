//! Deploys and calls core modules, for the tests.
#![allow(dead_code, reason = "each test has it for itself, and uses a part")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use faaslet::{Config, Faaslets};
use model::{Digest, InvocationId, Kind, Limits, Settings, VersionSpec};
use parking_lot::Mutex;
use sandbox::{
    Artifacts, Backend, BodyError, Call, CallLog, Completion, LogSink, LogStream, Payload,
    PrepareError, Program, Sandbox,
};

pub struct Artifact(pub Bytes);

#[async_trait::async_trait]
impl Artifacts for Artifact {
    async fn artifact(&self, _: &Digest) -> Result<Bytes, BodyError> {
        Ok(self.0.clone())
    }
}

#[derive(Default)]
pub struct Kept(pub Mutex<Vec<u8>>);

impl LogSink for Kept {
    fn write(&self, _: InvocationId, _: LogStream, bytes: &[u8]) {
        self.0.lock().extend_from_slice(bytes);
    }
}

pub struct Bench {
    pub backend: Faaslets,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backend = Faaslets::new(Config::new(dir.path())).unwrap();
        Self { backend, _dir: dir }
    }

    pub async fn deploy(
        &self,
        kind: Kind,
        wat: &str,
        settings: Settings,
    ) -> Result<Arc<dyn Program>, PrepareError> {
        let wasm = Bytes::from(wat::parse_str(wat).unwrap());
        let spec = VersionSpec {
            kind,
            artifact: Digest::of(&wasm),
            settings,
        };
        self.backend
            .prepare(&spec, wasm.clone(), Vec::new())
            .await?;
        Ok(self.backend.load(&spec, &Artifact(wasm)).await.unwrap())
    }

    pub async fn reactor(&self, wat: &str) -> Box<dyn Sandbox> {
        let program = self
            .deploy(Kind::Reactor, wat, Settings::default())
            .await
            .unwrap();
        program.sandbox().unwrap()
    }

    pub async fn command(&self, wat: &str) -> Box<dyn Sandbox> {
        let program = self
            .deploy(Kind::Command, wat, Settings::default())
            .await
            .unwrap();
        program.sandbox().unwrap()
    }
}

pub fn call_with(body: &str, limits: Limits, budget: Option<Duration>) -> (Call, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let id = InvocationId::new(0);
    let log = CallLog::new(id, kept.clone(), limits.log_bytes_max);
    let payload = Payload::Bytes {
        body: Bytes::copy_from_slice(body.as_bytes()),
        args: vec!["first".into()],
        env: vec![("COLOUR".into(), "blue".into())],
    };
    (
        Call {
            asks: None,
            id,
            payload,
            limits: limits.into(),
            budget,
            log: log.into(),
        },
        kept,
    )
}

pub async fn invoke(sandbox: &mut Box<dyn Sandbox>, body: &str) -> Completion {
    sandbox
        .invoke(call_with(body, Limits::default(), None).0)
        .await
}

pub fn limits(deadline_ms: u64) -> Limits {
    Limits {
        deadline_ms,
        ..Limits::default()
    }
}
