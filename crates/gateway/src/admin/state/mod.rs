//! State for operators: the values of an app, by key.
//!
//! A value's version is its entity tag, so that conditional requests are compare-and-swap.

mod condition;
mod range;
mod reading;
mod upload;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::v1::{StateChange, StateMissed, StateValue, StateValues};
use api::{Code, Problem};
use axum::body::Body;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use http::header::{CONTENT_RANGE, ETAG};
use http::{HeaderMap, StatusCode};
use model::{AppName, Durability};
use state::{Info, Key, LIST_KEYS_MAX, Open, Put, StateError, Value, WatchItem};
use tokio::runtime::Handle;

use self::condition::{Condition, tag};
use self::upload::Upload;
pub(crate) use self::upload::Uploads;
use super::AdminState;
use super::extract::{Json, Path, Query};
use super::invocations::duration;
use crate::failure::Failure;
use crate::shared::Shared;

/// Keys of one page unless asked otherwise.
const LIMIT: usize = 100;
/// How often a change on conditions is tried anew because another one came in between.
const SWAP_TRIES_MAX: usize = 16;
/// When those who found a value restless are told to come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Values above this are copied on a thread that may take its time.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// Which keys.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
pub(super) struct Wanted {
    /// Those that begin with this; all unless set.
    #[serde(default)]
    prefix: String,
    /// Those after this one: the `next` of the page before.
    after: Option<String>,
    /// At most so many; 100 unless set.
    limit: Option<usize>,
    /// Instead of a page, tell each change from now on, as server-sent events named `change`, until
    /// the client leaves. An event named `missed` says how many a client missed that was too slow.
    #[serde(default)]
    watch: bool,
}

/// The values of an app, by key; or with `watch`, their changes.
#[utoipa::path(get, path = "/v1/apps/{app}/state", operation_id = "listState", tag = "state",
    params(("app" = String, Path, description = "App"), Wanted),
    responses((status = 200, content((StateValues = "application/json"),
        (StateChange = "text/event-stream"))), (status = 400, body = Problem),
        (status = 503, body = Problem, description = "Too many watch already")))]
pub(super) async fn list(
    State(shared): AdminState,
    Path(app): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Failure> {
    let app = shared.state.app(&app.parse::<AppName>()?);
    if wanted.watch {
        let events = app.watch(&wanted.prefix)?.map(event);
        let events = events.take_until(shared.stop.clone().cancelled_owned());
        let events = Sse::new(events).keep_alive(KeepAlive::default());
        return Ok(events.into_response());
    }
    let most = shared.config.page_max.min(LIST_KEYS_MAX);
    let limit = wanted.limit.unwrap_or(LIMIT).clamp(1, most);
    let after = wanted.after.as_deref();
    let found = app.list(&wanted.prefix, after, limit).await?;
    let mut next = None;
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let last = last.key.as_str();
        let more = app.list(&wanted.prefix, Some(last), 1).await?;
        next = (!more.is_empty()).then(|| last.to_owned());
    }
    let values = found.iter().map(|one| view(&one.key, &one.info)).collect();
    Ok(Json(StateValues { values, next }).into_response())
}

/// A value's bytes, or the part of them that `Range` names. What it says beside is in the head:
/// `ETag` (its version), `Dunlin-Durability` and, where it ends by itself,
/// `Dunlin-Expires-Unix-Ms`. The bytes are those of one version: if the value changes while it is
/// sent, the answer breaks off. What guests write through mappings counts as a change when it is
/// pushed.
#[utoipa::path(get, path = "/v1/apps/{app}/state/{*key}", operation_id = "readState",
    tag = "state", params(("app" = String, Path, description = "App"),
        ("key" = String, Path, description = "Key, percent-encoded; it may hold slashes"),
        ("range" = Option<String>, Header, description = "One range, as in `bytes=0-99`"),
        ("if-none-match" = Option<String>, Header, description = "Version that is known")),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 304, description = "It still has that version"),
        (status = 404, body = Problem), (status = 412, body = Problem),
        (status = 416, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn read(
    State(shared): AdminState,
    Path((app, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let value = value(&shared, &app, &key, Open::default()).await?;
    let condition = Condition::of(&headers)?;
    reading::answer(&value, &condition, &headers).await
}

/// What is known of a value, in the head of the answer.
#[utoipa::path(head, path = "/v1/apps/{app}/state/{*key}", operation_id = "headState",
    tag = "state", params(("app" = String, Path, description = "App"),
        ("key" = String, Path, description = "Key, percent-encoded; it may hold slashes")),
    responses((status = 200, description = "There is a value"),
        (status = 304, description = "It still has the version of `If-None-Match`")))]
pub(super) async fn head(
    State(shared): AdminState,
    Path((app, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let value = value(&shared, &app, &key, Open::default()).await?;
    let info = value.info().ok_or(StateError::NotFound)?;
    let condition = Condition::of(&headers)?;
    if let Some(answer) = reading::unless(&condition, &info)? {
        return Ok(answer);
    }
    Ok(reading::whole(&info, Body::empty()))
}

/// How to make a value.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
pub(super) struct Making {
    /// `ephemeral` (the default) or `durable`, if the key has no value yet; one that has a value
    /// keeps its durability.
    #[param(value_type = Option<String>)]
    durability: Option<Durability>,
    /// When it ends, from now, as in `30s` or `500ms`; `0` for never. Unless set, what holds
    /// already goes on to hold.
    ttl: Option<String>,
}

/// Makes the body the value. With `If-Match: "VERSION"` only if it has that version, and with
/// `If-None-Match: *` only if there is none. A durable value is on disk when this answers.
#[utoipa::path(put, path = "/v1/apps/{app}/state/{*key}", operation_id = "writeState",
    tag = "state", params(("app" = String, Path, description = "App"),
        ("key" = String, Path, description = "Key, percent-encoded; it may hold slashes"),
        ("if-match" = Option<String>, Header, description = "Version that is replaced"),
        ("if-none-match" = Option<String>, Header, description = "`*`: there is no value"),
        Making),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = StateValue, description = "Replaced"),
        (status = 201, body = StateValue, description = "Made"), (status = 400, body = Problem),
        (status = 408, body = Problem), (status = 412, body = Problem),
        (status = 413, body = Problem), (status = 503, body = Problem),
        (status = 507, body = Problem)))]
pub(super) async fn write(
    State(shared): AdminState,
    Path((app, key)): Path<(String, String)>,
    Query(making): Query<Making>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    if headers.contains_key(CONTENT_RANGE) {
        let detail = "a value is written as a whole: leave `Content-Range` out";
        return Err(Failure::new(Code::BadRequest, detail));
    }
    let create = making.durability.unwrap_or_default();
    let ttl = making.ttl.as_deref();
    let ttl = ttl.map(|text| duration("ttl", text)).transpose()?;
    let condition = Condition::of(&headers)?;
    names(&app, &key)?;
    let bytes_max = shared.state.value_bytes_max() as u64;
    let config = &shared.config.admin;
    let upload = shared.uploads.collect(body, bytes_max, config).await?;
    let open = Open {
        create: Some(create),
    };
    let value = value(&shared, &app, &key, open).await?;
    let (info, existed) = put(value.clone(), condition, upload, ttl).await?;
    let status = match existed {
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    };
    let told = Json(view(value.key(), &info));
    Ok((status, [(ETAG, tag(info.version))], told).into_response())
}

/// Removes a value; with `If-Match: "VERSION"` only if it has that version.
#[utoipa::path(delete, path = "/v1/apps/{app}/state/{*key}", operation_id = "removeState",
    tag = "state", params(("app" = String, Path, description = "App"),
        ("key" = String, Path, description = "Key, percent-encoded; it may hold slashes"),
        ("if-match" = Option<String>, Header, description = "Version that is removed")),
    responses((status = 204), (status = 404, body = Problem), (status = 412, body = Problem)))]
pub(super) async fn remove(
    State(shared): AdminState,
    Path((app, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    let condition = Condition::of(&headers)?;
    let value = value(&shared, &app, &key, Open::default()).await?;
    for _ in 0..SWAP_TRIES_MAX {
        let version = value.version();
        if version == 0 {
            return Err(StateError::NotFound.into());
        }
        condition.check(version)?;
        match value.delete_if(version).await {
            Err(StateError::Conflict { .. }) => {}
            done => return Ok(done.map(|()| StatusCode::NO_CONTENT)?),
        }
    }
    Err(restless())
}

fn names(app: &str, key: &str) -> Result<(AppName, Key), Failure> {
    let malformed = |error: state::KeyError| Failure::new(Code::InvalidName, error.to_string());
    Ok((app.parse()?, key.parse().map_err(malformed)?))
}

async fn value(shared: &Shared, app: &str, key: &str, open: Open) -> Result<Arc<Value>, Failure> {
    let (app, key) = names(app, key)?;
    Ok(shared.state.app(&app).value(&key, open).await?)
}

/// Puts a value in its place; and whether there was one before.
async fn put(
    value: Arc<Value>,
    condition: Condition,
    upload: Upload,
    ttl: Option<Duration>,
) -> Result<(Info, bool), Failure> {
    if upload.bytes().len() <= INLINE_BYTES_MAX {
        return put_now(&value, &condition, upload.bytes(), ttl).await;
    }
    let handle = Handle::current();
    let put = move || handle.block_on(put_now(&value, &condition, upload.bytes(), ttl));
    let put = tokio::task::spawn_blocking(put).await;
    put.unwrap_or_else(|error| Err(Failure::platform(&error)))
}

async fn put_now(
    value: &Arc<Value>,
    condition: &Condition,
    bytes: &[u8],
    ttl: Option<Duration>,
) -> Result<(Info, bool), Failure> {
    for _ in 0..SWAP_TRIES_MAX {
        let version = value.version();
        condition.check(version)?;
        let expected = condition.is_given().then_some(version);
        match value.put(bytes, Put { expected, ttl }).await {
            Err(StateError::Conflict { .. }) => {}
            done => return Ok((done?, version != 0)),
        }
    }
    Err(restless())
}

/// The value changed whenever it was looked at.
fn restless() -> Failure {
    let detail = "the value changes too often for this request";
    Failure::new(Code::StateBusy, detail).retry_after(RETRY_AFTER)
}

fn view(key: &Key, info: &Info) -> StateValue {
    StateValue {
        key: key.to_string(),
        size: info.size,
        version: info.version,
        durability: info.durability,
        expires_unix_ms: (info.expires_ms != 0).then_some(info.expires_ms),
    }
}

fn event(item: WatchItem) -> Result<Event, Infallible> {
    let (name, json) = match item {
        WatchItem::Changed {
            key,
            version,
            deleted,
        } => {
            let change = StateChange {
                key: key.to_string(),
                version,
                deleted,
            };
            ("change", serde_json::to_string(&change))
        }
        WatchItem::Missed(missed) => ("missed", serde_json::to_string(&StateMissed { missed })),
    };
    let data = json.unwrap_or_default();
    Ok(Event::default().event(name).data(data))
}
