//! Durable values whose large chunks are in a bucket.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use futures::StreamExt as _;
use storage::{Blobs, Range, Store};

use super::doubles::Dying;
use super::{DURABLE, EXISTING, key, shop, store};
use crate::{
    CHUNK_BYTES, Config, EmbeddedGlobal, Global as _, GlobalError, Head, Name, Push, State,
    StateError,
};

const C: usize = CHUNK_BYTES;

/// A store and a bucket.
struct Tiers {
    store: Arc<dyn Store>,
    bucket: Blobs,
}

impl Tiers {
    fn new() -> Self {
        Self {
            store: store(),
            bucket: Blobs::in_memory(),
        }
    }

    async fn node_over(&self, store: Arc<dyn Store>) -> State {
        let global = EmbeddedGlobal::open_beside(store, self.bucket.clone()).await;
        State::new(Arc::new(global.unwrap()), Config::default())
    }

    /// A node that takes `steps` transactions sets the value, or removes it if `new` is empty;
    /// whether that was acknowledged.
    async fn change(&self, new: &[u8], steps: usize, answered: bool) -> bool {
        let dying = Dying {
            store: self.store.clone(),
            left: AtomicUsize::new(steps),
            answered,
        };
        let state = self.node_over(Arc::new(dying)).await;
        let value = shop(&state).value(&key("a"), DURABLE).await.unwrap();
        match new.is_empty() {
            true => value.delete().await.is_ok(),
            false => value.set(new).await.is_ok(),
        }
    }

    /// What a node finds that starts now.
    async fn found(&self) -> Result<Vec<u8>, StateError> {
        let state = self.node_over(self.store.clone()).await;
        let value = match shop(&state).value(&key("a"), EXISTING).await {
            Err(StateError::NotFound) => return Ok(Vec::new()),
            found => found?,
        };
        let (bytes, _version) = value.get(usize::MAX).await?;
        Ok(bytes)
    }

    async fn keys(&self, prefix: &str) -> usize {
        let page = self.store.range(Range::prefix(prefix)).await.unwrap();
        assert!(!page.more);
        page.entries.len()
    }

    /// Chunks in the store, names of blobs there, and blobs.
    async fn counts(&self) -> [usize; 3] {
        let blobs = self.bucket.list().count().await;
        let [chunks, names] = ["state/1/c/", "state/1/b/"].map(|prefix| self.keys(prefix));
        [chunks.await, names.await, blobs]
    }
}

/// `whole` full chunks that differ, and a small one.
fn pattern(whole: usize, seed: u8) -> Vec<u8> {
    let byte = |at: usize| (at / 7 + at / C) as u8 ^ seed;
    (0..whole * C + 9).map(byte).collect()
}

#[tokio::test]
async fn what_is_large_is_in_the_bucket_and_goes_with_its_value() {
    let tiers = Tiers::new();
    for (whole, seed) in [(0, 1), (3, 2), (250, 3), (2, 4)] {
        let written = pattern(whole, seed);
        assert!(tiers.change(&written, usize::MAX, true).await);
        assert_eq!(tiers.counts().await, [1, whole, whole]);
        assert!(tiers.found().await.unwrap() == written, "{whole}");
    }
    assert!(tiers.change(b"", usize::MAX, true).await);
    assert_eq!(tiers.counts().await, [0; 3]);
}

#[tokio::test]
async fn wherever_a_push_breaks_off_the_value_is_one_of_both_and_no_blob_is_left() {
    let (old, new) = (pattern(40, 1), pattern(130, 2));
    for (before, after) in [(&old, &new), (&new, &old), (&new, &Vec::new())] {
        for answered in [true, false] {
            let mut ended = false;
            for steps in 0..12 {
                let tiers = Tiers::new();
                assert!(tiers.change(before, usize::MAX, true).await);
                ended = tiers.change(after, steps, answered).await;
                let found = tiers.found().await.unwrap();
                assert!(found == *after || (found == *before && !ended), "{steps}");
                let [chunks, whole] = [usize::from(!found.is_empty()), found.len() / C];
                assert_eq!(tiers.counts().await, [chunks, whole, whole], "{steps}");
                assert_eq!(tiers.keys("state/1/i/").await, 0);
            }
            assert!(ended, "it is never acknowledged");
        }
    }
}

#[tokio::test]
async fn the_chunk_of_another_key_is_not_taken_for_its_own() {
    let tiers = Tiers::new();
    assert!(tiers.change(&pattern(1, 1), usize::MAX, true).await);
    let page = tiers.store.range(Range::prefix("state/1/b/")).await;
    let entry = page.unwrap().entries.remove(0);
    let another = tiers.bucket.put("another's".into()).await.unwrap();
    let name = another.as_bytes().to_vec();
    let txn = storage::Txn::new().put(entry.key, name);
    assert!(tiers.store.transact(txn).await.unwrap().is_committed());
    assert!(is_damaged(&tiers.found().await));
    tiers.bucket.delete(&another).await.unwrap();
    assert!(is_damaged(&tiers.found().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_while_another_pushes_hears_of_no_damage() {
    let tiers = Tiers::new();
    let open = || EmbeddedGlobal::open_beside(tiers.store.clone(), tiers.bucket.clone());
    let (pushes, pulls) = (open().await.unwrap(), open().await.unwrap());
    let name = Name {
        app: "shop".parse().unwrap(),
        key: key("a"),
    };
    let pushed = name.clone();
    let pushing = tokio::spawn(async move {
        for version in 1..60 {
            let push = Push {
                expected: version - 1,
                head: Head {
                    version,
                    size: 8 * C as u64,
                    expires_ms: 0,
                },
                chunks: (0..8).collect(),
            };
            let content = |_| Bytes::from(vec![version as u8; C]);
            pushes.push(&pushed, push, &content).await.unwrap();
        }
    });
    let mut chunks = 0;
    while !pushing.is_finished() {
        match pulls.pull(&name, 0..8).await {
            Ok(pulled) => chunks += pulled.len(),
            Err(error) => assert!(matches!(error, GlobalError::Busy), "{error}"),
        }
    }
    pushing.await.unwrap();
    assert!(chunks > 0);
}

fn is_damaged(found: &Result<Vec<u8>, StateError>) -> bool {
    matches!(found, Err(StateError::Global(GlobalError::Damaged(_))))
}
