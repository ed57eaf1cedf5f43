//! What every set of blobs does, as one suite.

use bytes::Bytes;
use futures::TryStreamExt;
use model::Digest;

use crate::{BlobInfo, Blobs, StorageError};

/// Larger than what is sent at once to wherever blobs are.
const LARGE_BYTES: usize = (20 << 20) + 7;

/// Runs the whole suite on blobs that are empty. `spoil` puts other bytes in a blob's place,
/// behind its back.
pub async fn all(blobs: &Blobs, spoil: &(dyn Fn(&Digest, &[u8]) + Sync)) {
    a_blob_is_stored_listed_and_deleted_by_its_digest(blobs).await;
    an_empty_blob_is_a_blob(blobs).await;
    a_large_blob_comes_back_whole(blobs).await;
    a_damaged_blob_is_found_out_and_mended_by_the_next_put(blobs, spoil).await;
    many_that_put_the_same_blob_agree(blobs).await;
}

async fn put(blobs: &Blobs, bytes: &Bytes) -> Digest {
    let digest = blobs.put(bytes.clone()).await.expect("a blob is stored");
    assert_eq!(digest, Digest::of(bytes));
    digest
}

async fn get(blobs: &Blobs, digest: &Digest) -> Option<Bytes> {
    blobs.get(digest).await.expect("a blob is read")
}

async fn list(blobs: &Blobs) -> Vec<BlobInfo> {
    let mut listed: Vec<_> = blobs.list().try_collect().await.expect("blobs are listed");
    listed.sort_by_key(|info| info.bytes);
    listed
}

async fn delete(blobs: &Blobs, digest: &Digest) {
    blobs.delete(digest).await.expect("a blob is deleted");
}

/// From nothing to nothing.
pub async fn a_blob_is_stored_listed_and_deleted_by_its_digest(blobs: &Blobs) {
    let (bytes, other) = (Bytes::from_static(b"wasm"), Bytes::from_static(b"others"));
    let digest = Digest::of(&bytes);
    assert_eq!(get(blobs, &digest).await, None);
    assert_eq!(list(blobs).await, []);
    assert_eq!(put(blobs, &bytes).await, digest);
    assert_eq!(put(blobs, &bytes).await, digest, "again");
    let second = put(blobs, &other).await;
    assert_eq!(blobs.contains(&digest).await.ok(), Some(true));
    assert_eq!(blobs.length(&second).await.ok(), Some(Some(6)));
    assert_eq!(get(blobs, &digest).await, Some(bytes));
    let infos = [(digest, 4), (second, 6)].map(|(digest, bytes)| BlobInfo { digest, bytes });
    assert_eq!(list(blobs).await, infos);
    for digest in [digest, second, digest] {
        delete(blobs, &digest).await;
        assert_eq!(blobs.contains(&digest).await.ok(), Some(false));
        assert_eq!(blobs.length(&digest).await.ok(), Some(None));
    }
    assert_eq!(list(blobs).await, []);
}

/// No bytes have a digest too.
pub async fn an_empty_blob_is_a_blob(blobs: &Blobs) {
    let digest = put(blobs, &Bytes::new()).await;
    assert_eq!(get(blobs, &digest).await, Some(Bytes::new()));
    delete(blobs, &digest).await;
}

/// However it travels.
pub async fn a_large_blob_comes_back_whole(blobs: &Blobs) {
    let bytes: Vec<u8> = (0..LARGE_BYTES).map(|n| (n / 251 + n) as u8).collect();
    let bytes = Bytes::from(bytes);
    let digest = put(blobs, &bytes).await;
    assert!(get(blobs, &digest).await == Some(bytes), "the bytes differ");
    delete(blobs, &digest).await;
}

/// Nobody is given wrong bytes, whether their number is right or not.
pub async fn a_damaged_blob_is_found_out_and_mended_by_the_next_put(
    blobs: &Blobs,
    spoil: &(dyn Fn(&Digest, &[u8]) + Sync),
) {
    let bytes = Bytes::from_static(b"wasm");
    let digest = put(blobs, &bytes).await;
    for wrong in [&b"mask"[..], b"was"] {
        spoil(&digest, wrong);
        let read = blobs.get(&digest).await;
        let is_damaged = matches!(&read, Err(StorageError::BlobDamaged { found, .. })
            if *found == Digest::of(wrong));
        assert!(is_damaged, "{read:?}");
        put(blobs, &bytes).await;
        assert_eq!(get(blobs, &digest).await, Some(bytes.clone()));
    }
    delete(blobs, &digest).await;
}

/// Writers of one name write one thing.
pub async fn many_that_put_the_same_blob_agree(blobs: &Blobs) {
    let bytes = Bytes::from(vec![3; 100_000]);
    let puts = (0..8).map(|_| put(blobs, &bytes));
    let digests = futures::future::join_all(puts).await;
    assert!(digests.iter().all(|digest| *digest == Digest::of(&bytes)));
    assert_eq!(list(blobs).await.len(), 1);
    assert_eq!(get(blobs, &digests[0]).await, Some(bytes));
    delete(blobs, &digests[0]).await;
}
