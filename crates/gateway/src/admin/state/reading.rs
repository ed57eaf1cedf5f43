//! A value on its way out: a chunk at a time, all of one version.

use std::ops::Range;

use api::Code;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use state::{Info, StateError};

use super::condition::{Condition, tag};
use super::range::Wanted;
use super::{Owner, Place, restless};
use crate::failure::Failure;

/// Bytes that are copied out of a value at a time.
const CHUNK_BYTES: u64 = 1 << 20;
/// Chunks that one request holds: while one is sent the next ones come, which may be from another
/// node.
const AHEAD: usize = 3;
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
        // Mostly all of a value is wanted: then its beginning comes with what is known of it.
        let guess = match headers.contains_key(RANGE) || condition.is_given() {
            true => 0,
            false => CHUNK_BYTES as usize,
        };
        let (info, begin) = place.app.piece(&place.key, 0, guess, 0).await?;
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
            ahead: FuturesOrdered::new(),
        };
        let first = if begin.is_empty() || part {
            reading.ask(1);
            match reading.chunk().await {
                Ok(first) => first.unwrap_or_default(),
                Err(ReadingError::Changed) => continue,
                Err(ReadingError::State(error)) => return Err(error.into()),
            }
        } else {
            reading.range.start += begin.len() as u64;
            begin
        };
        let body = Body::from_stream(reading.all(first));
        let mut answer = match part {
            true => of_part(&info, &range, body),
            false => whole(&info, body),
        };
        Owner::of(place).tell(&mut answer);
        return Ok(answer);
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
        model::Durability::Replicated => "replicated",
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
    /// What was not asked for yet.
    range: Range<u64>,
    ahead: FuturesOrdered<BoxFuture<'static, Result<Bytes, ReadingError>>>,
}

impl Reading {
    /// Asks for the next chunks, so that `count` are under way.
    fn ask(&mut self, count: usize) {
        while self.ahead.len() < count && !self.range.is_empty() {
            let length = CHUNK_BYTES.min(self.range.end - self.range.start);
            let (place, version) = (self.place.clone(), self.version);
            let chunk = chunk(place, self.range.start, length as usize, version);
            self.ahead.push_back(chunk.boxed());
            self.range.start += length;
        }
    }

    /// The next bytes of those that were asked for, of the one version; none at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, ReadingError> {
        self.ahead.next().await.transpose()
    }

    fn all(self, first: Bytes) -> impl Stream<Item = Result<Bytes, ReadingError>> {
        let rest = stream::try_unfold(self, |mut reading| async move {
            reading.ask(AHEAD);
            let chunk = reading.chunk().await?;
            Ok(chunk.map(|chunk| (chunk, reading)))
        });
        stream::once(std::future::ready(Ok(first))).chain(rest)
    }
}

/// Bytes of a version of a value.
async fn chunk(
    place: Place,
    start: u64,
    length: usize,
    version: u64,
) -> Result<Bytes, ReadingError> {
    let Place { app, key } = &place;
    match app.piece(key, start, length, version).await {
        Ok((_, bytes)) if bytes.len() == length => Ok(bytes),
        Ok(_) | Err(StateError::Conflict { .. } | StateError::NotFound) => {
            Err(ReadingError::Changed)
        }
        Err(error) => Err(error.into()),
    }
}
