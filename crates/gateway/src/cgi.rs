//! An HTTP request as a command sees it: CGI's variables, and arguments from the query.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName};
use http::request::Parts;
use model::InvocationId;

use crate::address::Place;

/// Most arguments that one request adds.
const ARGS_MAX: usize = 256;

/// Why a request cannot be told to a command.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum CgiError {
    #[error("the path or an argument is not valid percent-encoded UTF-8 without NUL")]
    Encoding,
    #[error("more than {ARGS_MAX} arguments")]
    TooManyArgs,
}

/// The variables of a request, after RFC 3875.
pub(crate) fn variables(
    parts: &Parts,
    place: Place,
    host: &str,
) -> Result<Vec<(String, String)>, CgiError> {
    let rest = place.rest(&parts.uri);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let uri = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut env = Vec::with_capacity(12 + parts.headers.len());
    let mut set = |key: &str, value: &str| env.push((key.to_owned(), value.to_owned()));
    set("GATEWAY_INTERFACE", "CGI/1.1");
    set(
        "SERVER_SOFTWARE",
        concat!("dunlin/", env!("CARGO_PKG_VERSION")),
    );
    set("SERVER_PROTOCOL", protocol(parts.version));
    set("SERVER_NAME", host);
    set("REQUEST_METHOD", parts.method.as_str());
    set("REQUEST_URI", uri);
    set("SCRIPT_NAME", place.prefix(&parts.uri));
    set("PATH_INFO", &decoded(path, false)?);
    set("QUERY_STRING", query);
    for (key, name) in [
        ("CONTENT_TYPE", CONTENT_TYPE),
        ("CONTENT_LENGTH", CONTENT_LENGTH),
    ] {
        if let Some(Ok(value)) = parts.headers.get(name).map(|value| value.to_str()) {
            set(key, value);
        }
    }
    headers(&parts.headers, &mut env);
    Ok(env)
}

/// The variables that tell a command which invocation it is, and where it stands in a trace.
pub fn own_variables(id: InvocationId, traceparent: String) -> [(String, String); 2] {
    let id = ("DUNLIN_INVOCATION_ID".to_owned(), id.to_string());
    [id, ("TRACEPARENT".to_owned(), traceparent)]
}

const fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// `HTTP_*`; of a name that comes more than once, the values joined by commas.
fn headers(headers: &HeaderMap, env: &mut Vec<(String, String)>) {
    for name in headers.keys().filter(|name| is_told(name)) {
        let values = headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let value = values.collect::<Vec<_>>().join(", ");
        env.push((variable(name), value));
    }
}

/// Credentials are not for the environment, and `Proxy` would become `HTTP_PROXY`, which programs
/// take for a setting.
fn is_told(name: &HeaderName) -> bool {
    ![CONTENT_TYPE, CONTENT_LENGTH, AUTHORIZATION].contains(name) && name != "proxy"
}

fn variable(name: &HeaderName) -> String {
    let upper = name.as_str().bytes().map(|byte| match byte {
        b'-' => '_',
        byte => char::from(byte.to_ascii_uppercase()),
    });
    "HTTP_".chars().chain(upper).collect()
}

/// The arguments: each `arg` of the query, in order.
pub(crate) fn arguments(rest: &str) -> Result<Vec<String>, CgiError> {
    let Some((_, query)) = rest.split_once('?') else {
        return Ok(Vec::new());
    };
    let mut args = Vec::new();
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key != "arg" {
            continue;
        }
        if args.len() == ARGS_MAX {
            return Err(CgiError::TooManyArgs);
        }
        args.push(decoded(value, true)?);
    }
    Ok(args)
}

/// What percent-encoded text means.
pub(crate) fn decoded(text: &str, plus_is_space: bool) -> Result<String, CgiError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'%' => {
                let (digits, tail) = tail.split_at_checked(2).ok_or(CgiError::Encoding)?;
                let mut byte = [0];
                hex::decode_to_slice(digits, &mut byte).map_err(|_| CgiError::Encoding)?;
                bytes.push(byte[0]);
                rest = tail;
            }
            b'+' if plus_is_space => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    if bytes.contains(&0) {
        return Err(CgiError::Encoding);
    }
    String::from_utf8(bytes).map_err(|_| CgiError::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::address;
    use std::collections::BTreeMap;

    fn env_of(request: http::request::Builder) -> Result<BTreeMap<String, String>, CgiError> {
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let found = address(&parts.uri, &parts.headers, "localhost").expect("an address");
        Ok(variables(&parts, found.place, "h")?.into_iter().collect())
    }

    #[test]
    fn a_request_becomes_variables() {
        let request = http::Request::post("/a/f/x%20y?q=1&r=%32")
            .header("content-type", "text/plain")
            .header("x-two", "1")
            .header("x-two", "2");
        let env = env_of(request).expect("told");
        let check = |key: &str, value: &str| assert_eq!(env[key], value, "{key}");
        check("REQUEST_METHOD", "POST");
        check("REQUEST_URI", "/a/f/x%20y?q=1&r=%32");
        check("SCRIPT_NAME", "/a/f");
        check("PATH_INFO", "/x y");
        check("QUERY_STRING", "q=1&r=%32");
        check("CONTENT_TYPE", "text/plain");
        check("HTTP_X_TWO", "1, 2");
    }

    #[test]
    fn a_header_cannot_set_a_proxy_or_show_a_token() {
        let request = http::Request::get("/a/f")
            .header("proxy", "http://evil")
            .header("authorization", "Bearer secret");
        let env = env_of(request).expect("told");
        assert!(!env.contains_key("HTTP_PROXY"));
        assert!(!env.contains_key("HTTP_AUTHORIZATION"));
    }

    #[test]
    fn arguments_come_from_the_query_in_order() {
        let check = |rest: &str, expected: Result<Vec<&str>, CgiError>| {
            let expected = expected.map(|args| args.into_iter().map(str::to_owned).collect());
            assert_eq!(arguments(rest), expected, "{rest}");
        };
        check("/x", Ok(vec![]));
        check("/x?arg=a&q=1&arg=b+c%2B", Ok(vec!["a", "b c+"]));
        check("?arg", Ok(vec![""]));
        check("?arg=%0", Err(CgiError::Encoding));
        check("?arg=%zz", Err(CgiError::Encoding));
        check("?arg=%00", Err(CgiError::Encoding));
        check("?arg=%ff", Err(CgiError::Encoding));
        check(
            &format!("?{}", "arg=&".repeat(300)),
            Err(CgiError::TooManyArgs),
        );
    }
}
