//! Apps, functions, versions, aliases and deploys.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Settings;

/// How a function takes its request and gives its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A component of `wasi:http/proxy` 0.2 or `wasi:http/service` 0.3.
    Http,
    /// A WASI preview-1 module or `wasi:cli` component.
    Command,
    /// A core module that exports `handle`.
    Reactor,
    /// A program that asks the Lambda Runtime API for its invocations.
    Lambda,
}

impl From<model::Kind> for Kind {
    fn from(kind: model::Kind) -> Self {
        match kind {
            model::Kind::Http => Self::Http,
            model::Kind::Command => Self::Command,
            model::Kind::Reactor => Self::Reactor,
            model::Kind::Lambda => Self::Lambda,
        }
    }
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

/// An app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct App {
    /// Its name.
    pub name: String,
    /// How many functions it has.
    pub functions: usize,
}

/// All apps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Apps {
    /// The apps, by name.
    pub apps: Vec<App>,
}

/// An uploaded artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Artifact {
    /// Its digest, `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
}

/// Digests of contents that may be there already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesAsked {
    /// The digests, at most 10,000.
    pub digests: Vec<String>,
}

/// Digests of contents that are not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FilesMissing {
    /// The digests, in the order that they were asked for.
    pub missing: Vec<String>,
}

/// What to deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// The kind of function.
    pub kind: Kind,
    /// Digest of an uploaded artifact.
    pub artifact: String,
    /// Arguments, environment and limits.
    #[serde(default)]
    pub settings: Settings,
    /// The alias that is moved to the new version; `live` unless set. The first deploy of a
    /// function moves `live` as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Path prefixes that lead to the function, beside `/APP/FUNCTION`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
}

/// What a deploy made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deployed {
    /// App.
    pub app: String,
    /// Function.
    pub function: String,
    /// Digest of the version.
    pub version: String,
    /// The alias that points at it now.
    pub alias: String,
    /// Whether its compiled form was in the cache.
    pub cached: bool,
    /// Bytes of compiled code.
    pub code_bytes: u64,
    /// Bytes of the frozen image.
    pub image_bytes: u64,
    /// How long checking, compiling and initialising took, in milliseconds.
    pub prepare_ms: u64,
    /// What else is to be known of it, such as why its calls do not go on from a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Function {
    /// App.
    pub app: String,
    /// Name.
    pub name: String,
    /// Kind of its live version.
    pub kind: Kind,
    /// Digest of the version that `live` points at with the largest weight.
    pub live: String,
    /// How many versions are kept.
    pub versions: usize,
    /// Its aliases, by name.
    pub aliases: Vec<Alias>,
    /// When it was last deployed, in milliseconds since 1970.
    pub deployed_unix_ms: u64,
}

/// Functions of one app or of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Functions {
    /// The functions, by app and name.
    pub functions: Vec<Function>,
}

/// An immutable version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Its name: the digest of kind, artifact and settings.
    pub digest: String,
    /// Kind.
    pub kind: Kind,
    /// Digest of its artifact.
    pub artifact: String,
    /// Its settings.
    pub settings: Settings,
    /// When it was last deployed, in milliseconds since 1970.
    pub deployed_unix_ms: u64,
    /// Names of the aliases that point at it.
    pub aliases: Vec<String>,
}

/// The versions of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Versions {
    /// The versions, the latest first.
    pub versions: Vec<Version>,
}

/// One target of an alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Digest of the version.
    pub version: String,
    /// Share of the invocations, out of the sum of all weights of the alias.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub weight: u32,
}

/// A movable, weighted pointer at versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alias {
    /// Its name.
    pub name: String,
    /// Where it points.
    pub targets: Vec<Target>,
}

/// Where an alias is to point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AliasSet {
    /// Where it points.
    pub targets: Vec<Target>,
}

/// Which alias goes back to where it pointed before: `live`, which alone remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rollback {
    /// The alias; `live` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
}
