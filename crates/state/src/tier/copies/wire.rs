//! What an owner asks of nodes that keep copies, as bytes: slot (1), claim (8), operation (1), and
//! its fields.

use crate::global::Head;
use crate::tier::Slot;
use crate::tier::bytes::{In, Out, WireError};
use crate::tier::wire::{read_app, read_key};
use crate::{Key, Name};

/// Something that is asked about the copies of a slot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CopyAsk<'a> {
    pub slot: Slot,
    /// The claim by which it is asked.
    pub claim: u64,
    pub op: CopyOp<'a>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CopyOp<'a> {
    /// Nothing is kept from now on, and copies by this claim are taken.
    Reset,
    /// What is kept stays, and only this claim may change it from now on.
    Fence,
    /// A value changed.
    Push {
        name: Name,
        head: Head,
        /// Numbers and bytes of chunks that differ, without the zeros at their ends.
        chunks: Vec<(u64, &'a [u8])>,
    },
    /// A value is gone.
    Remove { name: Name },
    /// Which values there are.
    Heads {
        /// The one that was told last.
        after: Option<Name>,
    },
    /// Bytes of a value.
    Chunks {
        name: Name,
        /// The first chunk that is wanted.
        first: u64,
    },
    /// Nothing is kept any more.
    Forget,
}

impl CopyAsk<'_> {
    pub fn write(&self, out: &mut Out) {
        out.byte(self.slot.number() as u8).word(self.claim);
        match &self.op {
            CopyOp::Reset => {
                out.byte(0);
            }
            CopyOp::Fence => {
                out.byte(1);
            }
            CopyOp::Push { name, head, chunks } => {
                write_name(out.byte(2), name);
                write_head(out, head);
                out.word(chunks.len() as u64);
                for (number, bytes) in chunks {
                    out.word(*number).data(bytes);
                }
            }
            CopyOp::Remove { name } => write_name(out.byte(3), name),
            CopyOp::Heads { after } => {
                out.byte(4).byte(u8::from(after.is_some()));
                if let Some(after) = after {
                    write_name(out, after);
                }
            }
            CopyOp::Chunks { name, first } => {
                write_name(out.byte(5), name);
                out.word(*first);
            }
            CopyOp::Forget => {
                out.byte(6);
            }
        }
    }

    /// About how many bytes it takes beside names and numbers.
    pub fn bytes(&self) -> usize {
        match &self.op {
            CopyOp::Push { chunks, .. } => chunks.iter().map(|(_, bytes)| bytes.len() + 16).sum(),
            _ => 0,
        }
    }
}

impl<'a> CopyAsk<'a> {
    pub fn read(read: &mut In<'a>) -> Result<Self, WireError> {
        Ok(Self {
            slot: Slot::numbered(read.byte()?),
            claim: read.word()?,
            op: read_op(read)?,
        })
    }
}

fn read_op<'a>(read: &mut In<'a>) -> Result<CopyOp<'a>, WireError> {
    Ok(match read.byte()? {
        0 => CopyOp::Reset,
        1 => CopyOp::Fence,
        2 => CopyOp::Push {
            name: read_name(read)?,
            head: read_head(read)?,
            chunks: read.many(16, |read| Ok((read.word()?, read.data()?)))?,
        },
        3 => CopyOp::Remove {
            name: read_name(read)?,
        },
        4 => CopyOp::Heads {
            after: read.flag()?.then(|| read_name(read)).transpose()?,
        },
        5 => CopyOp::Chunks {
            name: read_name(read)?,
            first: read.word()?,
        },
        6 => CopyOp::Forget,
        _ => return Err(WireError("what is asked about copies is not known")),
    })
}

pub(in crate::tier) fn write_name(out: &mut Out, name: &Name) {
    out.text(name.app.as_str()).text(name.key.as_str());
}

pub(in crate::tier) fn read_name(read: &mut In<'_>) -> Result<Name, WireError> {
    let app = read_app(read)?;
    let key: Key = read_key(read)?;
    Ok(Name { app, key })
}

pub(in crate::tier) fn write_head(out: &mut Out, head: &Head) {
    out.word(head.version).word(head.size).word(head.expires_ms);
}

pub(in crate::tier) fn read_head(read: &mut In<'_>) -> Result<Head, WireError> {
    Ok(Head {
        version: read.word()?,
        size: read.word()?,
        expires_ms: read.word()?,
    })
}
