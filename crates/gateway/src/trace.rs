//! Trace context as HTTP and exporters see it.

use http::HeaderValue;
use model::TraceParent;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};

/// Length of a version 00 `traceparent`.
const TRACEPARENT_BYTES: usize = 55;

/// The value of the `traceparent` header.
pub fn trace_header(place: &TraceParent) -> HeaderValue {
    let mut bytes = [b'-'; TRACEPARENT_BYTES];
    bytes[..2].copy_from_slice(b"00");
    // The slices are twice as long as the numbers, which is all that these may complain about.
    let _ = hex::encode_to_slice(place.trace.to_be_bytes(), &mut bytes[3..35]);
    let _ = hex::encode_to_slice(place.span.to_be_bytes(), &mut bytes[36..52]);
    let _ = hex::encode_to_slice([place.flags], &mut bytes[53..55]);
    HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static(""))
}

/// A place for exporters.
pub(crate) fn remote_context(place: &TraceParent) -> opentelemetry::Context {
    let span = SpanContext::new(
        TraceId::from_bytes(place.trace.to_be_bytes()),
        SpanId::from_bytes(place.span.to_be_bytes()),
        TraceFlags::new(place.flags),
        true,
        TraceState::default(),
    );
    opentelemetry::Context::new().with_remote_span_context(span)
}

/// The place of a span that an exporter records; none if no exporter is installed.
pub(crate) fn place_of(span: &tracing::Span) -> Option<TraceParent> {
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| TraceParent {
        trace: u128::from_be_bytes(span.trace_id().to_bytes()),
        span: u64::from_be_bytes(span.span_id().to_bytes()),
        flags: span.trace_flags().to_u8(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_text() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let place = TraceParent::parse(text.as_bytes()).expect("well-formed");
        assert_eq!(trace_header(&place), text);
    }
}
