//! Faults of the disk, on a disk whose space the test decides.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, Database, StorageBackend};

use super::*;
use crate::WatchItem;

/// A file on a disk with `space` bytes; writing past them is ENOSPC, reading fails while `broken`.
#[derive(Debug)]
struct SmallDisk {
    file: FileBackend,
    space: Arc<AtomicU64>,
}

impl SmallDisk {
    fn room(&self, end: u64) -> io::Result<()> {
        match end <= self.space.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

impl StorageBackend for SmallDisk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room(offset + data.len() as u64)?;
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
    fn try_lock_range(
        &self,
        start: std::ops::Bound<u64>,
        end: std::ops::Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
    fn unlock_range(
        &self,
        start: std::ops::Bound<u64>,
        end: std::ops::Bound<u64>,
    ) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

fn small_disk(path: &Path, space: &Arc<AtomicU64>) -> RedbStore {
    let (file, space) = (path.to_owned(), space.clone());
    let opener: Opener = Box::new(move || {
        let mut options = std::fs::File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)?;
        let file = FileBackend::new(file)?;
        Database::builder().create_with_backend(SmallDisk {
            file,
            space: space.clone(),
        })
    });
    RedbStore::start(opener, path, Config::default()).unwrap()
}

async fn fill(store: &RedbStore) -> (Vec<String>, StorageError) {
    let mut kept = Vec::new();
    loop {
        let key = format!("fill/{}", kept.len());
        let value = vec![1; 256 << 10];
        match store.transact(Txn::new().put(key.clone(), value)).await {
            Ok(outcome) => assert!(outcome.is_committed()),
            Err(error) => return (kept, error),
        }
        kept.push(key);
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_of_its_own_and_passes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let space = Arc::new(AtomicU64::new(8 << 20));
    let store = small_disk(&path, &space);
    let mut watch = store.watch(b"later", None).await.unwrap();
    let (kept, error) = fill(&store).await;
    assert!(error.is_full(), "{error:?}");
    assert!(!kept.is_empty());
    for key in &kept {
        assert!(
            store.get(key.as_bytes()).await.unwrap().is_some(),
            "{key} is readable"
        );
    }
    assert!(
        store
            .get(format!("fill/{}", kept.len()).as_bytes())
            .await
            .unwrap()
            .is_none()
    );

    space.store(u64::MAX, Ordering::Relaxed);
    assert!(
        store
            .transact(Txn::new().put("later", "x"))
            .await
            .unwrap()
            .is_committed()
    );
    assert!(
        matches!(watch.next().await, Some(WatchItem::Event(_))),
        "the watch went on"
    );

    drop(store);
    let store = RedbStore::open(&path, Config::default()).unwrap();
    let page = store.range(Range::prefix("fill/")).await.unwrap();
    assert_eq!(page.entries.len(), kept.len());
    assert!(store.get(b"later").await.unwrap().is_some());
}

#[tokio::test]
async fn a_disk_too_full_to_open_the_file_again_heals_too() {
    let folder = tempfile::tempdir().unwrap();
    let space = Arc::new(AtomicU64::new(u64::MAX));
    let store = small_disk(&folder.path().join("store"), &space);
    assert!(
        store
            .transact(Txn::new().put("a", "1"))
            .await
            .unwrap()
            .is_committed()
    );
    space.store(0, Ordering::Relaxed);
    for _ in 0..3 {
        let error = store.transact(Txn::new().put("b", "2")).await.unwrap_err();
        assert!(error.is_full(), "{error:?}");
    }
    space.store(u64::MAX, Ordering::Relaxed);
    assert!(
        store.get(b"a").await.unwrap().is_some(),
        "reading mends the store"
    );
    assert!(
        store
            .transact(Txn::new().put("b", "2"))
            .await
            .unwrap()
            .is_committed()
    );
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_so_and_then_the_watch_ends() {
    let config = Config {
        watch_buffer_events: 2,
        history_events_max: 3,
        ..Config::default()
    };
    let store = RedbStore::in_memory(config).unwrap();
    let mut watch = store.watch(b"", None).await.unwrap();
    for n in 0..5 {
        let put = store.transact(Txn::new().put(format!("{n}"), "x")).await;
        assert!(put.unwrap().is_committed());
    }
    for _ in 0..2 {
        assert!(matches!(watch.next().await, Some(WatchItem::Event(_))));
    }
    assert_eq!(watch.next().await, Some(WatchItem::Lagged));
    assert_eq!(watch.next().await, None);

    let mut late = store.watch(b"", Some(Revision(1))).await.unwrap();
    assert_eq!(
        late.next().await,
        Some(WatchItem::Lagged),
        "the history begins after revision 2"
    );
    let mut kept = store.watch(b"", Some(Revision(2))).await.unwrap();
    assert!(matches!(kept.next().await, Some(WatchItem::Event(e)) if e.revision == Revision(3)));
}

#[tokio::test]
async fn many_transactions_at_once_share_commits() {
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&folder.path().join("store"), Config::default()).unwrap();
    let put = |n: usize| store.transact(Txn::new().put(format!("{n}"), "x"));
    let outcomes = futures::future::join_all((0..2000).map(put)).await;
    assert!(
        outcomes
            .into_iter()
            .all(|outcome| outcome.unwrap().is_committed())
    );
    assert_eq!(
        store.range(Range::prefix("")).await.unwrap().revision,
        Revision(2000)
    );
}

#[test]
fn a_file_that_is_no_store_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    let error = RedbStore::open(&path, Config::default()).unwrap_err();
    assert!(
        matches!(&error, StorageError::Corrupted { path: p, .. } if *p == path),
        "{error:?}"
    );
}

#[tokio::test]
async fn damage_anywhere_is_an_error_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = RedbStore::open(&path, Config::default()).unwrap();
    for n in 0..64 {
        let put = store
            .transact(Txn::new().put(format!("{n}"), vec![n; 2000]))
            .await;
        assert!(put.unwrap().is_committed());
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        let end = whole.len().min(at + 4096);
        damaged[at..end].fill(0xa5);
        std::fs::write(&path, &damaged).unwrap();
        if let Ok(store) = RedbStore::open(&path, Config::default()) {
            let read = store.range(Range::prefix("")).await;
            let written = store.transact(Txn::new().put("new", "x")).await;
            tracing::debug!(at, ?written, read = read.is_ok());
        }
    }
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(
        RedbStore::open(&path, Config::default()).is_err(),
        "half a file"
    );
}

#[test]
fn a_store_in_use_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = RedbStore::open(&path, Config::default()).unwrap();
    let error = RedbStore::open(&path, Config::default()).unwrap_err();
    assert!(matches!(error, StorageError::Locked { .. }), "{error:?}");
    drop(store);
    assert!(RedbStore::open(&path, Config::default()).is_ok());
}

#[test]
fn a_store_of_a_later_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    drop(RedbStore::open(&path, Config::default()).unwrap());
    let database = Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    write
        .open_table(record::META)
        .unwrap()
        .insert(record::META_FORMAT, 2)
        .unwrap();
    write.commit().unwrap();
    drop(database);
    let error = RedbStore::open(&path, Config::default()).unwrap_err();
    assert!(
        matches!(error, StorageError::Format { found: 2, .. }),
        "{error:?}"
    );
}
