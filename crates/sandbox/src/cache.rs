//! The cache of what deploys make: compiled code, images and what describes them, by digest.
//!
//! ```text
//!  <dir>/<64 hex digits>.cwasm        the entry itself, so that an engine can map it as it is
//!  <dir>/<64 hex digits>.cwasm.sum    the SHA-256 of the entry, in hexadecimal
//!  <dir>/.partial-<pid>-<n>           being written; locked by its writer, swept at start if not
//! ```
//!
//! An entry counts only with its sum: a crash between the two renames leaves no entry. What does
//! not match its sum is deleted, logged and reported as missing, so that its owner makes it anew.
//! The directory belongs to the node alone: mapping code from it trusts its other writers.
//!
//! Pages may be on their way here while they are in use; they are an entry once they are whole.
//!
//! It holds so many bytes. What was stored or loaded longest ago goes first, by the files' times of
//! modification, so that a restart forgets nothing; whoever needs it again makes it anew.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use memory::{Arriving, Pages, Presence};
use model::{Digest, Hasher};
use parking_lot::Mutex;

/// Bytes that a cache holds unless told otherwise.
pub const CACHE_BYTES_MAX: u64 = 16 << 30;

const PARTIAL_PREFIX: &str = ".partial-";
const HASH_CHUNK_BYTES: usize = 256 << 10;
/// What was used so lately is not deleted for want of room: its version may be about to load the
/// rest.
const KEPT: Duration = Duration::from_secs(60);

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Compiled code, in the engine's own format.
    Code,
    /// A frozen guest memory.
    Image,
    /// What describes code and image.
    Meta,
    /// Pages of guest memories, as they are mapped.
    Pages,
    /// The digests of the chunks of another entry, for who cannot wait for all of it.
    Chunks,
    /// Names of a program's functions, for what is said of its faults.
    Names,
    /// A process that belongs to an image.
    Process,
}

impl EntryKind {
    const ALL: [EntryKind; 7] = [
        EntryKind::Code,
        EntryKind::Image,
        EntryKind::Meta,
        EntryKind::Pages,
        EntryKind::Chunks,
        EntryKind::Names,
        EntryKind::Process,
    ];

    /// The kind of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.extension() == name)
    }

    /// Its name, which is the extension of its files.
    pub const fn extension(self) -> &'static str {
        match self {
            EntryKind::Code => "cwasm",
            EntryKind::Image => "image",
            EntryKind::Meta => "meta",
            EntryKind::Pages => "pages",
            EntryKind::Chunks => "chunks",
            EntryKind::Names => "names",
            EntryKind::Process => "process",
        }
    }
}

/// Why the cache could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// No space, or no quota, is left.
    #[error("no space is left in the cache {dir}")]
    Full {
        /// The cache's directory.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("could not {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// An entry that is there, by its name and by its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it was stored under.
    pub key: Digest,
    /// What it holds.
    pub kind: EntryKind,
    /// The digest of its bytes.
    pub sum: Digest,
    /// How many they are.
    pub bytes: u64,
}

/// Bytes that are being written and are to be an entry; dropped, they are deleted.
#[derive(Debug)]
pub struct Staging {
    cache: Arc<Cache>,
    entry: Partial,
    hasher: Hasher,
}

/// Bytes on their way to be an entry; dropped, they are deleted.
#[derive(Debug)]
pub struct Staged {
    entry: Partial,
    sum: Partial,
    digest: Digest,
}

impl Staging {
    /// Writes what comes next.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CacheError> {
        self.hasher.update(bytes);
        let written = self.entry.file.write_all(bytes);
        written.map_err(|source| self.cache.not_written(&self.entry.path, source))
    }

    /// All of it is written.
    pub fn end(self) -> Result<Staged, CacheError> {
        let digest = self.hasher.finish();
        Ok(Staged {
            entry: self.entry,
            sum: self.cache.write_partial(digest.hex().as_bytes())?,
            digest,
        })
    }
}

impl Staged {
    /// How many bytes they are.
    pub fn bytes(&self) -> u64 {
        self.entry
            .file
            .metadata()
            .map_or(0, |metadata| metadata.len())
    }

    /// The digest of the bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// A directory of checked entries; share it behind an `Arc`.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    sequence: AtomicU64,
    /// Where the bytes of each digest were stored last; their file may have changed since.
    by_sum: Mutex<HashMap<Digest, PathBuf>>,
    /// Digests of files that were compared with their sums, and what they looked like then: one
    /// that still does is not read again.
    compared: Mutex<HashMap<PathBuf, (Stamp, Digest)>>,
    /// Entries of pages that are on their way.
    expected: Mutex<HashMap<Digest, Arc<Arriving>>>,
    /// Held while an entry and its sum take their places, so that racing writers do not mix theirs.
    placing: Mutex<()>,
    bytes_max: u64,
    kept: Duration,
}

impl Cache {
    /// Opens the cache in `dir`, which is made if it is missing, and sweeps what writers that are
    /// gone have left unfinished.
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self, CacheError> {
        let cache = Self {
            dir: dir.into(),
            sequence: AtomicU64::new(0),
            by_sum: Mutex::default(),
            compared: Mutex::default(),
            expected: Mutex::default(),
            placing: Mutex::new(()),
            bytes_max: u64::MAX,
            kept: KEPT,
        };
        let cache_ref = &cache;
        let failed = |doing| move |source| cache_ref.failed(doing, &cache_ref.dir, source);
        fs::create_dir_all(&cache.dir).map_err(failed("make the cache directory"))?;
        fs::set_permissions(&cache.dir, Permissions::from_mode(0o700))
            .map_err(failed("protect the cache directory"))?;
        cache.sweep().map_err(failed("sweep the cache directory"))?;
        let sums = cache.read_sums();
        *cache.by_sum.lock() = sums.map_err(failed("list the cache directory"))?;
        Ok(cache)
    }

    /// The same cache, of at most about so many bytes: without sums, and but for what was used in
    /// the last minute.
    pub fn bounded(mut self, bytes_max: u64) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// Stores `bytes` as the entry `key`, in place of what was there; on return it is durable.
    pub fn store(
        &self,
        key: &Digest,
        kind: EntryKind,
        bytes: &[u8],
    ) -> Result<PathBuf, CacheError> {
        let staged = self.stage(bytes, Digest::of(bytes))?;
        for partial in [&staged.entry, &staged.sum] {
            let synced = partial.file.sync_all();
            synced.map_err(|source| self.not_written(&partial.path, source))?;
        }
        let path = self.put(key, kind, staged)?;
        self.sync_dir()?;
        Ok(path)
    }

    /// Begins to write what is to be an entry.
    pub fn begin(self: &Arc<Self>) -> Result<Staging, CacheError> {
        Ok(Staging {
            cache: self.clone(),
            entry: self.write_partial(&[])?,
            hasher: Hasher::default(),
        })
    }

    /// Writes `bytes`, of which `digest` is.
    pub fn stage(&self, bytes: &[u8], digest: Digest) -> Result<Staged, CacheError> {
        Ok(Staged {
            entry: self.write_partial(bytes)?,
            sum: self.write_partial(digest.hex().as_bytes())?,
            digest,
        })
    }

    /// Makes what is staged in this cache the entry `key`, in place of what was there. It is not
    /// durable before [`Cache::sync`]: what a crash leaves of it is told by its sum.
    pub fn put(
        &self,
        key: &Digest,
        kind: EntryKind,
        staged: Staged,
    ) -> Result<PathBuf, CacheError> {
        let path = self.entry_path(key, kind);
        let _placing = self.placing.lock();
        self.place(staged.entry, &path)?;
        self.place(staged.sum, &sum_path(&path))?;
        self.by_sum.lock().insert(staged.digest, path.clone());
        self.remember(&path, staged.digest);
        if let Err(error) = self.trim() {
            tracing::warn!(%error, "the cache is not held to its bound");
        }
        Ok(path)
    }

    /// Makes the entry `key` durable.
    pub fn sync(&self, key: &Digest, kind: EntryKind) -> Result<(), CacheError> {
        let path = self.entry_path(key, kind);
        for path in [sum_path(&path), path] {
            let synced = present(File::open(&path).and_then(|file| file.sync_all()));
            synced.map_err(|source| self.not_written(&path, source))?;
        }
        self.sync_dir()
    }

    fn sync_dir(&self) -> Result<(), CacheError> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| self.failed("sync the directory", &self.dir, source))
    }

    /// Deletes what was used longest ago, as long as there is too much. The placing is held.
    fn trim(&self) -> Result<(), CacheError> {
        let failed = |source| self.failed("list the cache directory", &self.dir, source);
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.dir).map_err(failed)? {
            let file = file.map_err(failed)?;
            let path = file.path();
            let kind = path.extension().and_then(|extension| extension.to_str());
            if kind.and_then(EntryKind::of).is_none() {
                continue;
            }
            if let Some(metadata) = present(file.metadata()).map_err(failed)? {
                let used = metadata.modified().map_err(failed)?;
                entries.push((used, metadata.len(), path));
            }
        }
        let mut bytes: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        entries.sort_unstable();
        let now = SystemTime::now();
        for (used, length, path) in entries {
            // What is of the future was used before the clock was set back.
            let is_late = now.duration_since(used).is_ok_and(|ago| ago < self.kept);
            if bytes <= self.bytes_max || is_late {
                break;
            }
            tracing::info!(entry = %path.display(), "deleted a cache entry for want of room");
            self.delete(&path)?;
            bytes -= length;
        }
        Ok(())
    }

    /// The entry `key` by its bytes, which this reads; `None` as of [`Cache::load`].
    pub fn entry(&self, key: &Digest, kind: EntryKind) -> Result<Option<Entry>, CacheError> {
        let Some(path) = self.load(key, kind)? else {
            return Ok(None);
        };
        let read = |source| self.failed("read the cache entry", &path, source);
        let Some(sum) = present(read_sum(&sum_path(&path))).map_err(read)?.flatten() else {
            return Ok(None);
        };
        let bytes = present(path.metadata()).map_err(read)?;
        Ok(bytes.map(|metadata| Entry {
            key: *key,
            kind,
            sum,
            bytes: metadata.len(),
        }))
    }

    /// Whether the entry `key` is there, by its files, or on its way; its bytes are not looked at.
    pub fn has(&self, key: &Digest, kind: EntryKind) -> Result<bool, CacheError> {
        if self.is_expected(key, kind) {
            return Ok(true);
        }
        let path = self.entry_path(key, kind);
        let there = |path: &Path| {
            let there = path.try_exists();
            there.map_err(|source| self.failed("look for the cache entry", path, source))
        };
        Ok(there(&path)? && there(&sum_path(&path))?)
    }

    /// The pages that are the entry `key`, also if they are still on their way; `None` as of
    /// [`Cache::load`].
    pub fn pages(&self, key: &Digest) -> Result<Option<Arc<Pages>>, CacheError> {
        // First: what has come is in its place before it is not expected any more.
        if let Some(arriving) = self.expected(key) {
            return Ok(Some(Arc::new(Pages::Arriving(arriving))));
        }
        let Some(path) = self.load(key, EntryKind::Pages)? else {
            return Ok(None);
        };
        let opened = present(File::open(&path));
        let opened = opened.map_err(|source| self.failed("open the cache entry", &path, source))?;
        Ok(opened.map(|file| Arc::new(Pages::Whole(file.into()))))
    }

    /// Has whoever looks for these pages find those that are on their way; false if others are,
    /// which stays so.
    pub fn expect(&self, key: Digest, arriving: &Arc<Arriving>) -> bool {
        let mut expected = self.expected.lock();
        let known = expected.get(&key);
        let vacant = known.is_none_or(|known| known.presence() == Presence::Lost);
        if vacant {
            expected.insert(key, arriving.clone());
        }
        vacant
    }

    /// Whether an entry is on its way.
    pub fn is_expected(&self, key: &Digest, kind: EntryKind) -> bool {
        kind == EntryKind::Pages && self.expected(key).is_some()
    }

    /// They came, and are in their place, or will not come.
    pub fn expect_no_more(&self, key: &Digest, arriving: &Arc<Arriving>) {
        let mut expected = self.expected.lock();
        let known = expected.get(key);
        if known.is_some_and(|known| Arc::ptr_eq(known, arriving)) {
            expected.remove(key);
        }
    }

    fn expected(&self, key: &Digest) -> Option<Arc<Arriving>> {
        let expected = self.expected.lock();
        let found = expected.get(key);
        let usable = found.filter(|arriving| arriving.presence() != Presence::Lost);
        usable.cloned()
    }

    /// A file that had the bytes of this digest when it was stored: whoever reads it compares them.
    pub fn named(&self, sum: &Digest) -> Option<PathBuf> {
        self.by_sum.lock().get(sum).cloned()
    }

    /// Deletes one entry, if it is there; what maps it keeps its mapping.
    pub fn forget(&self, key: &Digest, kind: EntryKind) -> Result<(), CacheError> {
        let _placing = self.placing.lock();
        self.delete(&self.entry_path(key, kind))
    }

    /// Where the entry `key` is; `None` if it is missing, or was corrupt and is now deleted.
    pub fn load(&self, key: &Digest, kind: EntryKind) -> Result<Option<PathBuf>, CacheError> {
        let path = self.entry_path(key, kind);
        let _placing = self.placing.lock();
        let read = |path: &Path, source| self.failed("read the cache entry", path, source);
        let Some(actual) = present(self.digest(&path)).map_err(|source| read(&path, source))?
        else {
            return Ok(None);
        };
        let sum = sum_path(&path);
        let promised = present(fs::read(&sum)).map_err(|source| read(&sum, source))?;
        if promised.is_some_and(|promised| promised == actual.hex().as_bytes()) {
            let used = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
            if let Err(error) = used {
                tracing::debug!(%error, "a cache entry counts as older than it is");
            }
            self.remember(&path, actual);
            return Ok(Some(path));
        }
        tracing::warn!(entry = %path.display(), "deleted a corrupt cache entry");
        self.delete(&path)?;
        Ok(None)
    }

    /// The digest of a file, which is read unless it looks as it did when it was compared.
    fn digest(&self, path: &Path) -> io::Result<Digest> {
        let file = File::open(path)?;
        let stamp = Stamp::of(&file.metadata()?);
        let known = self.compared.lock().get(path).copied();
        match known {
            Some((then, digest)) if then == stamp => Ok(digest),
            _ => hash(file),
        }
    }

    /// The file has the bytes of this digest, as it is now.
    fn remember(&self, path: &Path, digest: Digest) {
        if let Ok(metadata) = path.metadata() {
            let stamp = Stamp::of(&metadata);
            self.compared
                .lock()
                .insert(path.to_owned(), (stamp, digest));
        }
    }

    /// Deletes every kind of entry of `key`; what maps one keeps its mapping.
    pub fn remove(&self, key: &Digest) -> Result<(), CacheError> {
        let _placing = self.placing.lock();
        for kind in EntryKind::ALL {
            self.delete(&self.entry_path(key, kind))?;
        }
        Ok(())
    }

    fn entry_path(&self, key: &Digest, kind: EntryKind) -> PathBuf {
        self.dir.join(format!("{}.{}", key.hex(), kind.extension()))
    }

    fn delete(&self, path: &Path) -> Result<(), CacheError> {
        self.by_sum.lock().retain(|_, named| named != path);
        self.compared.lock().remove(path);
        for path in [sum_path(path), path.to_owned()] {
            present(fs::remove_file(&path))
                .map_err(|source| self.failed("delete the cache entry", &path, source))?;
        }
        Ok(())
    }

    fn write_partial(&self, bytes: &[u8]) -> Result<Partial, CacheError> {
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PARTIAL_PREFIX}{}-{number:x}", partial_stem(self));
        let path = self.dir.join(name);
        let write = || {
            let mut options = OpenOptions::new();
            let file = options.write(true).create_new(true).open(&path)?;
            let mut partial = Partial {
                path: path.clone(),
                file,
            };
            partial.file.lock()?;
            partial.file.write_all(bytes)?;
            Ok(partial)
        };
        write().map_err(|source| self.not_written(&path, source))
    }

    fn not_written(&self, path: &Path, source: io::Error) -> CacheError {
        self.failed("write the cache entry", path, source)
    }

    fn place(&self, partial: Partial, path: &Path) -> Result<(), CacheError> {
        fs::rename(&partial.path, path)
            .map_err(|source| self.failed("place the cache entry", path, source))
    }

    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if !entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(PARTIAL_PREFIX.as_bytes())
            {
                continue;
            }
            let Some(file) = present(File::open(entry.path()))? else {
                continue;
            };
            if file.try_lock().is_ok() {
                tracing::info!(file = %entry.path().display(), "swept an unfinished cache entry");
                present(fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }

    fn read_sums(&self) -> io::Result<HashMap<Digest, PathBuf>> {
        let mut sums = HashMap::new();
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "sum")
                && let Some(sum) = present(read_sum(&path))?.flatten()
            {
                sums.insert(sum, path.with_extension(""));
            }
        }
        Ok(sums)
    }

    fn failed(&self, doing: &'static str, path: &Path, source: io::Error) -> CacheError {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        if matches!(source.kind(), StorageFull | QuotaExceeded) {
            return CacheError::Full {
                dir: self.dir.clone(),
            };
        }
        CacheError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// What a file looks like without being read. Whatever is written to it, and whatever takes its
/// place, looks otherwise, for nobody can set when a file was last changed; before Linux 6.13 only
/// if that is a few milliseconds later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file being written: deleted when dropped, unless it was renamed to its place before.
#[derive(Debug)]
struct Partial {
    path: PathBuf,
    file: File,
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Distinguishes the partial files of this cache from those of other processes and other caches.
fn partial_stem(cache: &Cache) -> String {
    format!(
        "{}-{:x}",
        std::process::id(),
        std::ptr::from_ref(cache).addr()
    )
}

fn sum_path(entry: &Path) -> PathBuf {
    let mut path = entry.as_os_str().to_owned();
    path.push(".sum");
    path.into()
}

/// The digest that a file of a sum says; none if it says none.
fn read_sum(path: &Path) -> io::Result<Option<Digest>> {
    let text = fs::read(path)?;
    Ok(format!("sha256:{}", String::from_utf8_lossy(&text))
        .parse()
        .ok())
}

fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn hash(mut file: File) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut chunk = vec![0; HASH_CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&chunk[..n]),
        }
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
