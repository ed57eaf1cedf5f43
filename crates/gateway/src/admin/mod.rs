//! The admin API: `/v1` and what operators and scrapers ask for.
//!
//! Each route is registered once, with its description: the router and `/openapi.json` cannot
//! differ.

mod artifacts;
mod browser;
mod extract;
mod files;
mod functions;
mod graph;
mod invocations;
mod invoke;
mod logs;
mod nodes;
mod open;
mod openapi;
mod pools;
mod state;
mod tokens;
mod usage;

use std::sync::Arc;

use api::Code;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tower::ServiceExt as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::failure::Failure;
use crate::listen::Answer;
use crate::metrics::Requests;
use crate::shared::Shared;

pub use self::graph::graph_view;
pub use self::logs::{log_line, log_line_of};
pub(crate) use self::state::Uploads;

type AdminState = State<Arc<Shared>>;

/// Routes that need no token: probes cannot carry one, and documents hold nothing secret.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/openapi.json"];
const OPEN_PREFIX: &str = "/errors/";

/// The routes and their description.
fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(functions::apps))
        .routes(routes!(functions::functions))
        .routes(routes!(functions::functions_of))
        .routes(routes!(functions::function, functions::delete))
        .routes(routes!(functions::versions, functions::deploy))
        .routes(routes!(functions::set_alias, functions::delete_alias))
        .routes(routes!(functions::rollback))
        .routes(routes!(invoke::invoke))
        .routes(routes!(artifacts::artifact, artifacts::upload))
        .routes(routes!(files::missing))
        .routes(routes!(files::upload))
        .routes(routes!(invocations::list))
        .routes(routes!(invocations::invocation))
        .routes(routes!(invocations::events))
        .routes(routes!(invocations::result))
        .routes(routes!(graph::graph))
        .routes(routes!(invocations::dead_letters))
        .routes(routes!(invocations::redrive))
        .routes(routes!(logs::logs))
        .routes(routes!(usage::usage))
        .routes(routes!(state::list))
        .routes(routes!(
            state::read,
            state::head,
            state::write,
            state::remove
        ))
        .routes(routes!(pools::pools))
        .routes(routes!(pools::node))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::want))
        .routes(routes!(nodes::decision))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(open::healthz))
        .routes(routes!(open::readyz))
        .routes(routes!(open::metrics))
        .routes(routes!(open::error_page))
        .routes(routes!(open::openapi))
}

/// The API's description, OpenAPI 3.1.
pub fn openapi_json() -> String {
    let (_, mut description) = routes().split_for_parts();
    openapi::finish(&mut description);
    serde_json::to_string_pretty(&description).unwrap_or_default()
}

/// Answers the requests of the admin listener.
#[derive(Clone)]
pub(crate) struct Admin {
    router: Router,
    requests: Requests,
}

impl Admin {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (router, _) = routes().split_for_parts();
        let requests = Requests::of("admin");
        let router = router
            .fallback(nothing_here)
            .method_not_allowed_fallback(not_this_method)
            .layer(DefaultBodyLimit::max(shared.config.json_bytes_max))
            .layer(middleware::from_fn_with_state(shared.clone(), admitted))
            .layer(middleware::from_fn(instance))
            .with_state(shared);
        Self { router, requests }
    }
}

impl Answer for Admin {
    type Reply = sandbox::Body;

    async fn answer(&self, request: http::Request<Incoming>) -> http::Response<Self::Reply> {
        let answered = self
            .router
            .clone()
            .oneshot(request.map(axum::body::Body::new))
            .await;
        let response = match answered {
            Ok(response) => response,
            Err(never) => match never {},
        };
        self.requests.answered(response.status());
        response.map(|body| body.map_err(Into::into).boxed_unsync())
    }
}

async fn admitted(shared: AdminState, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if OPEN.contains(&path) || path.starts_with(OPEN_PREFIX) {
        return next.run(request).await;
    }
    let config = &shared.config;
    if !config.require_token
        && browser::is_of_another_page(request.uri(), request.headers(), &config.host)
    {
        let detail = "ask by the node's address, or require a token";
        return Failure::new(Code::ForeignPage, detail).into_response();
    }
    if shared.admits(request.headers().get(AUTHORIZATION)) {
        return next.run(request).await;
    }
    unauthorized().into_response()
}

pub(crate) fn unauthorized() -> Failure {
    let detail = "send `Authorization: Bearer TOKEN` with a token of this node";
    Failure::new(Code::Unauthorized, detail)
}

async fn nothing_here(uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(PATH_CHARS_SHOWN).collect();
    Failure::new(
        Code::RouteNotFound,
        format!("no route has the path `{path}`"),
    )
}

async fn not_this_method(method: http::Method, uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(PATH_CHARS_SHOWN).collect();
    Failure::new(
        Code::MethodNotAllowed,
        format!("`{path}` does not take {method}"),
    )
}

/// How much of a path an error repeats.
const PATH_CHARS_SHOWN: usize = 200;
/// Problems are small; what is larger is not one.
const PROBLEM_BYTES_MAX: usize = 64 << 10;

/// Tells each problem of which path it speaks.
async fn instance(uri: Uri, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let problem = HeaderValue::from_static(api::PROBLEM_JSON);
    if response.headers().get(CONTENT_TYPE) != Some(&problem) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, PROBLEM_BYTES_MAX).await else {
        return Failure::new(Code::PlatformFailed, "the problem broke off").into_response();
    };
    let told = serde_json::from_slice::<api::Problem>(&bytes)
        .map(|problem| {
            problem.at(uri
                .path()
                .chars()
                .take(PATH_CHARS_SHOWN)
                .collect::<String>())
        })
        .and_then(|problem| serde_json::to_vec(&problem));
    parts.headers.remove(http::header::CONTENT_LENGTH);
    let bytes = told.map_or(bytes, Into::into);
    Response::from_parts(parts, axum::body::Body::from(bytes))
}
