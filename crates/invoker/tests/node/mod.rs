//! An invoker on a folder, with a runner that does what a test says.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod cluster;
pub mod held;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use invoker::{
    Attempt, Config, Invocation, Invoker, Ran, Registry, Reply, Request, Runner, Select, Submission,
};
use model::{
    Digest, FunctionPath, InvocationId, Kind, Outcome, Settings, StartKind, Status, Usage,
    VersionSpec,
};
use storage::{Blobs, RedbStore, Store};
use tokio::sync::oneshot;

/// Longer than any test takes; a wait that ends by it has failed.
pub const LONG: Duration = Duration::from_secs(60);

pub fn quick() -> Config {
    Config {
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(5),
        store_pause: Duration::from_millis(5),
        inline_bytes_max: 1 << 10,
        drain: Duration::from_millis(10),
        ..Config::default()
    }
}

/// A runner made of a function.
pub struct Scripted<F>(pub F);

#[async_trait]
impl<F, R> Runner for Scripted<F>
where
    F: Fn(Attempt) -> R + Send + Sync + 'static,
    R: Future<Output = Ran> + Send,
{
    async fn run(&self, attempt: Attempt) -> Ran {
        (self.0)(attempt).await
    }
}

pub fn ended(status: Status, body: impl Into<bytes::Bytes>) -> Ran {
    let outcome = Outcome {
        status,
        start: StartKind::Restored,
        usage: Usage::default(),
    };
    Ran::Ended {
        outcome,
        reply: Reply::plain(body),
    }
}

pub fn ok(body: impl Into<bytes::Bytes>) -> Ran {
    ended(Status::Ok, body)
}

pub struct Node {
    pub invoker: Invoker,
    pub store: Arc<dyn Store>,
    pub service: Option<invoker::Service>,
    stop: Option<oneshot::Sender<()>>,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl Node {
    pub async fn open(folder: &Path, config: Config) -> Self {
        let store = RedbStore::open(&folder.join("store"), storage::Config::default()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let blobs = Blobs::open(&folder.join("bodies")).unwrap();
        let registry = Registry::open(store.clone()).await.unwrap();
        let opened = Invoker::open(store.clone(), blobs, registry, config).await;
        let (invoker, service) = opened.unwrap();
        Self {
            invoker,
            store,
            service: Some(service),
            stop: None,
            running: None,
        }
    }

    /// Opens and runs, with `app/f` deployed.
    pub async fn start(folder: &Path, config: Config, runner: impl Runner) -> Self {
        let mut node = Self::open(folder, config).await;
        node.deploy("app/f", 1).await;
        node.run(runner);
        node
    }

    pub fn run(&mut self, runner: impl Runner) {
        let (stop, stopped) = oneshot::channel();
        let service = self.service.take().unwrap();
        let run = service.run(Arc::new(runner), async { drop(stopped.await) });
        (self.stop, self.running) = (Some(stop), Some(tokio::spawn(run)));
    }

    pub async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take() {
            running.await.unwrap();
        }
    }

    pub async fn deploy(&self, path: &str, artifact: u8) -> Digest {
        let deployed = self
            .invoker
            .registry()
            .deploy(&fn_path(path), spec(artifact))
            .await;
        deployed.unwrap().version
    }

    pub async fn submit(&self, body: impl Into<bytes::Bytes>) -> InvocationId {
        self.invoker.submit(submission(body)).await.unwrap().id
    }

    pub async fn wait(&self, id: InvocationId) -> Invocation {
        let invocation = self.invoker.wait(id, LONG).await.unwrap();
        assert!(invocation.state.is_final(), "{invocation:?}");
        invocation
    }
}

pub fn fn_path(path: &str) -> FunctionPath {
    path.parse().unwrap()
}

pub fn spec(artifact: u8) -> VersionSpec {
    let (kind, artifact) = (Kind::Command, Digest::of(&[artifact]));
    VersionSpec {
        kind,
        artifact,
        settings: Settings::default(),
    }
}

pub fn submission(body: impl Into<bytes::Bytes>) -> Submission {
    Submission {
        path: fn_path("app/f"),
        select: Select::Live,
        request: Request::plain(body),
        idempotency_key: None,
        traceparent: None,
    }
}

pub fn keyed(body: &'static str, key: &str) -> Submission {
    Submission {
        idempotency_key: Some(key.into()),
        ..submission(body)
    }
}
