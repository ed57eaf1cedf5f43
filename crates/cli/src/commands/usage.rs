//! `dunlin usage`: what functions used, and what that costs.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use api::v1::{Price, UsageReport};
use clap::Args;
use metering::PriceList;

use crate::args::Node;
use crate::connect;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Output, note};
use crate::table::{Table, bytes, micros};

/// Longest price list, in bytes.
const PRICES_BYTES_MAX: u64 = 64 << 10;

/// Arguments of `dunlin usage`.
#[derive(Debug, Args)]
pub struct Usage {
    /// First day, in UTC
    #[arg(long, value_name = "YYYY-MM-DD")]
    since: Option<Day>,
    /// Last day, in UTC
    #[arg(long, value_name = "YYYY-MM-DD")]
    until: Option<Day>,
    /// Price list to use instead of the node's: TOML with currency, million_invocations, gb_second,
    /// cpu_second, input_gb, output_gb
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    #[command(flatten)]
    node: Node,
}

/// A day as it is written in the API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Day(String);

impl FromStr for Day {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('-').collect();
        let digits = |part: &str, width, least, most| {
            let number = part
                .parse::<u32>()
                .ok()
                .filter(|n| (least..=most).contains(n));
            part.len() == width && part.bytes().all(|b| b.is_ascii_digit()) && number.is_some()
        };
        match parts[..] {
            [year, month, day]
                if digits(year, 4, 1970, 9999)
                    && digits(month, 2, 1, 12)
                    && digits(day, 2, 1, 31) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err("write a day as YYYY-MM-DD"),
        }
    }
}

impl Usage {
    /// Shows usage per function and the sum of its costs.
    pub fn run(self, out: Output) -> Outcome {
        if self.since.is_some() && self.until.is_some() && self.since > self.until {
            return Err(
                Failure::new(Exit::Usage, "--since is after --until").next("exchange the two days")
            );
        }
        let prices = self.prices.as_deref().map(prices).transpose()?;
        connect::with(&self.node, async |client| {
            let (from, to) = (self.since.map(|day| day.0), self.until.map(|day| day.0));
            let mut report = client.usage(from, to).await?;
            if let Some(prices) = prices {
                price(&mut report, prices);
            }
            let exit = out.show(&report, || table(&report))?;
            if out.is_for_people() {
                let cost = format!("{:.6} {}", report.cost, report.price.currency);
                note(&format!(
                    "{} to {}: {}",
                    report.from,
                    report.to,
                    cost.trim_end()
                ));
            }
            Ok(exit)
        })
    }
}

/// Works the costs out again by another price list.
fn price(report: &mut UsageReport, prices: PriceList) {
    for row in &mut report.functions {
        row.cost = row.invocations as f64 / 1e6 * prices.million_invocations
            + row.gb_s * prices.gb_second
            + row.cpu_us as f64 / 1e6 * prices.cpu_second
            + row.input_bytes as f64 / GB * prices.input_gb
            + row.output_bytes as f64 / GB * prices.output_gb;
    }
    report.cost = report.functions.iter().map(|row| row.cost).sum();
    report.price = Price {
        currency: prices.currency,
        per_million_invocations: prices.million_invocations,
        per_gb_s: prices.gb_second,
        per_cpu_s: prices.cpu_second,
        per_input_gb: prices.input_gb,
        per_output_gb: prices.output_gb,
    };
}

/// 2^30 bytes, as everywhere in usage.
const GB: f64 = (1_u64 << 30) as f64;

fn prices(file: &Path) -> Result<PriceList, Failure> {
    let shown = file.display();
    let meta = std::fs::metadata(file).with_context(|| format!("reading {shown}"))?;
    let refuse = |reason: String| {
        Failure::new(
            Exit::Refused,
            format!("{shown} is not a price list: {reason}"),
        )
        .next("docs/cli.md shows one")
    };
    if meta.len() > PRICES_BYTES_MAX {
        return Err(refuse(format!(
            "it is longer than {PRICES_BYTES_MAX} bytes"
        )));
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {shown}"))?;
    let list: PriceList =
        toml::from_str(&text).map_err(|error| refuse(error.message().to_owned()))?;
    let numbers = [
        list.million_invocations,
        list.gb_second,
        list.cpu_second,
        list.input_gb,
        list.output_gb,
    ];
    if numbers
        .iter()
        .any(|price| !price.is_finite() || *price < 0.0)
    {
        return Err(refuse("a price is negative or not a number".into()));
    }
    if list.currency.is_empty() {
        return Err(refuse("it has no currency".into()));
    }
    Ok(list)
}

fn table(report: &UsageReport) -> Table {
    let mut table = Table::new(&[
        "FUNCTION", ">CALLS", ">FAILED", ">CPU", ">BILLED", ">PEAK", ">GB-S", ">IN", ">OUT",
        ">COST",
    ]);
    for row in &report.functions {
        table.row([
            format!("{}/{}", row.app, row.function),
            row.invocations.to_string(),
            row.failures.to_string(),
            micros(row.cpu_us),
            micros(row.wall_ms.saturating_mul(1000)),
            bytes(row.memory_peak_bytes),
            format!("{:.6}", row.gb_s),
            bytes(row.input_bytes),
            bytes(row.output_bytes),
            format!("{:.6}", row.cost),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::v1::UsageRow;

    fn report() -> UsageReport {
        let row = UsageRow {
            app: "a".into(),
            function: "f".into(),
            invocations: 2_000_000,
            failures: 0,
            cpu_us: 0,
            wall_ms: 0,
            memory_peak_bytes: 0,
            gb_s: 10.0,
            input_bytes: 0,
            output_bytes: 0,
            log_bytes: 0,
            cost: 0.0,
        };
        UsageReport {
            from: "2026-01-01".into(),
            to: "2026-01-31".into(),
            price: Price {
                currency: "USD".into(),
                per_million_invocations: 0.0,
                per_gb_s: 0.0,
                per_cpu_s: 0.0,
                per_input_gb: 0.0,
                per_output_gb: 0.0,
            },
            functions: vec![row.clone(), row],
            cost: 0.0,
        }
    }

    #[test]
    fn another_price_list_gives_other_costs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "currency = \"EUR\"\nmillion_invocations = 0.5\ngb_second = 0.1\n";
        std::fs::write(file.path(), text).unwrap();
        let mut report = report();
        price(&mut report, prices(file.path()).unwrap());
        assert_eq!(report.price.currency, "EUR");
        assert!((report.functions[0].cost - 2.0).abs() < 1e-9);
        assert!((report.cost - 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_bad_price_list_is_refused() {
        for text in [
            "",
            "currency = 1",
            "currency = \"E\"\ngb_second = nan",
            "currency = \"E\"\ngb_seconds = 1.0",
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let failure = prices(file.path()).expect_err(text);
            assert_eq!(failure.exit, Exit::Refused, "{text}");
        }
    }

    #[test]
    fn days_are_written_in_one_way() {
        assert!("2026-01-31".parse::<Day>().is_ok());
        for text in [
            "",
            "2026-1-1",
            "2026-13-01",
            "2026-01-32",
            "26-01-01",
            "2026-01-01-",
        ] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
    }
}
