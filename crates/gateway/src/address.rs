//! Which function a request of the data listener is for.

use http::Uri;
use http::header::{HOST, HeaderMap};

/// Where in a request's path the function's own part begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl Place {
    /// The place after a route of `length` bytes.
    pub(crate) fn after(length: usize) -> Self {
        Self(length)
    }

    /// Path and query that the function sees; begins with `/` or `?`, or is empty.
    pub(crate) fn rest(self, uri: &Uri) -> &str {
        path_of(uri).get(self.0..).unwrap_or_default()
    }

    /// The part of the path that named the function; empty if the host did.
    pub(crate) fn prefix(self, uri: &Uri) -> &str {
        path_of(uri).get(..self.0).unwrap_or_default()
    }
}

/// A function as it was addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address<'a> {
    pub(crate) app: &'a str,
    pub(crate) function: &'a str,
    pub(crate) place: Place,
}

pub(crate) fn path_of(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

/// Finds the function: by the host `FUNCTION.APP.HOST`, else by the path `/APP/FUNCTION/…`.
pub(crate) fn address<'a>(uri: &'a Uri, headers: &'a HeaderMap, base: &str) -> Option<Address<'a>> {
    let named = host(uri, headers).and_then(|host| of_host(host, base));
    if let Some((function, app)) = named {
        let place = Place::default();
        return Some(Address {
            app,
            function,
            place,
        });
    }
    of_path(path_of(uri))
}

/// The host that was asked for, with its port if it has one.
pub(crate) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(HOST)?.to_str().ok(),
    }
}

/// Whether the host names a function, so that the whole path is the function's own.
pub(crate) fn is_by_host(uri: &Uri, headers: &HeaderMap, base: &str) -> bool {
    host(uri, headers).is_some_and(|host| of_host(host, base).is_some())
}

fn of_host<'a>(host: &'a str, base: &str) -> Option<(&'a str, &'a str)> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let cut = name.len().checked_sub(base.len())?;
    let (labels, end) = name.split_at_checked(cut)?;
    if !end.eq_ignore_ascii_case(base) {
        return None;
    }
    let (function, app) = labels.strip_suffix('.')?.split_once('.')?;
    (!function.is_empty() && !app.is_empty() && !app.contains('.')).then_some((function, app))
}

fn of_path(path: &str) -> Option<Address<'_>> {
    let is_end = |byte: &u8| matches!(byte, b'/' | b'?');
    let bytes = path.as_bytes();
    let app_end = 1 + bytes.get(1..)?.iter().position(is_end)?;
    if bytes[app_end] == b'?' {
        return None;
    }
    let function_at = app_end + 1;
    let length = bytes[function_at..].iter().position(is_end);
    let function_end = length.map_or(bytes.len(), |length| function_at + length);
    let (app, function) = (&path[1..app_end], &path[function_at..function_end]);
    if app.is_empty() || function.is_empty() {
        return None;
    }
    let place = Place(function_end);
    Some(Address {
        app,
        function,
        place,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, host: Option<&str>, expected: Option<(&str, &str, &str, &str)>) {
        let uri: Uri = uri.parse().expect("a URI");
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, host.parse().expect("a header"));
        }
        let found = address(&uri, &headers, "localhost");
        let told = |a: Address<'_>| {
            (
                a.place.rest(&uri).to_owned(),
                a.place.prefix(&uri).to_owned(),
            )
        };
        let whole = found.map(|a| (a.app, a.function, told(a)));
        let found = whole
            .as_ref()
            .map(|(a, f, (rest, prefix))| (*a, *f, &**rest, &**prefix));
        assert_eq!(found, expected, "{uri} at {host:?}");
    }

    #[test]
    fn a_path_names_app_and_function() {
        check("/a/f", None, Some(("a", "f", "", "/a/f")));
        check("/a/f/", None, Some(("a", "f", "/", "/a/f")));
        check("/a/f/x/y?q=/1", None, Some(("a", "f", "/x/y?q=/1", "/a/f")));
        check("/a/f?q", None, Some(("a", "f", "?q", "/a/f")));
        check("http://h/a/f", None, Some(("a", "f", "", "/a/f")));
    }

    #[test]
    fn a_host_names_function_and_app() {
        check("/x", Some("f.a.localhost"), Some(("a", "f", "/x", "")));
        check("/", Some("f.a.LOCALHOST:8080"), Some(("a", "f", "/", "")));
        check(
            "http://f.a.localhost:1/x?y",
            None,
            Some(("a", "f", "/x?y", "")),
        );
    }

    #[test]
    fn other_hosts_leave_it_to_the_path() {
        for host in [
            "localhost",
            "a.localhost",
            "x.f.a.localhost",
            ".a.localhost",
            "[::1]:80",
        ] {
            check("/a/f", Some(host), Some(("a", "f", "", "/a/f")));
        }
    }

    #[test]
    fn short_paths_name_nothing() {
        for path in ["/", "/a", "/a/", "//f", "/a?x/f", "/a/?x", "*"] {
            check(path, None, None);
        }
    }
}
