//! The data listener: finds the function, and calls it or accepts the call for later.

use std::sync::Arc;

use api::Code;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use invoker::{Select, Target};
use model::FunctionPath;

use crate::accept;
use crate::address::{Place, address, path_of};
use crate::admin::unauthorized;
use crate::body::{answer_without, closes};
use crate::failure::Failure;
use crate::lambda;
use crate::listen::Answer;
use crate::reply::ReplyBody;
use crate::shared::Shared;

/// Names the alias or version that is called in place of `live`.
const ALIAS: HeaderName = HeaderName::from_static("dunlin-alias");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Answers the requests of the data listener.
#[derive(Clone)]
pub(crate) struct Data(pub(crate) Arc<Shared>);

impl Answer for Data {
    type Reply = ReplyBody;

    async fn answer(&self, request: Request<Incoming>) -> Response<ReplyBody> {
        let is_http1 = request.version() < Version::HTTP_2;
        let mut response = match self.route(request).await {
            Ok(response) => response,
            Err(failure) => failure.response(ReplyBody::whole),
        };
        if is_http1 && BROKEN_OFF.contains(&response.status()) {
            closes(&mut response);
        }
        self.0.caller.requests.answered(response.status());
        response
    }
}

impl Data {
    /// What few requests need is in boxes: all of this future is copied for each request.
    async fn route(&self, request: Request<Incoming>) -> Result<Response<ReplyBody>, Failure> {
        let (mut parts, body) = request.into_parts();
        if lambda::invoked(&parts, &self.0.config.host).is_some() {
            return Ok(Box::pin(lambda::invoke(&self.0, parts, body)).await);
        }
        let found = match self.0.admits(parts.headers.get(AUTHORIZATION)) {
            true => self.find(&parts).await,
            false => Err(unauthorized()),
        };
        let (target, select, place) = match found {
            Ok(found) => found,
            Err(failure) => {
                let response = failure.response(ReplyBody::whole);
                return Ok(Box::pin(answer_without(&parts, body, response)).await);
            }
        };
        if self.0.config.require_token {
            // It was meant for the node: the guest must not learn it.
            parts.headers.remove(AUTHORIZATION);
        }
        if asks_for_async(&parts.headers) {
            return Box::pin(self.accept(target, select, parts, place, body)).await;
        }
        Ok(self.0.caller.call(&target, parts, place, body).await)
    }

    /// The function that is meant: by host or path, else by a route; else one that another node may
    /// have deployed an instant ago.
    async fn find(&self, parts: &Parts) -> Result<(Target, Select, Place), Failure> {
        let select = match parts.headers.get(&ALIAS) {
            None => Select::Live,
            Some(value) => value.to_str().unwrap_or_default().parse()?,
        };
        let registry = &self.0.registry;
        let named = self.named(parts);
        let known = match &named {
            Ok((path, _)) => registry.resolve(path, &select).map_err(Failure::from),
            Err(failure) => Err(failure.clone()),
        };
        let unknown = match known {
            Err(failure) if failure.problem.status == NOT_FOUND => failure,
            known => return Ok((known?, select, named?.1)),
        };
        if let Some((path, length)) = registry.routed(path_of(&parts.uri)) {
            let target = registry.resolve(&path, &select)?;
            return Ok((target, select, Place::after(length)));
        }
        let (path, place) = named.map_err(|_| unknown)?;
        Ok((registry.find(&path, &select).await?, select, place))
    }

    fn named(&self, parts: &Parts) -> Result<(FunctionPath, Place), Failure> {
        let found = address(&parts.uri, &parts.headers, &self.0.config.host);
        let found = found.ok_or_else(|| {
            let detail = "functions are called at `/APP/FUNCTION/…`";
            Failure::new(Code::RouteNotFound, detail)
        })?;
        let unknown = || {
            let shown = |name: &str| name.chars().take(NAME_CHARS_SHOWN).collect::<String>();
            let (app, function) = (shown(found.app), shown(found.function));
            let detail = format!("there is no function `{app}/{function}`");
            Failure::new(Code::FunctionNotFound, detail)
        };
        let path = FunctionPath {
            app: found.app.parse().map_err(|_| unknown())?,
            function: found.function.parse().map_err(|_| unknown())?,
        };
        Ok((path, found.place))
    }

    async fn accept(
        &self,
        target: Target,
        select: Select,
        parts: Parts,
        place: Place,
        body: Incoming,
    ) -> Result<Response<ReplyBody>, Failure> {
        let accepted = accept::accept(&self.0, &target, select, parts, place, body).await?;
        let json = serde_json::to_vec(&accepted).unwrap_or_default();
        let mut response = Response::new(ReplyBody::whole(Bytes::from(json)));
        *response.status_mut() = StatusCode::ACCEPTED;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(http::header::CONTENT_TYPE, json);
        headers.insert(
            PREFERENCE_APPLIED,
            HeaderValue::from_static("respond-async"),
        );
        if let Ok(location) = HeaderValue::from_str(&accepted.location) {
            headers.insert(LOCATION, location);
        }
        if let Ok(id) = HeaderValue::from_str(&accepted.id) {
            headers.insert("dunlin-invocation-id", id);
        }
        Ok(response)
    }
}

/// How those are answered whose bodies are not read to their ends.
const BROKEN_OFF: [StatusCode; 2] = [StatusCode::REQUEST_TIMEOUT, StatusCode::PAYLOAD_TOO_LARGE];
const NOT_FOUND: u16 = StatusCode::NOT_FOUND.as_u16();

/// How much of a wrong name an error repeats.
const NAME_CHARS_SHOWN: usize = 64;

/// Whether a `Prefer` header (RFC 7240) asks to answer before the work is done.
fn asks_for_async(headers: &HeaderMap) -> bool {
    let mut values = headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.any(|value| {
        let mut preferences = value
            .split(',')
            .map(|part| part.split(';').next().unwrap_or(part));
        preferences.any(|name| name.trim().eq_ignore_ascii_case("respond-async"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_is_found_among_others() {
        let check = |values: &[&str], expected: bool| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PREFER, value.parse().expect("a header"));
            }
            assert_eq!(asks_for_async(&headers), expected, "{values:?}");
        };
        check(&[], false);
        check(&["respond-async"], true);
        check(&["return=minimal, Respond-Async; x=1"], true);
        check(&["return=minimal", "respond-async"], true);
        check(&["respond-asynchronously"], false);
    }
}
