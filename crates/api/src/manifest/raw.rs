//! The manifest as it is written: one field a key, and the source of the published JSON Schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::keys::Shape;

/// Every key that a manifest may have. A test compares it with the schema.
pub const SHAPE: Shape = Shape::Table(&[
    ("app", Shape::Value),
    (
        "function",
        Shape::Tables(&[
            ("name", Shape::Value),
            ("kind", Shape::Value),
            ("artifact", Shape::Value),
            ("source", Shape::Value),
            ("build", Shape::Value),
            ("args", Shape::Value),
            ("env", Shape::Value),
            ("limits", Shape::Table(LIMITS)),
            ("allow", Shape::Table(ALLOW)),
            ("routes", Shape::Value),
            ("reuse", Shape::Value),
            ("layers", Shape::Value),
            ("files", Shape::Value),
            ("isolation", Shape::Value),
            ("snapshot", Shape::Value),
            ("near", Shape::Value),
        ]),
    ),
    ("files", Shape::Value),
]);

const ALLOW: &[(&str, Shape)] = &[
    (
        "state",
        Shape::Tables(&[
            ("prefix", Shape::Value),
            ("access", Shape::Value),
            ("durability", Shape::Value),
        ]),
    ),
    ("call", Shape::Value),
    ("egress", Shape::Value),
    ("files", Shape::Value),
];

const LIMITS: &[(&str, Shape)] = &[
    ("deadline_ms", Shape::Value),
    ("memory_bytes_max", Shape::Value),
    ("input_bytes_max", Shape::Value),
    ("output_bytes_max", Shape::Value),
    ("log_bytes_max", Shape::Value),
    ("concurrency_max", Shape::Value),
    ("queue_max", Shape::Value),
    ("keep_alive_ms", Shape::Value),
    ("files_bytes_max", Shape::Value),
    ("files_max", Shape::Value),
    ("attempts_max", Shape::Value),
    ("processors_max", Shape::Value),
];

/// An app and its functions.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name of the app: a-z, 0-9 and `-`, at most 63.
    #[schemars(
        with = "String",
        regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    )]
    pub app: Spanned<String>,
    /// Files that every function of the app begins with, beside its own.
    #[serde(default)]
    #[schemars(with = "Vec<Files>", length(max = 256))]
    pub files: Vec<Spanned<Files>>,
    /// The functions of the app.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub function: Vec<Function>,
}

/// One function.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// Name of the function: a-z, 0-9 and `-`, at most 63.
    #[schemars(
        with = "String",
        regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    )]
    pub name: Spanned<String>,
    /// How the function is called; found from the artifact where it is left out.
    pub kind: Option<Kind>,
    /// Path of the Wasm file, relative to the manifest.
    #[schemars(with = "String", length(min = 1))]
    pub artifact: Spanned<String>,
    /// Folder that the build command runs in, relative to the manifest (the manifest's own folder
    /// by default).
    #[schemars(with = "Option<String>")]
    pub source: Option<Spanned<String>>,
    /// Shell command that makes the artifact.
    #[schemars(with = "Option<String>")]
    pub build: Option<Spanned<String>>,
    /// Arguments after the program's name.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 256))]
    pub args: Vec<Spanned<String>>,
    /// Environment of the function; nothing is inherited from the node.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub env: BTreeMap<String, Spanned<String>>,
    /// Resource limits; each has a default.
    #[schemars(with = "Option<Limits>")]
    pub limits: Option<Spanned<Limits>>,
    /// What the function is granted beyond its sandbox; nothing by default.
    #[serde(default)]
    pub allow: Allow,
    /// Path prefixes that lead to the function, beside `/APP/FUNCTION`.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 256))]
    pub routes: Vec<Spanned<String>>,
    /// What the next invocation of a reactor finds of the last (default fresh: nothing).
    #[serde(default)]
    pub reuse: Reuse,
    /// Paths of what the artifact, a runtime, loads before it is frozen, relative to the manifest:
    /// packages, then sources.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 4))]
    pub layers: Vec<Spanned<String>>,
    /// Files that every invocation begins with.
    #[serde(default)]
    #[schemars(with = "Vec<Files>", length(max = 256))]
    pub files: Vec<Spanned<Files>>,
    /// What the function's sandboxes are made of (default wasm).
    #[serde(default)]
    pub isolation: Isolation,
    /// Whether a Linux program is frozen where it waits for its calls (default auto).
    #[serde(default)]
    pub snapshot: Snapshot,
    /// Keys of its app's state that it is to run near: in a cluster, a call goes to the node that
    /// owns them where they are larger than the call.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 8))]
    pub near: Vec<Spanned<String>>,
}

/// Files or folders, from where the manifest is to where the function finds them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Files {
    /// A path relative to the manifest; the function finds it at the same path under `/`. `*`
    /// stands for any part of a name, `?` for a character, and `**` for any folders.
    Same(String),
    /// A file or folder, and where the function finds it.
    Placed(Placed),
}

/// A file or folder, and where the function finds it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// Path relative to the manifest.
    #[schemars(length(min = 1))]
    pub source: String,
    /// Where the function finds it: of a folder, where its contents are.
    #[schemars(length(min = 1))]
    pub destination: String,
}

/// What a function is granted beyond its sandbox.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// Keys of the app's state.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub state: Vec<State>,
    /// Functions that it may call: `FUNCTION`, `APP/FUNCTION`, `APP/*` or `*`.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 256))]
    pub call: Vec<Spanned<String>>,
    /// Hosts that it may connect to: `HOST[:PORT]`, `*.HOST[:PORT]`, `*[:PORT]` (each with public
    /// addresses), or a private `ADDRESS:PORT`, `NETWORK/BITS:PORT` or `localhost:PORT`.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 256))]
    pub egress: Vec<Spanned<String>>,
}

/// Keys of an app's state that a function may use.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// What the keys begin with; empty for all keys.
    #[schemars(with = "String", length(max = 512))]
    pub prefix: Spanned<String>,
    /// What may be done with them (default read).
    #[serde(default)]
    pub access: Access,
    /// Of keys that the function creates there (default ephemeral).
    #[serde(default)]
    pub durability: Durability,
}

/// What the next invocation finds of the last.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reuse {
    /// Nothing.
    #[default]
    Fresh,
    /// What it left.
    App,
}

/// What sandboxes are made of.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
pub enum Isolation {
    /// WebAssembly.
    #[default]
    #[serde(rename = "wasm")]
    Wasm,
    /// A virtual machine: the artifact is a static executable for x86-64 Linux.
    #[serde(rename = "vm")]
    Vm,
    /// WebAssembly inside of a virtual machine.
    #[serde(rename = "wasm+vm")]
    WasmVm,
}

/// Whether a Linux program is frozen where it waits for its calls.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Snapshot {
    /// If nothing that it has asked by then must differ between calls.
    #[default]
    Auto,
    /// Never: each call begins at its first instruction.
    Never,
    /// Whatever it has asked; a program that cannot be frozen is refused.
    Always,
}

impl From<Snapshot> for model::Snapshot {
    fn from(snapshot: Snapshot) -> Self {
        match snapshot {
            Snapshot::Auto => Self::Auto,
            Snapshot::Never => Self::Never,
            Snapshot::Always => Self::Always,
        }
    }
}

impl From<Isolation> for model::Isolation {
    fn from(isolation: Isolation) -> Self {
        match isolation {
            Isolation::Wasm => Self::Wasm,
            Isolation::Vm => Self::Vm,
            Isolation::WasmVm => Self::WasmVm,
        }
    }
}

impl From<Reuse> for model::Reuse {
    fn from(reuse: Reuse) -> Self {
        match reuse {
            Reuse::Fresh => Self::Fresh,
            Reuse::App => Self::App,
        }
    }
}

/// What may be done with keys.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Look at them.
    #[default]
    Read,
    /// Look at them and change them.
    Write,
}

/// What must have happened before a change is acknowledged.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It is in memory: it is lost with the node.
    #[default]
    Ephemeral,
    /// It is on disk.
    Durable,
    /// It is in the memory of several nodes of a cluster: it is lost with all of these.
    Replicated,
}

impl From<Access> for model::Access {
    fn from(access: Access) -> Self {
        match access {
            Access::Read => Self::Read,
            Access::Write => Self::Write,
        }
    }
}

impl From<Durability> for model::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Ephemeral => Self::Ephemeral,
            Durability::Durable => Self::Durable,
            Durability::Replicated => Self::Replicated,
        }
    }
}

/// How a function is called.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A component of `wasi:http/proxy` 0.2 or `wasi:http/service` 0.3.
    Http,
    /// A WASI preview-1 module or `wasi:cli` component: body on stdin, reply from stdout.
    Command,
    /// A core module that exports `handle`.
    Reactor,
    /// A program that asks the Lambda Runtime API for its invocations: needs `isolation = "vm"`.
    Lambda,
}

impl From<Kind> for model::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Http => Self::Http,
            Kind::Command => Self::Command,
            Kind::Reactor => Self::Reactor,
            Kind::Lambda => Self::Lambda,
        }
    }
}

/// Resource limits, with their units in their names.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Wall-clock time of one invocation, in milliseconds (default 30000).
    #[schemars(range(min = 1, max = 86_400_000))]
    pub deadline_ms: Option<u64>,
    /// Memory of one sandbox, in bytes (default 256 MiB).
    #[schemars(range(min = 65_536, max = 4_294_901_760u64))]
    pub memory_bytes_max: Option<u64>,
    /// Request body of a command or reactor, in bytes (default 6 MiB).
    #[schemars(range(max = 1_073_741_824))]
    pub input_bytes_max: Option<u64>,
    /// Reply body, in bytes (default 6 MiB).
    #[schemars(range(max = 1_073_741_824))]
    pub output_bytes_max: Option<u64>,
    /// Captured output of one invocation, in bytes (default 256 KiB).
    #[schemars(range(max = 67_108_864))]
    pub log_bytes_max: Option<u64>,
    /// Invocations that run at once (default 64).
    #[schemars(range(min = 1, max = 65_536))]
    pub concurrency_max: Option<u32>,
    /// Invocations that wait for a place (default 1024).
    #[schemars(range(max = 1_048_576))]
    pub queue_max: Option<u32>,
    /// How long an idle sandbox is kept, in milliseconds (default 60000).
    #[schemars(range(max = 86_400_000))]
    pub keep_alive_ms: Option<u64>,
    /// Bytes that one invocation may write to files of its own (default 64 MiB).
    #[schemars(range(max = 4_294_967_296u64))]
    pub files_bytes_max: Option<u64>,
    /// Files, directories and links that one invocation may make (default 16384).
    #[schemars(range(max = 1_048_576))]
    pub files_max: Option<u32>,
    /// Attempts of an asynchronous invocation before it is a dead letter (default 3).
    #[schemars(range(min = 1, max = 100))]
    pub attempts_max: Option<u32>,
    /// Threads of a Linux program in a micro-VM that run at once (default 1).
    #[schemars(range(min = 1, max = 8))]
    pub processors_max: Option<u32>,
}

impl Limits {
    /// These limits, and those of `base` where none is written.
    pub fn over(self, base: model::Limits) -> model::Limits {
        model::Limits {
            deadline_ms: self.deadline_ms.unwrap_or(base.deadline_ms),
            memory_bytes_max: self.memory_bytes_max.unwrap_or(base.memory_bytes_max),
            input_bytes_max: self.input_bytes_max.unwrap_or(base.input_bytes_max),
            output_bytes_max: self.output_bytes_max.unwrap_or(base.output_bytes_max),
            log_bytes_max: self.log_bytes_max.unwrap_or(base.log_bytes_max),
            concurrency_max: self.concurrency_max.unwrap_or(base.concurrency_max),
            queue_max: self.queue_max.unwrap_or(base.queue_max),
            keep_alive_ms: self.keep_alive_ms.unwrap_or(base.keep_alive_ms),
            files_bytes_max: self.files_bytes_max.unwrap_or(base.files_bytes_max),
            files_max: self.files_max.unwrap_or(base.files_max),
            attempts_max: self.attempts_max.unwrap_or(base.attempts_max),
            processors_max: self.processors_max.unwrap_or(base.processors_max),
        }
    }
}
