//! Keeps web pages of others away from a node that asks for no token.
//!
//! A browser on the node's machine reaches its loopback listeners for any page that it shows: by a
//! plain form or script from elsewhere, which it marks with `Origin`, or by a name that its owner
//! lets point at 127.0.0.1 meanwhile (DNS rebinding), which stands in `Host`.

use std::net::IpAddr;

use http::Uri;
use http::header::{HeaderMap, ORIGIN};
use http::uri::Authority;

use crate::address::host;

/// Whether a request may come from a page that the node did not serve; `base` is the node's name.
pub(super) fn is_of_another_page(uri: &Uri, headers: &HeaderMap, base: &str) -> bool {
    let asked = host(uri, headers);
    if asked.is_some_and(|host| !is_own_name(host, base)) {
        return true;
    }
    headers.get(ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        let from = origin.split_once("://").map(|(_, authority)| authority);
        from.is_none() || from != asked
    })
}

/// Whether a browser can only mean this node by `host`: nobody else's name leads there.
fn is_own_name(host: &str, base: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is = |own: &str| name.eq_ignore_ascii_case(own);
    address.parse::<IpAddr>().is_ok() || is("localhost") || is(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, origin: Option<&str>, refused: bool) {
        let mut headers = HeaderMap::new();
        headers.insert("host", host.parse().expect("a header"));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().expect("a header"));
        }
        let found = is_of_another_page(&Uri::from_static("/v1/apps"), &headers, "dunlin.test");
        assert_eq!(found, refused, "{host} {origin:?}");
    }

    #[test]
    fn programs_are_let_in_by_address_and_by_name() {
        for host in [
            "127.0.0.1:8081",
            "[::1]:8081",
            "localhost:8081",
            "Dunlin.test",
        ] {
            check(host, None, false);
        }
    }

    #[test]
    fn a_name_that_was_made_to_point_here_is_refused() {
        for host in [
            "evil.example:8081",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
        ] {
            check(host, None, true);
        }
    }

    #[test]
    fn a_page_of_another_origin_is_refused_and_ones_own_is_not() {
        check("127.0.0.1:8081", Some("http://127.0.0.1:8081"), false);
        for origin in ["http://evil.example", "http://127.0.0.1:3000", "null", ""] {
            check("127.0.0.1:8081", Some(origin), true);
        }
    }
}
