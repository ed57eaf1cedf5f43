//! Watching: a bounded history, and a bounded buffer for each watcher.
//!
//! ```text
//!  committed batch ──publish──▶ history (bounded ring) ──▶ a late watcher's backlog
//!                       └─────▶ each watcher's buffer; full ⇒ cut off, told Lagged
//! ```

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;

use crate::Revision;

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was set to this value.
    Put(Bytes),
    /// It was deleted, or its lease ended.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: Bytes,
    /// What happened to it.
    pub change: Change,
    /// When.
    pub revision: Revision,
}

/// What a watcher receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// A change, in the order of revisions.
    Event(Event),
    /// Changes were missed, and the watch is over: read the range again and watch from its page's
    /// revision.
    Lagged,
}

/// A stream of [`WatchItem`]s. It ends after [`WatchItem::Lagged`] and when the store closes.
#[derive(Debug)]
pub struct Watch {
    backlog: VecDeque<Event>,
    live: mpsc::Receiver<Event>,
    lagged: Arc<AtomicBool>,
}

impl Watch {
    /// A watch over `live` events after those of `backlog`; when `live` ends and the flag is set,
    /// the watcher has lagged. For the makers of stores.
    pub fn new(
        backlog: VecDeque<Event>,
        live: mpsc::Receiver<Event>,
        lagged: Arc<AtomicBool>,
    ) -> Self {
        Self {
            backlog,
            live,
            lagged,
        }
    }

    /// The next item; none when the watch is over.
    pub async fn next(&mut self) -> Option<WatchItem> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Watch {
    type Item = WatchItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        if let Some(event) = self.backlog.pop_front() {
            return Poll::Ready(Some(WatchItem::Event(event)));
        }
        self.live.poll_recv(cx).map(|event| match event {
            Some(event) => Some(WatchItem::Event(event)),
            None => self
                .lagged
                .swap(false, Ordering::AcqRel)
                .then_some(WatchItem::Lagged),
        })
    }
}

#[derive(Debug)]
struct Watcher {
    prefix: Bytes,
    after: Revision,
    live: mpsc::Sender<Event>,
    lagged: Arc<AtomicBool>,
}

/// The recent past and those who watch.
#[derive(Debug)]
pub(crate) struct Hub {
    /// Events after `forgotten`, oldest first.
    history: VecDeque<Event>,
    history_bytes: usize,
    /// The last revision whose events may be missing from the history.
    forgotten: Revision,
    revision: Revision,
    watchers: Vec<Watcher>,
    limits: HubLimits,
}

/// Bounds of a [`Hub`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct HubLimits {
    pub history_events_max: usize,
    pub history_bytes_max: usize,
    pub watch_buffer_events: usize,
}

impl Hub {
    pub(crate) fn new(revision: Revision, limits: HubLimits) -> Self {
        Self {
            history: VecDeque::new(),
            history_bytes: 0,
            forgotten: revision,
            revision,
            watchers: Vec::new(),
            limits,
        }
    }

    pub(crate) fn watch(&mut self, prefix: &[u8], from: Option<Revision>) -> Watch {
        let after = from.unwrap_or(self.revision);
        let (live, receiver) = mpsc::channel(self.limits.watch_buffer_events);
        let lagged = Arc::new(AtomicBool::new(after < self.forgotten));
        if after < self.forgotten {
            return Watch::new(VecDeque::new(), receiver, lagged);
        }
        let wanted = |event: &&Event| event.revision > after && event.key.starts_with(prefix);
        let backlog = self.history.iter().filter(wanted).cloned().collect();
        self.watchers.retain(|watcher| !watcher.live.is_closed());
        let prefix = Bytes::copy_from_slice(prefix);
        self.watchers.push(Watcher {
            prefix,
            after,
            live,
            lagged: lagged.clone(),
        });
        Watch::new(backlog, receiver, lagged)
    }

    /// Makes the events of a commit known. `revision` is the store's afterwards.
    pub(crate) fn publish(&mut self, events: Vec<Event>, revision: Revision) {
        for event in &events {
            self.watchers.retain(|watcher| watcher.offer(event));
        }
        self.revision = revision;
        for event in events {
            self.history_bytes += event_bytes(&event);
            self.history.push_back(event);
        }
        self.forget();
    }

    /// After the store was opened anew: if it holds commits that were never published, every
    /// watcher has missed something.
    pub(crate) fn resume(&mut self, revision: Revision) {
        if revision == self.revision {
            return;
        }
        for watcher in self.watchers.drain(..) {
            watcher.lagged.store(true, Ordering::Release);
        }
        self.history.clear();
        self.history_bytes = 0;
        (self.forgotten, self.revision) = (revision, revision);
    }

    pub(crate) fn close(&mut self) {
        self.watchers.clear();
    }

    fn forget(&mut self) {
        while self.history.len() > self.limits.history_events_max
            || self.history_bytes > self.limits.history_bytes_max
        {
            let Some(event) = self.history.pop_front() else {
                return;
            };
            self.history_bytes -= event_bytes(&event);
            self.forgotten = event.revision;
        }
    }
}

impl Watcher {
    /// Hands the event over; false when the watcher is gone or cannot keep up.
    fn offer(&self, event: &Event) -> bool {
        if event.revision <= self.after || !event.key.starts_with(&self.prefix) {
            return true;
        }
        match self.live.try_send(event.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.lagged.store(true, Ordering::Release);
                false
            }
        }
    }
}

fn event_bytes(event: &Event) -> usize {
    let value = match &event.change {
        Change::Put(value) => value.len(),
        Change::Delete => 0,
    };
    size_of::<Event>() + event.key.len() + value
}
