//! A call between nodes in bytes: pieces, each with a kind and a length.
//!
//! ```text
//!  request   HEAD  DATA*  [TRAILERS]  END
//!  reply     HEAD  DATA*  [TRAILERS]  [END]  DONE  all went well; after END no body comes
//!            HEAD  DATA*  BROKEN                  the reply broke off
//! ```
//!
//! Trailers are JSON; heads, refusals and outcomes are in the way of every call: see `heads`.

mod heads;

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use model::{Digest, FunctionPath, InvocationId, StartKind, TraceParent};
use scheduler::Brief;
use serde::{Deserialize, Serialize};
use transport::{Body, CallError, Status};

pub(super) use heads::{put_done, read_outcome};

/// The call's reply follows.
pub(super) const ACCEPTED: Status = Status::OK;
/// It was not started: a [`Refusal`] follows.
pub(super) const REFUSED: Status = Status(1);

/// The methods of the call service. The first runs one invocation.
pub(super) const RUN: u8 = 1;
/// Lends calls to a part of a tree, or takes them back: [`Loan`], and a number.
pub(super) const LEND: u8 = 2;
/// Explains a decision of that node: an id, and a text if there is one.
pub(super) const EXPLAIN: u8 = 3;
/// Tells of what it keeps of a graph: an id, and a graph if there is one.
pub(super) const GRAPH: u8 = 4;

/// Largest piece that is held whole, in bytes: arguments, environment, headers.
const PIECE_BYTES_MAX: usize = 4 << 20;
const KIND_AND_LENGTH: usize = 5;

const HEAD: u8 = 1;
const DATA: u8 = 2;
const TRAILERS: u8 = 3;
const END: u8 = 4;
const DONE: u8 = 5;
const BROKEN: u8 = 6;

/// What is to run. What it runs with is only looked at where it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head<I = Input> {
    pub id: InvocationId,
    pub path: FunctionPath,
    pub version: Digest,
    /// The invocation's own place in its trace.
    pub trace: TraceParent,
    /// Whether it may join the queue there.
    pub may_wait: bool,
    /// Whether the body is sent once the call is accepted, and not at once.
    pub streams: bool,
    /// Of a call that a function made.
    pub stem: Option<Stem>,
    pub input: I,
}

/// Where a call stands in its tree, whose root is elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stem {
    pub root: InvocationId,
    pub parent: InvocationId,
    pub depth: u32,
    /// Time until nobody waits for it any longer, when this was sent.
    pub left_ms: u64,
}

/// What a part of a tree asks of the node that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Loan {
    /// The call that was sent.
    pub id: InvocationId,
    /// Calls that it wants to make.
    pub calls: u32,
    /// Calls that it had, and did not make.
    pub unused: u32,
}

/// What it runs with, beside the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// For commands and reactors.
    Plain {
        args: Vec<String>,
        env: Vec<(String, String)>,
    },
    /// For http components.
    Http {
        method: String,
        uri: String,
        headers: Headers,
    },
}

/// An [`Input`] that is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum InputRef<'a> {
    Plain {
        args: &'a [String],
        env: &'a [(String, String)],
    },
    Http {
        method: &'a str,
        uri: &'a str,
        headers: &'a Headers,
    },
}

impl Input {
    pub(super) fn to_send(&self) -> InputRef<'_> {
        match self {
            Input::Plain { args, env } => InputRef::Plain { args, env },
            Input::Http {
                method,
                uri,
                headers,
            } => InputRef::Http {
                method,
                uri,
                headers,
            },
        }
    }
}

/// Names and values in order; bytes of values as characters of the same number.
pub(crate) type Headers = Vec<(String, String)>;

/// How a reply begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReplyHead {
    pub start: StartKind,
    /// How full the node is: fresher than its last word to all.
    pub brief: Option<Brief>,
    /// Of an http component that gave one.
    pub response: Option<(u16, Headers)>,
}

/// Why a call was not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub why: Why,
    pub message: String,
    /// How full the node is.
    pub brief: Option<Brief>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// No place is free, or no room in the queue.
    Full,
    /// The node takes no new calls.
    Closed,
    /// It does not know the version, or does not know it yet.
    Unknown,
    /// It cannot run it.
    Failed,
    /// It does not understand what is asked.
    Malformed,
    /// A reason of a later release.
    Other,
}

impl Why {
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Full => "full",
            Why::Closed => "closed",
            Why::Unknown => "unknown",
            Why::Failed => "failed",
            Why::Malformed => "malformed",
            Why::Other => "other",
        }
    }
}

/// A part of a request or reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A [`Head`] or [`ReplyHead`].
    Head(Bytes),
    /// Some bytes of the body, never none.
    Data(Bytes),
    /// JSON of [`Headers`].
    Trailers(Bytes),
    /// All of the body was sent.
    End,
    /// The outcome: all of the reply was sent.
    Done(Bytes),
    /// Why the reply broke off.
    Broken(String),
}

/// Why pieces could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PieceError {
    #[error("the call was cut")]
    Call(#[from] CallError),
    #[error("a piece of {0} bytes")]
    TooLarge(usize),
    #[error("a piece of kind {0}")]
    Kind(u8),
    #[error("the bytes end within a piece")]
    Short,
    #[error("a piece cannot be read")]
    Json(#[from] serde_json::Error),
    #[error("a piece cannot be read")]
    Message(#[from] prost::DecodeError),
    #[error("a piece has no {0}, or one that this release does not know")]
    Lacks(&'static str),
    #[error("a piece of another kind was expected")]
    Unexpected,
    #[error("it broke off: {0}")]
    Broken(String),
}

fn put(kind: u8, payload: &[u8], out: &mut BytesMut) {
    out.reserve(KIND_AND_LENGTH + payload.len());
    put_length(kind, payload.len(), out);
    out.put_slice(payload);
}

fn put_length(kind: u8, length: usize, out: &mut BytesMut) {
    out.reserve(KIND_AND_LENGTH);
    out.put_u8(kind);
    // Senders keep pieces far below what 32 bits count.
    out.put_u32_le(length as u32);
}

pub(super) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // Structs of strings and numbers, which serde_json cannot fail on.
    serde_json::to_vec(value).unwrap_or_default()
}

impl Refusal {
    pub fn new(why: Why, message: impl Into<String>) -> Self {
        Self {
            why,
            message: message.into(),
            brief: None,
        }
    }
}

/// Bytes of the body, with what announces them; none need no word.
pub(super) fn put_data(bytes: &[u8], out: &mut BytesMut) {
    if !bytes.is_empty() {
        put(DATA, bytes, out);
    }
}

/// What announces so many bytes of the body.
pub(super) fn put_data_length(length: usize, out: &mut BytesMut) {
    put_length(DATA, length, out);
}

pub(super) fn put_trailers(trailers: &HeaderMap, out: &mut BytesMut) {
    put(TRAILERS, &json(&to_headers(trailers)), out);
}

pub(super) fn put_end(out: &mut BytesMut) {
    put(END, &[], out);
}

pub(super) fn put_broken(why: &str, out: &mut BytesMut) {
    put(BROKEN, why.as_bytes(), out);
}

pub(super) fn read_trailers(bytes: &[u8]) -> Result<HeaderMap, PieceError> {
    let headers: Headers = serde_json::from_slice(bytes)?;
    from_headers(&headers).ok_or(PieceError::Unexpected)
}

pub(super) fn to_headers(headers: &HeaderMap) -> Headers {
    let text = |value: &HeaderValue| value.as_bytes().iter().map(|b| char::from(*b)).collect();
    let headers = headers.iter();
    headers
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

/// None where a name or value is none.
pub(super) fn from_headers(headers: &Headers) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let bytes: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(c).ok()).collect();
        map.append(name, HeaderValue::from_bytes(&bytes?).ok()?);
    }
    Some(map)
}

/// Takes a stream of bytes apart.
pub(super) struct Pieces<S> {
    source: S,
    rest: Bytes,
    data_left: usize,
    /// Kind and length of a piece whose bytes are still to come.
    begun: Option<(u8, usize)>,
    /// What there is of something that is only of use whole.
    gathered: BytesMut,
}

/// Where bytes come from.
pub(super) trait Source {
    async fn chunk(&mut self) -> Result<Option<Bytes>, CallError>;
}

impl Source for Body {
    async fn chunk(&mut self) -> Result<Option<Bytes>, CallError> {
        Body::chunk(self).await
    }
}

impl<S: Source> Pieces<S> {
    pub fn new(source: S) -> Self {
        Self {
            source,
            rest: Bytes::new(),
            data_left: 0,
            begun: None,
            gathered: BytesMut::new(),
        }
    }

    /// The next piece; none at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Piece>, PieceError> {
        loop {
            if self.data_left > 0 {
                if self.rest.is_empty() {
                    self.rest = self.source.chunk().await?.ok_or(PieceError::Short)?;
                    continue;
                }
                let bytes = self.rest.split_to(self.rest.len().min(self.data_left));
                self.data_left -= bytes.len();
                return Ok(Some(Piece::Data(bytes)));
            }
            let (kind, length) = match self.begun {
                Some(begun) => begun,
                None => {
                    let Some(head) = self.exactly(KIND_AND_LENGTH).await? else {
                        return Ok(None);
                    };
                    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
                    if head[0] == DATA {
                        self.data_left = length;
                        continue;
                    }
                    if length > PIECE_BYTES_MAX {
                        return Err(PieceError::TooLarge(length));
                    }
                    *self.begun.insert((head[0], length))
                }
            };
            let bytes = self.exactly(length).await?.ok_or(PieceError::Short)?;
            self.begun = None;
            return piece(kind, bytes).map(Some);
        }
    }

    /// The next piece, which must be a head.
    pub async fn head(&mut self) -> Result<Bytes, PieceError> {
        match self.next().await? {
            Some(Piece::Head(bytes)) => Ok(bytes),
            Some(Piece::Broken(why)) => Err(PieceError::Broken(why)),
            Some(_) => Err(PieceError::Unexpected),
            None => Err(PieceError::Short),
        }
    }

    /// All that there is of a body, of at most so many bytes, and the piece after it.
    pub async fn whole(&mut self, bytes_max: u64) -> Result<(Bytes, Piece), PieceError> {
        let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
        loop {
            match self.next().await? {
                Some(Piece::Data(bytes)) => {
                    let length = first.len() + rest.len() + bytes.len();
                    if length as u64 > bytes_max {
                        return Err(PieceError::TooLarge(length));
                    }
                    match first.is_empty() {
                        true => first = bytes,
                        false => rest.extend_from_slice(&bytes),
                    }
                }
                Some(end) if rest.is_empty() => return Ok((first, end)),
                Some(end) => return Ok(([&first[..], &rest[..]].concat().into(), end)),
                None => return Err(PieceError::Short),
            }
        }
    }

    /// So many bytes; none at the end, if that is before the first of them.
    async fn exactly(&mut self, length: usize) -> Result<Option<Bytes>, PieceError> {
        if self.gathered.is_empty() && self.rest.len() >= length {
            return Ok(Some(self.rest.split_to(length)));
        }
        loop {
            let missing = (length - self.gathered.len()).min(self.rest.len());
            self.gathered
                .extend_from_slice(&self.rest.split_to(missing));
            if self.gathered.len() == length {
                return Ok(Some(std::mem::take(&mut self.gathered).freeze()));
            }
            match self.source.chunk().await? {
                Some(chunk) => self.rest = chunk,
                None if self.gathered.is_empty() => return Ok(None),
                None => return Err(PieceError::Short),
            }
        }
    }
}

fn piece(kind: u8, bytes: Bytes) -> Result<Piece, PieceError> {
    Ok(match kind {
        HEAD => Piece::Head(bytes),
        TRAILERS => Piece::Trailers(bytes),
        END => Piece::End,
        DONE => Piece::Done(bytes),
        BROKEN => Piece::Broken(String::from_utf8_lossy(&bytes).into_owned()),
        kind => return Err(PieceError::Kind(kind)),
    })
}

/// How long a call may take on its way: its own time, and some for queue and network.
pub(super) fn patience(deadline: Duration, queue: Option<Duration>) -> Duration {
    const ON_THE_WAY: Duration = Duration::from_secs(5);
    deadline + queue.unwrap_or_default() + ON_THE_WAY
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
