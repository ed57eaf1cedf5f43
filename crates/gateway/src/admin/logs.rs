//! What guests print: the last lines, and each new one.

use std::convert::Infallible;

use api::Problem;
use api::v1::{LogLine, LogStream, Logs};
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::{StreamExt as _, stream};
use metering::{LogFilter, LogItem, LogRecord};
use model::NodeId;

use super::AdminState;
use super::extract::{Json, Query};
use crate::cluster::{LogsElsewhere, LogsWanted};
use crate::failure::Failure;
use crate::span::unix_ms;

/// Lines unless asked otherwise.
const TAIL: usize = 100;

/// Which lines.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
pub(super) struct Wanted {
    /// Of this app.
    app: Option<String>,
    /// Of functions of this name.
    function: Option<String>,
    /// Of this invocation.
    invocation: Option<String>,
    /// How many of the last lines; 100 unless set.
    tail: Option<usize>,
    /// Go on with each new line, as server-sent events named `log`, until the client leaves.
    #[serde(default)]
    follow: bool,
}

/// What guests printed, on every node of the cluster. Lines are kept in memory, within bounds, and
/// do not outlive their node.
#[utoipa::path(get, path = "/v1/logs", operation_id = "logs", tag = "logs", params(Wanted),
    responses((status = 200, content((Logs = "application/json"),
        (LogLine = "text/event-stream"))), (status = 400, body = Problem)))]
pub(super) async fn logs(
    State(shared): AdminState,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Failure> {
    let filter = LogFilter {
        app: wanted.app.as_deref().map(str::parse).transpose()?,
        function: wanted.function.as_deref().map(str::parse).transpose()?,
        invocation: wanted
            .invocation
            .as_deref()
            .map(super::invocations::id)
            .transpose()?,
    };
    let wanted = LogsWanted {
        filter,
        tail: wanted.tail.unwrap_or(TAIL),
        follow: wanted.follow,
    };
    let (old, new) = shared.logs.follow(wanted.filter.clone(), wanted.tail);
    let elsewhere = match &shared.caller.cluster {
        Some(cluster) => cluster.logs(&wanted).await,
        None => LogsElsewhere::none(),
    };
    let here = elsewhere.here.map(|node| node.to_string());
    let own = move |line: LogLine| LogLine {
        node: here.clone(),
        ..line
    };
    let old = old.iter().map(|record| own(log_line(record)));
    let mut lines: Vec<_> = old.chain(elsewhere.lines).collect();
    // Of one moment, the order in which each node said them stays.
    lines.sort_by_key(|line| line.unix_ms);
    let lines = lines.split_off(lines.len().saturating_sub(wanted.tail));
    if !wanted.follow {
        let silent = elsewhere.silent.iter().map(ToString::to_string).collect();
        return Ok(Json(Logs { lines, silent }).into_response());
    }
    let silent = elsewhere.silent.into_iter().map(silent);
    let old = stream::iter(silent.chain(lines));
    let new = stream::select(new.map(log_line_of).map(own), elsewhere.new);
    let events = old.chain(new).map(|line| {
        let json = serde_json::to_string(&line).unwrap_or_default();
        Ok::<_, Infallible>(Event::default().event("log").data(json))
    });
    let events = events.take_until(shared.stop.clone().cancelled_owned());
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response())
}

/// A record as it is told.
pub fn log_line(record: &LogRecord) -> LogLine {
    LogLine {
        unix_ms: record.unix_ms,
        app: record.path.app.to_string(),
        function: record.path.function.to_string(),
        invocation: record.invocation.to_string(),
        stream: stream_of(record.stream),
        text: record.text.clone(),
        node: None,
    }
}

/// What a follower reads, as it is told.
pub fn log_line_of(item: LogItem) -> LogLine {
    match item {
        LogItem::Record(record) => log_line(&record),
        LogItem::Lagged(count) => missing(format!(
            "{count} lines were dropped: this reader is too slow"
        )),
    }
}

const fn stream_of(stream: sandbox::LogStream) -> LogStream {
    match stream {
        sandbox::LogStream::Stdout => LogStream::Stdout,
        sandbox::LogStream::Stderr => LogStream::Stderr,
        sandbox::LogStream::Log(0) => LogStream::Error,
        sandbox::LogStream::Log(1) => LogStream::Warn,
        sandbox::LogStream::Log(2) => LogStream::Info,
        sandbox::LogStream::Log(_) => LogStream::Debug,
    }
}

fn silent(node: NodeId) -> LogLine {
    LogLine {
        node: Some(node.to_string()),
        ..missing("it does not answer: what ran there is missing".to_owned())
    }
}

fn missing(text: String) -> LogLine {
    LogLine {
        unix_ms: unix_ms(),
        app: String::new(),
        function: String::new(),
        invocation: String::new(),
        stream: LogStream::Dropped,
        text,
        node: None,
    }
}
