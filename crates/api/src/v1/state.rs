//! State of an app: values by key.

use model::Durability;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is known of one value, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateValue {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub size: u64,
    /// Its version: each change gives it a greater one, and none comes twice.
    pub version: u64,
    /// `ephemeral` (in memory only) or `durable` (on disk as well).
    #[schema(value_type = String, example = "durable")]
    pub durability: Durability,
    /// When it ends, in milliseconds since 1970; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_unix_ms: Option<u64>,
}

/// A page of an app's values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateValues {
    /// The values, in the order of their keys.
    pub values: Vec<StateValue>,
    /// What to ask for with `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A value changed: the data of an event named `change`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateChange {
    /// Its key.
    pub key: String,
    /// Its version now; of one that is gone, the last that it had.
    pub version: u64,
    /// Whether it is gone.
    pub deleted: bool,
}

/// Changes were missed at this point, as the reader is too slow: the data of an event named
/// `missed`. What matters is to be read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateMissed {
    /// How many.
    pub missed: u64,
}
