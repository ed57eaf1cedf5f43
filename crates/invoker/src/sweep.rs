//! Removes what is past its retention.

use storage::{Entry, Range, Txn, TxnOutcome};

use crate::nodes::Share;
use crate::record::{self, EXPIRY, KeyHolder, Place};
use crate::shared::{Loaded, Shared};
use crate::{InvokerError, metrics};

/// Invocations removed between two looks at the index.
const BATCH: usize = 256;

/// Removes, a batch at a time, every invocation of this node's share whose retention is over by
/// now. Where two nodes hold one for theirs, one of them finds it gone.
pub async fn sweep(shared: &Shared, share: &Share) -> Result<(), InvokerError> {
    let range = Range::between(EXPIRY, record::past(EXPIRY, shared.now_ms())).limit(BATCH);
    let mut next = Some(range);
    while let Some(range) = next {
        let page = shared.store.range(range.clone()).await?;
        let is_ours = |entry: &&Entry| record::id_of(&entry.key).is_ok_and(|id| share.has(id));
        let ours: Vec<_> = page.entries.iter().filter(is_ours).collect();
        for entry in ours {
            match remove(shared, &entry.key).await {
                Err(error @ InvokerError::Store(_)) => return Err(error),
                Err(error) => tracing::error!(%error, "a record cannot be removed"),
                Ok(()) => {}
            }
        }
        next = range.rest(&page);
    }
    Ok(())
}

async fn remove(shared: &Shared, index_key: &[u8]) -> Result<(), InvokerError> {
    let id = record::id_of(index_key)?;
    let Some(loaded) = shared.load(id).await? else {
        let stray = Txn::new().delete(index_key.to_vec());
        return Ok(shared.store.transact(stray).await.map(drop)?);
    };
    let blobs: Vec<_> = [Some(loaded.accepted.request), loaded.progress.reply]
        .into_iter()
        .filter_map(|place| match place {
            Some(Place::Blob(blob)) => Some(blob),
            _ => None,
        })
        .collect();
    let mut txn = forget(&loaded);
    if let Some(key) = loaded.accepted.idempotency {
        let key = record::idempotency_key(&loaded.accepted.path, &key);
        let holder = shared.store.get(key.as_bytes()).await?;
        let holder = holder.map(|found| record::decode::<KeyHolder>(&key, &found.value));
        if holder.transpose()?.is_some_and(|holder| holder.id == id) {
            txn = txn.delete(key);
        }
    }
    for blob in &blobs {
        txn = txn.delete(record::blob_key(blob));
    }
    // On a conflict it was redriven just now; the next sweep removes it.
    if shared.store.transact(txn).await? == TxnOutcome::Conflict {
        return Ok(());
    }
    for blob in &blobs {
        // Nothing names it any more, so that nothing removes one that stays.
        let _is_gone = shared.delete_blob(blob).await;
    }
    ::metrics::counter!(metrics::EXPIRED).increment(1);
    Ok(())
}

fn forget(loaded: &Loaded) -> Txn {
    let (id, path) = (loaded.id, &loaded.accepted.path);
    let txn = Txn::new().if_revision(record::progress_key(id), loaded.revision);
    loaded
        .progress
        .leave(txn, id)
        .delete(record::accepted_key(id))
        .delete(record::progress_key(id))
        .delete(record::request_key(id))
        .delete(record::reply_key(id))
        .delete(record::dead_key(path, id))
}
