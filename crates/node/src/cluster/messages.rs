//! Messages of nodes about state, and the buffers that they are read into.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use memory::Part;
use parking_lot::Mutex;
use state::ANSWER_HEAD_BYTES;
use transport::{Answer, Body, CallError, Landing, Status};

/// Buffers that are kept for later messages, and the bytes of the largest of them.
const BUFFERS_MAX: usize = 8;
const BUFFER_BYTES_MAX: usize = 2 << 20;
/// A buffer is used for messages that leave at most one part in so many of it empty.
const SPARE_PART: usize = 8;
/// Bytes of the length before a message.
pub(super) const LENGTH_BYTES: usize = size_of::<u64>();
/// Bytes before those of a value.
pub(super) const STRAIGHT_HEAD_BYTES: usize = LENGTH_BYTES + ANSWER_HEAD_BYTES;

/// A message that is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum MessageError {
    #[error("a message of {0} bytes is too long")]
    TooLong(u64),
    #[error("a message that ends early")]
    Short,
    #[error("it answered {0}")]
    Status(u16),
    #[error("it left the cluster")]
    Left,
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Buffers of messages that were read, for later ones: fresh memory costs a fault for each page,
/// and has to be filled with zeros.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// One of at least so many bytes, and not of many more: a value may keep it.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Buffer {
        let mut kept = self.0.lock();
        let most = bytes + bytes / SPARE_PART;
        let fits = kept
            .iter()
            .position(|all| (bytes..=most).contains(&all.len()));
        let all = fits.map_or_else(|| vec![0; bytes], |at| kept.swap_remove(at));
        let kept_by = self.clone();
        Buffer { all, kept_by }
    }
}

pub(super) struct Buffer {
    all: Vec<u8>,
    kept_by: Arc<Buffers>,
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.all
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.all
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = self.kept_by.0.lock();
        if kept.len() < BUFFERS_MAX && self.all.len() <= BUFFER_BYTES_MAX {
            kept.push(std::mem::take(&mut self.all));
        }
    }
}

/// A reply that gives bytes of a value, in two places.
pub(super) struct Straight {
    pub head: [u8; STRAIGHT_HEAD_BYTES],
    pub part: Part,
}

impl Straight {
    pub fn new(part: Part) -> Self {
        let head = [0; STRAIGHT_HEAD_BYTES];
        Self { head, part }
    }
}

impl Landing for Straight {
    fn bytes(&mut self) -> usize {
        STRAIGHT_HEAD_BYTES + self.part.as_ref().len()
    }

    fn room(&mut self, filled: usize) -> &mut [u8] {
        match filled.checked_sub(STRAIGHT_HEAD_BYTES) {
            None => &mut self.head[filled..],
            Some(landed) => &mut self.part.as_mut()[landed..],
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The body of a reply that says that all went well.
pub(super) async fn replied(answer: Answer) -> Result<Body, MessageError> {
    let reply = answer.reply().await?;
    match reply.status {
        Status::OK => Ok(reply.body),
        other => Err(MessageError::Status(other.0)),
    }
}

/// The part of a buffer that is still to be filled.
struct Rest {
    buffer: Buffer,
    missing: Range<usize>,
}

impl AsMut<[u8]> for Rest {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.all[self.missing.clone()]
    }
}

/// All of a message of at most so many bytes, of which the first may be here: in the piece that
/// came if that is all, and else in one that the rest is decrypted into.
pub(super) async fn message(
    mut first: Bytes,
    mut body: Body,
    bytes_max: usize,
    buffers: &Arc<Buffers>,
) -> Result<Bytes, MessageError> {
    while first.len() < LENGTH_BYTES {
        let more = body.chunk().await?.ok_or(MessageError::Short)?;
        first = match first.is_empty() {
            true => more,
            false => [first, more].concat().into(),
        };
    }
    let length = first.get_u64_le();
    let bytes = usize::try_from(length)
        .ok()
        .filter(|bytes| *bytes <= bytes_max);
    let bytes = bytes.ok_or(MessageError::TooLong(length))?;
    if first.len() >= bytes {
        return Ok(first.slice(..bytes));
    }
    let mut buffer = buffers.take(bytes);
    buffer.all[..first.len()].copy_from_slice(&first);
    let missing = first.len()..bytes;
    drop(first);
    let filled = body.fill(Rest { buffer, missing }).await?;
    Ok(Bytes::from_owner(filled.buffer).slice(..bytes))
}
