//! `Invoke` as AWS Lambda's clients make it, so that they need no change but their endpoint.
//!
//! ```text
//!  POST /2015-03-31/functions/NAME/invocations[?Qualifier=Q]
//!    RequestResponse ─▶ executor ─▶ 200, X-Amz-Function-Error if the function failed
//!    Event           ─▶ invoker  ─▶ 202 once it is on disk
//!    DryRun          ─▶ 204
//! ```
//!
//! Who may ask is who may ask the listener at all: the signature of a request is not looked at, for
//! it is made with a secret that a node does not have. A node's own token comes as the session
//! token.

mod error;
mod log;
mod name;

pub(crate) use name::{function_arn, function_name};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use executor::Finished;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use invoker::{Request, RequestHead, Submission, Target};
use model::{FunctionPath, Kind};
use tracing::Instrument as _;

use self::error::{Exception, FunctionError, JSON, REQUEST_ID};
use self::name::Named;
use crate::address::is_by_host;
use crate::body::{answer_without, collect};
use crate::call::{Origin, content_type_of};
use crate::cgi::{decoded, own_variables};
use crate::cluster::Told;
use crate::failure::Failure;
use crate::reply::ReplyBody;
use crate::shared::Shared;

const PREFIX: &str = "/2015-03-31/functions/";
const SUFFIX: &str = "/invocations";
const SESSION_TOKEN: &str = "x-amz-security-token";
const INVOCATION_TYPE: &str = "x-amz-invocation-type";
const LOG_TYPE: &str = "x-amz-log-type";
const CLIENT_CONTEXT: &str = "x-amz-client-context";
/// Longest client context, in base64: AWS's own.
const CLIENT_CONTEXT_BYTES_MAX: usize = 3583;
/// Variables of a call that a Lambda runtime gets as headers.
const ARN_VARIABLE: &str = "LAMBDA_INVOKED_FUNCTION_ARN";
const CLIENT_VARIABLE: &str = "LAMBDA_CLIENT_CONTEXT";

/// What a call tells a Lambda runtime of its function, beside what it tells a command.
pub fn lambda_variables(path: &FunctionPath) -> [(String, String); 1] {
    [(ARN_VARIABLE.to_owned(), function_arn(path))]
}

/// The function that an `Invoke` names, still encoded; none if the request is none.
pub(crate) fn invoked<'a>(parts: &'a Parts, base: &str) -> Option<&'a str> {
    if parts.method != Method::POST || is_by_host(&parts.uri, &parts.headers, base) {
        return None;
    }
    let rest = parts.uri.path().strip_prefix(PREFIX)?;
    let name = rest.strip_suffix(SUFFIX)?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// How to invoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    RequestResponse { log: bool },
    Event,
    DryRun,
}

/// Answers an `Invoke` of the function that is named so.
pub(crate) async fn invoke(shared: &Shared, parts: Parts, body: Incoming) -> Response<ReplyBody> {
    let mut unread = Some(body);
    let answered = answer(shared, &parts, &mut unread).await;
    let response = answered.unwrap_or_else(|exception| exception.response());
    match unread {
        Some(body) => answer_without(&parts, body, response).await,
        None => response,
    }
}

async fn answer(
    shared: &Shared,
    parts: &Parts,
    body: &mut Option<Incoming>,
) -> Result<Response<ReplyBody>, Exception> {
    let headers = &parts.headers;
    if !shared.admits_session(headers.get(SESSION_TOKEN), headers.get(AUTHORIZATION)) {
        return Err(Exception::credentials());
    }
    let mode = mode(headers)?;
    let name = invoked(parts, &shared.config.host).unwrap_or_default();
    let malformed = |_| Exception::parameter("the function's name is malformed");
    let name = decoded(name, false).map_err(malformed)?;
    let named = Named::parse(&name, qualifier(parts)?.as_deref())?;
    let target = shared.registry.find(&named.path, &named.select).await;
    let target = target.map_err(Failure::from)?;
    if target.spec.kind == Kind::Http {
        let message = "an http function has no Invoke: call it at its address";
        return Err(Exception::parameter(message));
    }
    if mode == Mode::DryRun {
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    let mut env = Vec::new();
    if target.spec.kind == Kind::Lambda {
        env.extend(lambda_variables(&named.path));
        env.extend(client_context(headers)?);
    }
    let bytes_max = target.spec.settings.limits.input_bytes_max;
    let body = match body.take() {
        Some(body) => collect(body, bytes_max, &shared.config.data).await?,
        None => Bytes::new(),
    };
    if target.spec.kind == Kind::Lambda {
        check_event(&body)?;
    }
    match mode {
        Mode::RequestResponse { log } => run(shared, &target, headers, body, env, log).await,
        _ => accept(shared, named, headers, body, env).await,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?;
    Some(value.to_str().unwrap_or("\u{fffd}"))
}

fn mode(headers: &HeaderMap) -> Result<Mode, Exception> {
    let log = match text(headers, LOG_TYPE) {
        None | Some("None") => false,
        Some("Tail") => true,
        Some(_) => return Err(Exception::parameter("a log type is None or Tail")),
    };
    match text(headers, INVOCATION_TYPE) {
        None | Some("RequestResponse") => Ok(Mode::RequestResponse { log }),
        Some("Event") => Ok(Mode::Event),
        Some("DryRun") => Ok(Mode::DryRun),
        Some(_) => {
            let message = "an invocation type is RequestResponse, Event or DryRun";
            Err(Exception::parameter(message))
        }
    }
}

fn qualifier(parts: &Parts) -> Result<Option<String>, Exception> {
    let pairs = parts.uri.query().unwrap_or_default().split('&');
    let mut found = pairs.filter_map(|pair| pair.strip_prefix("Qualifier="));
    let decode = |text| {
        let malformed = |_| Exception::parameter("the qualifier is malformed");
        decoded(text, true).map_err(malformed)
    };
    found.next().map(decode).transpose()
}

/// What the client says of itself, in one line of ASCII, as a header of its own has to be.
fn client_context(headers: &HeaderMap) -> Result<Option<(String, String)>, Exception> {
    let Some(given) = text(headers, CLIENT_CONTEXT) else {
        return Ok(None);
    };
    let short = Some(given).filter(|given| given.len() <= CLIENT_CONTEXT_BYTES_MAX);
    let value = short.and_then(json_of_base64).ok_or_else(|| {
        Exception::content("the client context is not JSON in base64, of at most 3583 bytes")
    })?;
    Ok(Some((
        CLIENT_VARIABLE.to_owned(),
        ascii(&value.to_string()),
    )))
}

fn json_of_base64(text: &str) -> Option<serde_json::Value> {
    let bytes = BASE64.decode(text).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// JSON without a character that is not ASCII: each is within a string, and has an escape.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for char in json.chars() {
        if char.is_ascii() {
            out.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    out
}

/// A Lambda function's event is JSON, or nothing.
fn check_event(body: &[u8]) -> Result<(), Exception> {
    if body.is_empty() {
        return Ok(());
    }
    let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(body);
    parsed.map(|_| ()).map_err(|error| {
        Exception::content(format!("Could not parse request body into json: {error}"))
    })
}

fn empty(status: StatusCode) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

async fn run(
    shared: &Shared,
    target: &Target,
    headers: &HeaderMap,
    body: Bytes,
    mut env: Vec<(String, String)>,
    log: bool,
) -> Result<Response<ReplyBody>, Exception> {
    let caller = &shared.caller;
    let begun = caller.begin(target, headers);
    match target.spec.kind {
        Kind::Command | Kind::Lambda => {
            env.extend(own_variables(begun.id, begun.trace.to_string()));
        }
        Kind::Reactor | Kind::Http => env.clear(),
    }
    let departs = caller.departs();
    let call = caller.to_run(target, &begun, false);
    let invoked = caller.run(call, body, Vec::new(), env);
    let finished = invoked.instrument(begun.span.span()).await;
    departs.stays();
    let mut answered = match finished {
        Err(not_run) => Exception::from(Failure::from(not_run)).response(),
        Ok(Told { node, reply }) => {
            let finished = reply;
            begun.span.ended(&finished.outcome);
            let start = Some(finished.outcome.start);
            let log =
                log.then(|| log::tail(&caller.logs, &target.path, begun.id, &finished.outcome));
            let mut response = response(target, finished, begun.id);
            if let Some(Ok(value)) = log.map(|log| HeaderValue::from_str(&BASE64.encode(log))) {
                response.headers_mut().insert("x-amz-log-result", value);
            }
            let version = HeaderValue::from_str(&target.version.hex());
            if let Ok(version) = version {
                response
                    .headers_mut()
                    .insert("x-amz-executed-version", version);
            }
            begun.label(response.headers_mut(), target, &Origin { start, node });
            response
        }
    };
    begun.span.answered(answered.status());
    answered
        .headers_mut()
        .insert(REQUEST_ID, begun.id_header.clone());
    Ok(answered)
}

fn response(target: &Target, finished: Finished, id: model::InvocationId) -> Response<ReplyBody> {
    let Finished { outcome, reply } = finished;
    let (error, body) = match outcome.status.is_ok() {
        true => (None, reply),
        false => match FunctionError::of(&outcome.status, reply, id) {
            Ok(error) => (Some(error.kind), error.body),
            Err(exception) => return exception.response(),
        },
    };
    let kind = match (error, target.spec.kind) {
        (Some(_), _) | (_, Kind::Lambda) => JSON,
        _ => content_type_of(&body),
    };
    let mut response = Response::new(ReplyBody::whole(body));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    if let Some(error) = error {
        let value = HeaderValue::from_static(error);
        response.headers_mut().insert("x-amz-function-error", value);
    }
    response
}

async fn accept(
    shared: &Shared,
    named: Named,
    headers: &HeaderMap,
    body: Bytes,
    env: Vec<(String, String)>,
) -> Result<Response<ReplyBody>, Exception> {
    if shared.is_draining() {
        let failure = Failure::new(
            api::Code::Draining,
            "the node finishes what it has accepted",
        );
        return Err(failure.into());
    }
    let traceparent = headers.get("traceparent").map(HeaderValue::as_bytes);
    let traceparent = traceparent.and_then(model::TraceParent::parse);
    let submission = Submission {
        path: named.path,
        select: named.select,
        request: Request {
            head: RequestHead::Plain {
                args: Vec::new(),
                env,
            },
            body,
        },
        idempotency_key: None,
        traceparent: traceparent.map(|parent| parent.to_string()),
    };
    let receipt = shared.invoker.submit(submission).await;
    let receipt = receipt.map_err(Failure::from)?;
    let mut response = empty(StatusCode::ACCEPTED);
    if let Ok(id) = HeaderValue::from_str(&receipt.id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id.clone());
        response.headers_mut().insert("dunlin-invocation-id", id);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn only_the_path_of_invoke_is_one() {
        let check = |method: &str, uri: &str, host: &str, expected: Option<&str>| {
            let request = http::Request::builder().method(method).uri(uri);
            let parts = parts(request.header("host", host));
            assert_eq!(
                invoked(&parts, "localhost"),
                expected,
                "{method} {uri} {host}"
            );
        };
        let path = "/2015-03-31/functions/a_f/invocations";
        check("POST", path, "127.0.0.1:8080", Some("a_f"));
        check("POST", &format!("{path}?Qualifier=b"), "h", Some("a_f"));
        check("GET", path, "h", None);
        check("POST", path, "f.a.localhost", None);
        check("POST", "/2015-03-31/functions//invocations", "h", None);
        check("POST", "/2015-03-31/functions/a_f", "h", None);
        check("POST", "/2015-03-31/functions/a/f/invocations", "h", None);
        check("POST", "/a/f", "h", None);
    }

    #[test]
    fn how_to_invoke_is_in_headers() {
        let check = |kind: &str, log: &str, expected: Option<Mode>| {
            let request = http::Request::post("/").header(INVOCATION_TYPE, kind);
            let found = mode(&parts(request.header(LOG_TYPE, log)).headers).ok();
            assert_eq!(found, expected, "{kind} {log}");
        };
        check(
            "RequestResponse",
            "None",
            Some(Mode::RequestResponse { log: false }),
        );
        check(
            "RequestResponse",
            "Tail",
            Some(Mode::RequestResponse { log: true }),
        );
        check("Event", "Tail", Some(Mode::Event));
        check("DryRun", "None", Some(Mode::DryRun));
        check("Sometimes", "None", None);
        check("Event", "All", None);
        let none = mode(&HeaderMap::new()).ok();
        assert_eq!(none, Some(Mode::RequestResponse { log: false }));
    }

    #[test]
    fn a_client_context_is_json_and_becomes_one_line() {
        let check = |given: &str, expected: Option<&str>| {
            let request = http::Request::post("/").header(CLIENT_CONTEXT, given);
            let found = client_context(&parts(request).headers).ok().flatten();
            assert_eq!(
                found.as_ref().map(|(_, text)| text.as_str()),
                expected,
                "{given}"
            );
        };
        check(
            &BASE64.encode("{\n \"a\": \"é🐦\\n\"}"),
            Some(r#"{"a":"\u00e9\ud83d\udc26\n"}"#),
        );
        check("not base64", None);
        check(&BASE64.encode("not JSON"), None);
        check(&BASE64.encode(format!("\"{}\"", "x".repeat(4000))), None);
    }

    #[test]
    fn an_event_is_json_or_nothing() {
        for (body, fine) in [
            ("", true),
            ("{}", true),
            ("1", true),
            ("{", false),
            ("{} x", false),
        ] {
            assert_eq!(check_event(body.as_bytes()).is_ok(), fine, "{body}");
        }
    }
}
