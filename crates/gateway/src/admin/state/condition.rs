//! `If-Match` and `If-None-Match` (RFC 9110, section 13.1) on versions: the entity tag of a value
//! is its version in quotes, and it is strong.

use api::Code;
use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::failure::Failure;

/// What the version must be for a request to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Condition {
    matches: Option<Tags>,
    differs: Option<Tags>,
}

#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    /// Versions; tags that are none of ours stand for nothing.
    Of(Vec<u64>),
}

/// How tags are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compare {
    Strong,
    Weak,
}

/// The entity tag of a version.
pub(super) fn tag(version: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

impl Condition {
    pub fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        Ok(Self {
            matches: tags(headers, &IF_MATCH, Compare::Strong)?,
            differs: tags(headers, &IF_NONE_MATCH, Compare::Weak)?,
        })
    }

    /// Whether it asks for anything.
    pub fn is_given(&self) -> bool {
        self.matches.is_some() || self.differs.is_some()
    }

    /// Whether `If-Match` lets a version pass; 0 for no value.
    pub fn matches(&self, version: u64) -> bool {
        self.matches.as_ref().is_none_or(|tags| tags.has(version))
    }

    /// Whether `If-None-Match` lets a version pass; 0 for no value.
    pub fn differs(&self, version: u64) -> bool {
        self.differs.as_ref().is_none_or(|tags| !tags.has(version))
    }

    /// Refuses a change of a value of this version; 0 for no value.
    pub fn check(&self, version: u64) -> Result<(), Failure> {
        if self.matches(version) && self.differs(version) {
            return Ok(());
        }
        let detail = match version {
            0 => "there is no value of this key".to_owned(),
            version => format!("the value has version {version}"),
        };
        Err(Failure::new(Code::PreconditionFailed, detail))
    }
}

impl Tags {
    fn has(&self, version: u64) -> bool {
        match self {
            Self::Any => version != 0,
            Self::Of(versions) => version != 0 && versions.contains(&version),
        }
    }
}

fn tags(headers: &HeaderMap, name: &HeaderName, compare: Compare) -> Result<Option<Tags>, Failure> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let mut versions = Vec::new();
    for value in headers.get_all(name) {
        let malformed = || {
            let detail = format!("`{name}` is `*` or a list of versions in quotes, as in `\"7\"`");
            Failure::new(Code::BadRequest, detail)
        };
        let text = value.to_str().map_err(|_| malformed())?.trim();
        if text == "*" {
            return Ok(Some(Tags::Any));
        }
        list(text, compare, &mut versions).ok_or_else(malformed)?;
    }
    Ok(Some(Tags::Of(versions)))
}

/// Reads `"7", W/"8"`; none if it is not of that form.
fn list(text: &str, compare: Compare, versions: &mut Vec<u64>) -> Option<()> {
    let mut rest = text;
    loop {
        let (weak, tag) = match rest.strip_prefix("W/") {
            Some(tag) => (true, tag),
            None => (false, rest),
        };
        let (tag, after) = tag.strip_prefix('"')?.split_once('"')?;
        if !weak || compare == Compare::Weak {
            versions.extend(tag.parse::<u64>());
        }
        let after = after.trim_start();
        if after.is_empty() {
            return Some(());
        }
        rest = after.strip_prefix(',')?.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(matches: Option<&str>, differs: Option<&str>) -> Result<Condition, Failure> {
        let mut headers = HeaderMap::new();
        for (name, value) in [(IF_MATCH, matches), (IF_NONE_MATCH, differs)] {
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_str(value).expect("a value"));
            }
        }
        Condition::of(&headers)
    }

    #[test]
    fn versions_are_matched() {
        let check = |matches, differs, admitted: [bool; 3]| {
            let condition = condition(matches, differs).expect("well-formed");
            let found = [0, 7, 8].map(|version| condition.check(version).is_ok());
            assert_eq!(found, admitted, "{matches:?} {differs:?}");
        };
        check(None, None, [true, true, true]);
        check(Some("*"), None, [false, true, true]);
        check(Some("\"7\""), None, [false, true, false]);
        check(Some("\"8\" ,\"7\", \"a,b\""), None, [false, true, true]);
        check(Some("\"0\""), None, [false, false, false]);
        check(Some("W/\"7\""), None, [false, false, false]);
        check(None, Some("*"), [true, false, false]);
        check(None, Some("W/\"7\""), [true, false, true]);
        check(Some("\"7\""), Some("\"7\""), [false, false, false]);
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        for text in ["7", "\"7", "7\"", "\"7\" \"8\"", "\"7\",", "w/\"7\"", ""] {
            let refused = condition(Some(text), None).expect_err(text);
            assert_eq!(refused.problem.code, Code::BadRequest, "{text}");
        }
    }
}
