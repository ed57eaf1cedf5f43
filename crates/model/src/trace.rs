//! W3C trace context: where an invocation stands in a trace.

use crate::InvocationId;

/// Length of a version 00 `traceparent`.
const TRACEPARENT_BYTES: usize = 55;

/// Where an invocation stands in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace's id; not zero.
    pub trace: u128,
    /// The span's id; not zero.
    pub span: u64,
    /// Its flags: bit 0 says that it is recorded.
    pub flags: u8,
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
