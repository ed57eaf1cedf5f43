//! Replies between nodes, as bytes: version (1), how it went (1), and what came of it or why not.

use bytes::Bytes;

use super::bytes::{In, Out, WireError};
use super::copies::wire::{read_head, read_name, write_head, write_name};
use super::op::Done;
use super::wire::{VERSION, durability, read_durability, read_key};
use super::{ANSWER_HEAD_BYTES, Came};
use crate::error::Quota;
use crate::{Info, Listed, StateError, WatchItem};

/// Codes of an answer that gives bytes: how it went, and what came of it.
const DONE: u8 = 0;
const BYTES: u8 = 2;

/// What another node answers.
#[derive(Debug)]
pub(crate) enum Reply {
    /// What came of it.
    Done(Done),
    /// It was tried, and not done.
    Refused(StateError),
    /// The node does not own the key, or by another claim. Nothing was done.
    Elsewhere,
    /// The node does not know the asker's membership, or no longer. Nothing was done.
    Unknown,
    /// The node has too much to do. Nothing was done.
    Busy,
    /// What was asked is no request to this node. Nothing was done.
    Malformed(String),
}

impl Reply {
    /// The message: all but the data that ends it, and that data, which is not copied for it.
    pub fn parts(self) -> (Bytes, Bytes) {
        let mut out = Out::with_room(self.bytes());
        out.byte(VERSION);
        match &self {
            Reply::Done(done) => write_done(out.byte(DONE), done),
            Reply::Refused(error) => write_error(out.byte(1), error),
            Reply::Elsewhere => {
                out.byte(2);
            }
            Reply::Unknown => {
                out.byte(3);
            }
            Reply::Busy => {
                out.byte(4);
            }
            Reply::Malformed(why) => {
                out.byte(5).text(why);
            }
        }
        let data = match self {
            Reply::Done(Done::Bytes(_, bytes)) => bytes,
            _ => Bytes::new(),
        };
        (out.done(), data)
    }

    fn bytes(&self) -> usize {
        let data = match self {
            Reply::Done(Done::Chunks(_, chunks)) => {
                chunks.iter().map(|(_, bytes)| bytes.len() + 16).sum()
            }
            _ => 0,
        };
        data + 128
    }

    /// An answer of which a part may have gone elsewhere.
    pub fn of(came: Came) -> Result<Self, WireError> {
        let Some((part, length)) = came.rest else {
            return Self::decode(&came.bytes);
        };
        if let Some(info) = landed(&came.bytes, length) {
            return Ok(Reply::Done(Done::Landed(info, length)));
        }
        // It is not the bytes that were asked for.
        let rest = part.as_ref().get(..length).unwrap_or_default();
        Self::decode(&[&came.bytes, rest].concat().into())
    }

    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let mut read = In::new(bytes);
        if read.byte()? != VERSION {
            return Err(WireError("it is of a version that is not known here"));
        }
        let reply = match read.byte()? {
            DONE => Reply::Done(read_done(&mut read, bytes)?),
            1 => Reply::Refused(read_error(&mut read)?),
            2 => Reply::Elsewhere,
            3 => Reply::Unknown,
            4 => Reply::Busy,
            5 => Reply::Malformed(read.text()?.to_owned()),
            _ => return Err(WireError("how it went is not known")),
        };
        read.end()?;
        Ok(reply)
    }
}

/// What the value is of which so many bytes went elsewhere, if this is the head of that.
fn landed(head: &[u8], length: usize) -> Option<Info> {
    let mut read = In::new(head.get(..ANSWER_HEAD_BYTES)?);
    let kind = [read.byte().ok()?, read.byte().ok()?, read.byte().ok()?];
    let info = read_info(&mut read).ok()?;
    let follow = read.word().ok()?;
    (kind == [VERSION, DONE, BYTES] && follow == length as u64).then_some(info)
}

fn write_info(out: &mut Out, info: &Info) {
    out.word(info.version).word(info.size).word(info.expires_ms);
    durability(out, info.durability);
}

fn read_info(read: &mut In<'_>) -> Result<Info, WireError> {
    Ok(Info {
        version: read.word()?,
        size: read.word()?,
        expires_ms: read.word()?,
        durability: read_durability(read)?,
    })
}

fn write_done(out: &mut Out, done: &Done) {
    match done {
        Done::Nothing => {
            out.byte(0);
        }
        Done::Info(info) => write_info(out.byte(1), info),
        Done::Bytes(info, bytes) => {
            write_info(out.byte(BYTES), info);
            out.word(bytes.len() as u64);
        }
        // Only who asked knows of it.
        Done::Landed(info, length) => {
            write_info(out.byte(BYTES), info);
            out.word(*length as u64);
        }
        Done::Number(number, version) => {
            out.byte(3).word(*number).word(*version);
        }
        Done::Was(was) => {
            out.byte(4).byte((*was).into());
        }
        Done::Chunks(info, chunks) => {
            write_info(out.byte(5), info);
            out.word(chunks.len() as u64);
            for (number, bytes) in chunks {
                out.word(*number).data(bytes);
            }
        }
        Done::Listed(slots, listed) => {
            out.byte(6).raw(slots).word(listed.len() as u64);
            for one in listed {
                write_info(out.text(one.key.as_str()), &one.info);
            }
        }
        Done::Watched(watch, items) => {
            out.byte(7).word(*watch).word(items.len() as u64);
            items.iter().for_each(|item| write_item(out, item));
        }
        Done::Made(info, existed) => {
            write_info(out.byte(8), info);
            out.byte((*existed).into());
        }
        Done::Heads(heads) => {
            out.byte(9).word(heads.len() as u64);
            for (name, head) in heads {
                write_name(out, name);
                write_head(out, head);
            }
        }
    }
}

fn read_done(read: &mut In<'_>, all: &Bytes) -> Result<Done, WireError> {
    Ok(match read.byte()? {
        0 => Done::Nothing,
        1 => Done::Info(read_info(read)?),
        BYTES => Done::Bytes(read_info(read)?, all.slice_ref(read.data()?)),
        3 => Done::Number(read.word()?, read.word()?),
        4 => Done::Was(read.flag()?),
        5 => {
            let info = read_info(read)?;
            let chunk = |read: &mut In<'_>| Ok((read.word()?, all.slice_ref(read.data()?)));
            Done::Chunks(info, read.many(16, chunk)?)
        }
        6 => {
            let slots = read.map()?;
            let one = |read: &mut In<'_>| {
                Ok(Listed {
                    key: read_key(read)?,
                    info: read_info(read)?,
                })
            };
            Done::Listed(slots, read.many(8, one)?)
        }
        7 => Done::Watched(read.word()?, read.many(1, read_item)?),
        8 => Done::Made(read_info(read)?, read.flag()?),
        9 => Done::Heads(read.many(40, |read| Ok((read_name(read)?, read_head(read)?)))?),
        _ => return Err(WireError("what came of it is not known")),
    })
}

fn write_item(out: &mut Out, item: &WatchItem) {
    match item {
        WatchItem::Changed {
            key,
            version,
            deleted,
        } => {
            out.byte(u8::from(*deleted)).text(key.as_str());
            out.word(*version);
        }
        WatchItem::Missed(missed) => {
            out.byte(2).word(*missed);
        }
    }
}

fn read_item(read: &mut In<'_>) -> Result<WatchItem, WireError> {
    let code = read.byte()?;
    Ok(match code {
        0 | 1 => WatchItem::Changed {
            key: read_key(read)?,
            version: read.word()?,
            deleted: code == 1,
        },
        2 => WatchItem::Missed(read.word()?),
        _ => return Err(WireError("what was seen is not known")),
    })
}

const QUOTAS: [Quota; 6] = [
    Quota::AppBytes,
    Quota::AppKeys,
    Quota::NodeBytes,
    Quota::NodeRegions,
    Quota::LockWaiters,
    Quota::Watchers,
];

fn write_error(out: &mut Out, error: &StateError) {
    match error {
        StateError::NotFound => {
            out.byte(0);
        }
        StateError::Conflict { version } => {
            out.byte(1).word(*version);
        }
        StateError::TooLarge { asked, max } => {
            out.byte(2).word(*asked).word(*max);
        }
        StateError::Full { quota, max } => {
            let code = QUOTAS.iter().position(|known| known == quota);
            out.byte(3).byte(code.unwrap_or_default() as u8).word(*max);
        }
        StateError::Outside {
            offset,
            length,
            size,
        } => {
            out.byte(4).word(*offset).word(*length).word(*size);
        }
        StateError::Misaligned { offset } => {
            out.byte(5).word(*offset);
        }
        StateError::Ttl { ms, max_ms } => {
            out.byte(6).word(*ms).word(*max_ms);
        }
        StateError::LockTimedOut => {
            out.byte(7);
        }
        StateError::LockUpgrade => {
            out.byte(8);
        }
        StateError::NotLocked => {
            out.byte(9);
        }
        StateError::Lost => {
            out.byte(10);
        }
        other => {
            out.byte(11).text(&chain(other));
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: &StateError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

fn read_error(read: &mut In<'_>) -> Result<StateError, WireError> {
    Ok(match read.byte()? {
        0 => StateError::NotFound,
        1 => StateError::Conflict {
            version: read.word()?,
        },
        2 => StateError::TooLarge {
            asked: read.word()?,
            max: read.word()?,
        },
        3 => {
            let quota = QUOTAS.get(usize::from(read.byte()?));
            StateError::Full {
                quota: *quota.ok_or(WireError("a bound is not known"))?,
                max: read.word()?,
            }
        }
        4 => StateError::Outside {
            offset: read.word()?,
            length: read.word()?,
            size: read.word()?,
        },
        5 => StateError::Misaligned {
            offset: read.word()?,
        },
        6 => StateError::Ttl {
            ms: read.word()?,
            max_ms: read.word()?,
        },
        7 => StateError::LockTimedOut,
        8 => StateError::LockUpgrade,
        9 => StateError::NotLocked,
        10 => StateError::Lost,
        11 => StateError::Refused(read.text()?.to_owned()),
        _ => return Err(WireError("a cause is not known")),
    })
}
