//! The embedded store: one file, one writer thread, snapshot reads.

mod apply;
mod disk;
mod lease;
mod record;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::disk::{Disk, Opener};
use self::writer::{Command, Writer};
use crate::store::LEASE_TTL_MAX;
use crate::watch::HubLimits;
use crate::{LeaseId, Page, Range, Revision, StorageError, Store, Txn, TxnOutcome};
use crate::{Versioned, Watch};

/// Bounds of a [`RedbStore`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Memory for pages of the file.
    pub cache_bytes: usize,
    /// Transactions that wait for the writer; one more makes its caller wait.
    pub queue_txns_max: usize,
    /// Bytes of transactions that wait for the writer.
    pub queue_bytes_max: usize,
    /// Most transactions behind one fsync.
    pub batch_txns_max: usize,
    /// Events a watcher may be behind before it is cut off.
    pub watch_buffer_events: usize,
    /// Events kept for watchers that begin in the past.
    pub history_events_max: usize,
    /// Bytes of those events.
    pub history_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            queue_txns_max: 4096,
            queue_bytes_max: 64 << 20,
            batch_txns_max: 512,
            watch_buffer_events: 4096,
            history_events_max: 8192,
            history_bytes_max: 16 << 20,
        }
    }
}

/// A [`Store`] in one file, for a node that stands alone.
///
/// Cheap to clone; the file is closed, and free for another process, when the last clone is
/// dropped. Transactions that arrive while one is being written share the next fsync.
#[derive(Clone)]
pub struct RedbStore {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<Disk>,
    commands: Option<mpsc::Sender<Command>>,
    room: Arc<Semaphore>,
    room_permits: u32,
    writer: Option<JoinHandle<()>>,
}

/// Bytes that one permit of the queue's room stands for.
const ROOM_UNIT_BYTES: usize = 1 << 10;

impl RedbStore {
    /// Opens the store in the file `path`, which is made when it is not there.
    ///
    /// After a crash the file is checked and repaired first, which reads all of it. This blocks.
    pub fn open(path: &Path, config: Config) -> Result<Self, StorageError> {
        Self::start(disk::file_opener(path, config.cache_bytes), path, config)
    }

    /// A store in memory, which is gone when it is dropped: for tests and single runs.
    pub fn in_memory(config: Config) -> Result<Self, StorageError> {
        Self::start(
            disk::memory_opener(config.cache_bytes),
            Path::new("memory"),
            config,
        )
    }

    fn start(opener: Opener, path: &Path, config: Config) -> Result<Self, StorageError> {
        let limits = HubLimits {
            history_events_max: config.history_events_max,
            history_bytes_max: config.history_bytes_max,
            watch_buffer_events: config.watch_buffer_events.max(1),
        };
        let disk = Arc::new(Disk::open(opener, path, limits)?);
        let (commands, queue) = mpsc::channel(config.queue_txns_max.max(1));
        let writer = Writer::new(disk.clone(), queue, config.batch_txns_max.max(1))?;
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| StorageError::of_disk("starting the writer thread", error))?;
        let room_permits = (config.queue_bytes_max / ROOM_UNIT_BYTES).clamp(1, 1 << 28) as u32;
        let inner = Inner {
            disk,
            commands: Some(commands),
            room: Arc::new(Semaphore::new(room_permits as usize)),
            room_permits,
            writer: Some(writer),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StorageError>>) -> Command,
    ) -> Result<T, StorageError> {
        let (reply, answer) = oneshot::channel();
        let commands = self.inner.commands.as_ref().ok_or(StorageError::Closed)?;
        commands
            .send(command(reply))
            .await
            .map_err(|_| StorageError::Closed)?;
        answer.await.map_err(|_| StorageError::Closed)?
    }

    /// Reads off the runtime's threads. A read that meets a failed file has the writer open it
    /// anew and tries once more.
    async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&Disk) -> Result<T, StorageError> + Send + Sync + 'static,
    ) -> Result<T, StorageError> {
        let read = Arc::new(read);
        let opened = self.inner.disk.opened();
        match self.read_once(read.clone()).await {
            Err(StorageError::Io { .. } | StorageError::Full { .. }) => {
                self.ask(|reply| Command::Reopen { opened, reply }).await?;
                self.read_once(read).await
            }
            other => other,
        }
    }

    async fn read_once<T: Send + 'static>(
        &self,
        read: Arc<impl Fn(&Disk) -> Result<T, StorageError> + Send + Sync + 'static>,
    ) -> Result<T, StorageError> {
        let disk = self.inner.disk.clone();
        let path = disk.path().to_owned();
        let done = tokio::task::spawn_blocking(move || read(&disk)).await;
        done.unwrap_or_else(|error| {
            let detail = format!("reading it failed: {error}");
            Err(StorageError::Corrupted { path, detail })
        })
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StorageError> {
        let key = key.to_vec();
        self.read(move |disk| disk.get(&key)).await
    }

    async fn range(&self, range: Range) -> Result<Page, StorageError> {
        self.read(move |disk| disk.range(&range)).await
    }

    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, StorageError> {
        txn.check()?;
        let units = u32::try_from(txn.bytes().div_ceil(ROOM_UNIT_BYTES).max(1)).unwrap_or(u32::MAX);
        let units = units.min(self.inner.room_permits);
        let room = self.inner.room.clone().acquire_many_owned(units).await;
        let _room = room.map_err(|_| StorageError::Closed)?;
        self.ask(|reply| Command::Transact { txn, reply, _room })
            .await
    }

    async fn watch(&self, prefix: &[u8], from: Option<Revision>) -> Result<Watch, StorageError> {
        Ok(self.inner.disk.hub().watch(prefix, from))
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StorageError> {
        if ttl.as_millis() == 0 || ttl > LEASE_TTL_MAX {
            let (ms, max_ms) = (ttl.as_millis(), LEASE_TTL_MAX.as_millis());
            return Err(StorageError::LeaseTtl { ms, max_ms });
        }
        self.ask(|reply| Command::Grant { ttl, reply }).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StorageError> {
        self.ask(|reply| Command::KeepAlive { lease, reply }).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StorageError> {
        self.ask(|reply| Command::Revoke { lease, reply }).await
    }
}

impl Drop for Inner {
    /// Waits for what was accepted to be written, then frees the file.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer thread had panicked");
        }
        self.disk.close();
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore")
            .field("path", &self.inner.disk.path())
            .finish()
    }
}

#[cfg(test)]
mod tests;
