//! Settings of a function, as they are sent.

use std::collections::BTreeMap;

use model::{Access, Durability, Isolation, LAYERS_MAX, NEAR_MAX, Reuse, Snapshot};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a deploy may set beside the artifact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// Environment of the guest; nothing is inherited from the node.
    pub env: BTreeMap<String, String>,
    /// Resource limits.
    pub limits: Limits,
    /// What the function is granted beyond its sandbox; nothing by default.
    pub allow: Grants,
    /// `fresh` (the default): each invocation has a sandbox equal to its image; `app`: a reactor's
    /// next invocation finds what the last has left.
    #[schema(value_type = String, example = "fresh")]
    pub reuse: Reuse,
    /// Digests of what the artifact, a runtime, loads before it is frozen; at most 4, uploaded as
    /// artifacts are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    /// Digest of an uploaded list of files, which every invocation begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    /// What its sandboxes are made of: `wasm` (the default), `vm`, or `wasm+vm`.
    #[schema(value_type = String, example = "wasm")]
    pub isolation: Isolation,
    /// Whether a Linux program in a micro-VM is frozen where it waits for its calls: `auto` (the
    /// default; if nothing that it has asked by then must differ between calls), `never`, or
    /// `always`.
    #[serde(skip_serializing_if = "Snapshot::is_auto")]
    #[schema(value_type = String, example = "auto")]
    pub snapshot: Snapshot,
    /// Keys of its app's state that it is to run near, at most 8: in a cluster, a call goes to the
    /// node that owns them where they are larger than the call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<String>,
}

/// What a function is granted beyond its sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// Keys of its app's state.
    pub state: Vec<StateGrant>,
    /// Functions that it may call: `FUNCTION`, `APP/FUNCTION`, `APP/*` or `*`.
    pub call: Vec<String>,
    /// Hosts that it may connect to: `HOST[:PORT]`, `*.HOST[:PORT]`, `*[:PORT]` (each with public
    /// addresses), or a private `ADDRESS:PORT`, `NETWORK/BITS:PORT` or `localhost:PORT`.
    #[schema(example = json!(["api.example.com:443"]))]
    pub egress: Vec<String>,
}

/// Keys of an app's state that a function may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StateGrant {
    /// What the keys begin with; empty for all keys.
    pub prefix: String,
    /// `read` (the default) or `write`.
    #[serde(default)]
    #[schema(value_type = String, example = "write")]
    pub access: Access,
    /// `ephemeral` (the default) or `durable`, of keys that the function creates there.
    #[serde(default)]
    #[schema(value_type = String, example = "durable")]
    pub durability: Durability,
}

/// The limits of one function. What is left out has its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Wall-clock time of one invocation, in milliseconds.
    #[schema(example = 30_000)]
    pub deadline_ms: u64,
    /// Linear memory of one sandbox, in bytes.
    #[schema(example = 268_435_456)]
    pub memory_bytes_max: u64,
    /// Request body of a command or reactor, in bytes.
    pub input_bytes_max: u64,
    /// Reply body of one invocation, in bytes.
    pub output_bytes_max: u64,
    /// Captured stdout and stderr of one invocation, in bytes.
    pub log_bytes_max: u64,
    /// Invocations that run at once.
    pub concurrency_max: u32,
    /// Invocations that wait for a place.
    pub queue_max: u32,
    /// How long an idle sandbox is kept, in milliseconds.
    pub keep_alive_ms: u64,
    /// Bytes that one invocation may write to files of its own.
    pub files_bytes_max: u64,
    /// Files, directories and links that one invocation may make.
    pub files_max: u32,
    /// Attempts of an asynchronous invocation.
    pub attempts_max: u32,
    /// Threads of a Linux program that run at once.
    pub processors_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        model::Limits::default().into()
    }
}

impl From<model::Limits> for Limits {
    fn from(from: model::Limits) -> Self {
        let model::Limits {
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
        } = from;
        Self {
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
        }
    }
}

impl From<Limits> for model::Limits {
    fn from(from: Limits) -> Self {
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
        } = from;
        Self {
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
        }
    }
}

impl From<model::Settings> for Settings {
    fn from(from: model::Settings) -> Self {
        let model::Settings {
            args,
            env,
            limits,
            allow,
            reuse,
            layers,
            files,
            isolation,
            snapshot,
            near,
        } = from;
        Self {
            args,
            env,
            limits: limits.into(),
            allow: allow.into(),
            reuse,
            layers: layers.iter().map(ToString::to_string).collect(),
            files: files.map(String::from),
            isolation,
            snapshot,
            near: near.into_iter().map(String::from).collect(),
        }
    }
}

/// Why settings mean nothing: a name is malformed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// A grant is malformed.
    #[error(transparent)]
    Call(#[from] model::CallGrantError),
    /// A grant of hosts is malformed.
    #[error(transparent)]
    Egress(#[from] model::EgressGrantError),
    /// The list of files is named by no digest.
    #[error("a list of files is named by its digest: {0}")]
    Files(model::DigestError),
    /// Grants are too many or too long.
    #[error(transparent)]
    Grants(#[from] model::GrantsError),
    /// A layer is named by no digest.
    #[error("a layer is named by its digest: {0}")]
    Layer(model::DigestError),
    /// There are too many layers.
    #[error("there are more than {LAYERS_MAX} layers")]
    Layers,
    /// A key that it is to run near is none.
    #[error(transparent)]
    Near(#[from] model::NearError),
    /// There are too many of them.
    #[error("`near` names more than {NEAR_MAX} keys")]
    NearMany,
}

impl TryFrom<Settings> for model::Settings {
    type Error = SettingsError;

    fn try_from(from: Settings) -> Result<Self, SettingsError> {
        let Settings {
            args,
            env,
            limits,
            allow,
            reuse,
            layers,
            files,
            isolation,
            snapshot,
            near,
        } = from;
        if near.len() > NEAR_MAX {
            return Err(SettingsError::NearMany);
        }
        let near = near.into_iter().map(model::NearKey::try_from);
        if layers.len() > LAYERS_MAX {
            return Err(SettingsError::Layers);
        }
        let layers = layers.iter().map(|layer| layer.parse());
        let files = files.map(|files| files.parse());
        Ok(Self {
            args,
            env,
            limits: limits.into(),
            allow: allow.try_into()?,
            reuse,
            layers: layers
                .collect::<Result<_, _>>()
                .map_err(SettingsError::Layer)?,
            files: files.transpose().map_err(SettingsError::Files)?,
            isolation,
            snapshot,
            near: near.collect::<Result<_, _>>()?,
        })
    }
}

impl From<model::Grants> for Grants {
    fn from(from: model::Grants) -> Self {
        let model::Grants {
            state,
            call,
            egress,
        } = from;
        Self {
            state: state.into_iter().map(StateGrant::from).collect(),
            call: call.into_iter().map(String::from).collect(),
            egress: egress.into_iter().map(String::from).collect(),
        }
    }
}

impl TryFrom<Grants> for model::Grants {
    type Error = SettingsError;

    fn try_from(from: Grants) -> Result<Self, SettingsError> {
        let Grants {
            state,
            call,
            egress,
        } = from;
        let call: Result<_, _> = call.into_iter().map(model::CallGrant::try_from).collect();
        let egress = egress.into_iter().map(model::EgressGrant::try_from);
        let grants = Self {
            state: state.into_iter().map(model::StateGrant::from).collect(),
            call: call?,
            egress: egress.collect::<Result<_, _>>()?,
        };
        grants.check()?;
        Ok(grants)
    }
}

impl From<model::StateGrant> for StateGrant {
    fn from(from: model::StateGrant) -> Self {
        let model::StateGrant {
            prefix,
            access,
            durability,
        } = from;
        Self {
            prefix,
            access,
            durability,
        }
    }
}

impl From<StateGrant> for model::StateGrant {
    fn from(from: StateGrant) -> Self {
        let StateGrant {
            prefix,
            access,
            durability,
        } = from;
        Self {
            prefix,
            access,
            durability,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_the_default_of_the_model() {
        let settings: Settings = serde_json::from_str("{}").expect("all is optional");
        assert_eq!(
            model::Settings::try_from(settings),
            Ok(model::Settings::default())
        );
    }

    #[test]
    fn keys_to_run_near_are_few_and_keys() {
        let near = |keys: Vec<&str>| Settings {
            near: keys.into_iter().map(str::to_owned).collect(),
            ..Settings::default()
        };
        let read = |keys| model::Settings::try_from(near(keys));
        let settings = read(vec!["model/a", "b"]).expect("keys");
        assert_eq!(Settings::from(settings).near, ["model/a", "b"]);
        assert_eq!(read(vec![""]), Err(SettingsError::Near(model::NearError)));
        assert_eq!(
            read(vec!["a\n"]),
            Err(SettingsError::Near(model::NearError))
        );
        assert_eq!(read(vec!["k"; 9]), Err(SettingsError::NearMany));
    }

    #[test]
    fn unknown_fields_are_refused() {
        for json in [r#"{"arg": []}"#, r#"{"limits": {"deadline": 1}}"#] {
            assert!(serde_json::from_str::<Settings>(json).is_err(), "{json}");
        }
    }
}
