//! What can go wrong with programs and sandboxes.

use model::Kind;

use crate::BodyError;

/// Why an artifact cannot become a program: the deployer has something to fix, but for the last.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Neither a module nor a component.
    #[error("the artifact is not WebAssembly: {reason}")]
    NotWasm {
        /// What was found instead.
        reason: String,
    },
    /// No static executable for this kind of machine.
    #[error("the artifact is not an executable for a micro-VM: {reason}")]
    NotExecutable {
        /// What was found instead.
        reason: String,
    },
    /// There are no micro-VMs on this node.
    #[error("this node cannot run micro-VMs: {reason}")]
    NoMicroVms {
        /// What is missing.
        reason: String,
    },
    /// It does not decode, or does not validate.
    #[error("the artifact is not valid WebAssembly: {reason}")]
    Invalid {
        /// The validator's words, with the offset.
        reason: String,
    },
    /// It is valid, but not of the kind that it is deployed as.
    #[error("the artifact is not {}: {reason}", article(*.kind))]
    WrongKind {
        /// The kind asked for.
        kind: Kind,
        /// What is missing or too much, and what to do.
        reason: String,
    },
    /// It is set up with what functions of its make do not have.
    #[error("its settings ask for what it cannot have: {reason}")]
    Unsupported {
        /// Which setting, and what to do.
        reason: String,
    },
    /// It asks for imports that are not offered.
    #[error("the artifact imports what is not offered: {}", .names.join(", "))]
    UnknownImports {
        /// Each import, as `module.name` or as the interface and its function.
        names: Vec<String>,
    },
    /// Its initialisation failed, or left what an image cannot hold.
    #[error("the function's initialisation failed: {reason}")]
    Init {
        /// How it ended, or what it left.
        reason: String,
    },
    /// It asks for more than its limits or the platform allow.
    #[error("the artifact asks for too much: {reason}")]
    TooLarge {
        /// What is too large, and the limit.
        reason: String,
    },
    /// The disk is full.
    #[error("no space is left for the compiled artifact: free some space and deploy again")]
    DiskFull,
    /// A fault of the platform's.
    #[error("the platform could not prepare the artifact: {reason}")]
    Platform {
        /// What it was doing.
        reason: String,
        /// Why it failed.
        #[source]
        source: Option<BodyError>,
    },
}

fn article(kind: Kind) -> &'static str {
    match kind {
        Kind::Http => "an http component",
        Kind::Command => "a command",
        Kind::Reactor => "a reactor",
        Kind::Lambda => "a lambda function",
    }
}

/// Why a deployed program could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The artifact is gone.
    #[error("the artifact {digest} could not be read")]
    Artifact {
        /// Its digest.
        digest: model::Digest,
        /// Why.
        #[source]
        source: BodyError,
    },
    /// Its cached form was unusable, and preparing it again failed.
    #[error("the artifact could not be prepared again")]
    Prepare(#[from] PrepareError),
}

/// Why a sandbox could not be made or reset.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The node's cap of live sandboxes is reached.
    #[error("no more sandboxes fit: {live} are live, and the cap is {max}")]
    Full {
        /// Live sandboxes.
        live: usize,
        /// The cap.
        max: usize,
    },
    /// The engine or the kernel refused.
    #[error("a sandbox could not be {doing}: {reason}")]
    Failed {
        /// `made` or `reset`.
        doing: &'static str,
        /// The engine's or kernel's words.
        reason: String,
    },
    /// Asked for at the wrong time.
    #[error(transparent)]
    State(#[from] crate::StateError),
}
