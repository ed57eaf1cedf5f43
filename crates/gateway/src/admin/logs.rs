//! What guests print: the last lines, and each new one.

use std::convert::Infallible;

use api::Problem;
use api::v1::{LogLine, LogStream, Logs};
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use metering::{LogFilter, LogItem, LogRecord};

use super::AdminState;
use super::extract::{Json, Query};
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

/// What guests printed. Lines are kept in memory, within bounds, and do not outlive the node.
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
    let tail = wanted.tail.unwrap_or(TAIL);
    if !wanted.follow {
        let lines = shared.logs.tail(&filter, tail);
        let lines = lines.iter().map(|record| line(record)).collect();
        return Ok(Json(Logs { lines }).into_response());
    }
    let events = shared.logs.follow(filter, tail).map(|item| {
        let line = match item {
            LogItem::Record(record) => line(&record),
            LogItem::Lagged(count) => dropped(count),
        };
        let json = serde_json::to_string(&line).unwrap_or_default();
        Ok::<_, Infallible>(Event::default().event("log").data(json))
    });
    let events = events.take_until(shared.stop.clone().cancelled_owned());
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response())
}

fn line(record: &LogRecord) -> LogLine {
    LogLine {
        unix_ms: record.unix_ms,
        app: record.path.app.to_string(),
        function: record.path.function.to_string(),
        invocation: record.invocation.to_string(),
        stream: stream(record.stream),
        text: record.text.clone(),
    }
}

const fn stream(stream: sandbox::LogStream) -> LogStream {
    match stream {
        sandbox::LogStream::Stdout => LogStream::Stdout,
        sandbox::LogStream::Stderr => LogStream::Stderr,
        sandbox::LogStream::Log(0) => LogStream::Error,
        sandbox::LogStream::Log(1) => LogStream::Warn,
        sandbox::LogStream::Log(2) => LogStream::Info,
        sandbox::LogStream::Log(_) => LogStream::Debug,
    }
}

fn dropped(count: u64) -> LogLine {
    LogLine {
        unix_ms: unix_ms(),
        app: String::new(),
        function: String::new(),
        invocation: String::new(),
        stream: LogStream::Dropped,
        text: format!("{count} lines were dropped: this reader is too slow"),
    }
}
