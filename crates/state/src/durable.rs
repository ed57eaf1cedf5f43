//! A value and the global tier: chunks come when they are touched, and go when they differ.

use std::ops::Range;

use bytes::Bytes;
use metrics::counter;
use parking_lot::Mutex;

use crate::chunks::{self, covering};
use crate::content::Content;
use crate::global::{CHUNK_BYTES, Found, Push};
use crate::metrics::{PULLED_BYTES_TOTAL, PUSH_FAILURES_TOTAL, PUSHED_BYTES_TOTAL};
use crate::{Durability, GlobalError, StateError, Value};

/// Chunks that are pulled at once: 4 MiB.
const PULL_CHUNKS_MAX: usize = 64;
/// Chunks that are hashed before other tasks have their turn.
const HASHED_CHUNKS_MAX: usize = 32;
/// How often a push is tried when the global tier holds another version than was thought: after a
/// push whose answer was lost, once is enough.
const PUSH_TRIES_MAX: usize = 3;

/// Chunks that count as clean while they are pushed, and as dirty again unless that ends well.
struct Pushing<'a> {
    value: &'a Value,
    numbers: Vec<usize>,
    done: bool,
}

impl Drop for Pushing<'_> {
    fn drop(&mut self) {
        if !self.done {
            let mut content = self.value.content.write();
            content.chunks.soil(&self.numbers);
            // The push may still take effect: what is pushed next has a version of its own.
            if content.exists() {
                content.bump();
            }
        }
    }
}

/// Chunks that guests may have written, and that count so again unless they are all looked at.
struct Looking<'a> {
    value: &'a Value,
    suspects: Vec<(usize, u128)>,
    done: bool,
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        if !self.done {
            let numbers = self.suspects.iter().map(|(number, _)| *number);
            self.value.content.write().chunks.suspect_again(numbers);
        }
    }
}

/// The first chunks of a range of a value's bytes that are not here; none if all are.
pub(crate) fn missing(content: &Content, offset: usize, length: usize) -> Option<Range<usize>> {
    let end = offset.saturating_add(length).min(content.size);
    let chunks = covering(offset.min(end)..end);
    content.chunks.missing(chunks, PULL_CHUNKS_MAX)
}

impl Value {
    /// Makes a range of a durable value's bytes durable, its writes through mappings among them.
    /// Only chunks that changed are written. Returns the version.
    pub async fn push(&self, offset: u64, length: u64) -> Result<u64, StateError> {
        let _gate = self.gate.lock().await;
        self.check_held()?;
        let bytes = self.clip(offset, length)?;
        let Some(range) = bytes else {
            return Ok(self.version());
        };
        self.find_unseen(range.clone()).await?;
        self.push_chunks(range).await?;
        Ok(self.version())
    }

    /// Brings a range of a durable value's bytes here; whatever is here already stays as it is.
    pub async fn pull(&self, offset: u64, length: u64) -> Result<(), StateError> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.load(offset, length).await
    }

    /// The chunks of some bytes of a durable value; none if the value is not durable.
    fn clip(&self, offset: u64, length: u64) -> Result<Option<Range<usize>>, StateError> {
        let content = self.content.read();
        self.check_alive(&content)?;
        if !self.is_backed(&content) {
            return Ok(None);
        }
        let size = content.size as u64;
        let end = offset.saturating_add(length).min(size) as usize;
        Ok(Some(covering(offset.min(size) as usize..end)))
    }

    /// Brings what is missing of some bytes here. Returns at once when nothing is.
    pub(crate) async fn load(&self, offset: usize, length: usize) -> Result<(), StateError> {
        loop {
            let Some(missing) = missing(&self.content.read(), offset, length) else {
                return Ok(());
            };
            let pulled = self
                .core
                .node
                .global
                .pull(&self.name, missing.clone())
                .await?;
            let mut content = self.content.write();
            for number in missing {
                let bytes = pulled.iter().find(|(found, _)| *found == number);
                let bytes = bytes.map_or(&[][..], |(_, bytes)| bytes);
                counter!(PULLED_BYTES_TOTAL).increment(bytes.len() as u64);
                content.load(number, bytes, chunks::hash(bytes))?;
            }
        }
    }

    /// Brings the last chunk here, before the value's end moves.
    pub(crate) async fn load_end(&self) -> Result<(), StateError> {
        let size = self.content.read().size;
        self.load(size.saturating_sub(1), 1).await
    }

    /// Finds what guests changed through mappings, and marks it. The gate is held.
    async fn find_unseen(&self, range: Range<usize>) -> Result<(), StateError> {
        let mut looking = {
            let mut content = self.content.write();
            let go_on = content.is_mapped();
            Looking {
                value: self,
                suspects: content.chunks.suspects(range, go_on),
                done: false,
            }
        };
        let mut changed = Vec::new();
        for some in looking.suspects.chunks(HASHED_CHUNKS_MAX) {
            for (number, pushed) in some {
                let content = self.content.read();
                if chunks::hash(&chunk(&content, content.size, *number)) != *pushed {
                    changed.push(*number);
                }
            }
            tokio::task::yield_now().await;
        }
        looking.done = true;
        if changed.is_empty() {
            return Ok(());
        }
        self.change(|content| {
            content.chunks.soil(&changed);
            if content.exists() {
                content.bump();
            }
            Ok(())
        })
    }

    /// Pushes all that is known to differ. The gate is held.
    pub(crate) async fn push_known(&self) -> Result<(), StateError> {
        let all = self.content.read().chunks.all();
        self.push_chunks(all).await
    }

    async fn push_chunks(&self, range: Range<usize>) -> Result<(), StateError> {
        let mut pushing = {
            let mut content = self.content.write();
            if !self.is_backed(&content) {
                return Ok(());
            }
            let numbers = content.chunks.take_dirty(range);
            if numbers.is_empty() && !content.chunks.head_dirty {
                return Ok(());
            }
            Pushing {
                value: self,
                numbers,
                done: false,
            }
        };
        self.leave_base().await?;
        for _ in 0..PUSH_TRIES_MAX {
            match self.push_once(&pushing.numbers).await {
                Ok(()) => {
                    pushing.done = true;
                    return Ok(());
                }
                Err(GlobalError::Conflict { .. }) => self.find_base().await?,
                Err(error) => {
                    counter!(PUSH_FAILURES_TOTAL).increment(1);
                    return Err(error.into());
                }
            }
        }
        Err(GlobalError::Busy.into())
    }

    async fn push_once(&self, numbers: &[usize]) -> Result<(), GlobalError> {
        let (expected, head, durability) = {
            let mut content = self.content.write();
            let (durability, base) = (content.durability, content.chunks.base);
            content.backed = durability;
            if durability == Durability::Replicated {
                // Whoever takes it is to hear of a removal, even if others do not take it.
                content.chunks.base = content.version;
            } else if !numbers.is_empty() && content.version <= base {
                content.bump();
            }
            content.chunks.head_dirty = false;
            (base, content.head(), durability)
        };
        let hashes = Mutex::new(Vec::with_capacity(numbers.len()));
        let give = |number: usize| {
            let bytes = chunk(&self.content.read(), head.size as usize, number);
            counter!(PUSHED_BYTES_TOTAL).increment(bytes.len() as u64);
            hashes.lock().push((number, chunks::hash(&bytes)));
            bytes
        };
        let push = Push {
            expected,
            head,
            chunks: numbers.to_vec(),
        };
        let global = self.global_now(durability)?;
        global.push(&self.name, push, &give).await?;
        let mut content = self.content.write();
        content.chunks.base = head.version;
        for (number, hash) in hashes.into_inner() {
            content.chunks.pushed(number, hash);
        }
        Ok(())
    }

    /// Removes what is held of an earlier value that was kept elsewhere than this one.
    async fn leave_base(&self) -> Result<(), StateError> {
        let elsewhere = {
            let content = self.content.read();
            content.chunks.base != 0 && content.backed != content.durability
        };
        match elsewhere {
            true => self.remove_base().await,
            false => Ok(()),
        }
    }

    /// Asks what the global tier holds, after a push or a removal whose answer was lost.
    async fn find_base(&self) -> Result<(), StateError> {
        let base = match self.core.node.global.head(&self.name).await? {
            Found::Value(head) => head.version,
            Found::Nothing { .. } => 0,
        };
        let mut content = self.content.write();
        if self.holding.is_some() && base > content.last {
            // Each owner's versions are above those of all before it: this one is a later owner's.
            return Err(GlobalError::Fenced.into());
        }
        content.chunks.base = base;
        Ok(())
    }

    /// Removes what the global tier still holds of a value that is gone. The gate is held.
    pub(crate) async fn remove_base(&self) -> Result<(), StateError> {
        for _ in 0..PUSH_TRIES_MAX {
            let (base, backed) = {
                let content = self.content.read();
                (content.chunks.base, content.backed)
            };
            if base == 0 {
                return Ok(());
            }
            match self.global_now(backed)?.remove(&self.name, base).await {
                Ok(()) => self.content.write().chunks.base = 0,
                Err(GlobalError::Conflict { .. }) => self.find_base().await?,
                Err(error) => return Err(error.into()),
            }
        }
        match self.content.read().chunks.base {
            0 => Ok(()),
            _ => Err(GlobalError::Busy.into()),
        }
    }
}

/// The bytes of a chunk of a value of `size` bytes, without the zeros at its end.
pub(crate) fn chunk(content: &Content, size: usize, number: usize) -> Bytes {
    let offset = number * CHUNK_BYTES;
    let length = size.saturating_sub(offset).min(CHUNK_BYTES);
    // A value that went in the meantime has no bytes; what is pushed of it is not read again.
    let mut bytes = content.copy(offset, length).unwrap_or_default();
    bytes.truncate(chunks::trim(&bytes).len());
    bytes
}
