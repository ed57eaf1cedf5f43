//! Pushes: chunks that are put before anybody sees them, the flip from which on they count, and the
//! removal of those that counted before.

use std::collections::btree_map::Entry;

use bytes::Bytes;
use storage::Txn;

use super::bucket::{Bucket, INLINE_BYTES_MAX, Parcel};
use super::{EmbeddedGlobal, Old, Stored, Table, chunk_count, guarded};
use crate::global::{CHUNK_BYTES, Content, Head, Push};
use crate::record::{self, PAGE_CHUNKS, Place};
use crate::{GlobalError, Name};

/// Operations in one transaction; the store takes more, and compares count too.
const TXN_OPS_MAX: usize = 100;
/// Bytes of chunks and tables in one transaction; the store takes a mebibyte, with keys.
const TXN_BYTES_MAX: usize = 900 << 10;

/// What a push changes.
struct Plan {
    /// The numbers of new chunks.
    new: Vec<usize>,
    /// What is in the store of old ones.
    old: Old,
    /// Changed pages.
    table: Table,
    /// Pages that are no longer needed.
    gone: Vec<usize>,
}

/// One transaction of a large push, and what goes to the bucket after it.
#[derive(Default)]
struct Step {
    txn: Txn,
    /// Bytes that the transaction puts.
    bytes: usize,
    parcels: Vec<Parcel>,
}

impl EmbeddedGlobal {
    /// Pushes in one transaction if that is possible, else in steps.
    pub(super) async fn push_all(
        &self,
        name: &Name,
        push: Push,
        content: Content<'_>,
    ) -> Result<(), GlobalError> {
        let before = self.before(name, push.expected).await?;
        if !push.chunks.is_empty() && push.head.version <= push.expected {
            // Its chunks would take the places of those that count.
            let version = push.expected;
            return Err(GlobalError::Conflict { version });
        }
        let old_size = before.as_ref().map_or(0, |before| before.head.size);
        let mut plan = self.plan(name, old_size, &push).await?;
        let (before, head) = (before.as_ref(), &push.head);
        match self
            .push_at_once(name, before, head, &mut plan, content)
            .await?
        {
            true => Ok(()),
            false => {
                self.push_in_steps(name, before, head, &mut plan, content)
                    .await
            }
        }
    }

    /// Which chunks and pages a push puts and removes.
    async fn plan(&self, name: &Name, old_size: u64, push: &Push) -> Result<Plan, GlobalError> {
        let (had, has) = (chunk_count(old_size), chunk_count(push.head.size));
        let cut = has.min(had)..had;
        let mut touched: Vec<usize> = push.chunks.clone();
        touched.extend(cut);
        let mut plan = Plan {
            new: push.chunks.clone(),
            old: Old::default(),
            table: Table::new(),
            gone: (has.div_ceil(PAGE_CHUNKS)..had.div_ceil(PAGE_CHUNKS)).collect(),
        };
        for number in touched {
            let page = number / PAGE_CHUNKS;
            if let Entry::Vacant(vacant) = plan.table.entry(page) {
                let read = self.table(name, number..number + 1).await?;
                let read = read.into_values().next();
                vacant.insert(read.unwrap_or_else(|| vec![0; PAGE_CHUNKS]));
            }
            let words = plan.table.entry(page).or_default();
            let word = std::mem::take(&mut words[number % PAGE_CHUNKS]);
            if let Some(place) = Place::of(word) {
                plan.old.add(place, name, number);
            }
        }
        plan.table.retain(|page, _| !plan.gone.contains(page));
        Ok(plan)
    }

    /// Everything of a push but the chunks.
    fn flip(&self, name: &Name, before: Option<&Stored>, head: &Head, plan: &Plan) -> Txn {
        let mut txn = guarded(name, before).put(record::head_key(name), record::write_head(head));
        let ended = before.map_or(0, |before| before.head.expires_ms);
        if ended != head.expires_ms {
            if ended != 0 {
                txn = txn.delete(record::expiry_key(name, ended));
            }
            if head.expires_ms != 0 {
                txn = txn.put(record::expiry_key(name, head.expires_ms), Bytes::new());
            }
        }
        for (page, words) in &plan.table {
            txn = txn.put(record::table_key(name, *page), record::write_table(words));
        }
        let gone = plan.gone.iter();
        gone.fold(txn, |txn, page| txn.delete(record::table_key(name, *page)))
    }

    /// A push in one transaction, or none if it is too large for that.
    async fn push_at_once(
        &self,
        name: &Name,
        before: Option<&Stored>,
        head: &Head,
        plan: &mut Plan,
        content: Content<'_>,
    ) -> Result<bool, GlobalError> {
        let ops = 4 + plan.new.len() + plan.old.chunks.len() + plan.table.len() + plan.gone.len();
        let bytes = plan.new.len() * CHUNK_BYTES + plan.table.len() * PAGE_CHUNKS * 8;
        if ops > TXN_OPS_MAX || bytes > TXN_BYTES_MAX || !plan.old.blobs.is_empty() {
            return Ok(false);
        }
        let (version, mut chunks) = (head.version, Vec::new());
        for number in plan.new.clone() {
            let bytes = content(number);
            if self.bucket_for(&bytes).is_some() {
                return Ok(false);
            }
            if !bytes.is_empty() {
                chunks.push((plan.put(name, number, version, false), bytes));
            }
        }
        let mut txn = self.flip(name, before, head, plan);
        for (key, bytes) in chunks {
            txn = txn.put(key, bytes);
        }
        for key in plan.old.chunks.drain(..) {
            txn = txn.delete(key);
        }
        self.guarded_commit(name, before, txn).await?;
        Ok(true)
    }

    /// A push in many transactions, of which one counts.
    async fn push_in_steps(
        &self,
        name: &Name,
        before: Option<&Stored>,
        head: &Head,
        plan: &mut Plan,
        content: Content<'_>,
    ) -> Result<(), GlobalError> {
        let intent = record::intent_key(name);
        let left_over = self.store.get(&intent).await?.is_some();
        let mut step = Step::default();
        if !left_over {
            step.txn = step.txn.put(intent, Bytes::new());
        }
        for number in plan.new.clone() {
            let chunk = content(number);
            if chunk.is_empty() {
                continue;
            }
            let in_bucket = self.bucket_for(&chunk).is_some();
            let key = plan.put(name, number, head.version, in_bucket);
            let parcel = in_bucket.then(|| Parcel::new(&key, &chunk));
            let record = parcel.as_ref().map_or(chunk, |parcel| parcel.name.clone());
            let bytes = step.bytes + record.len();
            if bytes > TXN_BYTES_MAX || step.txn.ops.len() >= TXN_OPS_MAX {
                self.take_step(name, std::mem::take(&mut step)).await?;
            }
            step.bytes += record.len();
            step.txn = step.txn.put(key, record);
            step.parcels.extend(parcel);
        }
        self.take_step(name, step).await?;
        let flip = self.flip(name, before, head, plan);
        self.guarded_commit(name, before, flip).await?;
        self.clear_up(name, &plan.old, left_over).await;
        Ok(())
    }

    /// What goes to the bucket has its name in the store before.
    async fn take_step(&self, name: &Name, step: Step) -> Result<(), GlobalError> {
        self.commit(name, step.txn).await?;
        match &self.bucket {
            Some(bucket) => bucket.put(step.parcels).await,
            None => Ok(()),
        }
    }

    /// Where a chunk is to be, if not in the store.
    fn bucket_for(&self, chunk: &Bytes) -> Option<&Bucket> {
        let bucket = self.bucket.as_ref();
        bucket.filter(|_| chunk.len() > INLINE_BYTES_MAX)
    }

    /// Removes old chunks and the intent. What fails here is done when the store is opened anew:
    /// the change itself is durable. An intent of a push that failed stays for its chunks.
    pub(super) async fn clear_up(&self, name: &Name, old: &Old, left_over: bool) {
        let removed = self.remove_old(name, old).await;
        let intent = Txn::new().delete(record::intent_key(name));
        let done = match removed {
            Ok(()) if !left_over => self.commit(name, intent).await,
            other => other,
        };
        if let Err(error) = done {
            tracing::warn!(%error, "chunks of old values stay until the next start");
        }
    }

    pub(super) async fn remove_old(&self, name: &Name, old: &Old) -> Result<(), GlobalError> {
        if let Some(bucket) = &self.bucket {
            bucket.remove(&*self.store, &old.blobs).await?;
        }
        for keys in [&old.chunks, &old.blobs] {
            for some in keys.chunks(TXN_OPS_MAX) {
                let delete = |txn: Txn, key: &Bytes| txn.delete(key.clone());
                let txn = some.iter().fold(Txn::new(), delete);
                self.commit(name, txn).await?;
            }
        }
        Ok(())
    }
}

impl Plan {
    /// From the flip on, this version of the chunk counts; gives its key.
    fn put(&mut self, name: &Name, number: usize, version: u64, in_bucket: bool) -> Bytes {
        let place = Place { version, in_bucket };
        if let Some(words) = self.table.get_mut(&(number / PAGE_CHUNKS)) {
            words[number % PAGE_CHUNKS] = place.word();
        }
        place.key(name, number)
    }
}
