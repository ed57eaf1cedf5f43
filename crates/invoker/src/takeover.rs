//! Taking over what nodes left that are gone.
//!
//! ```text
//!  the peers change ─▶ which queues are there? ─▶ whose tenure is over, by the store?
//!                                                    │ this node's share of each, in batches
//!        this node's queue ◀──compare and swap───────┴──▶ blobs without a name: removed
//! ```
//!
//! A tenure that is over stays over, and each change of its queue compares the tenure's record, so
//! that such a queue only shrinks: one pass over it is enough. Of nodes that take at once, the
//! record of each invocation lets one have it. A taker that dies leaves what it has taken in its
//! own queue, and the rest where it was, where the next change of the peers leads the others.

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use storage::{Entry, Range, Txn};

use crate::nodes::{Peer, Share};
use crate::record::{self, QUEUES, Queue};
use crate::shared::{Shared, Term};
use crate::{InvokerError, attempt, metrics};

/// Entries of a queue that are read at once.
const BATCH: usize = 256;
/// Invocations that are taken at once.
const CONCURRENCY: usize = 64;

/// Takes over what it should, each time the peers change, for as long as the term lasts.
pub async fn take_over_for_ever(shared: Arc<Shared>, term: Arc<Term>) {
    let mut changes = shared.nodes.changes();
    let every = shared.config.sweep_interval;
    let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    let mut done_with = None;
    loop {
        changes.borrow_and_update();
        let mut peers = shared.nodes.peers();
        peers.sort_by(|a, b| a.tenure.cmp(&b.tenure));
        if done_with.as_ref() != Some(&peers) {
            if let Err(error) = take_over(&shared, &term, &peers).await {
                tracing::warn!(%error, "what other nodes left cannot be taken over yet");
                tokio::time::sleep(shared.config.store_pause).await;
                continue;
            }
            // A node may have come and gone meanwhile, and left something.
            let is_done = !changes.has_changed().unwrap_or(false);
            done_with = is_done.then_some(peers);
            if !is_done {
                continue;
            }
        }
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            // Peers that came and went between two looks at them are found in the end.
            _ = looks.tick() => done_with = None,
        }
    }
}

async fn take_over(shared: &Shared, term: &Term, peers: &[Peer]) -> Result<(), InvokerError> {
    let Some(share) = Share::of(&term.tenure, peers) else {
        return Ok(());
    };
    for queue in queues(shared).await? {
        if queue == term.queue || !is_left(shared, &queue, peers).await? {
            continue;
        }
        let mut count = 0;
        for prefix in [queue.run(), queue.due()] {
            count += take_all(shared, term, &share, prefix).await?;
        }
        if let Some(prefix) = queue.unnamed() {
            remove_unnamed(shared, &share, prefix).await?;
        }
        if count > 0 {
            tracing::info!(count, queue = queue.root(), "invocations were taken over");
        }
    }
    Ok(())
}

/// The queues in which there is something.
async fn queues(shared: &Shared) -> Result<Vec<Queue>, InvokerError> {
    let mut all = Vec::new();
    let alone = Queue::default();
    for prefix in [alone.due(), alone.run()] {
        let page = shared.store.range(Range::prefix(prefix).limit(1)).await?;
        if !page.entries.is_empty() {
            all.push(alone);
            break;
        }
    }
    let end = Range::prefix(QUEUES).end;
    let mut range = Range::prefix(QUEUES).limit(1);
    while let Some(entry) = shared.store.range(range).await?.entries.pop() {
        let mut start = entry.key.to_vec();
        match Queue::of_key(&entry.key) {
            Some(queue) => {
                start = queue.end().into_bytes();
                all.push(queue);
            }
            // A later release may have more keys here.
            None => start.push(0),
        }
        range = Range {
            start,
            end: end.clone(),
            limit: 1,
            reverse: false,
        };
    }
    Ok(all)
}

async fn is_left(shared: &Shared, queue: &Queue, peers: &[Peer]) -> Result<bool, InvokerError> {
    match queue.tenure() {
        Some(tenure) if peers.iter().any(|peer| peer.tenure == *tenure) => Ok(false),
        Some(tenure) => shared.is_over(tenure).await,
        // A node alone shares its store with nobody.
        None => Ok(true),
    }
}

/// Takes this node's share of an index; gives how many there were.
async fn take_all(
    shared: &Shared,
    term: &Term,
    share: &Share,
    prefix: String,
) -> Result<usize, InvokerError> {
    let mut count = 0;
    let mut next = Some(Range::prefix(prefix).limit(BATCH));
    while let Some(range) = next {
        let page = shared.store.range(range.clone()).await?;
        next = range.rest(&page);
        let is_ours = |entry: &Entry| record::id_of(&entry.key).is_ok_and(|id| share.has(id));
        let ours: Vec<_> = page.entries.into_iter().filter(is_ours).collect();
        let taken: Vec<_> = stream::iter(ours)
            .map(|entry| async move { take(shared, term, &entry.key).await })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for taken in taken {
            count += usize::from(taken?);
        }
        shared.look.notify_one();
    }
    ::metrics::counter!(metrics::TAKEN_OVER).increment(count as u64);
    Ok(count)
}

/// One unreadable record must not keep all others from being taken.
async fn take(shared: &Shared, term: &Term, key: &[u8]) -> Result<bool, InvokerError> {
    match attempt::take_over(shared, term, key).await {
        Err(error @ InvokerError::Damaged { .. }) => {
            tracing::error!(%error, "an invocation cannot be taken over");
            Ok(false)
        }
        other => other,
    }
}

/// Removes this node's share of the blobs that were placed and never named: what would name them
/// compares the tenure's record.
async fn remove_unnamed(
    shared: &Shared,
    share: &Share,
    prefix: String,
) -> Result<(), InvokerError> {
    let mut next = Some(Range::prefix(prefix).limit(BATCH));
    while let Some(range) = next {
        let page = shared.store.range(range.clone()).await?;
        next = range.rest(&page);
        for entry in page.entries {
            let id = String::from_utf8_lossy(&entry.value).parse();
            if !id.is_ok_and(|id| share.has(id)) {
                continue;
            }
            shared.blobs.delete(&record::blob_of(&entry.key)?).await?;
            let noted = Txn::new().delete(entry.key);
            // Without a compare there is no conflict.
            let _committed = shared.store.transact(noted).await?;
        }
    }
    Ok(())
}
