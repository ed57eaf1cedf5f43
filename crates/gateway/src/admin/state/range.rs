//! `Range` and `If-Range` (RFC 9110, sections 14.2 and 13.1.5) over the bytes of a value.

use std::ops::Range;

use http::HeaderMap;
use http::header::{IF_RANGE, RANGE};

use super::condition::tag;

/// Which bytes are asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of them. So it is, too, where several ranges are asked for, or something that is no
    /// range of bytes: the RFC lets a server ignore both.
    All,
    /// These, of which there is at least one.
    Part(Range<u64>),
    /// Some that are not there.
    Nothing,
}

impl Wanted {
    /// What the request asks of a value of this version and size.
    pub fn of(headers: &HeaderMap, version: u64, size: u64) -> Self {
        let mut asked = headers.get_all(RANGE).iter();
        let (Some(range), None) = (asked.next(), asked.next()) else {
            return Self::All;
        };
        let same = headers.get(IF_RANGE).is_none_or(|of| *of == tag(version));
        match range.to_str() {
            Ok(text) if same => part(text, size).unwrap_or(Self::All),
            _ => Self::All,
        }
    }
}

/// Reads `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-COUNT`.
fn part(text: &str, size: u64) -> Option<Wanted> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let range = match (first, last) {
        ("", count) => size.saturating_sub(number(count)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(size)
        }
    };
    Some(match range.is_empty() {
        true => Wanted::Nothing,
        false => Wanted::Part(range),
    })
}

/// Digits alone; a number that is too large is as good as the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn wanted(fields: &[(http::HeaderName, &str)], size: u64) -> Wanted {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        Wanted::of(&headers, 7, size)
    }

    #[test]
    fn ranges_are_cut_to_the_value() {
        let check = |text: &str, size: u64, expected: Wanted| {
            assert_eq!(wanted(&[(RANGE, text)], size), expected, "{text} of {size}");
        };
        check("bytes=0-0", 10, Wanted::Part(0..1));
        check("bytes=2-4", 10, Wanted::Part(2..5));
        check("Bytes=8-", 10, Wanted::Part(8..10));
        check("bytes=8-99999999999999999999999", 10, Wanted::Part(8..10));
        check("bytes=-3", 10, Wanted::Part(7..10));
        check("bytes=-30", 10, Wanted::Part(0..10));
        check("bytes=10-", 10, Wanted::Nothing);
        check("bytes=10-12", 10, Wanted::Nothing);
        check("bytes=-0", 10, Wanted::Nothing);
        check("bytes=0-", 0, Wanted::Nothing);
    }

    #[test]
    fn what_is_no_single_range_of_bytes_is_ignored() {
        for text in [
            "bytes=0-1,3-4",
            "bytes=4-2",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes 0-1",
            "lines=0-1",
        ] {
            assert_eq!(wanted(&[(RANGE, text)], 10), Wanted::All, "{text}");
        }
        assert_eq!(wanted(&[], 10), Wanted::All);
        let two = [(RANGE, "bytes=0-1"), (RANGE, "bytes=3-4")];
        assert_eq!(wanted(&two, 10), Wanted::All);
    }

    #[test]
    fn a_range_of_another_version_is_ignored() {
        let of = |tag| wanted(&[(RANGE, "bytes=0-1"), (IF_RANGE, tag)], 10);
        assert_eq!(of("\"7\""), Wanted::Part(0..2));
        for other in ["\"8\"", "W/\"7\"", "Sat, 01 Jan 2026 00:00:00 GMT"] {
            assert_eq!(of(other), Wanted::All, "{other}");
        }
    }
}
