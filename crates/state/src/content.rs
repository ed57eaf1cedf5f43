//! One value without its key, its locks and the global tier: the pure part, all in memory.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use memory::Region;

pub use model::Durability;

use crate::body::{Body, WORD_BYTES};
use crate::chunks::{self, Chunks};
use crate::global::Head;
use crate::{Data, StateError};

/// A value that is there, or that may come to be.
#[derive(Debug)]
pub(crate) struct Content {
    /// 0 when there is no value.
    pub version: u64,
    /// The last version that it had.
    pub last: u64,
    /// Every new version is greater.
    pub floor: u64,
    pub size: usize,
    /// When it ends, in milliseconds since 1970; 0 for never.
    pub expires_ms: u64,
    /// Of the value that is there, or else of the one that is made next.
    pub durability: Durability,
    /// When the sweeper looks at it.
    pub scheduled: Option<(u64, u64)>,
    /// Of a durable or replicated value; kept after it was deleted for what the global tier still
    /// holds.
    pub chunks: Chunks,
    /// Where `chunks.base` is.
    pub backed: Durability,
    body: Body,
}

impl Content {
    pub fn absent(body: Body, floor: u64, durability: Durability) -> Self {
        Self {
            version: 0,
            last: 0,
            floor,
            size: 0,
            expires_ms: 0,
            durability,
            scheduled: None,
            chunks: Chunks::default(),
            backed: durability,
            body,
        }
    }

    /// A value that the global tier holds; none of its bytes are here.
    pub fn stored(body: Body, floor: u64, head: &Head) -> Result<Self, StateError> {
        let size = head.size as usize;
        let mut content = Self::absent(body, floor, Durability::Durable);
        content.body.extend(0, size)?;
        content.chunks = Chunks::stored(head.version, size);
        (content.version, content.last) = (head.version, head.version);
        (content.size, content.expires_ms) = (size, head.expires_ms);
        Ok(content)
    }

    /// A value of which other nodes have copies: these are all its chunks but those of zeros.
    pub fn copied(
        body: Body,
        floor: u64,
        head: &Head,
        chunks: &[(u64, Bytes)],
    ) -> Result<Self, StateError> {
        let mut content = Self::stored(body, floor, head)?;
        content.durability = Durability::Replicated;
        content.backed = Durability::Replicated;
        for (number, bytes) in chunks {
            let hash = chunks::hash(bytes);
            content.load(usize::try_from(*number).unwrap_or(usize::MAX), bytes, hash)?;
        }
        for number in content.chunks.all() {
            content.load(number, &[], chunks::ZEROS)?;
        }
        Ok(content)
    }

    pub fn exists(&self) -> bool {
        self.version != 0
    }

    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.exists() && self.expires_ms != 0 && self.expires_ms <= now_ms
    }

    pub fn is_durable(&self) -> bool {
        self.exists() && self.durability == Durability::Durable
    }

    /// Whether it could be read anew from the global tier.
    pub fn is_stored(&self) -> bool {
        self.is_durable()
            && self.version == self.chunks.base
            && self.chunks.are_clean()
            && !self.is_mapped()
    }

    pub fn head(&self) -> Head {
        Head {
            version: self.version,
            size: self.size as u64,
            expires_ms: self.expires_ms,
        }
    }

    /// Copies what there is from `offset` on, and says how much that is.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<usize, StateError> {
        if !self.exists() {
            return Err(StateError::NotFound);
        }
        let length = self.size.saturating_sub(offset).min(out.len());
        self.body.read(offset.min(self.size), &mut out[..length])?;
        Ok(length)
    }

    /// What there is from `offset` on, of at most `length` bytes, as it is now.
    pub fn copy(&self, offset: usize, length: usize) -> Result<Bytes, StateError> {
        if !self.exists() {
            return Err(StateError::NotFound);
        }
        let length = self.size.saturating_sub(offset).min(length);
        self.body.copy(offset.min(self.size), length)
    }

    pub fn set(&mut self, data: &Data<'_>) -> Result<(), StateError> {
        self.body.replace(self.size, data)?;
        self.resized(data.len());
        self.chunks.write(0..data.len());
        self.bump();
        Ok(())
    }

    pub fn write(&mut self, offset: usize, data: &[u8]) -> Result<(), StateError> {
        let end = end(offset, data.len())?;
        if end > self.size {
            self.body.extend(self.size, end)?;
            self.resized(end);
        }
        self.body.write(offset, data)?;
        self.chunks.write(offset..end);
        self.bump();
        Ok(())
    }

    /// Adds to word `number`, after zeros if the value ends before it, and gives the sum.
    pub fn add_to_word(&mut self, number: usize, amount: u64) -> Result<u64, StateError> {
        let offset = number.saturating_mul(WORD_BYTES);
        let end = end(offset, WORD_BYTES)?;
        if end > self.size {
            self.body.extend(self.size, end)?;
            self.resized(end);
        }
        let sum = self.body.add_to_word(number, amount)?;
        self.chunks.write(offset..end);
        self.bump();
        Ok(sum)
    }

    pub fn append(&mut self, data: &[u8]) -> Result<usize, StateError> {
        let offset = self.size;
        self.write(offset, data)?;
        Ok(offset)
    }

    /// Writes parts, all or none, and makes the value at least `size` bytes long.
    pub fn merge(&mut self, size: usize, parts: &[(usize, &[u8])]) -> Result<(), StateError> {
        let mut size = size.max(self.size);
        for (offset, data) in parts {
            size = size.max(end(*offset, data.len())?);
        }
        if size > self.size {
            self.body.extend(self.size, size)?;
            self.resized(size);
        }
        for (offset, data) in parts {
            self.body.write(*offset, data)?;
            self.chunks.write(*offset..offset + data.len());
        }
        self.bump();
        Ok(())
    }

    pub fn truncate(&mut self, size: usize) -> Result<(), StateError> {
        match size > self.size {
            true => self.body.extend(self.size, size)?,
            false => self.body.cut(self.size, size)?,
        }
        if size < self.size {
            // The last chunk is cut as well.
            self.chunks.write(size.saturating_sub(1)..size);
        }
        self.resized(size);
        self.bump();
        Ok(())
    }

    pub fn swap(&mut self, expected: u64, data: &Data<'_>) -> Result<(), StateError> {
        if self.version != expected {
            let version = self.version;
            return Err(StateError::Conflict { version });
        }
        self.set(data)
    }

    /// The value goes; whether there was one.
    pub fn delete(&mut self) -> bool {
        let existed = self.exists();
        let base = self.chunks.base;
        self.body.clear();
        self.chunks = Chunks::stored(base, 0);
        self.version = 0;
        self.size = 0;
        self.expires_ms = 0;
        existed
    }

    pub fn expire(&mut self, expires_ms: u64) -> Result<(), StateError> {
        if !self.exists() {
            return Err(StateError::NotFound);
        }
        self.expires_ms = expires_ms;
        self.chunks.head_dirty = true;
        Ok(())
    }

    /// The region, with all of its first `size` bytes in the value.
    pub fn region(&mut self, size: usize) -> Result<Arc<Region>, StateError> {
        let region = self.body.region(size)?.clone();
        if size > self.size || !self.exists() {
            let size = size.max(self.size);
            self.body.extend(self.size, size)?;
            self.resized(size);
            self.bump();
        }
        Ok(region)
    }

    /// From now on, guests may write these bytes unseen.
    pub fn suspect(&mut self, bytes: Range<usize>) {
        self.body.set_scribbled();
        self.chunks.suspect(bytes);
    }

    /// Whether a guest may hold the value's memory.
    pub fn is_mapped(&self) -> bool {
        self.body.is_held()
    }

    /// Puts bytes of the global tier in their place, unless others are there by now.
    pub fn load(&mut self, number: usize, bytes: &[u8], hash: u128) -> Result<(), StateError> {
        if !self.chunks.is_missing(number) {
            return Ok(());
        }
        let offset = number * crate::global::CHUNK_BYTES;
        let length = bytes.len().min(self.size.saturating_sub(offset));
        self.body.write(offset, &bytes[..length])?;
        self.chunks.load(number, hash);
        Ok(())
    }

    /// The next version.
    pub fn bump(&mut self) {
        self.last = self.last.max(self.floor) + 1;
        self.version = self.last;
        self.chunks.head_dirty = true;
    }

    fn resized(&mut self, size: usize) {
        self.size = size;
        self.chunks.resize(size);
    }
}

/// The end of bytes that a guest named.
fn end(offset: usize, length: usize) -> Result<usize, StateError> {
    offset.checked_add(length).ok_or(StateError::TooLarge {
        asked: u64::MAX,
        max: crate::config::VALUE_BYTES_MOST as u64,
    })
}
