//! The traits that every wall implements.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use memory::Presence;
use model::{Digest, VersionSpec};

use crate::{BodyError, Call, Completion, LoadError, PrepareError, SandboxError, State};

/// Where artifacts are read from when their compiled form is missing or stale.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// The bytes of the artifact named `digest`.
    async fn artifact(&self, digest: &Digest) -> Result<Bytes, BodyError>;
}

/// What a deploy made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Whether the cache held it already.
    pub cached: bool,
    /// Bytes of compiled code.
    pub code_bytes: u64,
    /// Bytes of the frozen image; 0 where code and data are one file.
    pub image_bytes: u64,
    /// What else its owner may want to know of it, in a sentence.
    pub note: Option<String>,
}

/// One kind of wall.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Checks, compiles and initialises `artifact`, and puts the result in the cache. A runtime
    /// loads each of `layers`, which are those of the settings in their order, before it is frozen.
    /// Slow: it runs off the request path. Guest code that runs is held to the limits of `spec`.
    async fn prepare(
        &self,
        spec: &VersionSpec,
        artifact: Bytes,
        layers: Vec<Bytes>,
    ) -> Result<Prepared, PrepareError>;

    /// Loads what [`Backend::prepare`] made; prepares it again if the cache lost or spoiled it, or
    /// if the engine's configuration has changed since.
    async fn load(
        &self,
        spec: &VersionSpec,
        artifacts: &dyn Artifacts,
    ) -> Result<Arc<dyn Program>, LoadError>;
}

/// A loaded version: makes sandboxes.
pub trait Program: Send + Sync + 'static {
    /// A fresh sandbox, restored from the program's image.
    fn sandbox(&self) -> Result<Box<dyn Sandbox>, SandboxError>;

    /// Whether guests yield to other tasks while they compute. One that does not may hold its
    /// thread until its deadline.
    fn cooperative(&self) -> bool;

    /// How much of what guests run over is here. They may have to wait, in the middle of an
    /// instruction, for what is still arriving, and what runs over something lost fails: the
    /// program is of no use any more then.
    fn presence(&self) -> Presence {
        Presence::Whole
    }

    /// Whether guests may ask anything of the platform: then a call has effects outside of its
    /// sandbox, and cannot be repeated.
    fn asks(&self) -> bool {
        false
    }
}

/// One guest. Dropping it frees everything that it holds, also in the middle of a call.
pub trait Sandbox: Send {
    /// Calls the guest. The sandbox must be fresh or kept; it is spent afterwards, also when the
    /// future is dropped before its end. Never panics and never fails but through its completion.
    fn invoke(&mut self, call: Call) -> BoxFuture<'_, Completion>;

    /// Makes a spent sandbox equal to its image again. After an error it is retired.
    fn reset(&mut self) -> Result<(), SandboxError>;

    /// Lets a spent sandbox be called again as it is, with what its last call has left; false if it
    /// cannot be, and has to be reset.
    fn keep(&mut self) -> bool {
        false
    }

    /// Where the sandbox is in its life.
    fn state(&self) -> State;
}
