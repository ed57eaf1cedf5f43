//! The global tier in a store: the node's own, or one that nodes share, with a bucket beside it for
//! what is large.
//!
//! A table says which version of each chunk counts, so chunks can be written before anybody sees
//! them:
//!
//! ```text
//!  small push:  chunks, table, head, old chunks' removal      one transaction
//!  large push:  intent ─▶ chunks … ─▶ table, head (the flip) ─▶ removal … ─▶ no intent
//! ```
//!
//! Before the flip the old value counts, after it the new one. A crash leaves an intent, and the
//! next opening removes the chunks that no table names. What is in the bucket needs a large push.

mod bucket;
mod push;
mod recovery;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use model::AppName;
use storage::{Blobs, Revision, Store, Txn, TxnOutcome};

use crate::global::{CHUNK_BYTES, Content, Found, Global, Head, Push};
use crate::record::{self, PAGE_CHUNKS, Place};
use crate::tier::Slots;
use crate::{GlobalError, Key, Name};

use bucket::{Bucket, REQUESTS_MAX};

/// How often a pull or a removal is tried anew when a push overtakes it.
const TRIES_MAX: usize = 4;

/// Durable values in the node's store, or in one that several nodes share.
#[derive(Clone, Debug)]
pub struct EmbeddedGlobal {
    store: Arc<dyn Store>,
    /// Which values are this node's; none if all are.
    slots: Option<Arc<Slots>>,
    /// Where large chunks are; none if all are in the store.
    bucket: Option<Bucket>,
}

/// A head, and the revision that it was put at.
struct Stored {
    head: Head,
    revision: Revision,
}

/// Pages of a value's table, by number: what says where each chunk is.
type Table = BTreeMap<usize, Vec<u64>>;

/// Keys of chunks that no longer count.
#[derive(Default)]
struct Old {
    chunks: Vec<Bytes>,
    /// Of names of blobs, which go with them.
    blobs: Vec<Bytes>,
}

impl Old {
    fn add(&mut self, place: Place, name: &Name, number: usize) {
        let key = place.key(name, number);
        self.keys(place.in_bucket).push(key);
    }

    fn keys(&mut self, in_bucket: bool) -> &mut Vec<Bytes> {
        match in_bucket {
            true => &mut self.blobs,
            false => &mut self.chunks,
        }
    }

    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.blobs.is_empty()
    }
}

impl EmbeddedGlobal {
    /// Opens it, and removes what a crash left over.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, GlobalError> {
        Self::opened(store, None).await
    }

    /// As [`Self::open`], with a bucket beside.
    #[cfg(test)]
    pub(crate) async fn open_beside(
        store: Arc<dyn Store>,
        bucket: Blobs,
    ) -> Result<Self, GlobalError> {
        Self::opened(store, Some(Bucket(bucket))).await
    }

    async fn opened(store: Arc<dyn Store>, bucket: Option<Bucket>) -> Result<Self, GlobalError> {
        let opened = Self {
            store,
            slots: None,
            bucket,
        };
        opened.recover(|_| true).await?;
        Ok(opened)
    }

    /// Over a store and a bucket that nodes share: each writes only what it owns. What crashes left
    /// over is removed by the next owner.
    pub(crate) fn shared(store: Arc<dyn Store>, bucket: Blobs, slots: Arc<Slots>) -> Self {
        Self {
            store,
            slots: Some(slots),
            bucket: Some(Bucket(bucket)),
        }
    }

    async fn stored(&self, name: &Name) -> Result<Option<Stored>, GlobalError> {
        let Some(found) = self.store.get(&record::head_key(name)).await? else {
            return Ok(None);
        };
        Ok(Some(Stored {
            head: record::read_head(&found.value)?,
            revision: found.revision,
        }))
    }

    /// The pages of the table that some chunks are in; those that are not there name none.
    async fn table(&self, name: &Name, chunks: Range<usize>) -> Result<Table, GlobalError> {
        let mut table = Table::new();
        let pages = chunks.start / PAGE_CHUNKS..chunks.end.div_ceil(PAGE_CHUNKS);
        for page in pages.filter(|_| !chunks.is_empty()) {
            if let Some(found) = self.store.get(&record::table_key(name, page)).await? {
                table.insert(page, record::read_table(&found.value)?);
            }
        }
        Ok(table)
    }

    /// The chunks as the table names them; none if one was replaced in the meantime.
    async fn read(
        &self,
        name: &Name,
        chunks: Range<usize>,
    ) -> Result<Option<Vec<(usize, Bytes)>>, GlobalError> {
        let table = self.table(name, chunks.clone()).await?;
        let places = chunks.filter_map(|number| Some((number, place_of(&table, number)?)));
        let reads = places.map(async |(number, place)| {
            let chunk = self.chunk(name, number, place).await?;
            Ok::<_, GlobalError>(chunk.map(|chunk| (number, chunk)))
        });
        let reads = stream::iter(reads).buffered(REQUESTS_MAX);
        let read: Vec<_> = reads.try_collect().await?;
        Ok(read.into_iter().collect())
    }

    async fn chunk(
        &self,
        name: &Name,
        number: usize,
        place: Place,
    ) -> Result<Option<Bytes>, GlobalError> {
        let key = place.key(name, number);
        let chunk = match (place.in_bucket, &self.bucket) {
            (false, _) => self.store.get(&key).await?.map(|found| found.value),
            (true, Some(bucket)) => bucket.get(&*self.store, &key).await?,
            (true, None) => return Err(GlobalError::Damaged("a table of chunks")),
        };
        match chunk {
            Some(chunk) if chunk.len() > CHUNK_BYTES => Err(GlobalError::Damaged("a chunk")),
            None if self.counts(name, number, place).await? => {
                Err(GlobalError::Damaged("a chunk is missing"))
            }
            chunk => Ok(chunk),
        }
    }

    /// Whether the table names this version of a chunk at this moment.
    async fn counts(&self, name: &Name, number: usize, place: Place) -> Result<bool, GlobalError> {
        let table = self.table(name, number..number + 1).await?;
        Ok(place_of(&table, number) == Some(place))
    }

    /// A transaction of a value, which takes effect only while this node owns it.
    async fn transact(&self, name: &Name, txn: Txn) -> Result<TxnOutcome, GlobalError> {
        let txn = match &self.slots {
            Some(slots) => slots.guard(name, txn)?,
            None => txn,
        };
        Ok(self.store.transact(txn).await?)
    }

    /// A transaction that nothing stands against but that the value is another node's.
    async fn commit(&self, name: &Name, txn: Txn) -> Result<(), GlobalError> {
        if txn.ops.is_empty() {
            return Ok(());
        }
        match self.transact(name, txn).await? {
            TxnOutcome::Committed { .. } => Ok(()),
            TxnOutcome::Conflict if self.slots.is_some() => Err(GlobalError::Fenced),
            TxnOutcome::Conflict => Err(GlobalError::Busy),
        }
    }

    /// A transaction that takes effect only if the head is the one that was read.
    async fn guarded_commit(
        &self,
        name: &Name,
        before: Option<&Stored>,
        txn: Txn,
    ) -> Result<(), GlobalError> {
        match self.transact(name, txn).await? {
            TxnOutcome::Committed { .. } => Ok(()),
            TxnOutcome::Conflict => {
                let now = self.stored(name).await?;
                let revision = |stored: &Stored| stored.revision;
                if now.as_ref().map(revision) == before.map(revision) {
                    return Err(GlobalError::Fenced);
                }
                let version = now.map_or(0, |now| now.head.version);
                Err(GlobalError::Conflict { version })
            }
        }
    }

    async fn before(&self, name: &Name, expected: u64) -> Result<Option<Stored>, GlobalError> {
        let before = self.stored(name).await?;
        let version = before.as_ref().map_or(0, |before| before.head.version);
        match version == expected {
            true => Ok(before),
            false => Err(GlobalError::Conflict { version }),
        }
    }

    /// The floor of an app's versions, and the revision that it was put at.
    async fn floor(&self, app: &AppName) -> Result<(u64, Option<Revision>), GlobalError> {
        match self.store.get(&record::floor_key(app)).await? {
            Some(found) => Ok((record::read_word(&found.value)?, Some(found.revision))),
            None => Ok((0, None)),
        }
    }

    /// The end of a removal: the head goes, and the floor is raised.
    async fn unflip(
        &self,
        name: &Name,
        before: &Stored,
        intent: bool,
    ) -> Result<bool, GlobalError> {
        let head = &before.head;
        let (floor, at) = self.floor(&name.app).await?;
        let floor_key = record::floor_key(&name.app);
        let mut txn = guarded(name, Some(before)).delete(record::head_key(name));
        if floor < head.version {
            txn = match at {
                Some(at) => txn.if_revision(floor_key.clone(), at),
                None => txn.if_absent(floor_key.clone()),
            };
            txn = txn.put(floor_key, record::write_word(head.version));
        }
        if head.expires_ms != 0 {
            txn = txn.delete(record::expiry_key(name, head.expires_ms));
        }
        for page in 0..chunk_count(head.size).div_ceil(PAGE_CHUNKS) {
            txn = txn.delete(record::table_key(name, page));
        }
        if intent {
            txn = txn.put(record::intent_key(name), Bytes::new());
        }
        Ok(self.transact(name, txn).await?.is_committed())
    }
}

#[async_trait]
impl Global for EmbeddedGlobal {
    async fn head(&self, name: &Name) -> Result<Found, GlobalError> {
        match self.stored(name).await? {
            Some(stored) => Ok(Found::Value(stored.head)),
            None => {
                let (floor, _) = self.floor(&name.app).await?;
                Ok(Found::Nothing { floor })
            }
        }
    }

    async fn pull(
        &self,
        name: &Name,
        chunks: Range<usize>,
    ) -> Result<Vec<(usize, Bytes)>, GlobalError> {
        for _ in 0..TRIES_MAX {
            if let Some(read) = self.read(name, chunks.clone()).await? {
                return Ok(read);
            }
        }
        Err(GlobalError::Busy)
    }

    async fn push(&self, name: &Name, push: Push, content: Content<'_>) -> Result<(), GlobalError> {
        self.push_all(name, push, content).await
    }

    async fn remove(&self, name: &Name, expected: u64) -> Result<(), GlobalError> {
        for _ in 0..TRIES_MAX {
            let Some(before) = self.before(name, expected).await? else {
                return Ok(());
            };
            let count = chunk_count(before.head.size);
            let table = self.table(name, 0..count).await?;
            let mut old = Old::default();
            for number in 0..count {
                if let Some(place) = place_of(&table, number) {
                    old.add(place, name, number);
                }
            }
            let left_over = self.store.get(&record::intent_key(name)).await?.is_some();
            // Another value of the app may have raised the floor: then once more.
            if self
                .unflip(name, &before, !left_over && !old.is_empty())
                .await?
            {
                self.clear_up(name, &old, left_over).await;
                return Ok(());
            }
        }
        Err(GlobalError::Busy)
    }

    async fn list(
        &self,
        app: &AppName,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Key, Head)>, GlobalError> {
        let heads = record::heads_prefix(app);
        let mut range = storage::Range::prefix(format!("{heads}{prefix}")).limit(limit);
        if let Some(after) = after.filter(|after| *after >= prefix) {
            range.start = format!("{heads}{after}\0").into_bytes();
        }
        let mut listed = Vec::new();
        for entry in self.store.range(range).await?.entries {
            let name = Key::from_bytes(&entry.key[heads.len()..]);
            let key = name.map_err(|_| GlobalError::Damaged("a key"))?;
            listed.push((key, record::read_head(&entry.value)?));
        }
        Ok(listed)
    }

    async fn expired(&self, now_ms: u64, limit: usize) -> Result<Vec<(Name, u64)>, GlobalError> {
        let end = record::expiries_until(now_ms.saturating_add(1));
        let range = storage::Range::between(record::expiries_until(0), end).limit(limit);
        let mut expired = Vec::new();
        for entry in self.store.range(range).await?.entries {
            let name = record::read_expiry_key(&entry.key);
            let name = name.ok_or(GlobalError::Damaged("an expiry"))?;
            if let Some(stored) = self.stored(&name).await? {
                expired.push((name, stored.head.version));
            }
        }
        Ok(expired)
    }
}

/// Takes effect only if the head is still the one that was read.
fn guarded(name: &Name, before: Option<&Stored>) -> Txn {
    let key = record::head_key(name);
    match before {
        Some(before) => Txn::new().if_revision(key, before.revision),
        None => Txn::new().if_absent(key),
    }
}

fn place_of(table: &Table, number: usize) -> Option<Place> {
    let page = table.get(&(number / PAGE_CHUNKS))?;
    Place::of(page[number % PAGE_CHUNKS])
}

fn chunk_count(size: u64) -> usize {
    usize::try_from(size.div_ceil(CHUNK_BYTES as u64)).unwrap_or(usize::MAX)
}
