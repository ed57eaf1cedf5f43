//! The values of one app that are in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use model::AppName;
use parking_lot::{Mutex, RwLock};

use crate::body::Body;
use crate::budget::{AppBudget, Charge};
use crate::clock::micros;
use crate::content::{Content, Durability};
use crate::global::{Found, Head};
use crate::state::Node;
use crate::tier::{Holding, Slot, marks};
use crate::watch::{Watch, Watchers};
use crate::{Info, Key, Mirror, Name, StateError, Value};

/// Parts of the map of keys, each with a lock of its own.
const SHARDS: usize = 16;
/// Most keys in one answer of [`AppState::list`].
pub const LIST_KEYS_MAX: usize = 1000;

/// How to open a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open {
    /// Where the value is kept if there is none yet, and it is made; none refuses keys without one.
    pub create: Option<Durability>,
}

/// What all values of an app share.
#[derive(Debug)]
pub(crate) struct AppCore {
    pub app: AppName,
    pub node: Arc<Node>,
    pub budget: Arc<AppBudget>,
    pub watchers: Arc<Watchers>,
    /// The greatest version of a value that was forgotten.
    pub floor: AtomicU64,
    /// Keys that may have no value, and are forgotten when nobody holds them.
    pub idle: Mutex<HashSet<Key>>,
}

impl From<Head> for Info {
    fn from(head: Head) -> Self {
        Self {
            version: head.version,
            size: head.size,
            durability: Durability::Durable,
            expires_ms: head.expires_ms,
        }
    }
}

impl AppCore {
    pub fn now_ms(&self) -> u64 {
        crate::clock::millis(self.node.clock.now())
    }

    /// Every new version of a key that is opened now is greater. Microseconds of the wall clock,
    /// since an ephemeral value's versions are forgotten when the node ends, and no value changes
    /// that often for long. Where other nodes gave versions before, what is above theirs.
    fn floor(&self, holding: Option<&Arc<Holding>>) -> u64 {
        let base = match holding {
            Some(holding) => holding.base,
            None => micros(self.node.clock.now()),
        };
        self.floor.load(Ordering::Relaxed).max(base)
    }
}

/// One app's state on this node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AppState(pub(crate) Arc<App>);

#[derive(Debug)]
pub(crate) struct App {
    pub core: Arc<AppCore>,
    pub shards: [RwLock<HashMap<Key, Arc<Value>>>; SHARDS],
    /// The keys of all shards; locked inside of a shard's lock.
    pub order: Mutex<BTreeSet<Key>>,
    /// Copies of values that other nodes own, which guests have mapped.
    pub mirrors: Mutex<HashMap<Key, Arc<Mirror>>>,
}

/// One key of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: Key,
    /// Its value.
    pub info: Info,
}

impl AppState {
    pub(crate) fn new(app: AppName, node: Arc<Node>) -> Self {
        let config = &node.config;
        let budget = Arc::new(AppBudget::new(config, node.budget.clone()));
        let watchers = Watchers::new(config.watch_events_max, config.watchers_max);
        Self(Arc::new(App {
            core: Arc::new(AppCore {
                app,
                budget,
                watchers: Arc::new(watchers),
                floor: AtomicU64::new(0),
                idle: Mutex::default(),
                node,
            }),
            shards: Default::default(),
            order: Mutex::default(),
            mirrors: Mutex::default(),
        }))
    }

    /// The app.
    pub fn name(&self) -> &AppName {
        &self.0.core.app
    }

    /// Bytes that the app's values hold in memory.
    pub fn bytes(&self) -> usize {
        self.0.core.budget.bytes.used()
    }

    /// Opens a key. Of a durable value that is not here, only the head is read. In a cluster, only
    /// keys that this node owns are opened; [`AppState::run`] is for all.
    pub async fn value(&self, key: &Key, open: Open) -> Result<Arc<Value>, StateError> {
        match &self.0.core.node.tier {
            None => self.value_of(key, open, None).await,
            Some(tier) => {
                let holding = tier.slots.open(Slot::of(&self.name_of(key)));
                let holding = holding.ok_or(StateError::Elsewhere)?;
                if open.create == Some(Durability::Ephemeral) {
                    marks::mark(&*tier.store, &holding, self.name()).await?;
                }
                self.value_of(key, open, Some(&holding)).await
            }
        }
    }

    /// Opens a key of a slot that this node has.
    pub(crate) async fn value_of(
        &self,
        key: &Key,
        open: Open,
        holding: Option<&Arc<Holding>>,
    ) -> Result<Arc<Value>, StateError> {
        let value = self.key_of(key, open, holding).await;
        match value.and_then(|value| self.admit(value, open)) {
            // Only an owner can say that there is none.
            Err(StateError::NotFound) if holding.is_some_and(|holding| !holding.holds()) => {
                Err(StateError::Elsewhere)
            }
            admitted => admitted,
        }
    }

    /// The same, and whether there is a value does not matter.
    pub(crate) async fn key_of(
        &self,
        key: &Key,
        open: Open,
        holding: Option<&Arc<Holding>>,
    ) -> Result<Arc<Value>, StateError> {
        if let Some(value) = self.here(key.as_str()) {
            return Ok(value);
        }
        match self.find(key, open, holding).await {
            Err(StateError::Full { .. }) if self.make_room() > 0 => {
                self.find(key, open, holding).await
            }
            found => found,
        }
    }

    pub(crate) fn name_of(&self, key: &Key) -> Name {
        Name {
            app: self.name().clone(),
            key: key.clone(),
        }
    }

    /// Opens a key that is in memory, whether it has a value or not.
    pub fn here(&self, key: &str) -> Option<Arc<Value>> {
        let value = self.resident(key)?;
        if !value.used.load(Ordering::Relaxed) {
            value.used.store(true, Ordering::Relaxed);
        }
        Some(value)
    }

    /// The changes of the values whose keys begin with `prefix`, from now on.
    pub fn watch(&self, prefix: &str) -> Result<Watch, StateError> {
        self.0.core.watchers.watch(prefix)
    }

    /// The values of this node whose keys begin with `prefix` and come after `after`, in order; at
    /// most `limit` or [`LIST_KEYS_MAX`], whichever is less.
    pub(crate) async fn list_here(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StateError> {
        let limit = limit.min(LIST_KEYS_MAX);
        let mut listed = Vec::new();
        let mut after = after.map(str::to_owned);
        while listed.len() < limit {
            let (page, horizon) = self.page(prefix, after.as_deref(), limit).await?;
            let room = limit - listed.len();
            let more = page.into_iter().map(|(key, info)| Listed { key, info });
            listed.extend(more.take(room));
            match horizon {
                Some(key) => after = Some(key.as_str().to_owned()),
                None => break,
            }
        }
        Ok(listed)
    }

    /// Some values after `after`, and the key up to which these are all; none if they are all.
    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(BTreeMap<Key, Info>, Option<Key>), StateError> {
        let global = &self.0.core.node.global;
        let stored = global.list(self.name(), prefix, after, limit).await?;
        let here = self.keys_here(prefix, after);
        let last_stored = stored.last().filter(|_| stored.len() >= limit);
        let last_here = here.last().filter(|_| here.len() >= LIST_KEYS_MAX);
        let horizon = [last_stored.map(|(key, _)| key), last_here];
        let horizon = horizon.into_iter().flatten().min().cloned();
        let mut page: BTreeMap<_, _> = stored
            .into_iter()
            .map(|(key, head)| (key, Info::from(head)))
            .filter(|(key, info)| !self.is_over(info) && self.is_mine(key))
            .collect();
        // What is here counts, and not what is stored of it.
        for key in here {
            match self.resident(key.as_str()).map(|value| value.info()) {
                Some(Some(info)) => drop(page.insert(key, info)),
                Some(None) => drop(page.remove(&key)),
                None => {}
            }
        }
        page.retain(|key, _| horizon.as_ref().is_none_or(|last| key <= last));
        Ok((page, horizon))
    }

    /// Keys in memory, with values and without; at most [`LIST_KEYS_MAX`].
    fn keys_here(&self, prefix: &str, after: Option<&str>) -> Vec<Key> {
        let from = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let order = self.0.order.lock();
        let keys = order.range::<str, _>((from, Bound::Unbounded));
        keys.take_while(|key| key.as_str().starts_with(prefix))
            .take(LIST_KEYS_MAX)
            .cloned()
            .collect()
    }

    fn is_over(&self, info: &Info) -> bool {
        info.expires_ms != 0 && info.expires_ms <= self.0.core.now_ms()
    }

    fn shard(&self, key: &str) -> &RwLock<HashMap<Key, Arc<Value>>> {
        let bytes = key.as_bytes();
        let mixed = bytes.iter().fold(bytes.len(), |sum, byte| {
            sum.wrapping_mul(31) ^ usize::from(*byte)
        });
        &self.0.shards[mixed % SHARDS]
    }

    pub(crate) fn resident(&self, key: &str) -> Option<Arc<Value>> {
        let value = self.shard(key).read().get(key).cloned();
        value.filter(|value| value.is_held())
    }

    fn is_mine(&self, key: &Key) -> bool {
        match &self.0.core.node.tier {
            Some(tier) => tier.slots.open(Slot::of(&self.name_of(key))).is_some(),
            None => true,
        }
    }

    /// All that is in memory.
    pub(crate) fn residents(&self) -> Vec<Arc<Value>> {
        let shards = self.0.shards.iter();
        let values = shards.flat_map(|shard| shard.read().values().cloned().collect::<Vec<_>>());
        values.collect()
    }

    /// Forgets the values of slots that this node no longer has.
    pub(crate) fn forget_closed(&self) {
        for shard in &self.0.shards {
            shard.write().retain(|key, value| {
                let closed = value.is_closed();
                if closed {
                    self.forget(key, value);
                    value.end_locks();
                }
                !closed
            });
        }
    }

    fn admit(&self, value: Arc<Value>, open: Open) -> Result<Arc<Value>, StateError> {
        if value.exists() {
            return Ok(value);
        }
        let durability = open.create.ok_or(StateError::NotFound)?;
        let mut content = value.content.write();
        if value.check_alive(&content).is_err() {
            content.durability = durability;
        }
        drop(content);
        Ok(value)
    }

    /// Asks the global tier.
    async fn find(
        &self,
        key: &Key,
        open: Open,
        holding: Option<&Arc<Holding>>,
    ) -> Result<Arc<Value>, StateError> {
        let core = &self.0.core;
        let name = self.name_of(key);
        let found = core.node.global.head(&name).await?;
        let config = &core.node.config;
        let body = Body::new(Charge::new(core.budget.clone()), config.value_bytes_max);
        let content = match (found, open.create) {
            (Found::Value(head), _) => Content::stored(body, core.floor(holding), &head)?,
            (Found::Nothing { floor }, Some(durability)) => {
                Content::absent(body, core.floor(holding).max(floor), durability)
            }
            (Found::Nothing { .. }, None) => return Err(StateError::NotFound),
        };
        self.insert(Value::new(name, core.clone(), content, holding.cloned()))
    }

    /// Makes a value known, unless another of its key is by now.
    fn insert(&self, value: Value) -> Result<Arc<Value>, StateError> {
        let core = &self.0.core;
        let key = value.key().clone();
        let mut shard = self.shard(key.as_str()).write();
        if let Some(other) = shard.get(&key) {
            if other.is_held() || !value.is_held() {
                return Ok(other.clone());
            }
            // It is of an earlier time in which the key was this node's.
            let old = shard.remove(&key);
            old.iter().for_each(|old| self.forget(&key, old));
        }
        core.budget.keys.take(1)?;
        let value = Arc::new(value);
        shard.insert(key.clone(), value.clone());
        self.0.order.lock().insert(key.clone());
        drop(shard);
        if !value.exists() {
            core.idle.lock().insert(key);
        }
        value.schedule();
        Ok(value)
    }

    /// Makes a value known of which other nodes have copies, instead of whatever was here.
    pub(crate) fn restore(
        &self,
        key: Key,
        head: &Head,
        chunks: &[(u64, Bytes)],
        holding: &Arc<Holding>,
    ) -> Result<(), StateError> {
        let core = &self.0.core;
        let body = Body::new(
            Charge::new(core.budget.clone()),
            core.node.config.value_bytes_max,
        );
        let content = Content::copied(body, core.floor(Some(holding)), head, chunks)?;
        let name = self.name_of(&key);
        let value = Arc::new(Value::new(
            name,
            core.clone(),
            content,
            Some(holding.clone()),
        ));
        let mut shard = self.shard(key.as_str()).write();
        if let Some(old) = shard.remove(&key) {
            self.forget(&key, &old);
        }
        core.budget.keys.take(1)?;
        shard.insert(key.clone(), value.clone());
        self.0.order.lock().insert(key);
        drop(shard);
        value.schedule();
        Ok(())
    }

    /// Forgets keys without values that nobody holds. Returns those that cannot be forgotten since
    /// the global tier still holds what is gone here.
    pub(crate) fn forget_idle(&self) -> Vec<Arc<Value>> {
        let core = &self.0.core;
        let idle = std::mem::take(&mut *core.idle.lock());
        let mut owing = Vec::new();
        for key in idle {
            let mut shard = self.shard(key.as_str()).write();
            let Some(value) = shard.get(&key) else {
                continue;
            };
            // New holders come by the shard, which is locked.
            if Arc::strong_count(value) == 1 && value.is_idle() {
                self.forget(&key, value);
                shard.remove(&key);
            } else if !value.exists() {
                if value.owes_removal() {
                    owing.push(value.clone());
                }
                core.idle.lock().insert(key);
            }
        }
        owing
    }
}
