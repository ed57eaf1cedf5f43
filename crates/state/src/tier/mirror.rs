//! A copy of a value that another node owns, in this node's memory, for guests that map it.
//!
//! It is shared by all guests of the app on this node. Chunks are fetched when they are mapped or
//! pulled: those that are not here, and of those that are here the ones that differ at the owner.
//! What guests wrote here stays until it is pushed, and is pushed by chunk: of two nodes that wrote
//! in one chunk, the later push counts. A value that is made by mapping it is made by its push.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use memory::{Access, REGION_UNIT_BYTES, Region};
use model::Durability;
use parking_lot::Mutex;

use super::route::{AHEAD, ASKED_BYTES, odd};
use super::{Done, Op};
use crate::body::Body;
use crate::budget::Charge;
use crate::chunks::{self, covering};
use crate::global::CHUNK_BYTES;
use crate::{AppState, Info, Key, Span, StateError};

/// Chunks that are compared at a time.
const COMPARED_MAX: usize = ASKED_BYTES / CHUNK_BYTES;

/// What of a chunk the owner had when it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    hash: u128,
    version: u64,
}

/// Chunks that guests changed, and the size, if it is one that the owner does not know; else 0.
type Changed = (Vec<(usize, Vec<u8>)>, usize);

#[derive(Debug)]
struct Copied {
    body: Body,
    size: usize,
    /// Nothing for those that are not here.
    chunks: Vec<Option<Known>>,
    /// Whether guests made it longer than the owner knows.
    grown: bool,
    /// Whether the owner had no value when it was last asked.
    absent: bool,
}

/// A copy; see [`AppState::mirror`].
#[derive(Debug)]
pub struct Mirror {
    app: AppState,
    key: Key,
    copied: Mutex<Copied>,
    /// One conversation with the owner at a time.
    gate: tokio::sync::Mutex<()>,
}

impl AppState {
    /// The copy of a key's value that is shared on this node.
    pub fn mirror(&self, key: &Key) -> Arc<Mirror> {
        let mut mirrors = self.0.mirrors.lock();
        let made = || {
            let core = &self.0.core;
            let charge = Charge::new(core.budget.clone());
            Arc::new(Mirror {
                app: self.clone(),
                key: key.clone(),
                copied: Mutex::new(Copied {
                    body: Body::new(charge, core.node.config.value_bytes_max),
                    size: 0,
                    chunks: Vec::new(),
                    grown: false,
                    absent: false,
                }),
                gate: tokio::sync::Mutex::default(),
            })
        };
        mirrors.entry(key.clone()).or_insert_with(made).clone()
    }

    /// Forgets the copies that nobody holds.
    pub(crate) fn forget_mirrors(&self) {
        let mut mirrors = self.0.mirrors.lock();
        // New holders come by the map, which is locked.
        mirrors.retain(|_, mirror| {
            Arc::strong_count(mirror) > 1 || mirror.copied.lock().body.is_held()
        });
    }
}

impl Mirror {
    /// The part of the copy that holds `length` bytes from `offset`, as they are at the owner now
    /// or as guests of this node changed them since they were last pushed. To write past the end
    /// makes the value longer once that is pushed.
    pub async fn map_span(
        &self,
        offset: u64,
        length: u64,
        access: Access,
    ) -> Result<Span, StateError> {
        let outside = |size: usize| StateError::Outside {
            offset,
            length,
            size: size as u64,
        };
        let start = usize::try_from(offset).map_err(|_| outside(0))?;
        let length_here = usize::try_from(length).map_err(|_| outside(0))?;
        let end = start.checked_add(length_here).ok_or_else(|| outside(0))?;
        let max = self.app.0.core.node.config.value_bytes_max;
        if end > max {
            let (asked, max) = (end as u64, max as u64);
            return Err(StateError::TooLarge { asked, max });
        }
        let first = start - start % REGION_UNIT_BYTES;
        let bytes = end.next_multiple_of(REGION_UNIT_BYTES);
        let grow = access == Access::Write;
        let _gate = self.gate.lock().await;
        let absent = match self.fetch(first..bytes).await {
            Err(StateError::NotFound) if grow => true,
            fetched => fetched.map(|_| false)?,
        };
        let mut copied = self.copied.lock();
        copied.absent = absent;
        if end > copied.size {
            if !grow {
                return Err(outside(copied.size));
            }
            copied.resize(end)?;
            copied.grown = true;
            // What is past the owner's end is here: zeros.
            copied.chunks.iter_mut().for_each(|chunk| {
                chunk.get_or_insert(Known {
                    hash: chunks::ZEROS,
                    version: 0,
                });
            });
        }
        let region: Arc<Region> = copied.body.region(end)?.clone();
        if grow {
            copied.body.set_scribbled();
        }
        Ok(Span {
            bytes: bytes.min(region.bytes()).saturating_sub(first),
            region,
            offset: first,
            within: start - first,
        })
    }

    /// The bytes that the value has, or that it will have once it is pushed.
    pub async fn size(&self) -> Result<u64, StateError> {
        let known = match self.app.info(&self.key).await {
            Ok(info) => info.size,
            Err(StateError::NotFound) => 0,
            Err(error) => return Err(error),
        };
        let copied = self.copied.lock();
        Ok(if copied.grown {
            known.max(copied.size as u64)
        } else {
            known
        })
    }

    /// Brings some bytes up to date with the owner's; the version that these are of.
    pub async fn pull(&self, offset: u64, length: u64) -> Result<u64, StateError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let _gate = self.gate.lock().await;
        let info = self.fetch(start..start.saturating_add(length)).await?;
        Ok(info.version)
    }

    /// Gives the owner what guests of this node changed in some bytes; the version afterwards. If
    /// there was no value when it was mapped, it is made with this durability.
    pub async fn push(
        &self,
        offset: u64,
        length: u64,
        durability: Durability,
    ) -> Result<u64, StateError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let _gate = self.gate.lock().await;
        let (changed, size, create) = {
            let copied = self.copied.lock();
            let (changed, size) = copied.changed(start, length)?;
            (changed, size, copied.absent.then_some(durability))
        };
        if changed.is_empty() && size == 0 {
            return Ok(self.app.info(&self.key).await?.version);
        }
        let chunks = changed.iter();
        let op = Op::Merge {
            create,
            size: size as u64,
            chunks: chunks.map(|(at, bytes)| (*at as u64, &bytes[..])).collect(),
        };
        let info = match self.app.run(&self.key, &op).await? {
            Done::Info(info) => info,
            other => return Err(odd(&other)),
        };
        let mut copied = self.copied.lock();
        (copied.grown, copied.absent) = (false, false);
        for (number, bytes) in changed {
            let hash = chunks::hash(chunks::trim(&bytes));
            // Others may have changed other chunks in between: this version is none of theirs.
            copied.know(number, hash, 0);
        }
        Ok(info.version)
    }

    /// Fetches what is not here of some bytes, or differs. The gate is held.
    async fn fetch(&self, bytes: Range<usize>) -> Result<Info, StateError> {
        let info = self.app.info(&self.key).await?;
        let size = usize::try_from(info.size).unwrap_or(usize::MAX);
        self.copied.lock().follow(size)?;
        // What guests of the owner's node wrote into a value that is in memory only has no version
        // of its own: there, hashes tell.
        let version = match info.durability {
            Durability::Ephemeral => u64::MAX,
            _ => info.version,
        };
        let questions = self.copied.lock().questions(
            covering(bytes.start.min(size)..bytes.end.min(size)),
            version,
        );
        let asked = questions
            .into_iter()
            .map(|(range, op)| self.compare(range, op));
        let asked: Vec<_> = asked.collect();
        let mut answers = stream::iter(asked).buffered(AHEAD);
        while let Some((range, now, differing)) = answers.next().await.transpose()? {
            self.copied.lock().take(range, now.version, &differing)?;
        }
        Ok(info)
    }

    /// Asks the owner which chunks of a range differ; these, and what the value is now.
    async fn compare(
        &self,
        range: Range<usize>,
        op: Op<'static>,
    ) -> Result<(Range<usize>, Info, Vec<(u64, Bytes)>), StateError> {
        match self.app.run(&self.key, &op).await? {
            Done::Chunks(now, differing) => Ok((range, now, differing)),
            other => Err(odd(&other)),
        }
    }
}

impl Copied {
    /// The owner's value is so long.
    fn follow(&mut self, size: usize) -> Result<(), StateError> {
        match self.grown {
            true => self.resize(size.max(self.size)),
            false => self.resize(size),
        }
    }

    fn resize(&mut self, size: usize) -> Result<(), StateError> {
        match size > self.size {
            true => self.body.extend(self.size, size)?,
            false => self.body.cut(self.size, size)?,
        }
        self.size = size;
        self.chunks.resize(size.div_ceil(CHUNK_BYTES), None);
        Ok(())
    }

    /// What to ask of the chunks of a range; nothing of those that are known to be as the owner has
    /// them.
    fn questions(&self, all: Range<usize>, version: u64) -> Vec<(Range<usize>, Op<'static>)> {
        let here = |number: usize| self.chunks.get(number).copied().flatten();
        let (mut questions, mut next) = (Vec::new(), all.start);
        while next < all.end {
            let is_here = here(next).is_some();
            let run = (next..all.end).take(COMPARED_MAX);
            let count = run.take_while(|at| here(*at).is_some() == is_here).count();
            let range = next..next + count;
            next = range.end;
            let known: Vec<_> = range.clone().filter_map(here).collect();
            if is_here && known.iter().all(|known| known.version == version) {
                continue;
            }
            let op = Op::Compare {
                first: range.start as u64,
                hashes: match is_here {
                    true => known.iter().map(|known| known.hash).collect(),
                    false => vec![chunks::ZEROS; count],
                },
                // Hashes count, unless nothing is here at all.
                version: if is_here { u64::MAX } else { 0 },
            };
            questions.push((range, op));
        }
        questions
    }

    /// The owner's chunks take the places of those that nobody changed here.
    fn take(
        &mut self,
        range: Range<usize>,
        version: u64,
        differing: &[(u64, Bytes)],
    ) -> Result<(), StateError> {
        for number in range {
            let Some(known) = self.chunks.get(number).copied() else {
                continue;
            };
            let differs = differing.iter().find(|(at, _)| *at == number as u64);
            let hash = match (differs, known) {
                (None, Some(known)) => known.hash,
                (None, None) => chunks::ZEROS,
                (Some((_, bytes)), known) => {
                    let untouched = match known {
                        Some(known) => self.hash(number)? == known.hash,
                        None => true,
                    };
                    if untouched {
                        self.put(number, bytes)?;
                    }
                    chunks::hash(bytes)
                }
            };
            self.know(number, hash, version);
        }
        Ok(())
    }

    fn know(&mut self, number: usize, hash: u128, version: u64) {
        if let Some(chunk) = self.chunks.get_mut(number) {
            *chunk = Some(Known { hash, version });
        }
    }

    fn put(&mut self, number: usize, bytes: &[u8]) -> Result<(), StateError> {
        let offset = number * CHUNK_BYTES;
        let mut whole = vec![0; CHUNK_BYTES.min(self.size.saturating_sub(offset))];
        let length = bytes.len().min(whole.len());
        whole[..length].copy_from_slice(&bytes[..length]);
        self.body.write(offset, &whole)
    }

    fn read(&self, number: usize) -> Result<Vec<u8>, StateError> {
        let offset = number * CHUNK_BYTES;
        let mut bytes = vec![0; CHUNK_BYTES.min(self.size.saturating_sub(offset))];
        self.body.read(offset, &mut bytes)?;
        Ok(bytes)
    }

    fn hash(&self, number: usize) -> Result<u128, StateError> {
        Ok(chunks::hash(chunks::trim(&self.read(number)?)))
    }

    /// The chunks that are here and not as the owner had them, and the size if it is another.
    fn changed(&self, start: usize, length: usize) -> Result<Changed, StateError> {
        let end = start.saturating_add(length).min(self.size);
        let mut changed = Vec::new();
        for number in covering(start.min(end)..end) {
            let Some(known) = self.chunks.get(number).copied().flatten() else {
                continue;
            };
            let bytes = self.read(number)?;
            if chunks::hash(chunks::trim(&bytes)) != known.hash {
                changed.push((number, bytes));
            }
        }
        Ok((changed, if self.grown { self.size } else { 0 }))
    }
}
