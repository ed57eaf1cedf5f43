//! W3C trace context: read from requests, handed to guests, and sent back.

use model::InvocationId;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};

/// Length of a version 00 `traceparent`.
const TRACEPARENT_BYTES: usize = 55;

/// Where an invocation stands in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceParent {
    /// Reads a `traceparent` header. A malformed one, or one of all zeros, is none: the
    /// specification says to begin a new trace then.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let version = hex_of(header.get(..2)?)?;
        let exact = header.len() == TRACEPARENT_BYTES;
        let longer = header.get(TRACEPARENT_BYTES) == Some(&b'-');
        if version == 0xff || !(exact || (version > 0 && longer)) {
            return None;
        }
        let dashes = [2, 35, 52].iter().all(|&at| header.get(at) == Some(&b'-'));
        let trace = hex_of(header.get(3..35)?)?;
        let span = u64::try_from(hex_of(header.get(36..52)?)?).ok()?;
        let flags = u8::try_from(hex_of(header.get(53..55)?)?).ok()?;
        (dashes && trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }

    /// A new trace for an invocation: its id is the trace's, so that logs find it.
    pub fn root(id: InvocationId) -> Self {
        Self {
            trace: id.as_u128().max(1),
            span: new_span(),
            flags: 0,
        }
    }

    /// A new span of the same trace.
    pub fn child(self) -> Self {
        Self {
            span: new_span(),
            ..self
        }
    }

    /// The header's value.
    pub fn header(&self) -> http::HeaderValue {
        let mut bytes = [b'-'; TRACEPARENT_BYTES];
        bytes[..2].copy_from_slice(b"00");
        // The slices are twice as long as the numbers, which is all that these may complain about.
        let _ = hex::encode_to_slice(self.trace.to_be_bytes(), &mut bytes[3..35]);
        let _ = hex::encode_to_slice(self.span.to_be_bytes(), &mut bytes[36..52]);
        let _ = hex::encode_to_slice([self.flags], &mut bytes[53..55]);
        http::HeaderValue::from_bytes(&bytes).unwrap_or(http::HeaderValue::from_static(""))
    }

    /// The same, for exporters.
    pub(crate) fn remote_context(&self) -> opentelemetry::Context {
        let span = SpanContext::new(
            TraceId::from_bytes(self.trace.to_be_bytes()),
            SpanId::from_bytes(self.span.to_be_bytes()),
            TraceFlags::new(self.flags),
            true,
            TraceState::default(),
        );
        opentelemetry::Context::new().with_remote_span_context(span)
    }

    /// The place of a span that an exporter records; none if no exporter is installed.
    pub(crate) fn of_span(span: &tracing::Span) -> Option<Self> {
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;
        if span.is_disabled() {
            return None;
        }
        let context = span.context();
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| Self {
            trace: u128::from_be_bytes(span.trace_id().to_bytes()),
            span: u64::from_be_bytes(span.span_id().to_bytes()),
            flags: span.trace_flags().to_u8(),
        })
    }
}

impl std::fmt::Display for TraceParent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace, self.span, self.flags
        )
    }
}

fn new_span() -> u64 {
    rand::random::<u64>().max(1)
}

/// The number that lower-case hexadecimal digits spell.
fn hex_of(digits: &[u8]) -> Option<u128> {
    let mut number = 0u128;
    for digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u128::from(value);
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_reads_and_writes_the_same() {
        let parent = TraceParent::parse(GOOD.as_bytes()).expect("well-formed");
        assert_eq!(parent.header(), GOOD);
        assert_eq!(parent.to_string(), GOOD);
    }

    #[test]
    fn a_child_stays_in_the_trace() {
        let parent = TraceParent::parse(GOOD.as_bytes()).expect("well-formed");
        let child = parent.child();
        assert_eq!((child.trace, child.flags), (parent.trace, parent.flags));
        assert_ne!(child.span, parent.span);
    }

    #[test]
    fn malformed_headers_begin_a_new_trace() {
        let zero_trace = GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_span = GOOD.replace("00f067aa0ba902b7", &"0".repeat(16));
        let cases = [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-x"),
            &GOOD.to_uppercase(),
            &GOOD.replacen("00-", "ff-", 1),
            &GOOD.replace('-', "_"),
            &zero_trace,
            &zero_span,
            &"é".repeat(40),
        ];
        for case in cases {
            assert_eq!(TraceParent::parse(case.as_bytes()), None, "{case}");
        }
    }

    #[test]
    fn a_later_version_may_be_longer() {
        let later = format!("{}-more", GOOD.replacen("00-", "01-", 1));
        assert!(TraceParent::parse(later.as_bytes()).is_some());
    }
}
