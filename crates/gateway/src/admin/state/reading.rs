//! A value on its way out: a chunk at a time, all of one version.

use std::ops::Range;

use api::Code;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use state::{Info, StateError};

use super::condition::{Condition, tag};
use super::range::Wanted;
use super::{Place, restless};
use crate::failure::Failure;

/// Bytes that are copied out of a value at a time, which is all that one request holds of it.
const CHUNK_BYTES: u64 = 256 << 10;
/// How often the beginning of an answer is read anew because the value changed meanwhile.
const READ_TRIES_MAX: usize = 16;

const DURABILITY: HeaderName = HeaderName::from_static("dunlin-durability");
const EXPIRES: HeaderName = HeaderName::from_static("dunlin-expires-unix-ms");

/// Why an answer breaks off.
#[derive(Debug, thiserror::Error)]
enum ReadingError {
    #[error("the value changed while it was sent")]
    Changed,
    #[error("the value could not be read to its end")]
    State(#[from] StateError),
}

/// Answers a GET.
pub(super) async fn answer(
    place: &Place,
    condition: &Condition,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    for _ in 0..READ_TRIES_MAX {
        let info = place.info().await?;
        if let Some(answer) = unless(condition, &info)? {
            return Ok(answer);
        }
        let (range, part) = match Wanted::of(headers, info.version, info.size) {
            Wanted::All => (0..info.size, false),
            Wanted::Part(range) => (range, true),
            Wanted::Nothing => return Ok(nothing(&info)),
        };
        // Read before anything is promised: what fits one chunk never breaks off.
        let mut reading = Reading {
            place: place.clone(),
            version: info.version,
            range: range.clone(),
        };
        let first = match reading.chunk().await {
            Ok(first) => first,
            Err(ReadingError::Changed) => continue,
            Err(ReadingError::State(error)) => return Err(error.into()),
        };
        let body = Body::from_stream(reading.all(first));
        return Ok(match part {
            true => of_part(&info, &range, body),
            false => whole(&info, body),
        });
    }
    Err(restless())
}

/// The answer where a condition says that the bytes are not wanted.
pub(super) fn unless(condition: &Condition, info: &Info) -> Result<Option<Response>, Failure> {
    if condition.matches(info.version) && !condition.differs(info.version) {
        let told = (StatusCode::NOT_MODIFIED, [(ETAG, tag(info.version))]);
        return Ok(Some(told.into_response()));
    }
    condition.check(info.version).map(|()| None)
}

/// An answer with all of a value.
pub(super) fn whole(info: &Info, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, octets);
    headers.insert(CONTENT_LENGTH, info.size.into());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(ETAG, tag(info.version));
    let durability = match info.durability {
        model::Durability::Ephemeral => "ephemeral",
        model::Durability::Durable => "durable",
    };
    headers.insert(DURABILITY, HeaderValue::from_static(durability));
    if info.expires_ms != 0 {
        headers.insert(EXPIRES, info.expires_ms.into());
    }
    response
}

fn of_part(info: &Info, range: &Range<u64>, body: Body) -> Response {
    let mut response = whole(info, body);
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, (range.end - range.start).into());
    let (first, last) = (range.start, range.end.saturating_sub(1));
    insert_range(headers, &format!("bytes {first}-{last}/{}", info.size));
    response
}

fn nothing(info: &Info) -> Response {
    let detail = format!("the value has {} bytes", info.size);
    let mut response = Failure::new(Code::RangeNotSatisfiable, detail).into_response();
    insert_range(response.headers_mut(), &format!("bytes */{}", info.size));
    response
}

fn insert_range(headers: &mut HeaderMap, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(CONTENT_RANGE, value);
    }
}

/// The part of a value that is still to be sent.
struct Reading {
    place: Place,
    version: u64,
    range: Range<u64>,
}

impl Reading {
    /// The next bytes, of the one version; none at the end.
    async fn chunk(&mut self) -> Result<Bytes, ReadingError> {
        let length = CHUNK_BYTES.min(self.range.end - self.range.start);
        let mut bytes = vec![0; length as usize];
        let Place { app, key } = &self.place;
        let start = self.range.start;
        match app.read(key, start, &mut bytes, self.version).await {
            Ok((_, read)) if read == bytes.len() => {}
            Ok(_) | Err(StateError::Conflict { .. } | StateError::NotFound) => {
                return Err(ReadingError::Changed);
            }
            Err(error) => return Err(error.into()),
        }
        self.range.start += length;
        Ok(bytes.into())
    }

    fn all(self, first: Bytes) -> impl Stream<Item = Result<Bytes, ReadingError>> {
        let rest = stream::try_unfold(self, |mut reading| async move {
            if reading.range.is_empty() {
                return Ok(None);
            }
            let chunk = reading.chunk().await?;
            Ok(Some((chunk, reading)))
        });
        stream::once(std::future::ready(Ok(first))).chain(rest)
    }
}
