//! Groups and sums JSON records: a question and rows on stdin, one JSON object on stdout.
//!
//! ```json
//! {"by": "city", "sum": "amount", "rows": [{"city": "Bergen", "amount": 3}, …]}
//! ```
//!
//! gives `{"Bergen": {"count": 1, "sum": 3.0, "mean": 3.0}, …}`, in the order of the keys.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    by: String,
    sum: String,
    rows: Vec<Map<String, Value>>,
}

#[derive(Default, Serialize)]
struct Group {
    count: u64,
    sum: f64,
    mean: f64,
}

fn main() -> ExitCode {
    match answer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rollup: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer() -> Result<(), Box<dyn std::error::Error>> {
    let question: Question = serde_json::from_reader(io::stdin().lock())?;
    let mut reply = BufWriter::new(io::stdout().lock());
    serde_json::to_writer(&mut reply, &roll_up(&question)?)?;
    reply.write_all(b"\n")?;
    reply.flush()?;
    Ok(())
}

fn roll_up(question: &Question) -> Result<BTreeMap<String, Group>, String> {
    let mut groups = BTreeMap::<String, Group>::new();
    for (index, row) in question.rows.iter().enumerate() {
        let key = match row.get(&question.by) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => return Err(format!("row {index} has no field {:?}", question.by)),
        };
        let amount = row
            .get(&question.sum)
            .and_then(Value::as_f64)
            .ok_or_else(|| format!("row {index} has no number in field {:?}", question.sum))?;
        let group = groups.entry(key).or_default();
        group.count += 1;
        group.sum += amount;
    }
    for group in groups.values_mut() {
        group.mean = group.sum / group.count as f64;
    }
    Ok(groups)
}
