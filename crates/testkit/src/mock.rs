//! A back-end whose guests are scripts: no engine, no compilation, no real work.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use model::{Digest, VersionSpec};
use parking_lot::Mutex;
use sandbox::{
    Artifacts, Backend, LoadError, PrepareError, Prepared, Presence, Program, Sandbox, SandboxError,
};

use crate::mock_sandbox::MockSandbox;
use crate::{Gate, Guest};

/// What a mock back-end did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MockCounts {
    /// Programs that were loaded.
    pub loads: u64,
    /// Sandboxes that were made.
    pub made: u64,
    /// Sandboxes that live.
    pub live: usize,
    /// Resets that were done.
    pub resets: u64,
    /// Calls that were dropped before their end.
    pub dropped_calls: u64,
}

/// A back-end of scripted guests. Cheap to clone; clones share everything.
#[derive(Clone, Debug, Default)]
pub struct MockBackend(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    prepared: Mutex<HashMap<Digest, Guest>>,
    gates: Mutex<HashMap<String, Arc<Gate>>>,
    load_gate: Mutex<Option<Arc<Gate>>>,
    sandboxes_max: AtomicUsize,
    /// Of the programs that were loaded since it was said last.
    presence: Mutex<Arc<Mutex<Presence>>>,
    loads: AtomicU64,
    made: AtomicU64,
    pub(crate) live: AtomicUsize,
    pub(crate) resets: AtomicU64,
    pub(crate) dropped_calls: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            prepared: Mutex::default(),
            gates: Mutex::default(),
            load_gate: Mutex::default(),
            sandboxes_max: AtomicUsize::new(usize::MAX),
            presence: Mutex::new(Arc::new(Mutex::new(Presence::Whole))),
            loads: AtomicU64::new(0),
            made: AtomicU64::new(0),
            live: AtomicUsize::new(0),
            resets: AtomicU64::new(0),
            dropped_calls: AtomicU64::new(0),
        }
    }
}

impl Shared {
    pub(crate) fn gate(&self, name: &str) -> Arc<Gate> {
        let mut gates = self.gates.lock();
        gates.entry(name.to_owned()).or_default().clone()
    }
}

impl MockBackend {
    /// A back-end that has prepared nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The gate of this name.
    pub fn gate(&self, name: &str) -> Arc<Gate> {
        self.0.gate(name)
    }

    /// Holds loads at `gate` from now on.
    pub fn hold_loads(&self, gate: Arc<Gate>) {
        *self.0.load_gate.lock() = Some(gate);
    }

    /// Refuses sandboxes over this number.
    pub fn cap_sandboxes(&self, max: usize) {
        self.0.sandboxes_max.store(max, Ordering::Relaxed);
    }

    /// How much is here of what the programs run over that are loaded from now on; those that were
    /// loaded since this was called last have `before`.
    pub fn presence(&self, before: Presence, now: Presence) {
        let mut presence = self.0.presence.lock();
        *presence.lock() = before;
        *presence = Arc::new(Mutex::new(now));
    }

    /// What was done so far.
    pub fn counts(&self) -> MockCounts {
        let shared = &self.0;
        MockCounts {
            loads: shared.loads.load(Ordering::SeqCst),
            made: shared.made.load(Ordering::SeqCst),
            live: shared.live.load(Ordering::SeqCst),
            resets: shared.resets.load(Ordering::SeqCst),
            dropped_calls: shared.dropped_calls.load(Ordering::SeqCst),
        }
    }
}

#[async_trait]
impl Backend for MockBackend {
    async fn prepare(
        &self,
        spec: &VersionSpec,
        artifact: Bytes,
        _: Vec<Bytes>,
    ) -> Result<Prepared, PrepareError> {
        let guest = Guest::parse(&artifact).ok_or_else(|| PrepareError::NotWasm {
            reason: "it is no script of a mock guest".to_owned(),
        })?;
        if guest.kind() != spec.kind {
            return Err(PrepareError::WrongKind {
                kind: spec.kind,
                reason: format!("it is {}", guest.kind()),
            });
        }
        let before = self.0.prepared.lock().insert(spec.artifact, guest);
        Ok(Prepared {
            cached: before.is_some(),
            code_bytes: artifact.len() as u64,
            image_bytes: 0,
            note: None,
        })
    }

    async fn load(
        &self,
        spec: &VersionSpec,
        artifacts: &dyn Artifacts,
    ) -> Result<Arc<dyn Program>, LoadError> {
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        let gate = self.0.load_gate.lock().clone();
        if let Some(gate) = gate {
            gate.pass().await;
        }
        let known = self.0.prepared.lock().get(&spec.artifact).cloned();
        let guest = match known {
            Some(guest) => guest,
            None => {
                let digest = spec.artifact;
                let read = artifacts.artifact(&digest).await;
                let artifact = read.map_err(|source| LoadError::Artifact { digest, source })?;
                self.prepare(spec, artifact.clone(), Vec::new()).await?;
                Guest::parse(&artifact).unwrap_or(Guest::Trap)
            }
        };
        Ok(Arc::new(MockProgram {
            guest,
            presence: self.0.presence.lock().clone(),
            shared: self.0.clone(),
        }))
    }
}

struct MockProgram {
    guest: Guest,
    presence: Arc<Mutex<Presence>>,
    shared: Arc<Shared>,
}

impl Program for MockProgram {
    fn sandbox(&self) -> Result<Box<dyn Sandbox>, SandboxError> {
        let max = self.shared.sandboxes_max.load(Ordering::Relaxed);
        let live = self.shared.live.fetch_add(1, Ordering::SeqCst);
        if live >= max {
            self.shared.live.fetch_sub(1, Ordering::SeqCst);
            return Err(SandboxError::Full { live, max });
        }
        self.shared.made.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(MockSandbox::new(
            self.guest.clone(),
            self.shared.clone(),
        )))
    }

    fn cooperative(&self) -> bool {
        self.guest.kind() == model::Kind::Http
    }

    fn presence(&self) -> Presence {
        *self.presence.lock()
    }

    fn asks(&self) -> bool {
        self.guest == Guest::Ask
    }
}
