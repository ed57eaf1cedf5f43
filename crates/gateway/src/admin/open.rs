//! What needs no token, and metrics.

use api::v1::Ready;
use api::{Code, Problem};
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::AdminState;
use super::extract::{Json, Path};
use crate::failure::Failure;

/// Whether the process is alive.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "node",
    responses((status = 200, body = String, description = "`ok`")), security(()))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the node takes work.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "node", security(()),
    responses((status = 200, body = Ready), (status = 503, body = Problem)))]
pub(super) async fn readyz(State(shared): AdminState) -> Result<Json<Ready>, Failure> {
    match shared.is_draining() {
        true => Err(Failure::new(Code::Draining, "the node finishes what runs")),
        false => Ok(Json(Ready {
            status: "ready".to_owned(),
        })),
    }
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "node",
    responses((status = 200, body = String, content_type = "text/plain; version=0.0.4")))]
pub(super) async fn metrics(State(shared): AdminState) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        (shared.metrics)(),
    )
}

/// The page of a problem's code.
#[utoipa::path(get, path = "/errors/{code}", operation_id = "errorPage", tag = "node",
    params(("code" = String, Path, description = "Code of a problem")), security(()),
    responses((status = 200, body = String, content_type = "text/markdown"),
        (status = 404, body = Problem)))]
pub(super) async fn error_page(Path(code): Path<String>) -> Result<impl IntoResponse, Failure> {
    let code: Code = code
        .parse()
        .map_err(|error: api::CodeError| Failure::new(Code::RouteNotFound, error.to_string()))?;
    let kind = [(CONTENT_TYPE, "text/markdown; charset=utf-8")];
    Ok((StatusCode::OK, kind, code.page()))
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "node",
    responses((status = 200, body = Object, description = "OpenAPI 3.1")), security(()))]
pub(super) async fn openapi(State(shared): AdminState) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], shared.openapi.clone())
}
