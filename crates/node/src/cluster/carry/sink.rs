//! Where a blob goes while it comes: into memory, or into a cache.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use model::{Digest, Hasher};
use sandbox::{BodyError, Cache, Staged};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

use super::others::AskError;

/// Bytes that are set aside for a blob before any of it has come.
const ASIDE_BYTES_MAX: usize = 16 << 20;
/// Pieces that wait to be written.
const PIECES_MAX: usize = 32;

/// What takes the pieces of a blob.
pub(super) trait Sink: Send {
    /// What becomes of it.
    type Kept: Send;

    /// So many bytes are to come.
    fn expect(&mut self, _bytes: u64) {}

    /// The next piece.
    fn take(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), AskError>> + Send;

    /// All has come: what is kept, and its digest.
    fn end(self) -> impl Future<Output = Result<(Self::Kept, Digest), AskError>> + Send;
}

/// Collects a blob.
#[derive(Default)]
pub(super) struct Memory {
    all: BytesMut,
    hasher: Hasher,
}

impl Sink for Memory {
    type Kept = Bytes;

    fn expect(&mut self, bytes: u64) {
        let aside = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.all.reserve(aside.min(ASIDE_BYTES_MAX));
    }

    async fn take(&mut self, bytes: Bytes) -> Result<(), AskError> {
        self.hasher.update(&bytes);
        self.all.extend_from_slice(&bytes);
        Ok(())
    }

    async fn end(self) -> Result<(Bytes, Digest), AskError> {
        Ok((self.all.freeze(), self.hasher.finish()))
    }
}

/// Writes a blob in a cache, on a thread that may block.
pub(super) struct Stage {
    cache: Arc<Cache>,
    writing: Option<Writing>,
}

struct Writing {
    pieces: Sender<Bytes>,
    written: JoinHandle<Result<Staged, BodyError>>,
}

impl Stage {
    pub fn new(cache: Arc<Cache>) -> Self {
        let writing = None;
        Self { cache, writing }
    }

    fn begin(&mut self) -> &mut Writing {
        self.writing.get_or_insert_with(|| {
            let (pieces, to_write) = channel(PIECES_MAX);
            let cache = self.cache.clone();
            let written = tokio::task::spawn_blocking(move || write(&cache, to_write));
            Writing { pieces, written }
        })
    }
}

impl Sink for Stage {
    type Kept = Staged;

    async fn take(&mut self, bytes: Bytes) -> Result<(), AskError> {
        let writing = self.begin();
        if writing.pieces.send(bytes).await.is_ok() {
            return Ok(());
        }
        let why = ended((&mut writing.written).await);
        let why = why.err().unwrap_or_else(|| "it stopped".into());
        Err(AskError::Kept(why))
    }

    async fn end(mut self) -> Result<(Staged, Digest), AskError> {
        self.begin();
        let written = self.writing.map(|writing| writing.written);
        let written = written.ok_or_else(|| AskError::Kept("it did not begin".into()))?;
        let staged = ended(written.await).map_err(AskError::Kept)?;
        let digest = staged.digest();
        Ok((staged, digest))
    }
}

fn ended<T>(result: Result<Result<T, BodyError>, tokio::task::JoinError>) -> Result<T, BodyError> {
    result?
}

/// Until nobody sends any more: what is cut off is deleted with what it was written to.
fn write(cache: &Arc<Cache>, mut pieces: Receiver<Bytes>) -> Result<Staged, BodyError> {
    let mut staging = cache.begin()?;
    let mut some = Vec::new();
    while pieces.blocking_recv_many(&mut some, PIECES_MAX) > 0 {
        for piece in some.drain(..) {
            staging.write(&piece)?;
        }
    }
    Ok(staging.end()?)
}
