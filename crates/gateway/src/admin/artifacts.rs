//! Artifacts: uploaded once, named by digest.

use api::v1::Artifact;
use api::{Code, Problem};
use axum::body::Body;
use axum::extract::State;
use http::StatusCode;
use model::Digest;

use super::AdminState;
use super::extract::{Json, Path};
use super::functions::digest;
use crate::body::collect;
use crate::failure::Failure;

/// Whether an artifact is there, so that it need not be uploaded again.
#[utoipa::path(get, path = "/v1/artifacts/{digest}", operation_id = "getArtifact",
    tag = "artifacts", params(("digest" = String, Path, description = "`sha256:…`")),
    responses((status = 200, body = Artifact), (status = 404, body = Problem)))]
pub(super) async fn artifact(
    State(shared): AdminState,
    Path(name): Path<String>,
) -> Result<Json<Artifact>, Failure> {
    let name = digest(&name)?;
    let found = shared
        .blobs
        .get(&name)
        .await
        .map_err(|error| Failure::of_storage(&error))?;
    let gone = || Failure::new(Code::ArtifactNotFound, format!("{name} was not uploaded"));
    let bytes = found.ok_or_else(gone)?.len() as u64;
    Ok(Json(Artifact {
        digest: name.to_string(),
        bytes,
    }))
}

/// Uploads an artifact. It is durable when this answers.
#[utoipa::path(put, path = "/v1/artifacts/{digest}", operation_id = "uploadArtifact",
    tag = "artifacts", params(("digest" = String, Path, description = "`sha256:…`")),
    request_body(content = Vec<u8>, content_type = "application/wasm"),
    responses((status = 201, body = Artifact), (status = 400, body = Problem),
        (status = 408, body = Problem), (status = 413, body = Problem),
        (status = 507, body = Problem)))]
pub(super) async fn upload(
    State(shared): AdminState,
    Path(name): Path<String>,
    body: Body,
) -> Result<(StatusCode, Json<Artifact>), Failure> {
    let name = digest(&name)?;
    let bytes = collect(body, shared.config.artifact_bytes_max, &shared.config.admin).await?;
    let found = Digest::of(&bytes);
    if found != name {
        let detail = format!("the bytes have the digest {found}, not {name}");
        return Err(Failure::new(Code::DigestMismatch, detail));
    }
    let length = bytes.len() as u64;
    shared
        .blobs
        .put(bytes)
        .await
        .map_err(|error| Failure::of_storage(&error))?;
    Ok((
        StatusCode::CREATED,
        Json(Artifact {
            digest: name.to_string(),
            bytes: length,
        }),
    ))
}
