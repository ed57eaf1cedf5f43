//! The wire format: frames of a fixed header and a bounded payload.
//!
//! ```text
//!  0     1      2      4         8              16
//!  kind  flags  zero   length    id             payload …
//!  u8    u8     u16    u32       u64            `length` bytes
//! ```
//!
//! Numbers are little-endian. The payload of `DATA` is handed on as it comes, so that a decoder
//! never holds more of a stream than it has just read; every other frame is decoded whole.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::code::{GoAway, Open, Priority, Reset, Status};
use crate::hello::{HELLO_BYTES_MAX, Hello, HelloError};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 16;

/// Bytes that `OPEN` and `REPLY` have before the body.
const OPEN_BYTES: usize = 12;
const REPLY_BYTES: usize = 2;

/// Bytes of a header together with the fields that are sent along with it.
const HEAD_BYTES_MAX: usize = HEADER_BYTES + OPEN_BYTES;

/// Payloads up to this size are copied out of the read buffer: a reference to a few bytes would
/// keep all of the buffer.
const COPIED_BYTES_MAX: usize = 2048;

/// The flag of the last frame of a direction of a call.
const END: u8 = 1;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Hello = 1,
    Open = 2,
    Reply = 3,
    Data = 4,
    Credit = 5,
    Reset = 6,
    Ping = 7,
    Pong = 8,
    GoAway = 9,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Hello,
        Self::Open,
        Self::Reply,
        Self::Data,
        Self::Credit,
        Self::Reset,
        Self::Ping,
        Self::Pong,
        Self::GoAway,
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The least and the most bytes of a payload, where bodies have at most `body_max`.
    fn lengths(self, body_max: usize) -> (usize, usize) {
        match self {
            Self::Hello => (0, HELLO_BYTES_MAX),
            Self::Open => (OPEN_BYTES, OPEN_BYTES + body_max),
            Self::Reply => (REPLY_BYTES, REPLY_BYTES + body_max),
            Self::Data => (0, body_max),
            Self::Credit => (4, 4),
            Self::Reset | Self::GoAway => (2, 2),
            Self::Ping | Self::Pong => (8, 8),
        }
    }

    fn may_end(self) -> bool {
        matches!(self, Self::Open | Self::Reply | Self::Data)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first frame of either side.
    Hello(Hello),
    /// A call begins, with the first part of its body.
    Open {
        /// The call; each is greater than the last.
        id: u64,
        /// What is asked for.
        open: Open,
        /// The body's beginning.
        body: Bytes,
        /// Whether that is all of the body.
        end: bool,
    },
    /// The reply begins.
    Reply {
        /// The call.
        id: u64,
        /// How it went.
        status: Status,
        /// The body's beginning.
        body: Bytes,
        /// Whether that is all of the body.
        end: bool,
    },
    /// A part of a body, within the credit that the reader gave.
    Data {
        /// The call.
        id: u64,
        /// The bytes, or those of them that have come.
        bytes: Bytes,
        /// Whether these are the last.
        end: bool,
    },
    /// The reader can take more.
    Credit {
        /// The call.
        id: u64,
        /// How many bytes more.
        bytes: u32,
    },
    /// The call is cut.
    Reset {
        /// The call.
        id: u64,
        /// Why.
        reason: Reset,
    },
    /// Asks for a sign of life.
    Ping(u64),
    /// Gives it, with the number of the ping.
    Pong(u64),
    /// No more calls.
    GoAway {
        /// The last call that was accepted; later ones were not begun.
        last: u64,
        /// Why.
        reason: GoAway,
    },
}

/// A frame as it is sent: what is made up for it, and what is only referred to.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: usize,
    pub(crate) payload: Bytes,
}

impl Encoded {
    fn new(kind: Kind, end: bool, id: u64, fields: &[u8], payload: Bytes) -> Self {
        let mut head = [0; HEAD_BYTES_MAX];
        let length = (fields.len() + payload.len()) as u32;
        let mut out = &mut head[..];
        out.put_u8(kind as u8);
        out.put_u8(if end { END } else { 0 });
        out.put_u16_le(0);
        out.put_u32_le(length);
        out.put_u64_le(id);
        out.put_slice(fields);
        Self {
            head,
            head_bytes: HEADER_BYTES + fields.len(),
            payload,
        }
    }

    pub(crate) fn head(&self) -> &[u8] {
        &self.head[..self.head_bytes]
    }

    pub(crate) fn bytes(&self) -> usize {
        self.head_bytes + self.payload.len()
    }
}

impl Frame {
    pub(crate) fn encode(self) -> Encoded {
        let none = Bytes::new();
        match self {
            Self::Hello(hello) => Encoded::new(Kind::Hello, false, 0, &[], hello.encode()),
            Self::Open {
                id,
                open,
                body,
                end,
            } => {
                let mut fields = [0; OPEN_BYTES];
                fields[..2].copy_from_slice(&open.method.to_le_bytes());
                fields[2] = open.priority as u8;
                fields[4..].copy_from_slice(&open.timeout_us.to_le_bytes());
                Encoded::new(Kind::Open, end, id, &fields, body)
            }
            Self::Reply {
                id,
                status,
                body,
                end,
            } => Encoded::new(Kind::Reply, end, id, &status.0.to_le_bytes(), body),
            Self::Data { id, bytes, end } => Encoded::new(Kind::Data, end, id, &[], bytes),
            Self::Credit { id, bytes } => {
                Encoded::new(Kind::Credit, false, id, &bytes.to_le_bytes(), none)
            }
            Self::Reset { id, reason } => {
                Encoded::new(Kind::Reset, false, id, &reason.code().to_le_bytes(), none)
            }
            Self::Ping(nonce) => Encoded::new(Kind::Ping, false, 0, &nonce.to_le_bytes(), none),
            Self::Pong(nonce) => Encoded::new(Kind::Pong, false, 0, &nonce.to_le_bytes(), none),
            Self::GoAway { last, reason } => {
                let code = reason.code().to_le_bytes();
                Encoded::new(Kind::GoAway, false, last, &code, none)
            }
        }
    }

    /// Appends the frame's bytes.
    pub fn write(self, out: &mut BytesMut) {
        let encoded = self.encode();
        out.reserve(encoded.bytes());
        out.put_slice(encoded.head());
        out.put_slice(&encoded.payload);
    }
}

/// Why bytes are no frames.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// A kind that no agreed version has.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// A flag that the kind does not have.
    #[error("a frame of kind {kind} with the flags {flags:#04x}")]
    Flags {
        /// The kind.
        kind: u8,
        /// What was set.
        flags: u8,
    },
    /// Bytes that must be zero are not.
    #[error("a frame of kind {0} whose reserved bytes are not zero")]
    Reserved(u8),
    /// A length that the kind does not have.
    #[error("a frame of kind {kind} with {bytes} bytes: between {min} and {max} are accepted")]
    Length {
        /// The kind.
        kind: u8,
        /// What the header says.
        bytes: u32,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// A frame that says nothing, which costs its sender nothing.
    #[error("a frame of kind {0} that says nothing")]
    Empty(u8),
    /// A priority that there is not.
    #[error("the unknown priority {0}")]
    Priority(u8),
    /// The first frame is not understood.
    #[error(transparent)]
    Hello(#[from] HelloError),
}

/// The header of a frame, checked.
struct Header {
    kind: Kind,
    end: bool,
    length: usize,
    id: u64,
}

impl Header {
    fn read(mut bytes: &[u8], body_max: usize) -> Result<Self, FrameError> {
        let byte = bytes.get_u8();
        let kind = Kind::of(byte).ok_or(FrameError::Kind(byte))?;
        let flags = bytes.get_u8();
        let known = if kind.may_end() { END } else { 0 };
        if flags & !known != 0 {
            return Err(FrameError::Flags { kind: byte, flags });
        }
        if bytes.get_u16_le() != 0 {
            return Err(FrameError::Reserved(byte));
        }
        let length = bytes.get_u32_le();
        let (min, max) = kind.lengths(body_max);
        if !(min..=max).contains(&(length as usize)) {
            return Err(FrameError::Length {
                kind: byte,
                bytes: length,
                min,
                max,
            });
        }
        Ok(Self {
            kind,
            end: flags & END != 0,
            length: length as usize,
            id: bytes.get_u64_le(),
        })
    }
}

/// The rest of a `DATA` frame whose header was read.
#[derive(Clone, Copy, Debug)]
struct Rest {
    id: u64,
    left: usize,
    end: bool,
}

/// Turns bytes into frames; it keeps nothing but what the current frame lacks.
#[derive(Debug)]
pub struct Decoder {
    body_bytes_max: usize,
    rest: Option<Rest>,
}

impl Decoder {
    /// A decoder that refuses bodies of more than `body_bytes_max` in one frame.
    pub fn new(body_bytes_max: u32) -> Self {
        Self {
            body_bytes_max: body_bytes_max as usize,
            rest: None,
        }
    }

    /// Takes the next frame from the beginning of `input`; none if more bytes are needed.
    ///
    /// After an error the connection is of no more use: nothing says where the next frame begins.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if self.rest.is_some() {
            return Ok(self.part(input));
        }
        if input.len() < HEADER_BYTES {
            return Ok(None);
        }
        let header = Header::read(&input[..HEADER_BYTES], self.body_bytes_max)?;
        if header.kind == Kind::Data {
            return self.begin_data(&header, input);
        }
        let bytes = HEADER_BYTES + header.length;
        if input.len() < bytes {
            input.reserve(bytes - input.len());
            return Ok(None);
        }
        input.advance(HEADER_BYTES);
        let payload = take(input, header.length);
        whole(&header, payload).map(Some)
    }

    /// The call that the next bytes belong to, and how many, if they are the rest of `DATA`.
    pub(crate) fn expects(&self) -> Option<(u64, usize)> {
        self.rest.map(|rest| (rest.id, rest.left))
    }

    /// Counts bytes of that rest which were read elsewhere; whether they were the call's last.
    pub(crate) fn landed(&mut self, bytes: usize) -> bool {
        let Some(rest) = &mut self.rest else {
            return false;
        };
        rest.left = rest.left.saturating_sub(bytes);
        let (done, end) = (rest.left == 0, rest.end);
        if done {
            self.rest = None;
        }
        done && end
    }

    fn begin_data(
        &mut self,
        header: &Header,
        input: &mut BytesMut,
    ) -> Result<Option<Frame>, FrameError> {
        input.advance(HEADER_BYTES);
        let id = header.id;
        if header.length == 0 {
            return match header.end {
                true => Ok(Some(Frame::Data {
                    id,
                    bytes: Bytes::new(),
                    end: true,
                })),
                false => Err(FrameError::Empty(Kind::Data as u8)),
            };
        }
        self.rest = Some(Rest {
            id,
            left: header.length,
            end: header.end,
        });
        Ok(self.part(input))
    }

    fn part(&mut self, input: &mut BytesMut) -> Option<Frame> {
        let rest = self.rest?;
        if input.is_empty() {
            return None;
        }
        let bytes = take(input, rest.left.min(input.len()));
        let end = self.landed(bytes.len());
        Some(Frame::Data {
            id: rest.id,
            bytes,
            end,
        })
    }
}

fn take(input: &mut BytesMut, bytes: usize) -> Bytes {
    if bytes > COPIED_BYTES_MAX {
        return input.split_to(bytes).freeze();
    }
    let copied = Bytes::copy_from_slice(&input[..bytes]);
    input.advance(bytes);
    copied
}

fn whole(header: &Header, mut payload: Bytes) -> Result<Frame, FrameError> {
    let (id, end) = (header.id, header.end);
    Ok(match header.kind {
        Kind::Hello => Frame::Hello(Hello::decode(payload)?),
        Kind::Open => {
            let method = payload.get_u16_le();
            let priority = match payload.get_u8() {
                0 => Priority::Prompt,
                1 => Priority::Bulk,
                other => return Err(FrameError::Priority(other)),
            };
            if payload.get_u8() != 0 {
                return Err(FrameError::Reserved(Kind::Open as u8));
            }
            let timeout_us = payload.get_u64_le();
            let open = Open {
                method,
                priority,
                timeout_us,
            };
            Frame::Open {
                id,
                open,
                body: payload,
                end,
            }
        }
        Kind::Reply => Frame::Reply {
            id,
            status: Status(payload.get_u16_le()),
            body: payload,
            end,
        },
        Kind::Data => Frame::Data {
            id,
            bytes: payload,
            end,
        },
        Kind::Credit => match payload.get_u32_le() {
            0 => return Err(FrameError::Empty(Kind::Credit as u8)),
            bytes => Frame::Credit { id, bytes },
        },
        Kind::Reset => Frame::Reset {
            id,
            reason: Reset::of(payload.get_u16_le()),
        },
        Kind::Ping => Frame::Ping(payload.get_u64_le()),
        Kind::Pong => Frame::Pong(payload.get_u64_le()),
        Kind::GoAway => Frame::GoAway {
            last: id,
            reason: GoAway::of(payload.get_u16_le()),
        },
    })
}

/// The wire's numbers once more: whoever changes one changes it here too, and on purpose.
const _: () = {
    assert!(HEADER_BYTES == 16 && OPEN_BYTES == 12 && REPLY_BYTES == 2 && END == 1);
    assert!(Kind::Hello as u8 == 1 && Kind::Open as u8 == 2 && Kind::Reply as u8 == 3);
    assert!(Kind::Data as u8 == 4 && Kind::Credit as u8 == 5 && Kind::Reset as u8 == 6);
    assert!(Kind::Ping as u8 == 7 && Kind::Pong as u8 == 8 && Kind::GoAway as u8 == 9);
};
