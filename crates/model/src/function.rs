//! What a function is: its kind, its settings, and the immutable version made of both.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, Grants, Limits, NearKey};

/// How a function takes its request and gives its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A component of `wasi:http/proxy` 0.2 or `wasi:http/service` 0.3.
    Http,
    /// A WASI preview-1 module or `wasi:cli` component: body on stdin, reply from stdout.
    Command,
    /// A core module that exports `handle` and uses the `dunlin` input and output imports.
    Reactor,
    /// A program that asks the Lambda Runtime API for its invocations.
    Lambda,
}

/// A text that names no kind.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a kind of function: use http, command, reactor or lambda")]
pub struct KindError(String);

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::Http, Kind::Command, Kind::Reactor, Kind::Lambda];

    /// The kind as it is written in manifests, flags and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Http => "http",
            Kind::Command => "command",
            Kind::Reactor => "reactor",
            Kind::Lambda => "lambda",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        let refuse = || KindError(text.chars().take(40).collect());
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(refuse)
    }
}

/// What a function's next invocation finds of the last.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Reuse {
    /// Nothing: each invocation has a sandbox equal to its image.
    #[default]
    Fresh,
    /// What it left: memory and globals outlive an invocation that ended well. Only for functions
    /// whose callers trust each other.
    App,
}

impl Reuse {
    /// Whether it is the default.
    pub fn is_fresh(&self) -> bool {
        *self == Reuse::Fresh
    }
}

/// What a function's sandboxes are made of.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum Isolation {
    /// WebAssembly's checks.
    #[default]
    #[serde(rename = "wasm")]
    Wasm,
    /// A virtual machine's.
    #[serde(rename = "vm")]
    Vm,
    /// Both: WebAssembly inside of a virtual machine.
    #[serde(rename = "wasm+vm")]
    WasmVm,
}

/// A text that names no isolation.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no isolation: use wasm, vm or wasm+vm")]
pub struct IsolationError(String);

impl Isolation {
    /// Every isolation.
    pub const ALL: [Isolation; 3] = [Isolation::Wasm, Isolation::Vm, Isolation::WasmVm];

    /// As it is written in manifests and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Isolation::Wasm => "wasm",
            Isolation::Vm => "vm",
            Isolation::WasmVm => "wasm+vm",
        }
    }

    /// Whether it is the default.
    pub fn is_wasm(&self) -> bool {
        *self == Isolation::Wasm
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Isolation {
    type Err = IsolationError;

    fn from_str(text: &str) -> Result<Self, IsolationError> {
        let refuse = || IsolationError(text.chars().take(40).collect());
        let found = Self::ALL.into_iter().find(|it| it.as_str() == text);
        found.ok_or_else(refuse)
    }
}

/// Whether a program is frozen where it waits for its calls, so that they go on from there.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Snapshot {
    /// If nothing that it has asked by then must differ between calls.
    #[default]
    Auto,
    /// No: each call begins at its first instruction.
    Never,
    /// Yes, whatever it has asked; a program that cannot be is refused.
    Always,
}

impl Snapshot {
    /// Whether it is the default.
    pub fn is_auto(&self) -> bool {
        *self == Snapshot::Auto
    }

    /// As it is written in manifests and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Snapshot::Auto => "auto",
            Snapshot::Never => "never",
            Snapshot::Always => "always",
        }
    }
}

/// What a deploy may set beside the artifact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// Environment of the guest; nothing is inherited from the node.
    pub env: BTreeMap<String, String>,
    /// Resource limits.
    pub limits: Limits,
    /// What it is granted beyond its sandbox.
    #[serde(skip_serializing_if = "Grants::is_empty")]
    pub allow: Grants,
    /// What its next invocation finds of the last.
    #[serde(skip_serializing_if = "Reuse::is_fresh")]
    pub reuse: Reuse,
    /// What the artifact, a runtime, loads before it is frozen: uploaded as artifacts are, the
    /// first at the bottom.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Digest>,
    /// The list of the files that every invocation begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Digest>,
    /// What its sandboxes are made of.
    #[serde(skip_serializing_if = "Isolation::is_wasm")]
    pub isolation: Isolation,
    /// Whether a Linux program is frozen where it waits for its calls.
    #[serde(skip_serializing_if = "Snapshot::is_auto")]
    pub snapshot: Snapshot,
    /// Keys of its app's state that it is to run near.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<NearKey>,
}

/// Layers that a function may have.
pub const LAYERS_MAX: usize = 4;

/// Everything that makes a version: immutable, and named by the digest of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionSpec {
    /// How the function is called.
    pub kind: Kind,
    /// The uploaded Wasm.
    pub artifact: Digest,
    /// What was set beside it.
    pub settings: Settings,
}

impl VersionSpec {
    /// The version's name: the digest of kind, artifact and settings.
    pub fn digest(&self) -> Digest {
        let mut parts: Vec<Vec<u8>> = vec![
            b"dunlin version 1".to_vec(),
            self.kind.as_str().into(),
            self.artifact.as_bytes().to_vec(),
            (self.settings.args.len() as u64).to_le_bytes().to_vec(),
        ];
        parts.extend(self.settings.args.iter().map(|arg| arg.as_bytes().to_vec()));
        for (key, value) in &self.settings.env {
            parts.push(key.as_bytes().to_vec());
            parts.push(value.as_bytes().to_vec());
        }
        parts.extend(limit_parts(&self.settings.limits));
        parts.extend(self.settings.allow.parts());
        if !self.settings.reuse.is_fresh() {
            parts.push(b"reuse app".to_vec());
        }
        for layer in &self.settings.layers {
            parts.push(b"layer".to_vec());
            parts.push(layer.as_bytes().to_vec());
        }
        if let Some(list) = &self.settings.files {
            parts.push(b"file list".to_vec());
            parts.push(list.as_bytes().to_vec());
        }
        if !self.settings.isolation.is_wasm() {
            parts.push(format!("isolation {}", self.settings.isolation).into());
        }
        if !self.settings.snapshot.is_auto() {
            parts.push(format!("snapshot {}", self.settings.snapshot.as_str()).into());
        }
        for key in &self.settings.near {
            parts.push(b"near".to_vec());
            parts.push(key.as_str().into());
        }
        Digest::of_parts(parts.iter().map(Vec::as_slice))
    }
}

/// What a version's limits are in its name.
fn limit_parts(limits: &Limits) -> Vec<Vec<u8>> {
    let Limits {
        deadline_ms,
        memory_bytes_max,
        input_bytes_max,
        output_bytes_max,
        log_bytes_max,
        concurrency_max,
        queue_max,
        keep_alive_ms,
        files_bytes_max,
        files_max,
        attempts_max,
        processors_max,
    } = *limits;
    let numbers = [
        deadline_ms,
        memory_bytes_max,
        input_bytes_max,
        output_bytes_max,
        log_bytes_max,
        concurrency_max.into(),
        queue_max.into(),
        keep_alive_ms,
        attempts_max.into(),
    ];
    let mut parts: Vec<_> = numbers.map(|n| n.to_le_bytes().to_vec()).into();
    // Limits that came later count where they are not the default, so that the names of
    // versions that do not set them stay.
    let later = Limits::default();
    if (files_bytes_max, files_max) != (later.files_bytes_max, later.files_max) {
        parts.push(b"files".to_vec());
        parts.push(files_bytes_max.to_le_bytes().to_vec());
        parts.push(files_max.to_le_bytes().to_vec());
    }
    if processors_max != later.processors_max {
        parts.push(b"processors".to_vec());
        parts.push(processors_max.to_le_bytes().to_vec());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> VersionSpec {
        VersionSpec {
            kind: Kind::Command,
            artifact: Digest::of(b"wasm"),
            settings: Settings::default(),
        }
    }

    #[test]
    fn the_same_parts_make_the_same_version() {
        assert_eq!(spec().digest(), spec().digest());
    }

    #[test]
    fn each_part_changes_the_version() {
        let mut env = spec();
        env.settings.env.insert("A".into(), "B".into());
        let mut args = spec();
        args.settings.args.push("A".into());
        let mut limits = spec();
        limits.settings.limits.deadline_ms += 1;
        let kind = VersionSpec {
            kind: Kind::Reactor,
            ..spec()
        };
        let mut allow = spec();
        allow
            .settings
            .allow
            .call
            .push("f".parse().expect("a grant"));
        let mut reuse = spec();
        reuse.settings.reuse = Reuse::App;
        let mut layers = spec();
        layers.settings.layers.push(Digest::of(b"app.py"));
        let mut files = spec();
        files.settings.files = Some(Digest::of(b"list"));
        let mut quota = spec();
        quota.settings.limits.files_bytes_max += 1;
        let mut processors = spec();
        processors.settings.limits.processors_max = 2;
        let mut vm = spec();
        vm.settings.isolation = Isolation::Vm;
        let mut both = spec();
        both.settings.isolation = Isolation::WasmVm;
        let mut never = spec();
        never.settings.snapshot = Snapshot::Never;
        let mut always = spec();
        always.settings.snapshot = Snapshot::Always;
        let mut near = spec();
        near.settings.near.push("k".parse().expect("a key"));
        let all = [
            spec(),
            env,
            args,
            limits,
            kind,
            allow,
            reuse,
            layers,
            files,
            quota,
            processors,
            vm,
            both,
            never,
            always,
            near,
        ];
        let all = all.map(|s| s.digest());
        let distinct: std::collections::BTreeSet<_> = all.into_iter().collect();
        assert_eq!(distinct.len(), 16);
    }

    #[test]
    fn a_version_that_sets_nothing_keeps_its_name() {
        // What it was before versions had files; stored versions and caches are named so.
        let text = "sha256:87727e53511ea934500417e2b85b84ba4bc158ed9546a09ce43a217858fb1e08";
        assert_eq!(spec().digest().to_string(), text);
    }
}
