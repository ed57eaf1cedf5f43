//! One slot, for as long as one claim of this node to it lasts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use model::AppName;
use parking_lot::Mutex;
use tokio::sync::RwLock;

use super::copies::Set;
use super::{Claim, Slot};
use crate::Key;

/// Keys of an app that are remembered as known, of those that may have been lost.
const SETTLED_KEYS_MAX: usize = 1 << 16;

/// What may be done with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// What the last owner left is cleared up.
    Opening = 0,
    /// Everything.
    Open = 1,
    /// What was acknowledged is written down.
    Closing = 2,
    /// Nothing any more.
    Closed = 3,
}

/// What is known of an app's values that are in memory only.
#[derive(Debug, Default)]
struct Ephemeral {
    /// Whether the store says that there are some.
    marked: bool,
    /// When some were lost with their node, in milliseconds since 1970; 0 for never.
    lost_ms: u64,
    /// Keys of which is known by now what they are.
    settled: HashSet<Key>,
}

#[derive(Debug)]
pub(crate) struct Holding {
    pub slot: Slot,
    pub claim: Arc<dyn Claim>,
    /// Every version that is given is greater, and was given by nobody before.
    pub base: u64,
    phase: AtomicU8,
    /// Who has copies of its values.
    pub copies: RwLock<Set>,
    /// Whether its values were forgotten after it was closed.
    pub swept: AtomicBool,
    /// Looked at before the map: mostly nothing was lost.
    has_lost: AtomicBool,
    apps: Mutex<HashMap<AppName, Ephemeral>>,
}

impl Holding {
    pub fn new(slot: Slot, claim: Arc<dyn Claim>, base: u64) -> Self {
        Self {
            slot,
            claim,
            base,
            copies: RwLock::default(),
            phase: AtomicU8::new(Phase::Opening as u8),
            swept: AtomicBool::new(false),
            has_lost: AtomicBool::new(false),
            apps: Mutex::default(),
        }
    }

    /// Whether the node may act as the keys' owner at this moment.
    pub fn holds(&self) -> bool {
        self.is(Phase::Open) && self.claim.holds()
    }

    pub fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Acquire) == phase as u8
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub fn token(&self) -> u64 {
        self.claim.token()
    }

    // What was lost.

    /// Notes that values of an app were lost with the last owner.
    pub fn lose(&self, app: AppName, lost_ms: u64) {
        self.apps.lock().entry(app).or_default().lost_ms = lost_ms;
        self.has_lost.store(true, Ordering::Release);
    }

    /// Whether the key may have had a value that was lost since `since_ms`, and nothing was learnt
    /// of it since.
    pub fn may_have_lost(&self, app: &AppName, key: &Key, since_ms: u64) -> bool {
        if !self.has_lost.load(Ordering::Acquire) {
            return false;
        }
        let mut apps = self.apps.lock();
        let Some(known) = apps.get_mut(app).filter(|known| known.lost_ms != 0) else {
            return false;
        };
        if known.lost_ms <= since_ms {
            // Long enough: from now on it is as if nothing had been.
            known.settled = HashSet::new();
            return false;
        }
        !known.settled.contains(key)
    }

    /// From now on it is known what the key is.
    pub fn settle(&self, app: &AppName, key: &Key) {
        if self.has_lost.load(Ordering::Acquire)
            && let Some(known) = self.apps.lock().get_mut(app)
            && known.settled.len() < SETTLED_KEYS_MAX
        {
            known.settled.insert(key.clone());
        }
    }

    /// When values of the app were last lost; 0 for never.
    pub fn lost_ms(&self, app: &AppName) -> u64 {
        self.apps.lock().get(app).map_or(0, |known| known.lost_ms)
    }

    // What the store says there is.

    pub fn is_marked(&self, app: &AppName) -> bool {
        self.apps.lock().get(app).is_some_and(|known| known.marked)
    }

    pub fn set_marked(&self, app: &AppName) {
        self.apps.lock().entry(app.clone()).or_default().marked = true;
    }

    /// The apps that the store says have values in memory only.
    pub fn marked(&self) -> Vec<AppName> {
        let apps = self.apps.lock();
        let marked = apps.iter().filter(|(_, known)| known.marked);
        marked.map(|(app, _)| app.clone()).collect()
    }
}
