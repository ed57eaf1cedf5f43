//! What functions used, and what that costs.

use std::collections::BTreeMap;

use api::v1::{Price, UsageReport, UsageRow};
use api::{Code, Problem};
use axum::extract::State;
use metering::{Day, DayError, PriceList, ReportLine};
use model::FunctionPath;

use super::AdminState;
use super::extract::{Json, Query};
use crate::failure::Failure;

/// Which days.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
pub(super) struct Days {
    /// First day, `YYYY-MM-DD` in UTC; today unless set.
    from: Option<String>,
    /// Last day, inclusive; today unless set.
    to: Option<String>,
}

/// Usage per function over a range of days.
#[utoipa::path(get, path = "/v1/usage", operation_id = "usage", tag = "usage", params(Days),
    responses((status = 200, body = UsageReport), (status = 400, body = Problem)))]
pub(super) async fn usage(
    State(shared): AdminState,
    Query(days): Query<Days>,
) -> Result<Json<UsageReport>, Failure> {
    let day = |text: Option<String>| match text {
        None => Ok(Day::today()),
        Some(text) => text
            .parse::<Day>()
            .map_err(|error: DayError| Failure::new(Code::BadRequest, error.to_string())),
    };
    let (from, to) = (day(days.from)?, day(days.to)?);
    if from > to {
        return Err(Failure::new(
            Code::BadRequest,
            format!("{from} is after {to}"),
        ));
    }
    let report = shared.ledger.report(from..=to, &shared.prices);
    let mut rows: BTreeMap<FunctionPath, UsageRow> = BTreeMap::new();
    for line in report.lines {
        match rows.get_mut(&line.path) {
            Some(sum) => add(sum, &line),
            None => {
                rows.insert(line.path.clone(), row(&line));
            }
        }
    }
    Ok(Json(UsageReport {
        from: from.to_string(),
        to: to.to_string(),
        price: price(&shared.prices),
        functions: rows.into_values().collect(),
        cost: report.cost,
    }))
}

fn row(line: &ReportLine) -> UsageRow {
    let usage = &line.totals.usage;
    UsageRow {
        app: line.path.app.to_string(),
        function: line.path.function.to_string(),
        invocations: line.totals.invocations,
        failures: line.totals.failed,
        cpu_us: usage.cpu_us,
        wall_ms: usage.wall_ms,
        memory_peak_bytes: usage.memory_peak_bytes,
        gb_s: usage.gb_s(),
        input_bytes: usage.input_bytes,
        output_bytes: usage.output_bytes,
        log_bytes: usage.log_bytes,
        cost: line.cost,
    }
}

fn add(sum: &mut UsageRow, line: &ReportLine) {
    let more = row(line);
    sum.invocations += more.invocations;
    sum.failures += more.failures;
    sum.cpu_us += more.cpu_us;
    sum.wall_ms += more.wall_ms;
    sum.memory_peak_bytes = sum.memory_peak_bytes.max(more.memory_peak_bytes);
    sum.gb_s += more.gb_s;
    sum.input_bytes += more.input_bytes;
    sum.output_bytes += more.output_bytes;
    sum.log_bytes += more.log_bytes;
    sum.cost += more.cost;
}

fn price(prices: &PriceList) -> Price {
    Price {
        currency: prices.currency.clone(),
        per_million_invocations: prices.million_invocations,
        per_gb_s: prices.gb_second,
        per_cpu_s: prices.cpu_second,
        per_input_gb: prices.input_gb,
        per_output_gb: prices.output_gb,
    }
}
