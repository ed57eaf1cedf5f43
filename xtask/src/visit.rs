//! One function visited: deployed through the command line, called over HTTP, its usage read.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use ureq::Agent;

use crate::catalogue::{Body, Entry};
use crate::node::Node;

/// How long one call may take.
const CALL_WAIT_MAX: Duration = Duration::from_secs(60);

/// Largest reply that is read.
const REPLY_BYTES_MAX: u64 = 64 << 20;

/// A client that keeps its connections and takes every status as a reply.
pub fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(CALL_WAIT_MAX))
        .build();
    Agent::new_with_config(config)
}

/// What a function used over all its calls.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Largest linear memory of a call.
    pub memory_peak_bytes: u64,
    /// Billed wall time over all calls.
    pub wall_ms: u64,
    /// Billed memory × time over all calls, in GB-seconds.
    pub gb_s: f64,
}

/// Puts what the function needs in the state of `app` and deploys it there; how long
/// `dunlin deploy` took.
pub fn deploy(root: &Path, node: &Node, app: &str, entry: &Entry) -> Result<Duration> {
    for stored in &entry.state {
        let file = format!("@{}", root.join(&stored.file).display());
        node.cli(&["state", "put", "--durable", app, &stored.key, &file])?;
    }
    let artifact = root.join(&entry.artifact);
    let artifact = artifact
        .to_str()
        .context("the repository's path is not UTF-8")?;
    let start = Instant::now();
    let mut flags = vec![
        "deploy",
        "--app",
        app,
        "--name",
        &entry.name,
        "--kind",
        &entry.kind,
        artifact,
    ];
    let isolation = format!("--isolation={}", entry.isolation);
    flags.push(&isolation);
    flags.extend(entry.grants.iter().map(String::as_str));
    let layers = entry.layers.iter();
    let layers: Vec<_> = layers
        .map(|layer| format!("--layer={}", root.join(layer).display()))
        .collect();
    flags.extend(layers.iter().map(String::as_str));
    node.cli(&flags)?;
    Ok(start.elapsed())
}

/// A request that can be made again and again, and what it must reply.
pub struct Request<'a> {
    entry: &'a Entry,
    url: String,
    body: Vec<u8>,
}

/// The catalogue's request of `entry` for the node that listens at `data`.
pub fn request<'a>(root: &Path, data: &str, app: &str, entry: &'a Entry) -> Result<Request<'a>> {
    let body = match &entry.body {
        Body::Text(text) => text.clone().into_bytes(),
        Body::File(file) => {
            std::fs::read(root.join(file)).with_context(|| format!("reading {file}"))?
        }
    };
    Ok(Request {
        entry,
        url: url(data, app, entry),
        body,
    })
}

/// Calls a function once: how long it took until the whole reply was there, and what is wrong
/// with the reply.
pub fn call(agent: &Agent, request: &Request<'_>) -> Result<(Duration, Option<String>)> {
    let entry = request.entry;
    let message = ureq::http::Request::builder()
        .method(entry.method.as_str())
        .uri(&request.url);
    let message = message
        .body(&request.body[..])
        .context("the catalogue's request")?;
    let start = Instant::now();
    let mut reply = agent.run(message).context("calling")?;
    let body = reply
        .body_mut()
        .with_config()
        .limit(REPLY_BYTES_MAX)
        .read_to_vec();
    let body = body.context("reading the reply")?;
    let time = start.elapsed();
    let status = reply.status().as_u16();
    let fault = match status == entry.status {
        true => entry.reply.fault(&body),
        false => Some(format!(
            "status {status}: {}",
            String::from_utf8_lossy(&body)
        )),
    };
    Ok((time, fault))
}

fn url(data: &str, app: &str, entry: &Entry) -> String {
    let mut url = format!("http://{data}/{app}/{}{}", entry.name, entry.path);
    for arg in &entry.args {
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str("arg=");
        url.push_str(&percent_encoded(arg));
    }
    url
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// What the function used over all its calls, as `dunlin usage` reports it.
pub fn usage(node: &Node, app: &str, entry: &Entry) -> Result<Usage> {
    let report: Value = serde_json::from_slice(&node.cli(&["usage", "--output", "json"])?)?;
    let rows = report["functions"].as_array().into_iter().flatten();
    let mut sum = Usage::default();
    for row in rows.filter(|row| row["app"] == app && row["function"] == entry.name.as_str()) {
        let number = |name: &str| {
            row[name]
                .as_u64()
                .with_context(|| format!("no {name}: {row}"))
        };
        sum.memory_peak_bytes = sum.memory_peak_bytes.max(number("memory_peak_bytes")?);
        sum.wall_ms += number("wall_ms")?;
        sum.gb_s += row["gb_s"]
            .as_f64()
            .with_context(|| format!("no gb_s: {row}"))?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_percent_encoded() {
        assert_eq!(percent_encoded("a b&c=ü"), "a%20b%26c%3D%C3%BC");
    }
}
