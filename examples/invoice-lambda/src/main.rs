//! Adds up an order, with the value-added tax of where it goes: a Lambda function as its authors
//! write them, with AWS's own runtime crate. Nothing of it knows Dunlin.

use std::collections::HashMap;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde::{Deserialize, Serialize};

/// Standard rates of value-added tax, in per mille.
const RATES: &str = "at 200 be 210 de 190 dk 250 es 210 fi 255 fr 200 ie 230 it 220 nl 210 pl 230 se 250";

#[derive(Deserialize)]
struct Order {
    country: String,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    cents: u64,
    count: u64,
}

#[derive(Serialize)]
struct Invoice {
    net_cents: u64,
    tax_cents: u64,
    total_cents: u64,
    request: String,
}

fn rates() -> HashMap<&'static str, u64> {
    let words: Vec<_> = RATES.split(' ').collect();
    let pairs = words.chunks(2).filter_map(|pair| Some((pair[0], pair[1].parse().ok()?)));
    pairs.collect()
}

fn invoice(rates: &HashMap<&str, u64>, event: LambdaEvent<Order>) -> Result<Invoice, Error> {
    let (order, context) = event.into_parts();
    let rate = rates.get(order.country.as_str());
    let rate = rate.ok_or_else(|| format!("no rate is known for `{}`", order.country))?;
    let sum = |sum: u64, line: &Line| sum.checked_add(line.cents.checked_mul(line.count)?);
    let net = order.lines.iter().try_fold(0, sum);
    let net = net.filter(|net| *net <= 1 << 50).ok_or("the order is too large")?;
    let tax = (net * rate + 500) / 1000;
    println!("an order to {} of {net} cents", order.country);
    Ok(Invoice {
        net_cents: net,
        tax_cents: tax,
        total_cents: net + tax,
        request: context.request_id,
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let rates = &rates();
    run(service_fn(async |event| invoice(rates, event))).await
}
