//! The open file: snapshot reads, and opening it anew after it failed.
//!
//! ```text
//!  open ──failure of the disk──▶ failed ──next command, or a pause──▶ open
//!    └──────────────── close ────────▶ closed
//! ```
//!
//! The engine refuses all work after one failed write, so that the file must be opened anew. The
//! lock makes sure that no read holds the old one then.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard, RwLock};
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase};

use super::record::{FORMAT, KV, LEASE_KEYS, LEASES, META, META_FORMAT, META_REVISION, Record};
use crate::store::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::watch::{Hub, HubLimits};
use crate::{Entry, Page, Range, Revision, StorageError, Versioned};

/// Opens the database, the first time and after each failure.
pub type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

pub struct Disk {
    path: PathBuf,
    opener: Opener,
    database: RwLock<Option<Database>>,
    /// How many times the database was opened.
    opened: AtomicU64,
    closed: AtomicBool,
    hub: Mutex<Hub>,
}

/// Opens a file; a file that is new is made durable in its folder too.
pub fn file_opener(path: &Path, cache_bytes: usize) -> Opener {
    let path = path.to_owned();
    Box::new(move || {
        let is_new = !path.try_exists()?;
        let database = Database::builder()
            .set_cache_size(cache_bytes)
            .create(&path)?;
        if is_new && let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Ok(database)
    })
}

/// Opens memory, once: after a failure there is nothing to go back to.
pub fn memory_opener(cache_bytes: usize) -> Opener {
    let opened = AtomicBool::new(false);
    Box::new(move || {
        if opened.swap(true, Ordering::Relaxed) {
            return Err(std::io::Error::other("the store in memory is lost").into());
        }
        let memory = redb::backends::InMemoryBackend::new();
        Database::builder()
            .set_cache_size(cache_bytes)
            .create_with_backend(memory)
    })
}

impl Disk {
    pub fn open(opener: Opener, path: &Path, limits: HubLimits) -> Result<Self, StorageError> {
        let disk = Self {
            path: path.to_owned(),
            opener,
            database: RwLock::new(None),
            opened: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            hub: Mutex::new(Hub::new(Revision(0), limits)),
        };
        disk.reopen()?;
        Ok(disk)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock()
    }

    /// Counts the times that the database was opened, so that a failure is not mended twice.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Acquire)
    }

    /// Whether the database is open, as far as is known.
    pub fn is_open(&self) -> bool {
        self.database.read().is_some()
    }

    /// Closes the database, if it is open, and opens it.
    pub fn reopen(&self) -> Result<(), StorageError> {
        let mut database = self.database.write();
        *database = None;
        let fresh = self.guarded(|| self.open_database())?;
        let read = fresh.begin_read().map_err(|e| self.failed("reading", e))?;
        let revision = self.revision_of(&read)?;
        drop(read);
        *database = Some(fresh);
        self.opened.fetch_add(1, Ordering::AcqRel);
        self.hub().resume(revision);
        Ok(())
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        *self.database.write() = None;
        self.hub().close();
    }

    /// Runs `work` on the open database. A panic of the engine on a damaged file is an error.
    pub fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let database = self.database.read();
        match database.as_ref() {
            Some(database) => self.guarded(|| work(database)),
            None if self.closed.load(Ordering::Acquire) => Err(StorageError::Closed),
            None => {
                let error = std::io::Error::other("the file could not be opened again");
                Err(StorageError::of_disk(
                    "using the store after a failure",
                    error,
                ))
            }
        }
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StorageError> {
        self.with(|database| {
            let read = database
                .begin_read()
                .map_err(|e| self.failed("reading", e))?;
            let kv = read.open_table(KV).map_err(|e| self.failed("reading", e))?;
            let found = kv.get(key).map_err(|e| self.failed("reading", e))?;
            let record = found
                .as_ref()
                .map(|found| self.decode(found.value()))
                .transpose()?;
            Ok(record.map(|record| record.versioned()))
        })
    }

    pub fn range(&self, range: &Range) -> Result<Page, StorageError> {
        self.with(|database| {
            let read = database
                .begin_read()
                .map_err(|e| self.failed("reading", e))?;
            let revision = self.revision_of(&read)?;
            let mut page = Page {
                entries: Vec::new(),
                more: false,
                revision,
            };
            if range.end.as_ref().is_some_and(|end| *end <= range.start) {
                return Ok(page);
            }
            let kv = read.open_table(KV).map_err(|e| self.failed("reading", e))?;
            let from = std::ops::Bound::Included(range.start.as_slice());
            let to = match &range.end {
                Some(end) => std::ops::Bound::Excluded(end.as_slice()),
                None => std::ops::Bound::Unbounded,
            };
            let mut rows = kv
                .range::<&[u8]>((from, to))
                .map_err(|e| self.failed("reading", e))?;
            let mut next = || {
                if range.reverse {
                    rows.next_back()
                } else {
                    rows.next()
                }
            };
            let limit = range.limit.min(PAGE_ENTRIES_MAX);
            let mut bytes = 0;
            while let Some(row) = next() {
                if page.entries.len() >= limit || bytes >= PAGE_BYTES_MAX {
                    page.more = true;
                    break;
                }
                let (key, found) = row.map_err(|e| self.failed("reading", e))?;
                let Versioned { value, revision } = self.decode(found.value())?.versioned();
                bytes += key.value().len() + value.len();
                let key = Bytes::copy_from_slice(key.value());
                page.entries.push(Entry {
                    key,
                    value,
                    revision,
                });
            }
            Ok(page)
        })
    }

    /// Sorts the engine's errors.
    pub fn failed(&self, doing: &'static str, error: impl Into<redb::Error>) -> StorageError {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => StorageError::Locked {
                path: self.path.clone(),
            },
            redb::Error::Corrupted(detail) => self.corrupted(detail),
            error @ (redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::UpgradeRequired(_)) => self.corrupted(error.to_string()),
            redb::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
                self.corrupted(io.to_string())
            }
            error => StorageError::of_disk(doing, error),
        }
    }

    pub fn corrupted(&self, detail: String) -> StorageError {
        StorageError::Corrupted {
            path: self.path.clone(),
            detail,
        }
    }

    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Record<'a>, StorageError> {
        Record::decode(bytes).map_err(|detail| self.corrupted(detail))
    }

    fn revision_of(&self, read: &ReadTransaction) -> Result<Revision, StorageError> {
        let meta = read
            .open_table(META)
            .map_err(|e| self.failed("reading", e))?;
        let revision = meta
            .get(META_REVISION)
            .map_err(|e| self.failed("reading", e))?;
        Ok(Revision(revision.map_or(0, |revision| revision.value())))
    }

    /// Opens the database, makes its tables when it is new, and checks its format.
    fn open_database(&self) -> Result<Database, StorageError> {
        let database = (self.opener)().map_err(|e| self.failed("opening the store", e))?;
        let doing = "preparing the store";
        let read = database.begin_read().map_err(|e| self.failed(doing, e))?;
        let found = match read.open_table(META) {
            Ok(meta) => meta
                .get(META_FORMAT)
                .map_err(|e| self.failed(doing, e))?
                .map(|f| f.value()),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(self.failed(doing, error)),
        };
        drop(read);
        match found {
            Some(FORMAT) => Ok(database),
            Some(found) => Err(StorageError::Format {
                path: self.path.clone(),
                found,
                known: FORMAT,
            }),
            None => self.create_tables(&database).map(|()| database),
        }
    }

    fn create_tables(&self, database: &Database) -> Result<(), StorageError> {
        let create = || -> Result<(), redb::Error> {
            let write = database.begin_write()?;
            write.open_table(KV)?;
            write.open_table(LEASES)?;
            write.open_table(LEASE_KEYS)?;
            write.open_table(META)?.insert(META_FORMAT, FORMAT)?;
            Ok(write.commit()?)
        };
        create().map_err(|error| self.failed("preparing the store", error))
    }

    /// The engine asserts what it reads; on a damaged file that must not end the node.
    fn guarded<T>(
        &self,
        work: impl FnOnce() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        caught.unwrap_or_else(|_| {
            Err(self.corrupted("the engine found it inconsistent (see its panic message)".into()))
        })
    }
}
