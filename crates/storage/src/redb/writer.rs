//! The writer thread: many transactions, one fsync.
//!
//! ```text
//!  wait ──commands──▶ apply each in turn ──▶ commit (fsync) ──▶ publish ──▶ acknowledge ──┐
//!   ▲  └──a deadline──▶ expire leases ─▲         └─failure─▶ reopen, fail the batch ──────┤
//!   └─────────────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::{ReadableDatabase, ReadableTable};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::apply::{Applied, Apply};
use super::disk::Disk;
use super::lease::Leases;
use super::record::LEASES;
use crate::{LeaseId, StorageError, Txn, TxnOutcome};

/// How long to wait before a file that could not be opened is tried again without being asked.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// How long to wait before leases that could not be ended are tried again.
const EXPIRE_PAUSE: Duration = Duration::from_secs(1);

type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

pub enum Command {
    /// The permit gives its room back with the answer.
    Transact {
        txn: Txn,
        reply: Reply<TxnOutcome>,
        _room: OwnedSemaphorePermit,
    },
    Grant {
        ttl: Duration,
        reply: Reply<LeaseId>,
    },
    KeepAlive {
        lease: LeaseId,
        reply: Reply<()>,
    },
    Revoke {
        lease: LeaseId,
        reply: Reply<()>,
    },
    /// Open the file anew, unless that was done since it had been opened `opened` times.
    Reopen {
        opened: u64,
        reply: Reply<()>,
    },
}

pub struct Writer {
    disk: Arc<Disk>,
    queue: mpsc::Receiver<Command>,
    batch_max: usize,
    leases: Leases,
    /// Leases are not ended before this moment.
    expire_after: Instant,
    runtime: tokio::runtime::Runtime,
}

impl Command {
    /// Answers; a failed batch has already turned `result` into its failure.
    fn answer(self, result: Result<Applied, StorageError>) {
        match self {
            Command::Transact { reply, .. } => send(reply, result.map(|applied| applied.outcome)),
            Command::Grant { reply, .. } => send(reply, result.map(|applied| applied.lease)),
            Command::KeepAlive { reply, .. } => send(reply, result.map(drop)),
            Command::Revoke { reply, .. } => send(reply, result.map(drop)),
            Command::Reopen { reply, .. } => send(reply, result.map(drop)),
        }
    }
}

/// A caller that has gone needs no answer.
fn send<T>(reply: Reply<T>, result: Result<T, StorageError>) {
    let _gone = reply.send(result);
}

impl Writer {
    pub fn new(
        disk: Arc<Disk>,
        queue: mpsc::Receiver<Command>,
        batch_max: usize,
    ) -> Result<Self, StorageError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = runtime.map_err(|e| StorageError::of_disk("starting the writer", e))?;
        let mut leases = Leases::default();
        let now = Instant::now();
        for (id, ttl) in stored_leases(&disk)? {
            leases.grant(id, ttl, now);
        }
        Ok(Self {
            disk,
            queue,
            batch_max,
            leases,
            expire_after: now,
            runtime,
        })
    }

    /// Works until every sender is gone and the queue is empty.
    pub fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(expired) = self.wait(&mut batch) {
            self.process(std::mem::take(&mut batch), expired);
        }
    }

    /// Fills `batch`, or gives the leases that are over; none when there is no more work.
    fn wait(&mut self, batch: &mut Vec<Command>) -> Option<Vec<LeaseId>> {
        let expiry = self
            .leases
            .next_deadline()
            .map(|at| at.max(self.expire_after));
        let reopen = (!self.disk.is_open()).then(|| Instant::now() + REOPEN_PAUSE);
        let wake = expiry.into_iter().chain(reopen).min();
        let received = self.runtime.block_on(async {
            let receive = self.queue.recv_many(batch, self.batch_max);
            match wake {
                Some(at) => tokio::time::timeout_at(at.into(), receive).await.ok(),
                None => Some(receive.await),
            }
        });
        let now = Instant::now();
        let due = now >= self.expire_after;
        let expired = if due {
            self.leases.expired(now)
        } else {
            Vec::new()
        };
        (received != Some(0)).then_some(expired)
    }

    fn process(&mut self, batch: Vec<Command>, expired: Vec<LeaseId>) {
        let result = match self.reopen_if_asked(&batch) {
            Ok(()) => self.commit(&batch, &expired),
            Err(error) => Err(error),
        };
        match result {
            Ok(results) => {
                expired.iter().for_each(|lease| self.leases.remove(*lease));
                for (command, result) in batch.into_iter().zip(results) {
                    let result = result.and_then(|applied| self.settle(&command, applied));
                    command.answer(result);
                }
            }
            Err(error) => {
                self.mend(&error);
                batch
                    .into_iter()
                    .for_each(|command| command.answer(Err(error.clone())));
            }
        }
    }

    fn reopen_if_asked(&self, batch: &[Command]) -> Result<(), StorageError> {
        let opened = self.disk.opened();
        let failed = |command: &Command| matches!(command, Command::Reopen { opened: seen, .. } if *seen == opened);
        match batch.iter().any(failed) || !self.disk.is_open() {
            true => self.disk.reopen(),
            false => Ok(()),
        }
    }

    /// Applies a batch and commits it; the inner results are of each command.
    fn commit(
        &self,
        batch: &[Command],
        expired: &[LeaseId],
    ) -> Result<Vec<Result<Applied, StorageError>>, StorageError> {
        let disk = &self.disk;
        let (results, events, revision) = disk.with(|database| {
            let write = database.begin_write();
            let write = write.map_err(|e| disk.failed("beginning a transaction", e))?;
            let mut apply = Apply::new(disk, &write)?;
            for lease in expired {
                apply.end_lease(*lease)?;
            }
            let results: Result<Vec<_>, _> = batch
                .iter()
                .map(|command| self.apply(&mut apply, command))
                .collect();
            let results = results?;
            let (events, revision, dirty) = apply.finish()?;
            if dirty {
                write
                    .commit()
                    .map_err(|e| disk.failed("committing a transaction", e))?;
            }
            Ok((results, events, revision))
        })?;
        if !events.is_empty() {
            disk.hub().publish(events, revision);
        }
        Ok(results)
    }

    /// Applies one command: the inner error refuses it alone, the outer one fails the batch.
    fn apply(
        &self,
        apply: &mut Apply<'_>,
        command: &Command,
    ) -> Result<Result<Applied, StorageError>, StorageError> {
        match command {
            Command::Transact { txn, .. } => apply.transact(txn, &self.leases),
            Command::Grant { ttl, .. } => apply.grant(*ttl).map(Ok),
            Command::Revoke { lease, .. } => apply.end_lease(*lease).map(|known| {
                known
                    .then(Applied::default)
                    .ok_or(StorageError::LeaseNotFound(*lease))
            }),
            Command::KeepAlive { .. } | Command::Reopen { .. } => Ok(Ok(Applied::default())),
        }
    }

    /// After the commit: what a command means for the leases' deadlines.
    fn settle(&mut self, command: &Command, applied: Applied) -> Result<Applied, StorageError> {
        let now = Instant::now();
        match command {
            Command::Grant { ttl, .. } => self.leases.grant(applied.lease, *ttl, now),
            Command::Revoke { lease, .. } => self.leases.remove(*lease),
            Command::KeepAlive { lease, .. } if !self.leases.keep_alive(*lease, now) => {
                return Err(StorageError::LeaseNotFound(*lease));
            }
            _ => {}
        }
        Ok(applied)
    }

    /// After a failed batch: the engine refuses further work on the file until it is opened anew.
    fn mend(&mut self, error: &StorageError) {
        self.expire_after = Instant::now() + EXPIRE_PAUSE;
        tracing::error!(%error, "a batch of transactions failed");
        if let Err(error) = self.disk.reopen() {
            tracing::error!(%error, "the store's file cannot be opened again yet");
        }
    }
}

/// The leases of the file, with their times to live.
fn stored_leases(disk: &Disk) -> Result<Vec<(LeaseId, Duration)>, StorageError> {
    disk.with(|database| {
        let load = || -> Result<Vec<_>, redb::Error> {
            let read = database.begin_read()?;
            let leases = read.open_table(LEASES)?;
            let mut all = Vec::new();
            for row in leases.iter()? {
                let (id, ttl_ms) = row?;
                all.push((LeaseId(id.value()), Duration::from_millis(ttl_ms.value())));
            }
            Ok(all)
        };
        load().map_err(|error| disk.failed("reading the leases", error))
    })
}
