//! What is asked of a key's owner, and what it answers. The same on the owner's own node.

use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;
use model::Durability;

use crate::global::Head;
use crate::{Info, Listed, Mode, Name, Put, WatchItem};

/// What a value is to be.
#[derive(Clone, Debug)]
pub enum Data<'a> {
    /// Somebody's memory, to be copied.
    Lent(&'a [u8]),
    /// Bytes that nobody changes, and that have the memory under them for themselves: a long value
    /// is kept as they are.
    Given(Bytes),
}

impl<'a> From<&'a [u8]> for Data<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Lent(bytes)
    }
}

impl From<Bytes> for Data<'_> {
    fn from(bytes: Bytes) -> Self {
        Self::Given(bytes)
    }
}

impl Deref for Data<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Given(bytes) => bytes,
        }
    }
}

impl PartialEq for Data<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

/// Something to be done with one key.
#[derive(Clone, Debug, PartialEq)]
pub enum Op<'a> {
    /// What is known of the value.
    Info,
    /// Copies bytes out, at most [`super::PIECE_BYTES`]; refused as a conflict if the value's
    /// version is not `version`, where that is not 0.
    Read {
        /// Where they begin.
        offset: u64,
        /// How many at most.
        length: u64,
        /// The version of which they must be.
        version: u64,
    },
    /// Makes `data` the value.
    Put {
        /// Where the value is kept if it is made.
        create: Option<Durability>,
        /// On which conditions, and for how long.
        put: Put,
        /// The value.
        data: Data<'a>,
    },
    /// Writes within the value, which is made if there is none.
    Write {
        /// Where the value is kept if it is made.
        create: Durability,
        /// Where.
        offset: u64,
        /// What.
        data: &'a [u8],
    },
    /// Writes at the end.
    Append {
        /// Where the value is kept if it is made.
        create: Durability,
        /// What.
        data: &'a [u8],
    },
    /// Adds to a number of 8 bytes.
    Add {
        /// Where the value is kept if it is made.
        create: Durability,
        /// Where it is.
        offset: u64,
        /// How much.
        amount: u64,
    },
    /// Makes the value so long.
    Truncate {
        /// Where the value is kept if it is made.
        create: Durability,
        /// The size.
        size: u64,
    },
    /// Removes the value, if its version is this one.
    Delete {
        /// The version; any if there is none.
        expected: Option<u64>,
    },
    /// Ends the value by itself after a time, or never.
    Expire {
        /// From now on.
        ttl: Option<Duration>,
    },
    /// Takes the key's lock.
    Lock {
        /// How.
        mode: Mode,
        /// For whom.
        owner: u128,
        /// How long to wait for it.
        wait: Duration,
        /// How long to hold it at most.
        hold: Duration,
    },
    /// Frees the key's lock.
    Unlock {
        /// Whose.
        owner: u128,
    },
    /// Makes durable what was written at offsets and through mappings on the owner's node.
    Push {
        /// Where.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
    /// What of some chunks is not as the asker has it.
    Compare {
        /// The number of the first.
        first: u64,
        /// The hashes of what the asker has of this one and the next ones.
        hashes: Vec<u128>,
        /// The version that the asker's are of: if it is still the value's, nothing differs.
        version: u64,
    },
    /// Writes whole chunks, all or none, and makes the value at least so long.
    Merge {
        /// Where the value is kept if it is made.
        create: Option<Durability>,
        /// The size that it has at least then.
        size: u64,
        /// Numbers and bytes; of the last one without the zeros at its end.
        chunks: Vec<(u64, &'a [u8])>,
    },
}

/// Something to be asked of every node about the keys of an app that it owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask<'a> {
    /// The keys.
    List {
        /// What they begin with.
        prefix: &'a str,
        /// What they come after.
        after: Option<&'a str>,
        /// How many at most.
        limit: u64,
    },
    /// The changes.
    Watch {
        /// What they begin with.
        prefix: &'a str,
        /// Which watch goes on; 0 for a new one.
        watch: u64,
        /// How long to wait for a change.
        wait: Duration,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// It is done.
    Nothing,
    /// What the value is now.
    Info(Info),
    /// Bytes, and what the value is that they are of.
    Bytes(Info, Bytes),
    /// Bytes that went to where there was room for them: how many, and what the value is.
    Landed(Info, usize),
    /// A place or a sum, and the version.
    Number(u64, u64),
    /// Whether there was something.
    Was(bool),
    /// What the value is now, and whether there was one before.
    Made(Info, bool),
    /// Values of which there are copies, in order.
    Heads(Vec<(Name, Head)>),
    /// Chunks that differ: numbers and bytes, without zeros at their ends.
    Chunks(Info, Vec<(u64, Bytes)>),
    /// Keys, all there are of the slots that are set in the map, or as many as were asked for.
    Listed([u8; 32], Vec<Listed>),
    /// What a watch saw, and its number.
    Watched(u64, Vec<WatchItem>),
}

impl Op<'_> {
    /// Where a value is kept that this makes.
    pub(crate) fn create(&self) -> Option<Durability> {
        match self {
            Op::Put { create, .. } | Op::Merge { create, .. } => *create,
            Op::Write { create, .. }
            | Op::Append { create, .. }
            | Op::Add { create, .. }
            | Op::Truncate { create, .. } => Some(*create),
            // A lock needs its key and no value; a key that is only locked is forgotten after it.
            Op::Lock { .. } | Op::Unlock { .. } => Some(Durability::Ephemeral),
            _ => None,
        }
    }

    /// Whether what the value was does not matter to who asks.
    pub(crate) fn is_blind(&self) -> bool {
        match self {
            Op::Put { put, .. } => put.expected.is_none(),
            Op::Delete { expected } => expected.is_none(),
            _ => false,
        }
    }

    /// Whether it is about the key's lock, and not its value.
    pub(crate) fn is_lock(&self) -> bool {
        matches!(self, Op::Lock { .. } | Op::Unlock { .. })
    }

    /// The time that it may take by itself.
    pub(crate) fn waits(&self) -> Duration {
        match self {
            Op::Lock { wait, .. } => *wait,
            _ => Duration::ZERO,
        }
    }
}
