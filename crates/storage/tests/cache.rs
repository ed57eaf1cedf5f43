//! A folder as a cache of other blobs: what it keeps, what it gives up, what it finds at a start.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use model::Digest;
use parking_lot::Mutex;
use storage::{Blobs, Fetch, StorageError, conformance};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    fn origin(&self) -> Blobs {
        Blobs::open_shared(&self.folder.path().join("origin")).unwrap()
    }

    fn cache(&self, bytes_max: u64) -> Blobs {
        let folder = self.folder.path().join("cache");
        Blobs::open_cache(&folder, self.origin(), bytes_max).unwrap()
    }

    fn file(&self, part: &str, digest: &Digest) -> PathBuf {
        file(&self.folder.path().join(part), digest)
    }

    /// Which of the blobs are in the cache.
    fn here(&self, digests: &[Digest]) -> Vec<bool> {
        let is_here = |digest| self.file("cache", digest).is_file();
        digests.iter().map(is_here).collect()
    }
}

fn file(folder: &Path, digest: &Digest) -> PathBuf {
    folder
        .join("sha256")
        .join(&digest.hex()[..2])
        .join(digest.hex())
}

async fn filled(blobs: &Blobs, count: u8) -> Vec<Digest> {
    let mut digests = Vec::new();
    for byte in 0..count {
        digests.push(blobs.put(Bytes::from(vec![byte; 100])).await.unwrap());
    }
    digests
}

#[tokio::test]
async fn a_cache_conforms() {
    let place = Place::new();
    let spoil = |digest: &Digest, bytes: &[u8]| {
        for part in ["origin", "cache"] {
            std::fs::write(place.file(part, digest), bytes).unwrap();
        }
    };
    conformance::blobs::all(&place.cache(1 << 30), &spoil).await;
}

#[tokio::test]
async fn what_was_not_used_longest_is_given_up_and_had_again() {
    let place = Place::new();
    let cache = place.cache(300);
    let digests = filled(&cache, 3).await;
    assert!(cache.get(&digests[0]).await.unwrap().is_some());
    let more = cache.put(Bytes::from(vec![9; 100])).await.unwrap();
    assert_eq!(place.here(&digests), [true, false, true]);
    assert_eq!(cache.cached_bytes(), Some(300));
    let again = cache.get(&digests[1]).await.unwrap().unwrap();
    assert_eq!(again, vec![1; 100]);
    assert_eq!(place.here(&digests), [true, true, false]);
    assert_eq!(place.here(&[more]), [true]);
}

#[tokio::test]
async fn what_is_pinned_stays_until_it_is_let_go() {
    let place = Place::new();
    let cache = place.cache(200);
    let digests = filled(&place.origin(), 4).await;
    let pinned = cache.pin(vec![digests[0], digests[1], digests[2]]);
    for digest in &digests {
        assert!(cache.get(digest).await.unwrap().is_some());
    }
    assert_eq!(place.here(&digests), [true, true, true, false]);
    drop(pinned);
    assert!(cache.get(&digests[3]).await.unwrap().is_some());
    assert_eq!(place.here(&digests), [false, false, true, true]);
}

#[tokio::test]
async fn a_start_finds_what_is_there_in_its_order_and_removes_the_rest() {
    let place = Place::new();
    let digests = filled(&place.cache(400), 4).await;
    // Whoever sets clocks sets these files' times, so the test does not wait for one to pass.
    for (second, digest) in [(4, 0), (2, 1), (3, 2), (1, 3)] {
        let file = std::fs::File::open(place.file("cache", &digests[digest])).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second);
        file.set_modified(time).unwrap();
    }
    let staged = place.file("cache", &digests[0]).with_file_name("abc#1");
    std::fs::write(&staged, b"half").unwrap();
    let cache = place.cache(200);
    assert_eq!(place.here(&digests), [true, false, true, false]);
    assert!(!staged.exists());
    assert_eq!(cache.cached_bytes(), Some(200));
    // A read is a use, also for the next start.
    assert!(cache.get(&digests[2]).await.unwrap().is_some());
    let _smaller = place.cache(100);
    assert_eq!(place.here(&digests), [false, false, true, false]);
}

#[tokio::test]
async fn a_damaged_entry_is_had_again() {
    let place = Place::new();
    let digest = filled(&place.cache(400), 1).await[0];
    for spoilt in [&b"other bytes"[..], b""] {
        std::fs::write(place.file("cache", &digest), spoilt).unwrap();
        let cache = place.cache(400);
        assert_eq!(cache.get(&digest).await.unwrap().unwrap(), vec![0; 100]);
        let here = cache.get_here(&digest).await.unwrap();
        assert_eq!(here.unwrap(), vec![0; 100]);
    }
}

/// One who answers with these bytes, whatever is asked.
struct Answers(Mutex<Option<Bytes>>);

#[async_trait]
impl Fetch for Answers {
    async fn fetch(&self, _: &Digest) -> Result<Option<Bytes>, StorageError> {
        Ok(self.0.lock().take())
    }
}

#[tokio::test]
async fn what_is_fetched_is_compared_with_its_name_and_kept() {
    let place = Place::new();
    let cache = place.cache(400);
    let answers = Arc::new(Answers(Mutex::default()));
    cache.fetch_by(answers.clone());
    let wanted = Digest::of(b"wanted");
    *answers.0.lock() = Some(Bytes::from_static(b"something else"));
    let refused = cache.get(&wanted).await;
    assert!(matches!(refused, Err(StorageError::BlobDamaged { .. })));
    assert_eq!(place.here(&[wanted]), [false]);
    *answers.0.lock() = Some(Bytes::from_static(b"wanted"));
    assert_eq!(cache.get(&wanted).await.unwrap().unwrap(), "wanted");
    assert_eq!(cache.get(&wanted).await.unwrap().unwrap(), "wanted");
    assert_eq!(cache.get(&Digest::of(b"nowhere")).await.unwrap(), None);
}
