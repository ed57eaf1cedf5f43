//! How blobs get to a node: from another one that has them, or from the bucket, which is read once
//! however many nodes want a blob at the same time.
//!
//! ```text
//!  miss ─▶ flight, one a blob ─▶ who reads this blob from the bucket, by rendezvous hashing?
//!              ├─ another node: asked to bring it ─▶ bytes, compared with their digest
//!              │     └─ gone, slow, damaged: the next one is asked, and then
//!              └─ this one: bucket ─▶ bytes
//!                             └─ not there, failed or slow: whoever has it
//! ```
//!
//! Invariants, as absences:
//! - No bytes are used that are not those of their name, whoever sent them.
//! - No node that is asked asks another one to bring: nothing goes round in circles.
//! - No blob is on its way to a node twice.

mod others;
mod part;
mod serve;
mod sink;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt as _, StreamExt as _, stream};
use model::{Digest, NodeId};
use parking_lot::Mutex;
use sandbox::{BodyError, Cache, Staged};
use storage::{Blobs, Fetch, StorageError};
use tokio::runtime::Handle;

pub(super) use self::others::Net;
use self::others::{Ask, AskError, Others};
pub(crate) use self::part::{PART_BYTES_MAX, Span};
pub(super) use self::serve::Serve;
use super::metrics;

/// Limits and waits of blobs that travel between nodes.
#[derive(Clone, Copy, Debug)]
pub struct CarryConfig {
    /// What the first byte of an answer may take, which may have to come from the bucket.
    pub first_byte_max: Duration,
    /// What may pass between two pieces of an answer.
    pub pause_max: Duration,
    /// What all of an answer may take.
    pub fetch_max: Duration,
    /// What a part of an image may take, for which a guest waits.
    pub part_max: Duration,
    /// What the bucket may take before other nodes are asked as well.
    pub bucket_patience: Duration,
    /// The most bytes of a blob.
    pub blob_bytes_max: u64,
    /// Blobs that are received at once.
    pub receiving_max: usize,
    /// Blobs that are sent at once.
    pub sending_max: usize,
}

impl Default for CarryConfig {
    fn default() -> Self {
        Self {
            first_byte_max: Duration::from_secs(15),
            pause_max: Duration::from_secs(10),
            fetch_max: Duration::from_secs(300),
            part_max: Duration::from_secs(10),
            bucket_patience: Duration::from_secs(2),
            blob_bytes_max: 4 << 30,
            receiving_max: 8,
            sending_max: 16,
        }
    }
}

/// Nodes that are asked, one after the other, to read a blob from the bucket.
const READERS_MAX: usize = 2;
/// Nodes that are asked whether they have a blob that the bucket does not give.
const ASKED_MAX: usize = 64;
/// How many of them at once.
const ASKED_AT_ONCE: usize = 4;

/// Which blobs. The numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Space {
    /// What was uploaded.
    Artifacts = 0,
    /// What deploys make of it.
    Images = 1,
}

/// What is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub space: Space,
    pub digest: Digest,
}

pub(super) type Found = Result<Option<Bytes>, StorageError>;
type Flight = Shared<BoxFuture<'static, Found>>;

/// What a flight does: brings a blob here by any way, or out of the bucket for whoever asks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    Any,
    Bucket,
}

/// Brings blobs; clones are of the same.
#[derive(Clone)]
pub(crate) struct Carrier(Arc<Inner>);

struct Inner {
    others: Arc<dyn Others>,
    /// What was uploaded, behind the cache of this node.
    blobs: Blobs,
    /// The bucket's part of what deploys make.
    images: Blobs,
    /// Where this node keeps what its own deploys make, by the walls.
    caches: Mutex<Vec<Arc<Cache>>>,
    bucket_patience: Duration,
    flights: Mutex<HashMap<(Name, Way), Flight>>,
    /// Where flights run: not where guests do, which may hold their threads.
    runtime: Handle,
}

impl Carrier {
    /// Must be made in the runtime that the flights are to run in.
    pub(super) fn new(
        others: Arc<dyn Others>,
        blobs: Blobs,
        images: Blobs,
        bucket_patience: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            others,
            blobs,
            images,
            caches: Mutex::default(),
            bucket_patience,
            flights: Mutex::default(),
            runtime: Handle::current(),
        }))
    }

    /// Gives others what is in this cache, too, from now on.
    pub fn offer(&self, cache: Arc<Cache>) {
        self.0.caches.lock().push(cache);
    }

    /// What the cache of blobs is to ask for those that it lacks, as long as this lives.
    pub fn fetcher(&self) -> Arc<dyn Fetch> {
        Arc::new(Fetcher(Arc::downgrade(&self.0)))
    }

    /// This node.
    pub fn here(&self) -> NodeId {
        self.0.others.here()
    }

    /// The bucket's part of what deploys make.
    pub fn images(&self) -> &Blobs {
        &self.0.images
    }

    /// What a deploy made, of a node that made it if it is still there, written beside the entries
    /// of a cache.
    pub async fn image(
        &self,
        digest: Digest,
        maker: &NodeId,
        cache: &Arc<Cache>,
    ) -> Result<Option<Staged>, BodyError> {
        let space = Space::Images;
        let name = Name { space, digest };
        if *maker != self.here() {
            let said = self.0.others.stage(maker, name, cache).await;
            if let Ok(Some(staged)) = heard(maker, name, said) {
                count_fetched("peer", staged.bytes());
                return Ok(Some(staged));
            }
        }
        let Some(bytes) = self.wished(name).await? else {
            return Ok(None);
        };
        let cache = cache.clone();
        let stage = move || cache.stage(&bytes, digest);
        Ok(Some(tokio::task::spawn_blocking(stage).await??))
    }

    /// What a deploy made, if the node that made it does not give it.
    pub async fn image_of_others(&self, digest: Digest) -> Found {
        let space = Space::Images;
        self.wished(Name { space, digest }).await
    }

    /// Whether another node is there that may have made something.
    pub fn is_other(&self, node: &NodeId) -> bool {
        *node != self.here() && self.0.others.nodes().contains(node)
    }

    /// A part of an image, of a node that has it: whatever its cache holds there, which is to be
    /// compared.
    pub async fn part(&self, node: &NodeId, span: &Span) -> Result<Option<Bytes>, BodyError> {
        let said = self.0.others.part(node, span).await;
        let part = said.inspect_err(count_failure)?;
        if let Some(part) = &part {
            count_fetched("peer", part.len() as u64);
        }
        Ok(part)
    }

    async fn wished(&self, name: Name) -> Found {
        let inner = self.0.clone();
        self.flight(
            (name, Way::Any),
            async move { Self(inner).wish(name).await },
        )
        .await
    }

    async fn wish(&self, name: Name) -> Found {
        let here = self.here();
        for node in self.0.readers(&name) {
            if node == here {
                break;
            }
            match self.0.ask(&node, Ask::Bring, name).await {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                // It has looked everywhere; it may know less than this node.
                Ok(None) => break,
                Err(()) => {}
            }
        }
        self.brought(name).await
    }

    /// The blob out of the bucket, or from whoever has it where the bucket does not give it.
    async fn brought(&self, name: Name) -> Found {
        let inner = self.0.clone();
        self.flight((name, Way::Bucket), async move { inner.bring(name).await })
            .await
    }

    /// Joins the flight of this kind, or begins it. It goes on when who asked has gone: others
    /// may have come to wait.
    fn flight(
        &self,
        key: (Name, Way),
        work: impl Future<Output = Found> + Send + 'static,
    ) -> Flight {
        let mut flights = self.0.flights.lock();
        if let Some(flight) = flights.get(&key) {
            return flight.clone();
        }
        let (runtime, landing) = (self.0.runtime.clone(), Landing(self.0.clone(), key));
        let flight = async move {
            // A runtime that stops drops what it is given: then the flight has landed, too.
            let task = runtime.spawn(async move {
                let _landing = landing;
                work.await
            });
            match task.await {
                Ok(found) => found,
                Err(source) => Err(StorageError::Io {
                    doing: "bringing a blob",
                    source: Arc::new(source),
                }),
            }
        };
        let flight = flight.boxed().shared();
        flights.insert(key, flight.clone());
        flight
    }
}

/// A flight; dropped, it is over.
struct Landing(Arc<Inner>, (Name, Way));

impl Drop for Landing {
    fn drop(&mut self) {
        self.0.flights.lock().remove(&self.1);
    }
}

impl Inner {
    /// Who is to read the blob from the bucket, first to last, as every node sees it that knows of
    /// the same nodes.
    fn readers(&self, name: &Name) -> Vec<NodeId> {
        let mut nodes = self.others.nodes();
        let mut readers = Vec::new();
        while readers.len() < READERS_MAX
            && let Some(owner) = membership::owner(name.digest.as_bytes(), &nodes).cloned()
        {
            nodes.retain(|node| *node != owner);
            readers.push(owner);
        }
        readers
    }

    /// What a node says; that it failed has been said here.
    async fn ask(&self, node: &NodeId, ask: Ask, name: Name) -> Result<Option<Bytes>, ()> {
        let found = heard(node, name, self.others.ask(node, ask, name).await)?;
        if let Some(bytes) = &found {
            count_fetched("peer", bytes.len() as u64);
        }
        Ok(found)
    }

    /// What is on this node already.
    async fn held(&self, name: Name) -> Option<Bytes> {
        match self.blobs.get_here(&name.digest).await {
            Ok(Some(bytes)) => return Some(bytes),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a cached blob cannot be read"),
        }
        read_checked(self.image_path(&name.digest)?, name.digest).await
    }

    /// A part of an image on this node, which whoever asked compares.
    async fn part(&self, span: Span) -> Option<Bytes> {
        let path = self.image_path(&span.image)?;
        tokio::task::spawn_blocking(move || span.of(&path))
            .await
            .ok()?
    }

    fn image_path(&self, digest: &Digest) -> Option<PathBuf> {
        let caches = self.caches.lock();
        caches.iter().find_map(|cache| cache.named(digest))
    }

    /// What is brought is kept before the flight is over, and looked for when one begins: who comes
    /// a moment too late for one finds what it brought.
    async fn bring(&self, name: Name) -> Found {
        if let Some(bytes) = self.held(name).await {
            return Ok(Some(bytes));
        }
        let found = self.look_around(name).await?;
        if let Some(bytes) = &found
            && let Err(error) = self.blobs.put_here(bytes.clone()).await
        {
            tracing::warn!(%error, "a blob cannot be cached");
        }
        Ok(found)
    }

    async fn look_around(&self, name: Name) -> Found {
        let bucket = match (name.space, self.blobs.origin()) {
            (Space::Artifacts, Some(origin)) => origin,
            (Space::Artifacts, None) => &self.blobs,
            (Space::Images, _) => &self.images,
        };
        let mut reading = Box::pin(bucket.get(&name.digest));
        let read = tokio::time::timeout(self.bucket_patience, &mut reading).await;
        if let Ok(Ok(Some(bytes))) = read {
            count_fetched("bucket", bytes.len() as u64);
            return Ok(Some(bytes));
        }
        if let Some(bytes) = self.ask_all(name).await {
            return Ok(Some(bytes));
        }
        let read = match read {
            Ok(read) => read,
            Err(_) => reading.await,
        };
        if let Ok(Some(bytes)) = &read {
            count_fetched("bucket", bytes.len() as u64);
        }
        read
    }

    /// Asks others for what they have, a few at a time, until one gives it.
    async fn ask_all(&self, name: Name) -> Option<Bytes> {
        let here = self.others.here();
        let mut nodes = self.others.nodes();
        nodes.retain(|node| *node != here);
        nodes.truncate(ASKED_MAX);
        let ask = |node: NodeId| async move { self.ask(&node, Ask::Held, name).await };
        let asks: Vec<_> = nodes.into_iter().map(ask).collect();
        let mut answers = stream::iter(asks).buffer_unordered(ASKED_AT_ONCE);
        while let Some(answer) = answers.next().await {
            if let Ok(Some(bytes)) = answer {
                return Some(bytes);
            }
        }
        None
    }
}

/// What a cache of blobs asks. It does not keep the carrier, which keeps the cache.
struct Fetcher(Weak<Inner>);

#[async_trait]
impl Fetch for Fetcher {
    async fn fetch(&self, digest: &Digest) -> Found {
        let name = Name {
            space: Space::Artifacts,
            digest: *digest,
        };
        match self.0.upgrade() {
            Some(inner) => Carrier(inner).wished(name).await,
            None => Err(StorageError::Closed),
        }
    }
}

fn count_fetched(source: &'static str, bytes: u64) {
    let counter = ::metrics::counter!(metrics::FETCHED_BYTES_TOTAL, "source" => source);
    counter.increment(bytes);
}

async fn read_checked(path: PathBuf, digest: Digest) -> Option<Bytes> {
    let read = move || {
        let bytes = Bytes::from(std::fs::read(path).ok()?);
        (Digest::of(&bytes) == digest).then_some(bytes)
    };
    tokio::task::spawn_blocking(read).await.ok()?
}

/// What a node said of a blob; that it failed has been said here.
fn heard<T>(node: &NodeId, name: Name, said: Result<T, AskError>) -> Result<T, ()> {
    said.inspect_err(count_failure).map_err(|error| {
        let (digest, error) = (name.digest, &error as &dyn std::error::Error);
        tracing::info!(%node, %digest, error, "a node did not give a blob");
    })
}

fn count_failure(error: &AskError) {
    let why = error.why();
    ::metrics::counter!(metrics::FETCH_FAILURES_TOTAL, "why" => why).increment(1);
}

#[cfg(test)]
mod arrival_tests;
#[cfg(test)]
mod tests;
