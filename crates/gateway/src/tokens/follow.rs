//! Follows the tokens in the store, since other nodes make and revoke them too.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use storage::{Change, Event, Range, Revision, Store, Watch, WatchItem};
use tokio::task::AbortHandle;

use super::{KEY_PREFIX, Record, TOKENS_MAX, TokenError, read};

/// How long to wait before the store is asked again after it failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

pub(super) type Known = RwLock<Records>;

/// Tokens by id.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub by_id: BTreeMap<String, Record>,
    /// Those that ended here: word that they were made may come later than that.
    revoked: HashSet<String>,
}

impl Records {
    pub fn new(by_id: BTreeMap<String, Record>) -> Self {
        Self {
            by_id,
            revoked: HashSet::new(),
        }
    }

    pub fn insert(&mut self, id: String, record: Record) {
        if !self.revoked.contains(&id) {
            self.by_id.insert(id, record);
        }
    }

    pub fn revoke(&mut self, id: &str) {
        self.by_id.remove(id);
        self.revoked.insert(id.to_owned());
    }
}

/// Ends the following with the last handle.
#[derive(Debug)]
pub(super) struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Follower {
    /// Follows from `revision` on. The task does not keep the store open.
    pub fn start(store: &Arc<dyn Store>, known: &Arc<Known>, revision: Revision) -> Self {
        let follow = follow(Arc::downgrade(store), known.clone(), revision);
        Self(tokio::spawn(follow).abort_handle())
    }
}

/// All tokens, and the revision that they are of.
pub(super) async fn load(
    store: &dyn Store,
) -> Result<(BTreeMap<String, Record>, Revision), TokenError> {
    let range = Range::prefix(KEY_PREFIX).limit(TOKENS_MAX);
    let page = store.range(range).await?;
    let entries = page.entries.iter();
    let records = entries.map(|entry| read(&entry.key, &entry.value));
    Ok((records.collect::<Result<_, _>>()?, page.revision))
}

async fn follow(store: Weak<dyn Store>, known: Arc<Known>, revision: Revision) {
    let mut from = Some(revision);
    loop {
        let Some(open) = store.upgrade() else { return };
        let begun = begin(&*open, &known, from.take()).await;
        drop(open);
        let over = match begun {
            Ok(watch) => watch_on(&known, watch).await,
            Err(error) => {
                tracing::warn!(%error, "tokens of other nodes are not seen now");
                None
            }
        };
        if over != Some(WatchItem::Lagged) {
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }
}

async fn begin(
    store: &dyn Store,
    known: &Known,
    from: Option<Revision>,
) -> Result<Watch, TokenError> {
    let from = match from {
        Some(from) => from,
        None => {
            let (records, revision) = load(store).await?;
            known.write().by_id = records;
            revision
        }
    };
    Ok(store.watch(KEY_PREFIX.as_bytes(), Some(from)).await?)
}

async fn watch_on(known: &Known, mut watch: Watch) -> Option<WatchItem> {
    loop {
        match watch.next().await {
            Some(WatchItem::Event(event)) => apply(known, &event),
            over => return over,
        }
    }
}

fn apply(known: &Known, event: &Event) {
    match &event.change {
        Change::Put(value) => match read(&event.key, value) {
            Ok((id, record)) => known.write().insert(id, record),
            Err(error) => tracing::warn!(%error, "a token was skipped"),
        },
        Change::Delete => {
            let id = String::from_utf8_lossy(&event.key[KEY_PREFIX.len()..]);
            known.write().revoke(&id);
        }
    }
}
