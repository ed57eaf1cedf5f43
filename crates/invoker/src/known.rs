//! The functions as memory shows them: what follows the store, and what was read of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use model::{Digest, FunctionPath};
use parking_lot::RwLock;
use storage::{Change, Entry, Event, Range, Revision, Store, Watch, WatchItem};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::function::{Pointers, Version};
use crate::record::decode;
use crate::routes::Routes;
use crate::{Function, InvokerError};

/// How long to wait before the store is asked again after it failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// What all keys of functions begin with.
pub const PREFIX: &str = "fn/";
/// Sorts before every version's hexadecimal name.
const POINTERS: &str = "!";

/// The functions in memory. One task alone changes them once they were loaded.
#[derive(Debug)]
pub struct Known {
    pub functions: RwLock<HashMap<FunctionPath, Slot>>,
    pub routes: RwLock<Routes>,
    /// The revision of the last change of a function that the map shows.
    pub seen: watch::Sender<Revision>,
}

#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// Revision of the stored pointers.
    revision: Revision,
    pointers: Option<Pointers>,
    versions: BTreeMap<Digest, Version>,
    pub function: Option<Arc<Function>>,
}

/// Ends the following task with the last registry.
#[derive(Debug)]
pub struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Known {
    /// Loads the functions and follows their changes, until the follower is dropped or the store
    /// is closed.
    pub async fn open(store: &Arc<dyn Store>) -> Result<(Arc<Self>, Follower), InvokerError> {
        let known = Arc::new(Self {
            functions: RwLock::default(),
            routes: RwLock::default(),
            seen: watch::Sender::new(Revision(0)),
        });
        let watch = known.load(&**store).await?;
        // The task does not keep the store open: it ends when the store does.
        let task = tokio::spawn(follow(Arc::downgrade(store), known.clone(), watch));
        Ok((known, Follower(task.abort_handle())))
    }

    /// Reads every function, and watches from there.
    async fn load(&self, store: &dyn Store) -> Result<Watch, InvokerError> {
        let mut slots = HashMap::new();
        let mut next = Some(Range::prefix(PREFIX));
        let mut from = None;
        while let Some(range) = next {
            let page = store.range(range.clone()).await?;
            from.get_or_insert(page.revision);
            next = range.rest(&page);
            for Entry {
                key,
                value,
                revision,
            } in page.entries
            {
                put(&mut slots, &key, &value, revision)?;
            }
        }
        slots.iter_mut().for_each(|(path, slot)| slot.renew(path));
        *self.routes.write() = Routes::of(&slots);
        *self.functions.write() = slots;
        let watch = store.watch(PREFIX.as_bytes(), from).await?;
        self.seen
            .send_modify(|seen| *seen = from.unwrap_or_default().max(*seen));
        Ok(watch)
    }

    fn apply(&self, event: Event) -> Result<(), InvokerError> {
        let Some((path, row)) = parse_key(&event.key) else {
            return Ok(());
        };
        let mut slots = self.functions.write();
        match event.change {
            Change::Put(value) => put(&mut slots, &event.key, &value, event.revision)?,
            Change::Delete => delete(&mut slots, &path, &row, event.revision),
        }
        if let Some(slot) = slots.get_mut(&path) {
            slot.renew(&path);
        }
        slots.retain(|_, slot| slot.pointers.is_some() || !slot.versions.is_empty());
        if row == Row::Pointers {
            *self.routes.write() = Routes::of(&slots);
        }
        drop(slots);
        if row == Row::Pointers {
            self.seen
                .send_modify(|seen| *seen = event.revision.max(*seen));
        }
        Ok(())
    }
}

impl Routes {
    fn of(slots: &HashMap<FunctionPath, Slot>) -> Self {
        let functions = slots.values().filter_map(|slot| slot.function.as_ref());
        Self::new(functions.map(|function| (&function.path, &function.pointers.routes[..])))
    }
}

impl Slot {
    fn renew(&mut self, path: &FunctionPath) {
        self.function = self.pointers.as_ref().map(|pointers| {
            let (path, versions) = (path.clone(), self.versions.clone());
            Arc::new(Function {
                path,
                pointers: pointers.clone(),
                versions,
            })
        });
    }
}

/// Follows the store for as long as the registry lives.
async fn follow(store: Weak<dyn Store>, known: Arc<Known>, mut watch: Watch) {
    loop {
        while let Some(WatchItem::Event(event)) = watch.next().await {
            if let Err(error) = known.apply(event) {
                tracing::error!(%error, "a function's record cannot be read");
            }
        }
        watch = loop {
            let Some(store) = store.upgrade() else {
                return;
            };
            match known.load(&*store).await {
                Ok(watch) => break watch,
                Err(InvokerError::Store(storage::StorageError::Closed)) => return,
                Err(error) => tracing::warn!(%error, "the functions cannot be read yet"),
            }
            drop(store);
            tokio::time::sleep(STORE_PAUSE).await;
        };
    }
}

/// What a key below [`PREFIX`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    Pointers,
    Version(Digest),
}

fn put(
    slots: &mut HashMap<FunctionPath, Slot>,
    key: &[u8],
    value: &Bytes,
    revision: Revision,
) -> Result<(), InvokerError> {
    match parse_key(key) {
        Some((path, Row::Version(digest))) => {
            let version = decode(&show(key), value)?;
            slots
                .entry(path)
                .or_default()
                .versions
                .insert(digest, version);
        }
        Some((path, Row::Pointers)) => {
            let pointers = decode(&show(key), value)?;
            let slot = slots.entry(path).or_default();
            if revision >= slot.revision {
                (slot.revision, slot.pointers) = (revision, Some(pointers));
            }
        }
        None => return Err(InvokerError::damaged(show(key), "not a function's key")),
    }
    Ok(())
}

fn delete(
    slots: &mut HashMap<FunctionPath, Slot>,
    path: &FunctionPath,
    row: &Row,
    revision: Revision,
) {
    let Some(slot) = slots.get_mut(path) else {
        return;
    };
    match row {
        Row::Version(digest) => {
            slot.versions.remove(digest);
        }
        Row::Pointers if revision >= slot.revision => {
            (slot.revision, slot.pointers) = (revision, None);
        }
        Row::Pointers => {}
    }
}

pub fn pointers_key(path: &FunctionPath) -> String {
    format!("{PREFIX}{path}/{POINTERS}")
}

pub fn version_key(path: &FunctionPath, version: &Digest) -> String {
    format!("{PREFIX}{path}/{}", version.hex())
}

pub fn parse_key(key: &[u8]) -> Option<(FunctionPath, Row)> {
    let text = std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?;
    let (path, row) = text.rsplit_once('/')?;
    let row = match row {
        POINTERS => Row::Pointers,
        hex => Row::Version(format!("sha256:{hex}").parse().ok()?),
    };
    Some((path.parse().ok()?, row))
}

pub fn show(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}
