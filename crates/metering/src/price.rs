//! What usage costs. Pure.

use model::FunctionPath;
use serde::{Deserialize, Serialize};

use crate::{Day, Totals};

/// Prices by unit. All are 0 unless configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PriceList {
    /// What prices are in, such as `EUR`; shown, never interpreted.
    pub currency: String,
    /// A million invocations.
    pub million_invocations: f64,
    /// A GB-second of memory × wall-clock time (GB = 2^30 bytes).
    pub gb_second: f64,
    /// A second of processor time.
    pub cpu_second: f64,
    /// 2^30 bytes of requests.
    pub input_gb: f64,
    /// 2^30 bytes of replies.
    pub output_gb: f64,
}

const GB: f64 = (1u64 << 30) as f64;

impl PriceList {
    /// What `totals` cost.
    pub fn cost(&self, totals: &Totals) -> f64 {
        let usage = &totals.usage;
        totals.invocations as f64 / 1e6 * self.million_invocations
            + usage.gb_s() * self.gb_second
            + usage.cpu_us as f64 / 1e6 * self.cpu_second
            + usage.input_bytes as f64 / GB * self.input_gb
            + usage.output_bytes as f64 / GB * self.output_gb
    }
}

/// The usage of one function on one day.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportLine {
    /// The day, in UTC.
    pub day: Day,
    /// The function, over all its versions.
    pub path: FunctionPath,
    /// What it used.
    pub totals: Totals,
    /// What that costs.
    pub cost: f64,
}

/// Usage over some days.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// By day, then function.
    pub lines: Vec<ReportLine>,
    /// The sum of all lines.
    pub totals: Totals,
    /// What that costs.
    pub cost: f64,
    /// What costs are in.
    pub currency: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Usage;

    #[test]
    fn each_unit_has_its_price() {
        let totals = Totals {
            invocations: 2_000_000,
            usage: Usage {
                cpu_us: 3_000_000,
                memory_kib_ms: (1 << 20) * 1000 * 5,
                input_bytes: 7 << 30,
                output_bytes: 11 << 30,
                ..Usage::default()
            },
            ..Totals::default()
        };
        let prices = PriceList {
            currency: "EUR".to_owned(),
            million_invocations: 1.0,
            gb_second: 10.0,
            cpu_second: 100.0,
            input_gb: 1000.0,
            output_gb: 10_000.0,
        };
        assert!((prices.cost(&totals) - 117_352.0).abs() < 1e-6);
        assert!(PriceList::default().cost(&totals).abs() < f64::EPSILON);
    }
}
