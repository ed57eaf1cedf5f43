//! What a guest may ask of the platform, as every wall carries it.
//!
//! Calls are rows of one table. A back-end offers each row to its guests in its own form (a Wasm
//! import, a WIT function, a register call), turns what the guest passes into [`Arg`]s, and hands
//! them to the [`Session`] of the call. What a call means is written once, behind that trait.
//!
//! | parameter | Wasm import | component |
//! |---|---|---|
//! | [`Type::U32`], [`Type::U64`] | `i32`, `i64` | `u32`, `u64` |
//! | [`Type::Str`] | `ptr: i32, len: i32` | `string` |
//! | [`Type::Bytes`] | `ptr: i32, len: i32` | `list<u8>` |
//! | [`Type::Out`]: the guest's buffer | `ptr: i32, len: i32` | `u32`: the most it wants |
//!
//! A call results in an `i64` for a Wasm module: a number of its own, or a negative [`Errno`]. For
//! a component it is a `result<u64, errno>`, or, with a [`Type::Out`], `result<list<u8>, errno>`.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use memory::{Out, Region};
use model::{FunctionPath, InvocationId, TraceParent, VersionSpec};

use crate::{Branch, CallLog};

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// A small number, or a set of flags.
    U32,
    /// An offset, a size, a version.
    U64,
    /// UTF-8 text.
    Str,
    /// Bytes that the guest passes.
    Bytes,
    /// A buffer that the call fills; at most one of a call, and the last parameter.
    Out,
}

/// A parameter of a call.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its name, in snake case.
    pub name: &'static str,
    /// Its type.
    pub ty: Type,
    /// What it is, as a sentence.
    pub doc: &'static str,
}

/// Where a call can be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walls {
    /// Behind every wall.
    All,
    /// Only where the host can map memory into the guest's own.
    Mapped,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct HostCall {
    /// The interface that it belongs to: the first word of its name.
    pub interface: &'static str,
    /// Its full name, in snake case: `state_get`.
    pub name: &'static str,
    /// What it does, in Markdown.
    pub doc: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
    /// What its result means when it is not an error.
    pub result: &'static str,
    /// What a function must have been granted to make it, in words; empty if nothing.
    pub grant: &'static str,
    /// The errors that it answers with, beside those that every call may.
    pub errors: &'static [Errno],
    /// Where it is offered.
    pub walls: Walls,
}

impl HostCall {
    /// Its number for guests that have no names to call by; see [`number_of`].
    pub const fn number(&self) -> u32 {
        number_of(self.name)
    }
}

/// The number of the call `name`: its FNV-1a hash in 32 bits. So numbers need no register, stay
/// when rows come and go, and a test sees that no two calls share one.
pub const fn number_of(name: &str) -> u32 {
    const OFFSET: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let bytes = name.as_bytes();
    let (mut hash, mut at) = (OFFSET, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u32).wrapping_mul(PRIME);
        at += 1;
    }
    hash
}

/// An error that a guest is told, as the negative of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Errno {
    /// The function was not granted this.
    Denied = 1,
    /// There is nothing of this name.
    NotFound = 2,
    /// An argument is out of its range or malformed.
    Invalid = 3,
    /// Someone else was first: the version, or the lock, is another's.
    Conflict = 4,
    /// What is asked for does not fit the buffer, or is over a limit on its size.
    TooLarge = 5,
    /// A quota of the function, its app or the node is used up.
    Exhausted = 6,
    /// The time to wait is over.
    TimedOut = 7,
    /// What was asked for broke off: a function that was called failed.
    Failed = 8,
    /// The platform could not do it, through no fault of the guest.
    Unavailable = 9,
}

impl Errno {
    /// Every error, in the order of its number.
    pub const ALL: [Errno; 9] = [
        Errno::Denied,
        Errno::NotFound,
        Errno::Invalid,
        Errno::Conflict,
        Errno::TooLarge,
        Errno::Exhausted,
        Errno::TimedOut,
        Errno::Failed,
        Errno::Unavailable,
    ];

    /// Its name, in kebab case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Errno::Denied => "denied",
            Errno::NotFound => "not-found",
            Errno::Invalid => "invalid",
            Errno::Conflict => "conflict",
            Errno::TooLarge => "too-large",
            Errno::Exhausted => "exhausted",
            Errno::TimedOut => "timed-out",
            Errno::Failed => "failed",
            Errno::Unavailable => "unavailable",
        }
    }

    /// What it means, as a sentence.
    pub const fn doc(self) -> &'static str {
        match self {
            Errno::Denied => "The function was not granted this: see `allow` in its manifest.",
            Errno::NotFound => "There is nothing of this name.",
            Errno::Invalid => "An argument is out of its range or malformed.",
            Errno::Conflict => "Someone else was first: the version, or the lock, is another's.",
            Errno::TooLarge => "It does not fit the buffer, or is over a limit on its size.",
            Errno::Exhausted => "A quota of the function, its app or the node is used up.",
            Errno::TimedOut => "The time to wait is over.",
            Errno::Failed => "What was asked for broke off: a function that was called failed.",
            Errno::Unavailable => "The platform could not do it, through no fault of the guest.",
        }
    }

    /// The number that a Wasm module gets.
    pub const fn code(self) -> i64 {
        -(self as i64)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a guest passes. References point into the guest's memory, checked by its back-end.
pub enum Arg<'a> {
    /// For [`Type::U32`].
    U32(u32),
    /// For [`Type::U64`].
    U64(u64),
    /// For [`Type::Str`].
    Str(&'a str),
    /// For [`Type::Bytes`].
    Bytes(&'a [u8]),
    /// For [`Type::Out`].
    Out(Out<'a>),
}

/// Maps regions into a guest's own memory.
pub trait Mapper: Send {
    /// Maps `bytes` of `region` from `offset`, both whole units of [`memory::REGION_UNIT_BYTES`],
    /// until the sandbox is reset. Returns the guest's address.
    fn map(
        &mut self,
        region: &Arc<Region>,
        offset: usize,
        bytes: usize,
        access: memory::Access,
    ) -> Result<u64, Errno>;
}

/// The guest of a call, as those see it who answer what it asks.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The invocation.
    pub id: InvocationId,
    /// The function.
    pub path: FunctionPath,
    /// Its version.
    pub spec: Arc<VersionSpec>,
    /// Its place among the calls that led to it; none for a root.
    pub branch: Option<Arc<Branch>>,
    /// Its place in its trace.
    pub trace: TraceParent,
    /// When its call ends at the latest.
    pub deadline: Instant,
    /// Its log.
    pub log: Arc<CallLog>,
}

/// Answers what guests ask; one for a node.
pub trait Host: Send + Sync + 'static {
    /// The table.
    fn table(&self) -> &'static [HostCall];

    /// The answers to one guest. Made at its first question; dropped when its call ends, which
    /// frees all that it holds.
    fn session(&self, guest: Guest) -> Box<dyn Session>;
}

/// The answers to one guest in one call.
pub trait Session: Send {
    /// Makes the call of row `index`, with an argument for each of its parameters. `mapper` is
    /// there behind the walls that can map.
    fn call<'a>(
        &'a mut self,
        index: usize,
        args: &'a mut [Arg<'_>],
        mapper: Option<&'a mut dyn Mapper>,
    ) -> BoxFuture<'a, Result<u64, Errno>>;

    /// Makes the call of row `index` if it can be answered without waiting, which spares its
    /// caller a future. None if not: then nothing was done, and [`Session::call`] does it.
    fn at_once(&mut self, _index: usize, _args: &mut [Arg<'_>]) -> Option<Result<u64, Errno>> {
        None
    }
}

/// A host that offers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHost;

impl Host for NoHost {
    fn table(&self) -> &'static [HostCall] {
        &[]
    }

    fn session(&self, _: Guest) -> Box<dyn Session> {
        Box::new(NoSession)
    }
}

struct NoSession;

impl Session for NoSession {
    fn call<'a>(
        &'a mut self,
        _: usize,
        _: &'a mut [Arg<'_>],
        _: Option<&'a mut dyn Mapper>,
    ) -> BoxFuture<'a, Result<u64, Errno>> {
        Box::pin(async { Err(Errno::Denied) })
    }
}
