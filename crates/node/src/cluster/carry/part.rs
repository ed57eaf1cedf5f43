//! Parts of images: what another node's cache has of one, from a byte on.
//!
//! ```text
//!  request:  digest (32) │ first byte (8) │ bytes (4)        little-endian
//!  reply:    OK: the bytes        MISSING: it has not all of them
//! ```
//!
//! Whoever asks knows the digests of parts and compares them: whoever is asked reads its file and
//! does not look at it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use model::{Digest, NodeId};
use transport::{CallError, Peers, Request, Responder, Status};

use super::super::metrics;
use super::super::router::Service;
use super::CarryConfig;
use super::others::{AskError, MISSING};

/// The method. The number is on the wire.
pub(super) const METHOD: u16 = Service::Blob.method(2);
/// The most bytes of one part.
pub(crate) const PART_BYTES_MAX: usize = 256 << 10;
/// Bytes that are handed to the connection at a time: less than every node takes.
const PIECE_BYTES: usize = 32 << 10;
const REQUEST_BYTES: usize = size_of::<Digest>() + size_of::<u64>() + size_of::<u32>();

/// Which bytes of which image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub image: Digest,
    pub start: u64,
    pub bytes: usize,
    /// Whether somebody waits for it; otherwise others go first.
    pub prompt: bool,
}

impl Span {
    pub(super) fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(REQUEST_BYTES);
        bytes.put_slice(self.image.as_bytes());
        bytes.put_u64_le(self.start);
        bytes.put_u32_le(u32::try_from(self.bytes).unwrap_or(u32::MAX));
        bytes.freeze()
    }

    pub(super) fn read(mut request: &[u8]) -> Option<Self> {
        if request.len() != REQUEST_BYTES {
            return None;
        }
        let mut image = [0; size_of::<Digest>()];
        request.copy_to_slice(&mut image);
        let (start, bytes) = (request.get_u64_le(), request.get_u32_le() as usize);
        (bytes <= PART_BYTES_MAX).then_some(Self {
            image: Digest::from_bytes(image),
            start,
            bytes,
            prompt: false,
        })
    }

    /// These bytes of a file; none if it has not all of them.
    pub(super) fn of(&self, path: &Path) -> Option<Bytes> {
        let mut bytes = BytesMut::zeroed(self.bytes);
        let file = File::open(path).ok()?;
        file.read_exact_at(&mut bytes, self.start).ok()?;
        Some(bytes.freeze())
    }
}

/// Asks a node for a part; none if it has it not.
pub(super) async fn ask(
    peers: &Peers,
    node: &NodeId,
    span: &Span,
    config: &CarryConfig,
) -> Result<Option<Bytes>, AskError> {
    let request = || {
        let request = Request::new(METHOD, span.to_bytes()).timeout(config.part_max);
        let request = request.reply_bytes(span.bytes).reply_bytes_max(span.bytes);
        match span.prompt {
            true => request,
            false => request.bulk(),
        }
    };
    let connection = peers.connection(node).await?;
    let (status, bytes) = match connection.call(request()).await {
        // The connection was ending; another one is there, or is made.
        Err(CallError::Draining) => peers.connection(node).await?.call(request()).await?,
        answer => answer?,
    };
    match status {
        Status::OK if bytes.len() == span.bytes => Ok(Some(bytes)),
        Status::OK => Err(AskError::Length {
            sent: bytes.len() as u64,
            said: span.bytes as u64,
        }),
        MISSING => Ok(None),
        Status(other) => Err(AskError::Status(other)),
    }
}

/// Answers with a part.
pub(super) async fn send(responder: Responder, part: Option<Bytes>) -> Result<(), CallError> {
    let Some(mut rest) = part else {
        return responder.reply(MISSING, Bytes::new());
    };
    ::metrics::counter!(metrics::SENT_BYTES_TOTAL).increment(rest.len() as u64);
    let mut sender = responder.stream(Status::OK)?;
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        sender.send(piece).await?;
    }
    sender.finish()
}
