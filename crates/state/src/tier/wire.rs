//! Requests between nodes, as bytes.
//!
//! | request | |
//! |---|---|
//! | version (1) | 1 |
//! | the asker's membership (8) | its token |
//! | kind (1) | 0 a key, 1 an app, 2 the release of an owner's locks, 3 copies of a slot |
//! | of a key | the claim that it is meant for (8), app, key, operation (1), its fields |
//! | of an app | app, question (1), its fields |
//! | of a release | the owner (16) |
//!
//! What a value is to be is the last field of its operation, so that it goes behind the rest of the
//! message without being copied into it.
//!
//! A release that adds to this takes the next version, and answers the one before as well. What is
//! of another version than is known is refused as such, and changes nothing.

use std::time::Duration;

use bytes::Bytes;
use model::Durability;

use super::PIECE_BYTES;
use super::bytes::{In, Out, WireError};
use super::copies::CopyAsk;
use super::op::{Ask, Data, Op};
use crate::clock::millis;
use crate::global::CHUNK_BYTES;
use crate::{Mode, Name, Put};

/// The version of requests and replies.
pub(crate) const VERSION: u8 = 1;
/// The kind of requests about copies.
const COPIES: u8 = 3;
/// What a request takes beside the data in it, at most.
const ROOM_BYTES: usize = 2048;

/// A request, and who asks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request<'a> {
    /// The token of the asker's membership.
    pub from: u64,
    pub what: What<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What<'a> {
    Key {
        /// The token of the claim that the asker thinks holds.
        claim: u64,
        name: Name,
        op: Op<'a>,
    },
    App {
        app: model::AppName,
        ask: Ask<'a>,
    },
    Release {
        owner: u128,
    },
    Copy(CopyAsk<'a>),
}

impl<'a> Request<'a> {
    /// The message: all but the data that ends it, and that data, which is not copied for it.
    pub fn parts(&self) -> (Bytes, &[u8]) {
        let mut out = Out::with_room(self.bytes());
        out.byte(VERSION).word(self.from);
        match &self.what {
            What::Key { claim, name, op } => {
                out.byte(0).word(*claim);
                out.text(name.app.as_str()).text(name.key.as_str());
                write_op(&mut out, op);
            }
            What::App { app, ask } => {
                out.byte(1).text(app.as_str());
                write_ask(&mut out, ask);
            }
            What::Release { owner } => {
                out.byte(2).wide(*owner);
            }
            What::Copy(ask) => ask.write(out.byte(COPIES)),
        }
        (out.done(), self.data())
    }

    fn data(&self) -> &[u8] {
        match &self.what {
            What::Key {
                op: Op::Put { data, .. },
                ..
            } => data,
            What::Key {
                op: Op::Write { data, .. } | Op::Append { data, .. },
                ..
            } => data,
            _ => &[],
        }
    }

    /// About how many bytes its reply has, if they may be many; else 0.
    pub fn reply_bytes(&self) -> usize {
        match &self.what {
            What::Key {
                op: Op::Read { length, .. },
                ..
            } => {
                usize::try_from(*length)
                    .unwrap_or(usize::MAX)
                    .min(PIECE_BYTES)
                    + ROOM_BYTES
            }
            // Nothing is here yet, and all of it comes.
            What::Key {
                op: Op::Compare {
                    hashes, version: 0, ..
                },
                ..
            } => hashes.len() * CHUNK_BYTES + ROOM_BYTES,
            _ => 0,
        }
    }

    /// About how many bytes it takes without its data, so that it is written in one piece.
    fn bytes(&self) -> usize {
        let data = match &self.what {
            What::Key {
                op: Op::Merge { chunks, .. },
                ..
            } => chunks.iter().map(|(_, bytes)| bytes.len() + 16).sum(),
            What::Key {
                op: Op::Compare { hashes, .. },
                ..
            } => hashes.len() * 16,
            What::Copy(ask) => ask.bytes(),
            _ => 0,
        };
        ROOM_BYTES + data
    }
}

impl<'a> Request<'a> {
    /// A value that is put is a part of the message, without a copy.
    pub fn decode(bytes: &'a Bytes) -> Result<Self, WireError> {
        let mut read = In::new(bytes);
        if read.byte()? != VERSION {
            return Err(WireError("it is of a version that is not known here"));
        }
        let from = read.word()?;
        let what = match read.byte()? {
            0 => What::Key {
                claim: read.word()?,
                name: Name {
                    app: read_app(&mut read)?,
                    key: read_key(&mut read)?,
                },
                op: given(read_op(&mut read)?, bytes),
            },
            1 => What::App {
                app: read_app(&mut read)?,
                ask: read_ask(&mut read)?,
            },
            2 => What::Release {
                owner: read.wide()?,
            },
            COPIES => What::Copy(CopyAsk::read(&mut read)?),
            _ => return Err(WireError("its kind is not known")),
        };
        read.end()?;
        Ok(Self { from, what })
    }
}

/// What an operation puts is given to who does it, as a part of the message.
fn given<'a>(mut op: Op<'a>, message: &Bytes) -> Op<'a> {
    if let Op::Put { data, .. } = &mut op
        && let Data::Lent(bytes) = data
    {
        *data = message.slice_ref(bytes).into();
    }
    op
}

/// Whether a request, if it is one, is about copies: that is done at once, and waits for nobody.
pub(super) fn is_about_copies(request: &[u8]) -> bool {
    request.get(size_of::<u64>() + 1) == Some(&COPIES)
}

pub(super) fn read_app(read: &mut In<'_>) -> Result<model::AppName, WireError> {
    let text = read.text()?;
    text.parse().map_err(|_| WireError("an app's name is none"))
}

pub(super) fn read_key(read: &mut In<'_>) -> Result<crate::Key, WireError> {
    let text = read.text()?;
    text.parse().map_err(|_| WireError("a key is none"))
}

pub(super) fn durability(out: &mut Out, durability: Durability) {
    out.byte(match durability {
        Durability::Ephemeral => 1,
        Durability::Durable => 2,
        Durability::Replicated => 3,
    });
}

pub(super) fn read_durability(read: &mut In<'_>) -> Result<Durability, WireError> {
    read_create(read)?.ok_or(WireError("a durability is missing"))
}

fn create(out: &mut Out, create: Option<Durability>) {
    match create {
        Some(create) => durability(out, create),
        None => {
            out.byte(0);
        }
    }
}

fn read_create(read: &mut In<'_>) -> Result<Option<Durability>, WireError> {
    match read.byte()? {
        0 => Ok(None),
        1 => Ok(Some(Durability::Ephemeral)),
        2 => Ok(Some(Durability::Durable)),
        3 => Ok(Some(Durability::Replicated)),
        _ => Err(WireError("a durability is not known")),
    }
}

fn time(out: &mut Out, time: Duration) {
    out.word(millis(time));
}

fn read_time(read: &mut In<'_>) -> Result<Duration, WireError> {
    read.word().map(Duration::from_millis)
}

fn write_op(out: &mut Out, op: &Op<'_>) {
    match op {
        Op::Info => {
            out.byte(0);
        }
        Op::Read {
            offset,
            length,
            version,
        } => {
            out.byte(1).word(*offset).word(*length).word(*version);
        }
        Op::Put {
            create: made,
            put,
            data,
        } => {
            create(out.byte(2), *made);
            out.maybe(put.expected).maybe(put.ttl.map(millis));
            out.word(data.len() as u64);
        }
        Op::Write {
            create,
            offset,
            data,
        } => {
            durability(out.byte(3), *create);
            out.word(*offset).word(data.len() as u64);
        }
        Op::Append { create, data } => {
            durability(out.byte(4), *create);
            out.word(data.len() as u64);
        }
        Op::Add {
            create,
            offset,
            amount,
        } => {
            durability(out.byte(5), *create);
            out.word(*offset).word(*amount);
        }
        Op::Truncate { create, size } => {
            durability(out.byte(6), *create);
            out.word(*size);
        }
        Op::Delete { expected } => {
            out.byte(7).maybe(*expected);
        }
        Op::Expire { ttl } => {
            out.byte(8).maybe(ttl.map(millis));
        }
        Op::Lock { .. } | Op::Unlock { .. } => write_lock(out, op),
        Op::Push { offset, length } => {
            out.byte(11).word(*offset).word(*length);
        }
        Op::Compare { .. } | Op::Merge { .. } => write_chunks(out, op),
    }
}

fn write_lock(out: &mut Out, op: &Op<'_>) {
    match op {
        Op::Lock {
            mode,
            owner,
            wait,
            hold,
        } => {
            out.byte(9).byte(u8::from(*mode == Mode::Exclusive));
            out.wide(*owner);
            time(out, *wait);
            time(out, *hold);
        }
        Op::Unlock { owner } => {
            out.byte(10).wide(*owner);
        }
        _ => {}
    }
}

fn write_chunks(out: &mut Out, op: &Op<'_>) {
    match op {
        Op::Compare {
            first,
            hashes,
            version,
        } => {
            out.byte(12).word(*first).word(*version);
            out.word(hashes.len() as u64);
            for hash in hashes {
                out.wide(*hash);
            }
        }
        Op::Merge {
            create: made,
            size,
            chunks,
        } => {
            create(out.byte(13), *made);
            out.word(*size).word(chunks.len() as u64);
            for (number, bytes) in chunks {
                out.word(*number).data(bytes);
            }
        }
        _ => {}
    }
}

fn read_op<'a>(read: &mut In<'a>) -> Result<Op<'a>, WireError> {
    Ok(match read.byte()? {
        0 => Op::Info,
        1 => Op::Read {
            offset: read.word()?,
            length: read.word()?,
            version: read.word()?,
        },
        2 => Op::Put {
            create: read_create(read)?,
            put: Put {
                expected: read.maybe()?,
                ttl: read.maybe()?.map(Duration::from_millis),
            },
            data: read.data()?.into(),
        },
        3 => Op::Write {
            create: read_durability(read)?,
            offset: read.word()?,
            data: read.data()?,
        },
        4 => Op::Append {
            create: read_durability(read)?,
            data: read.data()?,
        },
        5 => Op::Add {
            create: read_durability(read)?,
            offset: read.word()?,
            amount: read.word()?,
        },
        6 => Op::Truncate {
            create: read_durability(read)?,
            size: read.word()?,
        },
        7 => Op::Delete {
            expected: read.maybe()?,
        },
        8 => Op::Expire {
            ttl: read.maybe()?.map(Duration::from_millis),
        },
        code => return read_more(code, read),
    })
}

fn read_more<'a>(code: u8, read: &mut In<'a>) -> Result<Op<'a>, WireError> {
    Ok(match code {
        9 => Op::Lock {
            mode: match read.flag()? {
                true => Mode::Exclusive,
                false => Mode::Shared,
            },
            owner: read.wide()?,
            wait: read_time(read)?,
            hold: read_time(read)?,
        },
        10 => Op::Unlock {
            owner: read.wide()?,
        },
        11 => Op::Push {
            offset: read.word()?,
            length: read.word()?,
        },
        12 => Op::Compare {
            first: read.word()?,
            version: read.word()?,
            hashes: read.many(16, In::wide)?,
        },
        13 => Op::Merge {
            create: read_create(read)?,
            size: read.word()?,
            chunks: read.many(16, |read| Ok((read.word()?, read.data()?)))?,
        },
        _ => return Err(WireError("its operation is not known")),
    })
}

fn write_ask(out: &mut Out, ask: &Ask<'_>) {
    match ask {
        Ask::List {
            prefix,
            after,
            limit,
        } => {
            out.byte(0).text(prefix).byte(u8::from(after.is_some()));
            out.text(after.unwrap_or_default()).word(*limit);
        }
        Ask::Watch {
            prefix,
            watch,
            wait,
        } => {
            out.byte(1).text(prefix).word(*watch);
            time(out, *wait);
        }
    }
}

fn read_ask<'a>(read: &mut In<'a>) -> Result<Ask<'a>, WireError> {
    Ok(match read.byte()? {
        0 => {
            let prefix = read.text()?;
            let has_after = read.flag()?;
            let after = read.text()?;
            Ask::List {
                prefix,
                after: has_after.then_some(after),
                limit: read.word()?,
            }
        }
        1 => Ask::Watch {
            prefix: read.text()?,
            watch: read.word()?,
            wait: read_time(read)?,
        },
        _ => return Err(WireError("its question is not known")),
    })
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
