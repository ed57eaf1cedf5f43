//! Watching: a bounded queue for each watcher, which is told what it missed.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use metrics::counter;
use parking_lot::Mutex;

use crate::error::Quota;
use crate::metrics::WATCH_MISSED_TOTAL;
use crate::tier::Relays;
use crate::{Key, StateError};

/// What a watcher receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// A value changed.
    Changed {
        /// Its key.
        key: Key,
        /// Its version now; of one that is gone, the last that it had.
        version: u64,
        /// Whether it is gone.
        deleted: bool,
    },
    /// So many changes were missed at this point: read anew what matters.
    Missed(u64),
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<WatchItem>,
    /// Changes since the queue was last full.
    missed: u64,
    waker: Option<Waker>,
}

#[derive(Debug)]
pub(crate) struct Watcher {
    prefix: String,
    max: usize,
    queue: Mutex<Queue>,
}

/// A stream of the changes of an app's keys with some prefix. Writes through mappings are seen when
/// they are pushed.
#[derive(Debug)]
pub struct Watch {
    watcher: Arc<Watcher>,
    all: Arc<Watchers>,
    /// What brings the changes of other nodes.
    _relays: Option<Relays>,
}

/// The watchers of one app.
#[derive(Debug)]
pub(crate) struct Watchers {
    /// Looked at before the lock: mostly nobody watches.
    count: AtomicUsize,
    list: Mutex<Vec<Arc<Watcher>>>,
    events_max: usize,
    watchers_max: usize,
}

impl Watchers {
    pub fn new(events_max: usize, watchers_max: usize) -> Self {
        Self {
            count: AtomicUsize::new(0),
            list: Mutex::default(),
            events_max: events_max.max(1),
            watchers_max,
        }
    }

    pub fn watch(self: &Arc<Self>, prefix: &str) -> Result<Watch, StateError> {
        let mut list = self.list.lock();
        if list.len() >= self.watchers_max {
            return Err(StateError::Full {
                quota: Quota::Watchers,
                max: self.watchers_max as u64,
            });
        }
        let watcher = Arc::new(Watcher {
            prefix: prefix.to_owned(),
            max: self.events_max,
            queue: Mutex::default(),
        });
        list.push(watcher.clone());
        self.count.store(list.len(), Ordering::Release);
        Ok(Watch {
            watcher,
            all: self.clone(),
            _relays: None,
        })
    }

    pub fn publish(&self, key: &Key, version: u64, deleted: bool) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        for watcher in self.list.lock().iter() {
            if key.as_str().starts_with(&watcher.prefix) {
                watcher.offer(key, version, deleted);
            }
        }
    }
}

impl Watcher {
    /// Changes that were seen elsewhere.
    pub fn take(&self, items: Vec<WatchItem>) {
        for item in items {
            match item {
                WatchItem::Changed {
                    key,
                    version,
                    deleted,
                } => self.offer(&key, version, deleted),
                WatchItem::Missed(missed) => self.miss(missed),
            }
        }
    }

    /// So many changes were not seen.
    pub fn miss(&self, missed: u64) {
        let mut queue = self.queue.lock();
        queue.missed += missed;
        counter!(WATCH_MISSED_TOTAL).increment(missed);
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }

    fn offer(&self, key: &Key, version: u64, deleted: bool) {
        let mut queue = self.queue.lock();
        if queue.missed > 0 || queue.items.len() >= self.max {
            queue.missed += 1;
            counter!(WATCH_MISSED_TOTAL).increment(1);
        } else {
            queue.items.push_back(WatchItem::Changed {
                key: key.clone(),
                version,
                deleted,
            });
        }
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

impl Watch {
    /// The next item; waits for one.
    pub async fn next(&mut self) -> WatchItem {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// The next item, if there is one.
    pub(crate) fn next_here(&mut self) -> Option<WatchItem> {
        let mut queue = self.watcher.queue.lock();
        match queue.items.pop_front() {
            Some(item) => Some(item),
            None => match std::mem::take(&mut queue.missed) {
                0 => None,
                missed => Some(WatchItem::Missed(missed)),
            },
        }
    }

    pub(crate) fn watcher(&self) -> Arc<Watcher> {
        self.watcher.clone()
    }

    pub(crate) fn relay(&mut self, relays: Relays) {
        self._relays = Some(relays);
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<WatchItem> {
        let mut queue = self.watcher.queue.lock();
        if let Some(item) = queue.items.pop_front() {
            return Poll::Ready(item);
        }
        match std::mem::take(&mut queue.missed) {
            0 => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            missed => Poll::Ready(WatchItem::Missed(missed)),
        }
    }
}

impl Stream for Watch {
    type Item = WatchItem;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        self.poll(cx).map(Some)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut list = self.all.list.lock();
        list.retain(|watcher| !Arc::ptr_eq(watcher, &self.watcher));
        self.all.count.store(list.len(), Ordering::Release);
    }
}
