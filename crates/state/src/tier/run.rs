//! Doing what is asked of a key on the node that owns it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{Done, Holding, Op, PIECE_BYTES, marks};
use crate::chunks::{self, covering};
use crate::clock::millis;
use crate::content::Content;
use crate::durable::chunk;
use crate::global::CHUNK_BYTES;
use crate::{AppState, Info, Key, Open, StateError, Value};

impl AppState {
    /// Does it, on a key of a slot that this node has, or of a node without others.
    pub(crate) async fn run_here(
        &self,
        key: &Key,
        holding: Option<&Arc<Holding>>,
        op: &Op<'_>,
    ) -> Result<Done, StateError> {
        if let Some(holding) = holding {
            self.tell_loss(key, holding, op).await?;
        }
        let create = op.create();
        let open = Open { create };
        let value = match op.is_lock() {
            true => self.key_of(key, open, holding).await?,
            false => self.value_of(key, open, holding).await?,
        };
        let done = value.run(op).await?;
        if let (Some(holding), Op::Put { .. }) = (holding, op) {
            // Not before: until there is the new value, the old one is lost.
            holding.settle(self.name(), key);
        }
        if let (Some(holding), Some(tier)) = (holding, &self.0.core.node.tier)
            && !holding.is_marked(self.name())
            && value.is_ephemeral()
        {
            // Nothing is said of a value in memory only before its loss would be known.
            marks::mark(&*tier.store, holding, self.name()).await?;
        }
        Ok(done)
    }

    /// Refuses what depends on a value that may have been lost with its last owner.
    async fn tell_loss(
        &self,
        key: &Key,
        holding: &Arc<Holding>,
        op: &Op<'_>,
    ) -> Result<(), StateError> {
        let core = &self.0.core;
        let told_ms = millis(core.node.config.loss_told);
        let since_ms = core.now_ms().saturating_sub(told_ms);
        if op.is_lock() || !holding.may_have_lost(self.name(), key, since_ms) {
            return Ok(());
        }
        let exists = match self.value_of(key, Open::default(), Some(holding)).await {
            Ok(value) => value.exists(),
            Err(StateError::NotFound) => false,
            Err(error) => return Err(error),
        };
        let begins_anew = matches!(op, Op::Put { .. }) && op.is_blind();
        if exists || op.is_blind() && !begins_anew {
            holding.settle(self.name(), key);
        }
        match exists || begins_anew {
            true => Ok(()),
            // Only an owner can say so.
            false if !holding.holds() => Err(StateError::Elsewhere),
            false => Err(StateError::Lost),
        }
    }
}

impl Value {
    async fn run(self: &Arc<Self>, op: &Op<'_>) -> Result<Done, StateError> {
        Ok(match *op {
            Op::Info => Done::Info(self.info_now()?),
            Op::Read {
                offset,
                length,
                version,
            } => {
                let (info, bytes) = self.piece(offset, length, version).await?;
                Done::Bytes(info, bytes)
            }
            Op::Put { put, ref data, .. } => {
                let (info, existed) = self.put_over(data, put).await?;
                Done::Made(info, existed)
            }
            Op::Write { offset, data, .. } => Done::Number(offset, self.write(offset, data).await?),
            Op::Append { data, .. } => Done::Number(self.append(data).await?, 0),
            Op::Add { offset, amount, .. } => {
                let (sum, version) = self.add(offset, amount).await?;
                Done::Number(sum, version)
            }
            Op::Truncate { size, .. } => Done::Number(size, self.truncate(size).await?),
            Op::Delete { expected: None } => Done::Was(self.delete().await?),
            Op::Delete {
                expected: Some(version),
            } => {
                self.delete_if(version).await?;
                Done::Was(true)
            }
            Op::Expire { ttl } => {
                self.expire(ttl).await?;
                Done::Nothing
            }
            Op::Lock {
                mode,
                owner,
                wait,
                hold,
            } => {
                self.lock(mode, owner, wait, hold).await?;
                Done::Nothing
            }
            Op::Unlock { owner } => {
                self.unlock(owner)?;
                Done::Nothing
            }
            Op::Push { offset, length } => Done::Number(0, self.push(offset, length).await?),
            Op::Compare {
                first,
                ref hashes,
                version,
            } => self.compare(first, hashes, version).await?,
            Op::Merge {
                size, ref chunks, ..
            } => Done::Info(self.merge(size, chunks).await?),
        })
    }

    fn info_now(&self) -> Result<Info, StateError> {
        self.check_held()?;
        let info = self.info();
        // What was seen is only of use if it was this node's to see.
        self.check_held()?;
        info.ok_or(StateError::NotFound)
    }

    /// Bytes as of one moment, of a version if it is given.
    async fn piece(
        &self,
        offset: u64,
        length: u64,
        version: u64,
    ) -> Result<(Info, Bytes), StateError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let most = usize::try_from(length).unwrap_or(usize::MAX);
        loop {
            let size = self.info_now()?.size;
            let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let length = left.min(most).min(PIECE_BYTES);
            let read = self.of_what_is_here((start, length), |content| {
                if version != 0 && content.version != version {
                    let version = content.version;
                    return Err(StateError::Conflict { version });
                }
                Ok((Info::of(content), content.copy(start, length)?))
            });
            match read {
                Some(read) => return read,
                None => self.load(start, length).await?,
            }
        }
    }

    /// The chunks that are not as the asker has them; all of them if its version is 0.
    async fn compare(&self, first: u64, hashes: &[u128], version: u64) -> Result<Done, StateError> {
        let most = PIECE_BYTES / CHUNK_BYTES;
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let range = first..first.saturating_add(hashes.len().min(most));
        let bytes = range.start.saturating_mul(CHUNK_BYTES)..range.end.saturating_mul(CHUNK_BYTES);
        loop {
            let compared = self.of_what_is_here((bytes.start, bytes.len()), |content| {
                let info = Info::of(content);
                if version == info.version {
                    return Ok((info, Vec::new()));
                }
                Ok((info, differing(content, range.clone(), hashes, version)))
            });
            match compared {
                Some(compared) => {
                    let (info, chunks) = compared?;
                    return Ok(Done::Chunks(info, chunks));
                }
                None => self.load(bytes.start, bytes.len()).await?,
            }
        }
    }

    /// Writes chunks, all or none.
    async fn merge(&self, size: u64, chunks: &[(u64, &[u8])]) -> Result<Info, StateError> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let mut placed = Vec::with_capacity(chunks.len());
        for (number, bytes) in chunks {
            let number = usize::try_from(*number).unwrap_or(usize::MAX);
            let offset = number.saturating_mul(CHUNK_BYTES);
            // The value may go on where the asker's ends.
            self.load(offset, bytes.len()).await?;
            placed.push((offset, *bytes));
        }
        self.load_end().await?;
        let merged = self.commit(|content| {
            content.merge(size, &placed)?;
            Ok(Info::of(content))
        });
        merged.await
    }
}

fn differing(
    content: &Content,
    range: Range<usize>,
    hashes: &[u128],
    version: u64,
) -> Vec<(u64, Bytes)> {
    let all = covering(0..content.size);
    let mut chunks = Vec::new();
    for (number, known) in (range.start..range.end.min(all.end)).zip(hashes) {
        let bytes = chunk(content, content.size, number);
        if version == 0 || chunks::hash(&bytes) != *known {
            chunks.push((number as u64, bytes));
        }
    }
    chunks
}
