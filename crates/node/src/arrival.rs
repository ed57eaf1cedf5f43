//! An image over which guests run before all of it is here.
//!
//! ```text
//!  a guest waits for a page ─▶ its chunk and those about it, promptly ─┐
//!  all the time ─────────────▶ the next ones, after what is prompt ────┴▶ asked of the maker
//!      ─▶ compared ─▶ filled ─▶ all is there ─▶ cache
//!  the maker does not give one ─▶ all of it, from the bucket or whoever has it ─▶ filled
//!  nobody gives it ─▶ lost: what runs over it fails, and the version is loaded anew
//! ```
//!
//! Invariants, as absences:
//! - No byte is seen by a guest that was not compared with a digest of the record.
//! - No arrival ends before its file is whole or lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use memory::{Arriving, CHUNK_BYTES, Presence};
use model::{Digest, NodeId};
use sandbox::{BodyError, Cache, EntryKind};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::sleep;

use crate::cluster::{ARRIVALS_TOTAL, Carrier, PART_BYTES_MAX, Span};

/// Parts that are asked for at once because somebody waits.
const ASKED_AT_ONCE: usize = 8;
/// Parts that are asked for at once before anybody waits.
const AHEAD_AT_ONCE: usize = 2;
/// Chunks of a part: who waits for one is likely to wait for its neighbours next.
const PART_CHUNKS: usize = PART_BYTES_MAX / CHUNK_BYTES;
/// How often others are asked for what its maker did not give.
const TRIES_MAX: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// The digests of a file's chunks, one after the other.
pub(crate) fn chunk_digests(file: &[u8]) -> Vec<u8> {
    let digests = file.chunks(CHUNK_BYTES).map(Digest::of);
    digests.flat_map(|digest| *digest.as_bytes()).collect()
}

fn read_digests(list: &[u8]) -> Vec<Digest> {
    let (digests, _) = list.as_chunks();
    digests.iter().copied().map(Digest::from_bytes).collect()
}

/// A file of pages on its way from the node that made it into the cache of this one.
pub(crate) struct Arrival {
    carrier: Carrier,
    cache: Arc<Cache>,
    maker: NodeId,
    key: Digest,
    sum: Digest,
    /// By chunk.
    digests: Vec<Digest>,
    arriving: Arc<Arriving>,
    wanted: UnboundedReceiver<usize>,
}

impl Arrival {
    /// Has the cache expect the entry `key`, of so many bytes whose digest is `sum`, and whose
    /// chunks have the digests of `list`. What is returned is to be run; none if it is on its way
    /// already.
    pub fn begin(
        (carrier, cache, maker): (Carrier, Arc<Cache>, NodeId),
        (key, sum, bytes): (Digest, Digest, u64),
        list: &[u8],
    ) -> Result<Option<Self>, BodyError> {
        let bytes = usize::try_from(bytes)?;
        let digests = read_digests(list);
        if digests.len() != bytes.div_ceil(CHUNK_BYTES) {
            let length = list.len();
            return Err(format!("{length} bytes of digests are not those of {bytes} bytes").into());
        }
        // As long as there are chunks at most: each is wanted once.
        let (wants, wanted) = unbounded_channel();
        let arriving = Arriving::new(bytes, move |chunk| {
            // Nobody hears it only once all is there, or lost.
            let _ = wants.send(chunk);
        })?;
        let begins = cache.expect(key, &arriving);
        Ok(begins.then_some(Self {
            carrier,
            cache,
            maker,
            key,
            sum,
            digests,
            arriving,
            wanted,
        }))
    }

    /// Brings all of it; whether all of it came.
    pub async fn run(mut self) -> bool {
        if let Err(error) = self.come().await {
            let (maker, image) = (&self.maker, self.sum);
            tracing::info!(%error, %maker, %image, "the rest of an image is asked of others");
            if let Err(error) = self.come_from_others().await {
                tracing::error!(%error, %image, "an image that is in use does not come whole");
                self.arriving.lose();
            }
        }
        let is_whole = self.arriving.presence() == Presence::Whole;
        if is_whole {
            let (cache, arriving) = (self.cache.clone(), self.arriving.clone());
            let (key, sum) = (self.key, self.sum);
            let kept = tokio::task::spawn_blocking(move || keep(&cache, &arriving, key, sum));
            if let Ok(Err(error)) = kept.await {
                tracing::warn!(%error, image = %self.sum, "an image that came is not kept");
            }
        }
        self.cache.expect_no_more(&self.key, &self.arriving);
        let how = if is_whole { "came" } else { "lost" };
        ::metrics::counter!(ARRIVALS_TOTAL, "how" => how).increment(1);
        is_whole
    }

    /// Asks the maker for what is waited for, and beside that for the rest.
    async fn come(&mut self) -> Result<(), BodyError> {
        let mut asked = vec![false; self.digests.len()];
        let (mut asks, mut ahead) = (FuturesUnordered::new(), 0);
        while self.arriving.presence() == Presence::Arriving {
            let left = asked.contains(&false);
            tokio::select! {
                biased;
                Some((span, got)) = asks.next() => {
                    let Span { start, prompt, .. } = span;
                    ahead -= usize::from(!prompt);
                    let got: Option<Bytes> = got?;
                    self.fill(start, &got.ok_or("it is not there any more")?)?;
                }
                Some(chunk) = self.wanted.recv(), if asks.len() < ASKED_AT_ONCE => {
                    let chunks = about(&asked, chunk);
                    if !chunks.is_empty() {
                        asked[chunks.clone()].fill(true);
                        asks.push(self.ask(chunks, true));
                    }
                }
                () = std::future::ready(()), if left && ahead < AHEAD_AT_ONCE => {
                    let next = asked.iter().position(|asked| !asked).unwrap_or(0);
                    let chunks = about(&asked, next);
                    asked[chunks.clone()].fill(true);
                    asks.push(self.ask(chunks, false));
                    ahead += 1;
                }
            }
        }
        Ok(())
    }

    fn ask(
        &self,
        chunks: std::ops::Range<usize>,
        prompt: bool,
    ) -> impl Future<Output = (Span, Result<Option<Bytes>, BodyError>)> + Send + use<> {
        let start = self.arriving.span(chunks.start).start;
        let span = Span {
            image: self.sum,
            start: start as u64,
            bytes: self.arriving.span(chunks.end - 1).end - start,
            prompt,
        };
        let (carrier, maker) = (self.carrier.clone(), self.maker.clone());
        async move {
            let part = carrier.part(&maker, &span).await;
            (span, part)
        }
    }

    /// Fills the chunks of a part that came, once they are compared.
    fn fill(&self, start: u64, bytes: &[u8]) -> Result<(), BodyError> {
        let first = usize::try_from(start)? / CHUNK_BYTES;
        for (number, chunk) in (first..).zip(bytes.chunks(CHUNK_BYTES)) {
            if self.digests.get(number) != Some(&Digest::of(chunk)) {
                return Err("it sent other bytes than those of the image".into());
            }
            self.arriving.fill(number, chunk)?;
        }
        Ok(())
    }

    async fn fill_all(&self, bytes: &[u8]) -> Result<(), BodyError> {
        let mut start = 0;
        for part in bytes.chunks(PART_BYTES_MAX) {
            self.fill(start, part)?;
            start += part.len() as u64;
            // Comparing all of it takes a while.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn come_from_others(&self) -> Result<(), BodyError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.carrier.image_of_others(self.sum).await {
                Ok(Some(bytes)) => return self.fill_all(&bytes).await,
                Ok(None) if tries == TRIES_MAX => return Err("nobody has it".into()),
                Err(error) if tries == TRIES_MAX => return Err(error.into()),
                Ok(None) | Err(_) => sleep(BETWEEN_TRIES).await,
            }
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        // One that is cut off, as by a node that stops, leaves nobody waiting.
        self.arriving.lose();
    }
}

/// The chunks of the part that a chunk is in, as far as neither it nor those between were asked
/// for.
fn about(asked: &[bool], chunk: usize) -> std::ops::Range<usize> {
    let first = chunk - chunk % PART_CHUNKS;
    let end = asked.len().min(first + PART_CHUNKS);
    let run = |chunks: &mut dyn Iterator<Item = &bool>| chunks.take_while(|asked| !**asked).count();
    let after = run(&mut asked[chunk..end].iter());
    match after {
        0 => chunk..chunk,
        _ => chunk - run(&mut asked[first..chunk].iter().rev())..chunk + after,
    }
}

/// Puts a file that is whole in the cache.
fn keep(
    cache: &Arc<Cache>,
    arriving: &Arriving,
    key: Digest,
    sum: Digest,
) -> Result<(), BodyError> {
    let mut staging = cache.begin()?;
    let mut part = vec![0; PART_BYTES_MAX];
    for start in (0..arriving.bytes()).step_by(PART_BYTES_MAX) {
        let bytes = PART_BYTES_MAX.min(arriving.bytes() - start);
        arriving.read(start, &mut part[..bytes])?;
        staging.write(&part[..bytes])?;
    }
    let staged = staging.end()?;
    if staged.digest() != sum {
        return Err("its chunks are not those of the whole".into());
    }
    cache.put(&key, EntryKind::Pages, staged)?;
    Ok(cache.sync(&key, EntryKind::Pages)?)
}
