//! State for operators: the values of an app, by key.
//!
//! A value's version is its entity tag, so that conditional requests are compare-and-swap.

mod condition;
mod range;
mod reading;
mod upload;

use std::convert::Infallible;
use std::time::Duration;

use api::v1::{StateChange, StateMissed, StateValue, StateValues};
use api::{Code, Problem};
use axum::body::Body;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use http::header::{CONTENT_RANGE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use model::{AppName, Durability};
use state::{AppState, Done, Info, Key, LIST_KEYS_MAX, Op, Put, StateError, WatchItem};
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
/// Names the node that owns the key, in a cluster.
const NODE: HeaderName = HeaderName::from_static("dunlin-node");

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
        let events = app.watch_all(&wanted.prefix).await?.map(event);
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
    let place = Place::of(&shared, &app, &key)?;
    let condition = match Condition::of(&headers) {
        Ok(condition) => condition,
        Err(malformed) => {
            // What is wrong with the request counts only where there is a value.
            place.info().await?;
            return Err(malformed);
        }
    };
    reading::answer(&place, &condition, &headers).await
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
    let place = Place::of(&shared, &app, &key)?;
    let info = place.info().await?;
    let condition = Condition::of(&headers)?;
    if let Some(answer) = reading::unless(&condition, &info)? {
        return Ok(answer);
    }
    let mut answer = reading::whole(&info, Body::empty());
    Owner::of(&place).tell(&mut answer);
    Ok(answer)
}

/// How to make a value.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
pub(super) struct Making {
    /// `ephemeral` (the default), `replicated` or `durable`, if the key has no value yet; one that
    /// has a value keeps its durability.
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
    let place = Place::of(&shared, &app, &key)?;
    let bytes_max = shared.state.value_bytes_max() as u64;
    let config = &shared.config.admin;
    let upload = shared.uploads.collect(body, bytes_max, config).await?;
    let making = (create, ttl);
    let (info, existed) = put(place.clone(), condition, upload, making).await?;
    let status = match existed {
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    };
    let told = Json(view(&place.key, &info));
    let mut answer = (status, [(ETAG, tag(info.version))], told).into_response();
    Owner::of(&place).tell(&mut answer);
    Ok(answer)
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
    let place = Place::of(&shared, &app, &key)?;
    for _ in 0..SWAP_TRIES_MAX {
        let expected = match condition.is_given() {
            true => Some(place.info().await?.version),
            false => None,
        };
        condition.check(expected.unwrap_or_default())?;
        match place.run(&Op::Delete { expected }).await {
            Ok(Done::Was(false)) => return Err(StateError::NotFound.into()),
            Err(StateError::Conflict { .. }) => {}
            done => return Ok(done.map(|_| StatusCode::NO_CONTENT)?),
        }
    }
    Err(restless())
}

/// A key of an app, on whatever node its value is.
#[derive(Clone)]
struct Place {
    app: AppState,
    key: Key,
}

impl Place {
    fn of(shared: &Shared, app: &str, key: &str) -> Result<Self, Failure> {
        let (app, key) = names(app, key)?;
        let app = shared.state.app(&app);
        Ok(Self { app, key })
    }

    async fn info(&self) -> Result<Info, StateError> {
        self.app.info(&self.key).await
    }

    /// The value's version; 0 if there is none.
    async fn version(&self) -> Result<u64, StateError> {
        match self.info().await {
            Ok(info) => Ok(info.version),
            Err(StateError::NotFound) => Ok(0),
            Err(error) => Err(error),
        }
    }

    async fn run(&self, op: &Op<'_>) -> Result<Done, StateError> {
        self.app.run(&self.key, op).await
    }
}

/// The node that owns a key; none on a node that stands alone.
struct Owner(Option<HeaderValue>);

impl Owner {
    fn of(place: &Place) -> Self {
        let node = place.app.owner(&place.key);
        Self(node.and_then(|node| HeaderValue::from_str(node.as_str()).ok()))
    }

    fn tell(self, answer: &mut Response) {
        if let Some(node) = self.0 {
            answer.headers_mut().insert(NODE, node);
        }
    }
}

fn names(app: &str, key: &str) -> Result<(AppName, Key), Failure> {
    let malformed = |error: state::KeyError| Failure::new(Code::InvalidName, error.to_string());
    Ok((app.parse()?, key.parse().map_err(malformed)?))
}

/// Where a value is kept that is made, and for how long.
type Made = (Durability, Option<Duration>);

/// Puts a value in its place; and whether there was one before.
async fn put(
    place: Place,
    condition: Condition,
    upload: Upload,
    making: Made,
) -> Result<(Info, bool), Failure> {
    if upload.bytes().len() <= INLINE_BYTES_MAX {
        return put_now(&place, &condition, upload.bytes(), making).await;
    }
    let handle = Handle::current();
    let put = move || handle.block_on(put_now(&place, &condition, upload.bytes(), making));
    let put = tokio::task::spawn_blocking(put).await;
    put.unwrap_or_else(|error| Err(Failure::platform(&error)))
}

async fn put_now(
    place: &Place,
    condition: &Condition,
    data: &[u8],
    (durability, ttl): Made,
) -> Result<(Info, bool), Failure> {
    for _ in 0..SWAP_TRIES_MAX {
        // Who names no condition does not mind what was there.
        let expected = match condition.is_given() {
            true => Some(place.version().await?),
            false => None,
        };
        condition.check(expected.unwrap_or_default())?;
        let op = Op::Put {
            create: Some(durability),
            put: Put { expected, ttl },
            data: data.into(),
        };
        match place.run(&op).await {
            Ok(Done::Made(info, existed)) => return Ok((info, existed)),
            Ok(_) => return Err(restless()),
            Err(StateError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
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
