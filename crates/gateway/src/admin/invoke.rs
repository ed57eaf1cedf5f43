//! Calling a function through the admin API: now, or later.

use api::v1::Accepted;
use api::{Code, Problem};
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use http::header::LOCATION;
use http::{Method, StatusCode, Uri};
use http_body_util::BodyExt as _;
use invoker::Select;

use super::AdminState;
use super::extract::{Json, Path, Query, function_path};
use crate::accept::accept;
use crate::address::Place;
use crate::failure::Failure;

/// How to call. Each `arg` of the query is an argument too, as on the data listener.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
pub(super) struct How {
    /// `sync` answers with the reply, `async` with the id of an accepted invocation.
    #[serde(default)]
    #[param(inline)]
    mode: Mode,
    /// Alias, or digest of the version, that is called in place of `live`.
    alias: Option<String>,
    /// Method that an http component sees; `POST` unless set.
    method: Option<String>,
    /// Path and query that the function sees; `/` unless set.
    path: Option<String>,
    /// An argument for a command; may come more than once.
    #[param(value_type = Vec<String>)]
    #[serde(skip)]
    #[allow(dead_code, reason = "it describes what is read from the raw query")]
    arg: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    #[default]
    Sync,
    Async,
}

/// Calls a function with the body of this request.
#[utoipa::path(post, path = "/v1/apps/{app}/functions/{function}/invocations",
    operation_id = "invoke", tag = "invocations", request_body(content = Vec<u8>,
        content_type = "application/octet-stream"),
    params(("app" = String, Path, description = "App"),
        ("function" = String, Path, description = "Function"),
        ("idempotency-key" = Option<String>, Header,
            description = "With `async`: the same key and request give the same id"), How),
    responses(
        (status = 200, content_type = "application/octet-stream", body = Vec<u8>,
            description = "The reply, with the headers `dunlin-invocation-id`, `dunlin-start` \
                and `dunlin-version`"),
        (status = 202, body = Accepted, description = "Accepted, and on disk"),
        (status = 404, body = Problem), (status = 413, body = Problem),
        (status = 429, body = Problem), (status = 500, body = Problem),
        (status = 502, body = Problem), (status = 503, body = Problem),
        (status = 504, body = Problem), (status = 507, body = Problem)))]
pub(super) async fn invoke(
    State(shared): AdminState,
    Path(names): Path<(String, String)>,
    Query(how): Query<How>,
    RawQuery(query): RawQuery,
    request: axum::extract::Request,
) -> Result<Response, Failure> {
    let path = function_path(names)?;
    let select = how.alias.as_deref().map_or(Ok(Select::Live), str::parse)?;
    let target = shared.registry.find(&path, &select).await?;
    let (mut parts, body) = request.into_parts();
    parts.uri = guest_uri(how.path.as_deref(), query.as_deref())?;
    parts.method = match how.method.as_deref() {
        None => Method::POST,
        Some(method) => Method::from_bytes(method.as_bytes())
            .map_err(|_| Failure::new(Code::BadRequest, "`method` is not a method"))?,
    };
    // The credentials of the admin API are not for guests.
    parts.headers.remove(http::header::AUTHORIZATION);
    if how.mode == Mode::Async {
        let accepted = accept(&shared, &target, select, parts, Place::default(), body).await?;
        let location = [(LOCATION, accepted.location.clone())];
        return Ok((StatusCode::ACCEPTED, location, Json(accepted)).into_response());
    }
    let reply = shared
        .caller
        .call(&target, parts, Place::default(), body)
        .await;
    Ok(reply.map(|body| Body::new(body.map_err(axum::Error::new))))
}

/// The address that the function sees: what was asked for, and the arguments of this query.
fn guest_uri(path: Option<&str>, query: Option<&str>) -> Result<Uri, Failure> {
    let path = path.unwrap_or("/");
    let args = query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| pair.starts_with("arg="));
    let args = args.collect::<Vec<_>>().join("&");
    let joint = match (args.is_empty(), path.contains('?')) {
        (true, _) => "",
        (false, true) => "&",
        (false, false) => "?",
    };
    let uri = format!("{path}{joint}{args}");
    let parsed = uri.starts_with('/').then(|| uri.parse().ok()).flatten();
    parsed.ok_or_else(|| Failure::new(Code::BadRequest, "`path` is not a path beginning with `/`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_sees_its_path_and_its_arguments() {
        let check = |path: Option<&str>, query: Option<&str>, expected: Option<&str>| {
            let uri = guest_uri(path, query).ok().map(|uri| uri.to_string());
            assert_eq!(uri.as_deref(), expected, "{path:?} {query:?}");
        };
        check(None, None, Some("/"));
        check(
            None,
            Some("mode=sync&arg=a&arg=%20b"),
            Some("/?arg=a&arg=%20b"),
        );
        check(Some("/x?y=1"), Some("arg=a"), Some("/x?y=1&arg=a"));
        check(Some("x"), None, None);
        check(Some("/a b"), None, None);
    }
}
