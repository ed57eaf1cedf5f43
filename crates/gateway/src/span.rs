//! The one span of an invocation, and the clock that its id is taken from.
//!
//! The span is of its own target, so that a node which neither exports traces nor asks for these
//! spans in its log pays nothing for them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use invoker::Target;
use model::{InvocationId, Outcome, TraceParent};
use sandbox::{Body, BodyError};
use tracing::Span;
use tracing::field::{Empty, display};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::trace::{place_of, remote_context};

/// The target of invocation spans: a filter on it turns them on and off.
pub const INVOCATION_TARGET: &str = "dunlin::invocation";

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// The span of one invocation; does nothing where nobody listens.
#[derive(Debug)]
pub struct InvocationSpan(Span);

impl InvocationSpan {
    /// The span of a call that came over HTTP.
    pub(crate) fn new(id: InvocationId, target: &Target, asked: Option<&TraceParent>) -> Self {
        Self::begin(id, target, "http", asked)
    }

    /// The span of one attempt of a call that was accepted earlier.
    pub fn of_queue(id: InvocationId, target: &Target, asked: Option<&TraceParent>) -> Self {
        Self::begin(id, target, "pubsub", asked)
    }

    /// The span of a call that another function makes.
    pub fn of_call(id: InvocationId, target: &Target, caller: &TraceParent) -> Self {
        Self::begin(id, target, "other", Some(caller))
    }

    fn begin(
        id: InvocationId,
        target: &Target,
        trigger: &'static str,
        asked: Option<&TraceParent>,
    ) -> Self {
        let span = tracing::info_span!(
            target: INVOCATION_TARGET,
            "invocation",
            otel.name = %target.path,
            otel.kind = match trigger {
                "http" => "server",
                "pubsub" => "consumer",
                _ => "internal",
            },
            otel.status_code = Empty,
            otel.status_description = Empty,
            faas.trigger = trigger,
            faas.name = %target.path,
            faas.version = %target.version.short(),
            faas.invocation_id = %id,
            faas.coldstart = Empty,
            http.response.status_code = Empty,
            dunlin.start = Empty,
            dunlin.cpu_us = Empty,
            dunlin.memory_peak_bytes = Empty,
        );
        if let Some(asked) = asked.filter(|_| !span.is_disabled())
            && let Err(error) = span.set_parent(remote_context(asked))
        {
            tracing::debug!(%error, "a span could not join its caller's trace");
        }
        Self(span)
    }

    /// The span, to run the call in.
    pub fn span(&self) -> Span {
        self.0.clone()
    }

    /// Where the invocation stands in a trace: where its exporter says, else below what the caller
    /// said, else at the root of a trace of its own.
    pub fn trace(&self, id: InvocationId, asked: Option<&TraceParent>) -> TraceParent {
        let exported = place_of(&self.0);
        let below = || asked.map(|asked| asked.child());
        exported
            .or_else(below)
            .unwrap_or_else(|| TraceParent::root(id))
    }

    /// Notes how the call ended.
    pub fn ended(&self, outcome: &Outcome) {
        if self.0.is_disabled() {
            return;
        }
        self.0
            .record("faas.coldstart", outcome.start == model::StartKind::Cold);
        self.0.record("dunlin.start", outcome.start.as_str());
        self.0.record("dunlin.cpu_us", outcome.usage.cpu_us);
        self.0
            .record("dunlin.memory_peak_bytes", outcome.usage.memory_peak_bytes);
        if !outcome.status.is_ok() {
            self.0.record("otel.status_code", "ERROR");
            self.0
                .record("otel.status_description", display(&outcome.status));
        }
    }

    pub(crate) fn answered(&self, status: StatusCode) {
        if !self.0.is_disabled() {
            self.0.record("http.response.status_code", status.as_u16());
        }
    }

    /// A body that ends the span when it is sent or dropped.
    pub(crate) fn held_by(&self, body: Body) -> Body {
        if self.0.is_disabled() {
            return body;
        }
        let _span = self.0.clone();
        Held { body, _span }.boxed_unsync()
    }
}

struct Held {
    body: Body,
    _span: Span,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
