//! The global tier: where durable values outlive the node.
//!
//! A value there is a head and chunks. Everything is named by the value's version, which its owner
//! gives, so that an owner on another node can stand behind the same trait.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use model::AppName;

use crate::{GlobalError, Key, Name};

/// Bytes of a chunk; the last one of a value may be shorter.
pub const CHUNK_BYTES: usize = memory::REGION_UNIT_BYTES;

/// What is known of a value before any of its bytes are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its version; never 0.
    pub version: u64,
    /// Its bytes.
    pub size: u64,
    /// When it ends, in milliseconds since 1970; 0 for never.
    pub expires_ms: u64,
}

/// The answer to [`Global::head`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The value is there.
    Value(Head),
    /// It is not, and no version up to this one may be given to a new value.
    Nothing {
        /// The greatest version that a removed value of the app had.
        floor: u64,
    },
}

/// A change of one value, all or nothing.
#[derive(Clone, Debug)]
pub struct Push {
    /// The version that the global tier must hold; 0 for none.
    pub expected: u64,
    /// The head from now on. Chunks past its size are dropped. Its version is greater than
    /// `expected` if any chunk differs.
    pub head: Head,
    /// The numbers of the chunks that differ, in order.
    pub chunks: Vec<usize>,
}

/// Gives the bytes of a chunk, without the zeros at its end; called while a push runs, more than
/// once if it is tried again.
pub type Content<'a> = &'a (dyn Fn(usize) -> Bytes + Send + Sync);

/// Keeps durable values.
#[async_trait]
pub trait Global: Send + Sync + fmt::Debug {
    /// The head of a value.
    async fn head(&self, name: &Name) -> Result<Found, GlobalError>;

    /// The bytes of some chunks, without zeros at their ends; those of zeros only are left out.
    async fn pull(
        &self,
        name: &Name,
        chunks: std::ops::Range<usize>,
    ) -> Result<Vec<(usize, Bytes)>, GlobalError>;

    /// Changes a value; returns after it is durable. A reader sees all of it or nothing, whatever
    /// crashes.
    async fn push(&self, name: &Name, push: Push, content: Content<'_>) -> Result<(), GlobalError>;

    /// Removes a value whose version is `expected`; returns after it is durable.
    async fn remove(&self, name: &Name, expected: u64) -> Result<(), GlobalError>;

    /// The values of an app whose keys begin with `prefix` and come after `after`, in order, at
    /// most `limit`.
    async fn list(
        &self,
        app: &AppName,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Key, Head)>, GlobalError>;

    /// Values that ended at `now_ms` or before, at most `limit`, with their versions.
    async fn expired(&self, now_ms: u64, limit: usize) -> Result<Vec<(Name, u64)>, GlobalError>;
}
