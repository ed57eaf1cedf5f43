//! What deploys make, for all nodes of a cluster: compiled code and images come from the node that
//! made them, or from the bucket, so that others start a version without making them again.
//!
//! ```text
//!  deploy ─▶ entries of the cache ─▶ record in the store: their digests, who made them ─▶ bucket
//!  load ─ not in the cache ─▶ record ─▶ carrier: maker, else bucket ─▶ compared ─▶ cache ─▶ load
//! ```
//!
//! Compiled code is run as it is, so nothing of it is believed but what the store says: its digest,
//! written by the node that compiled it. A record belongs to what the back-end names its *product*,
//! in which its engine, its settings, the processor's features and this software's version are: a
//! node that differs in any of them finds no record, and makes its own.
//!
//! Invariants, as absences:
//! - No entry is put in the cache whose bytes are not those of the record.
//! - No entries of two makers are mixed: a record has all of one.
//! - No deploy and no load waits for the bucket to take what was made, or fails if it does not.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use memory::Arriving;
use model::{Digest, FileList, NodeId, VersionSpec};
use parking_lot::Mutex;
use sandbox::{BodyError, Cache, Entry, EntryKind, Portable, Staged};
use serde::{Deserialize, Serialize};
use storage::{Blobs, Pinned, Revision, Store, Txn};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::arrival::{Arrival, chunk_digests};
use crate::cluster::{Carrier, FIRST_LOADS_TOTAL};

/// Where records are in the store.
const PREFIX: &str = "images/";
/// Entries of one version that are fetched at once.
const FETCHED_AT_ONCE: usize = 4;
/// Bytes from which on a file of pages may come while guests run over it.
const LATER_FROM_BYTES: u64 = 8 << 20;
/// How long such files must be likely to take for that: guests that stop for their pages, some
/// hundred times in a first call, lose about as much.
const LATER_FROM: Duration = Duration::from_millis(200);
/// Bytes that must have come to tell how long others take.
const PACE_FROM_BYTES: u64 = 1 << 20;
/// Bytes of all such files from which on they come later if that cannot be told.
const LATER_UNLESS_KNOWN_BYTES: u64 = 64 << 20;
/// Bytes of such files that there are at once at most: they are held in memory as long as anything
/// runs over them.
const ARRIVING_BYTES_MAX: u64 = 2 << 30;
/// Versions that wait for the bucket to take what was made of them; of more, others get it from
/// this node alone.
const UPLOADS_MAX: usize = 64;
/// Versions that are sent to the bucket at once.
const UPLOADS_AT_ONCE: usize = 2;

/// What was made of a version, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    maker: String,
    entries: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    key: Digest,
    kind: String,
    sum: Digest,
    bytes: u64,
}

impl Part {
    fn entry_kind(&self) -> Result<EntryKind, BodyError> {
        let kind = EntryKind::of(&self.kind);
        kind.ok_or_else(|| format!("`{}` is no kind of entry", self.kind).into())
    }
}

/// What became of the wish to have a version without making it.
pub(crate) enum Brought {
    /// It is in the cache of this node, and was before.
    WasHere,
    /// It is now.
    Came,
    /// It is to be made here; the record that is to be replaced, if there is one.
    Missing(Option<Revision>),
}

/// Brings what was made elsewhere, and tells of what is made here; clones are of the same.
#[derive(Clone)]
pub(crate) struct Travel(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    blobs: Blobs,
    carrier: Carrier,
    here: NodeId,
    uploads: Arc<Semaphore>,
    uploading: Semaphore,
    /// Files of pages that did not come whole while guests ran over them: from now on they are
    /// whole first, or made anew.
    lost: Arc<Mutex<HashSet<Digest>>>,
    runtime: Handle,
}

impl Travel {
    /// Must be made in the runtime that uploads are to run in.
    pub fn new(store: Arc<dyn Store>, blobs: Blobs, carrier: Carrier) -> Self {
        Self(Arc::new(Inner {
            store,
            blobs,
            here: carrier.here(),
            carrier,
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            uploading: Semaphore::new(UPLOADS_AT_ONCE),
            lost: Arc::default(),
            runtime: Handle::current(),
        }))
    }

    /// Lets others have what is in this cache.
    pub fn offer(&self, cache: Arc<Cache>) {
        self.0.carrier.offer(cache);
    }

    /// Has what was made of a version in the cache, if anybody has made it. That nobody can be
    /// asked is as good as that nobody has.
    pub async fn bring(&self, backend: &Arc<dyn Portable>, spec: &VersionSpec) -> Brought {
        let (found, looked_for) = (backend.clone(), spec.clone());
        let look = tokio::task::spawn_blocking(move || is_here(&found, &looked_for));
        if matches!(look.await, Ok(Ok(true))) {
            return Brought::WasHere;
        }
        let brought = self.0.bring(backend, spec).await;
        let how = match brought {
            Brought::Came => "came",
            _ => "made",
        };
        ::metrics::counter!(FIRST_LOADS_TOTAL, "how" => how).increment(1);
        brought
    }

    /// Tells the others what was made here, in place of the record `stale`, and has the bucket take
    /// it some time. That it cannot be told costs others the making.
    pub async fn tell(
        &self,
        backend: &Arc<dyn Portable>,
        spec: &VersionSpec,
        stale: Option<Revision>,
    ) {
        match self.0.tell(backend, spec, stale).await {
            Ok(Some(entries)) => self.upload(backend.clone(), entries),
            Ok(None) => {}
            Err(error) => {
                let artifact = spec.artifact;
                tracing::warn!(%error, %artifact, "others are not told what was made of it");
            }
        }
    }

    /// As [`Travel::tell`], of what was here before: it was made for another version, or when the
    /// store could not be told.
    pub async fn tell_if_nobody_did(&self, backend: &Arc<dyn Portable>, spec: &VersionSpec) {
        let told = self.0.record(&key_of(&**backend, spec)).await;
        // Also where that is not known: then telling says what keeps it from being told.
        if !matches!(told, Ok(Some(_))) {
            self.tell(backend, spec, None).await;
        }
    }

    fn upload(&self, backend: Arc<dyn Portable>, entries: Vec<Entry>) {
        let Ok(place) = self.0.uploads.clone().try_acquire_owned() else {
            tracing::warn!("the bucket is behind: an image stays on the node that made it");
            return;
        };
        let inner = self.0.clone();
        self.0.runtime.spawn(async move {
            let _place = place;
            // It is never closed.
            let _turn = inner.uploading.acquire().await;
            for entry in entries {
                if let Err(error) = inner.upload(&backend, &entry).await {
                    let sum = entry.sum;
                    tracing::warn!(%error, %sum, "the bucket did not take a part of an image");
                }
            }
        });
    }

    /// Keeps the blobs that a version needs again when it is loaded anew.
    pub async fn pin(&self, spec: &VersionSpec) -> Pinned {
        let settings = &spec.settings;
        let mut digests = vec![spec.artifact];
        digests.extend(&settings.layers);
        if let Some(list) = settings.files {
            digests.push(list);
            let found = self.0.blobs.get_here(&list).await.ok().flatten();
            let list = found.and_then(|bytes| FileList::parse(&bytes).ok());
            digests.extend(
                list.into_iter()
                    .flat_map(|list| list.contents().into_keys()),
            );
        }
        self.0.blobs.pin(digests)
    }
}

impl Inner {
    async fn bring(&self, backend: &Arc<dyn Portable>, spec: &VersionSpec) -> Brought {
        let artifact = spec.artifact;
        let (record, revision) = match self.record(&key_of(&**backend, spec)).await {
            Ok(Some(found)) => found,
            Ok(None) => return Brought::Missing(None),
            Err(error) => {
                tracing::warn!(%error, %artifact, "whether others have made it is not known");
                return Brought::Missing(None);
            }
        };
        match self.take(backend, record).await {
            Ok(()) => Brought::Came,
            Err(error) => {
                tracing::warn!(%error, %artifact, "what was made elsewhere is made anew");
                Brought::Missing(Some(revision))
            }
        }
    }

    async fn record(&self, key: &str) -> Result<Option<(Record, Revision)>, BodyError> {
        let Some(found) = self.store.get(key.as_bytes()).await? else {
            return Ok(None);
        };
        let record = serde_json::from_slice(&found.value)?;
        Ok(Some((record, found.revision)))
    }

    /// Gets what is not here of a record, and only then puts it in the cache; large files of pages
    /// may still be on their way afterwards.
    async fn take(&self, backend: &Arc<dyn Portable>, record: Record) -> Result<(), BodyError> {
        let maker: NodeId = record.maker.parse()?;
        let cache = backend.cache().clone();
        let lists = record.entries.iter();
        let lists = lists.filter(|part| part.kind == EntryKind::Chunks.extension());
        let listed: HashSet<Digest> = lists.map(|part| part.key).collect();
        let look = move || missing(&cache, record.entries);
        let missing = tokio::task::spawn_blocking(look).await??;
        let can = self.carrier.is_other(&maker) && memory::pages_can_arrive();
        let may_wait = |part: &Part| {
            let has_list = listed.contains(&part.key);
            let was_lost = self.lost.lock().contains(&part.sum);
            can && has_list && !was_lost && can_come_later(&part.kind, part.bytes)
        };
        let (mut later, now): (Vec<_>, Vec<_>) = missing.into_iter().partition(may_wait);
        let begun = Instant::now();
        let mut parts = self.get(backend.cache(), &maker, now).await?;
        if !comes_later(&parts, begun.elapsed(), &later) {
            let rest = std::mem::take(&mut later);
            parts.extend(self.get(backend.cache(), &maker, rest).await?);
        }
        let names = parts.iter().map(|got| (got.part.key, got.kind)).collect();
        let cache = backend.cache().clone();
        tokio::task::spawn_blocking(move || place(&cache, parts)).await??;
        self.sync(backend.cache().clone(), names);
        for part in later {
            self.begin_arrival(backend.cache(), &maker, part).await?;
        }
        Ok(())
    }

    /// Has a part come while guests run over it.
    async fn begin_arrival(
        &self,
        cache: &Arc<Cache>,
        maker: &NodeId,
        part: Part,
    ) -> Result<(), BodyError> {
        let holder = cache.clone();
        let list = tokio::task::spawn_blocking(move || read_list(&holder, &part.key)).await??;
        let ways = (self.carrier.clone(), cache.clone(), maker.clone());
        let what = (part.key, part.sum, part.bytes);
        if let Some(arrival) = Arrival::begin(ways, what, &list)? {
            let lost = self.lost.clone();
            self.runtime.spawn(async move {
                if !arrival.run().await {
                    lost.lock().insert(part.sum);
                }
            });
        }
        Ok(())
    }

    /// Gets parts, a few at a time.
    async fn get(
        &self,
        cache: &Arc<Cache>,
        maker: &NodeId,
        parts: Vec<Part>,
    ) -> Result<Vec<Got>, BodyError> {
        let get = |part: Part| {
            let (maker, carrier, cache) = (maker.clone(), self.carrier.clone(), cache.clone());
            // In tasks of their own: what is compared and written takes longer than the way here.
            let got = self
                .runtime
                .spawn(async move { get(&carrier, cache, part, &maker).await });
            let got = AbortOnDropHandle::new(got);
            async move { got.await? }
        };
        let gets = stream::iter(parts).map(get);
        gets.buffered(FETCHED_AT_ONCE).try_collect().await
    }

    /// Makes durable what came, which nobody waits for: what a crash takes comes again.
    fn sync(&self, cache: Arc<Cache>, names: Vec<(Digest, EntryKind)>) {
        self.runtime.spawn_blocking(move || {
            for (key, kind) in names {
                let synced = cache.sync(&key, kind);
                // What could not be written is not to be read back.
                if let Err(error) = synced.inspect_err(|_| drop(cache.forget(&key, kind))) {
                    tracing::warn!(%error, "a part of an image is not durable");
                }
            }
        });
    }

    async fn tell(
        &self,
        backend: &Arc<dyn Portable>,
        spec: &VersionSpec,
        stale: Option<Revision>,
    ) -> Result<Option<Vec<Entry>>, BodyError> {
        let Some(entries) = entries(backend, spec).await? else {
            return Ok(None);
        };
        let part = |entry: &Entry| Part {
            key: entry.key,
            kind: entry.kind.extension().to_owned(),
            sum: entry.sum,
            bytes: entry.bytes,
        };
        let record = Record {
            maker: self.here.to_string(),
            entries: entries.iter().map(part).collect(),
        };
        let key = key_of(&**backend, spec);
        let txn = match stale {
            None => Txn::new().if_absent(key.clone()),
            Some(revision) => Txn::new().if_revision(key.clone(), revision),
        };
        let txn = txn.put(key, serde_json::to_vec(&record)?);
        let told = self.store.transact(txn).await?;
        // Another node was first: what it made is as good.
        Ok(told.is_committed().then_some(entries))
    }

    async fn upload(&self, backend: &Arc<dyn Portable>, entry: &Entry) -> Result<(), BodyError> {
        let images = self.carrier.images();
        if images.length(&entry.sum).await? == Some(entry.bytes) {
            return Ok(());
        }
        let (cache, sum) = (backend.cache().clone(), entry.sum);
        let read = move || cache.named(&sum).and_then(|path| std::fs::read(path).ok());
        let bytes = tokio::task::spawn_blocking(read).await?;
        let bytes = bytes
            .map(Bytes::from)
            .ok_or("it is not in the cache any more")?;
        let put = images.put(bytes).await?;
        match put == entry.sum {
            true => Ok(()),
            false => Err("it changed in the cache meanwhile".into()),
        }
    }
}

/// What is to be put in the cache.
struct Got {
    part: Part,
    kind: EntryKind,
    staged: Staged,
}

/// Gets a part of a record, and writes it beside the cache's entries.
async fn get(
    carrier: &Carrier,
    cache: Arc<Cache>,
    part: Part,
    maker: &NodeId,
) -> Result<Got, BodyError> {
    let kind = part.entry_kind()?;
    let found = carrier.image(part.sum, maker, &cache).await?;
    let staged = found.ok_or_else(|| format!("nobody has {}", part.sum))?;
    Ok(Got { part, kind, staged })
}

/// Whether guests may begin before all of an entry is here. The code that they run is whole
/// always: nothing could be done for one that waited for it in vain.
fn can_come_later(kind: &str, bytes: u64) -> bool {
    kind == EntryKind::Pages.extension() && bytes >= LATER_FROM_BYTES
}

/// Whether guests begin sooner before these parts are here than after them, by what came in what
/// time.
fn comes_later(came: &[Got], took: Duration, parts: &[Part]) -> bool {
    let left: u64 = parts.iter().map(|part| part.bytes).sum();
    let came: u64 = came.iter().map(|got| got.part.bytes).sum();
    if Arriving::all_bytes() as u64 + left > ARRIVING_BYTES_MAX {
        return false;
    }
    if came < PACE_FROM_BYTES {
        return left >= LATER_UNLESS_KNOWN_BYTES;
    }
    took.mul_f64(left as f64 / came as f64) > LATER_FROM
}

/// The entry of the digests of an entry's chunks, which is made unless it is there.
fn list_of(cache: &Cache, entry: &Entry) -> Result<Option<Entry>, BodyError> {
    if cache.load(&entry.key, EntryKind::Chunks)?.is_none()
        && let Some(path) = cache.load(&entry.key, entry.kind)?
    {
        let list = chunk_digests(&std::fs::read(path)?);
        cache.store(&entry.key, EntryKind::Chunks, &list)?;
    }
    Ok(cache.entry(&entry.key, EntryKind::Chunks)?)
}

fn read_list(cache: &Cache, key: &Digest) -> Result<Vec<u8>, BodyError> {
    let path = cache.load(key, EntryKind::Chunks)?;
    Ok(std::fs::read(
        path.ok_or("the digests of its chunks are missing")?,
    )?)
}

/// Whether all that a version needs is in the cache as it should be, or on its way.
fn is_here(backend: &Arc<dyn Portable>, spec: &VersionSpec) -> Result<bool, BodyError> {
    let Some(entries) = backend.entries(spec)? else {
        return Ok(false);
    };
    let cache = backend.cache();
    for (key, kind) in entries {
        if !cache.is_expected(&key, kind) && cache.load(&key, kind)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The parts of a record that are not here, nor on their way.
fn missing(cache: &Cache, parts: Vec<Part>) -> Result<Vec<Part>, BodyError> {
    let mut missing = Vec::new();
    for part in parts {
        let kind = part.entry_kind()?;
        // Only pages are on their way without being there, and they are named by their contents.
        let entry = cache.entry(&part.key, kind)?;
        let is_here = entry.is_some_and(|entry| entry.sum == part.sum);
        if !is_here && !cache.is_expected(&part.key, kind) {
            missing.push(part);
        }
    }
    Ok(missing)
}

/// Puts all parts in the cache; what is there of another maker goes first, so that a crash leaves
/// no mixture.
fn place(cache: &Cache, parts: Vec<Got>) -> Result<(), BodyError> {
    let mut missing = Vec::new();
    for got in parts {
        let Part { key, sum, .. } = &got.part;
        let there = cache.entry(key, got.kind)?;
        if there.is_none_or(|there| there.sum != *sum) {
            cache.forget(key, got.kind)?;
            missing.push(got);
        }
    }
    for Got { part, kind, staged } in missing {
        cache.put(&part.key, kind, staged)?;
    }
    Ok(())
}

/// What the cache has of a version, if that is all of it.
async fn entries(
    backend: &Arc<dyn Portable>,
    spec: &VersionSpec,
) -> Result<Option<Vec<Entry>>, BodyError> {
    let (backend, spec) = (backend.clone(), spec.clone());
    let find = move || -> Result<Option<Vec<Entry>>, BodyError> {
        let Some(names) = backend.entries(&spec)? else {
            return Ok(None);
        };
        let mut entries = Vec::new();
        let cache = backend.cache();
        for (key, kind) in names {
            let Some(entry) = cache.entry(&key, kind)? else {
                return Ok(None);
            };
            if can_come_later(kind.extension(), entry.bytes) {
                entries.extend(list_of(cache, &entry)?);
            }
            entries.push(entry);
        }
        Ok(Some(entries))
    };
    tokio::task::spawn_blocking(find).await?
}

/// Where the record of what this software makes of a version is.
fn key_of(backend: &dyn Portable, spec: &VersionSpec) -> String {
    let software = env!("CARGO_PKG_VERSION").as_bytes();
    let product = backend.product(spec);
    let parts = [software, product.as_bytes().as_slice()];
    format!("{PREFIX}{}", Digest::of_parts(parts).hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_it_was_written() {
        let record = Record {
            maker: "n1".to_owned(),
            entries: vec![Part {
                key: Digest::of(b"key"),
                kind: "cwasm".to_owned(),
                sum: Digest::of(b"code"),
                bytes: 4,
            }],
        };
        let (key, sum) = (Digest::of(b"key"), Digest::of(b"code"));
        let entry = format!(r#"{{"key":"{key}","kind":"cwasm","sum":"{sum}","bytes":4}}"#);
        let written = format!(r#"{{"maker":"n1","entries":[{entry}]}}"#);
        assert_eq!(serde_json::to_string(&record).ok(), Some(written.clone()));
        assert_eq!(serde_json::from_str::<Record>(&written).ok(), Some(record));
    }

    #[test]
    fn parts_of_another_maker_do_not_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path()).expect("a cache");
        let key = Digest::of(b"key");
        for kind in [EntryKind::Image, EntryKind::Meta] {
            cache.store(&key, kind, b"theirs").expect("an entry");
        }
        let got = |(kind, bytes): (EntryKind, &[u8])| {
            let part = Part {
                key,
                kind: kind.extension().to_owned(),
                sum: Digest::of(bytes),
                bytes: bytes.len() as u64,
            };
            let staged = cache.stage(bytes, part.sum).expect("room");
            Got { part, kind, staged }
        };
        let parts: [(_, &[u8]); _] = [(EntryKind::Image, b"image"), (EntryKind::Meta, b"theirs")];
        place(&cache, parts.map(got).into()).expect("they are placed");
        for (kind, bytes) in parts {
            let path = cache.load(&key, kind).expect("a look").expect("an entry");
            assert_eq!(std::fs::read(path).expect("its bytes"), bytes);
        }
    }
}
