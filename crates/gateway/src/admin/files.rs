//! Files of versions: contents and lists, uploaded once, named by digest.

use api::v1::{Artifact, FilesAsked, FilesMissing};
use api::{Code, Problem};
use axum::body::Body;
use axum::extract::State;
use http::StatusCode;
use model::{Digest, FileList};

use super::AdminState;
use super::artifacts;
use super::extract::{Json, Path};
use super::functions::digest;
use crate::failure::Failure;
use crate::shared::Shared;

/// Most digests of one question.
const ASKED_MAX: usize = 10_000;
/// Most digests that an error names.
const NAMED_MAX: usize = 10;

/// Which of these are missing, so that the others need not be uploaded again.
#[utoipa::path(post, path = "/v1/files/missing", operation_id = "missingFiles", tag = "artifacts",
    request_body = FilesAsked,
    responses((status = 200, body = FilesMissing), (status = 400, body = Problem)))]
pub(super) async fn missing(
    State(shared): AdminState,
    Json(asked): Json<FilesAsked>,
) -> Result<Json<FilesMissing>, Failure> {
    if asked.digests.len() > ASKED_MAX {
        let detail = format!("ask for at most {ASKED_MAX} digests at a time");
        return Err(Failure::new(Code::BadRequest, detail));
    }
    let mut missing = Vec::new();
    for name in asked.digests {
        if length(&shared, &digest(&name)?).await?.is_none() {
            missing.push(name);
        }
    }
    Ok(Json(FilesMissing { missing }))
}

/// Uploads the contents of a file, or a list of files. They are durable when this answers.
#[utoipa::path(put, path = "/v1/files/{digest}", operation_id = "uploadFile", tag = "artifacts",
    params(("digest" = String, Path, description = "`sha256:…`")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = Artifact), (status = 400, body = Problem),
        (status = 408, body = Problem), (status = 413, body = Problem),
        (status = 507, body = Problem)))]
pub(super) async fn upload(
    state: AdminState,
    name: Path<String>,
    body: Body,
) -> Result<(StatusCode, Json<Artifact>), Failure> {
    artifacts::upload(state, name, body).await
}

/// Refuses a deploy whose files are not all there, or are none.
pub(super) async fn check(shared: &Shared, list: Option<&Digest>) -> Result<(), Failure> {
    let Some(name) = list else {
        return Ok(());
    };
    let found = shared.blobs.get(name).await;
    let bytes = found.map_err(|error| Failure::of_storage(&error))?;
    let not_there = |detail: String| Failure::new(Code::FilesNotFound, detail);
    let bytes = bytes.ok_or_else(|| not_there(format!("upload the list {name} first")))?;
    let unfit = |detail: String| Failure::new(Code::InvalidSettings, detail);
    let list = FileList::parse(&bytes)
        .map_err(|error| unfit(format!("{name} cannot be the list of files: {error}")))?;
    files::check_list(&list).map_err(|error| unfit(error.to_string()))?;
    let mut missing = Vec::new();
    for (contents, bytes) in list.contents() {
        if length(shared, &contents).await? != Some(bytes) {
            missing.push(contents);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let named = missing.iter().take(NAMED_MAX).map(Digest::to_string);
    let named: Vec<_> = named.collect();
    Err(not_there(format!(
        "{} of the contents are not there; upload {}",
        missing.len(),
        named.join(", ")
    )))
}

async fn length(shared: &Shared, digest: &Digest) -> Result<Option<u64>, Failure> {
    let found = shared.blobs.length(digest).await;
    found.map_err(|error| Failure::of_storage(&error))
}
