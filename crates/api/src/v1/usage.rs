//! What functions used, and what that costs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Prices, in the currency that is named.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Price {
    /// The currency's code.
    pub currency: String,
    /// Price of a million invocations.
    pub per_million_invocations: f64,
    /// Price of a GB-second.
    pub per_gb_s: f64,
    /// Price of a second of processor time.
    #[serde(default)]
    pub per_cpu_s: f64,
    /// Price of a GB of requests.
    #[serde(default)]
    pub per_input_gb: f64,
    /// Price of a GB of replies.
    #[serde(default)]
    pub per_output_gb: f64,
}

/// What one function used over the range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageRow {
    /// App.
    pub app: String,
    /// Function.
    pub function: String,
    /// Invocations.
    pub invocations: u64,
    /// Those of them that gave no reply.
    pub failures: u64,
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// Billed wall-clock time, in milliseconds.
    pub wall_ms: u64,
    /// Largest memory of one invocation, in bytes.
    pub memory_peak_bytes: u64,
    /// Billed memory × time, in GB-seconds.
    pub gb_s: f64,
    /// Request bytes.
    pub input_bytes: u64,
    /// Reply bytes.
    pub output_bytes: u64,
    /// Captured log bytes.
    pub log_bytes: u64,
    /// What it costs by the node's price list.
    pub cost: f64,
}

/// Usage per function over a range of days.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageReport {
    /// First day, `YYYY-MM-DD`, UTC.
    pub from: String,
    /// Last day, inclusive.
    pub to: String,
    /// The price list.
    pub price: Price,
    /// The functions, by app and name.
    pub functions: Vec<UsageRow>,
    /// The sum of all costs.
    pub cost: f64,
}
