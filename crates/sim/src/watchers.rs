//! Those who watch the store: each is told in order, some time later, or that it has lagged.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use storage::{Event, Revision, Watch};
use tokio::sync::mpsc;

/// Events that the store remembers for those who are late.
const REMEMBERED_MAX: usize = 8192;
/// Events that a watcher may be behind in reading.
const BUFFER: usize = 4096;

#[derive(Debug)]
struct Watcher {
    node: usize,
    prefix: Bytes,
    /// The next event that it is to be told, counted from the first there was.
    next: u64,
    live: mpsc::Sender<Event>,
    lagged: Arc<AtomicBool>,
    /// Something is on its way to it.
    is_due: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Watchers {
    log: VecDeque<Event>,
    /// How many events are forgotten.
    forgotten: u64,
    /// The revision of the last that is.
    forgotten_revision: Revision,
    made: u64,
    all: BTreeMap<u64, Watcher>,
}

impl Watchers {
    /// A watch by `node` of what follows `from`.
    pub fn watch(&mut self, node: usize, prefix: Bytes, from: Revision) -> (u64, Watch) {
        let (live, receiver) = mpsc::channel(BUFFER);
        let is_late = from < self.forgotten_revision;
        let lagged = Arc::new(AtomicBool::new(is_late));
        let watch = Watch::new(VecDeque::new(), receiver, lagged.clone());
        self.made += 1;
        let past = self.log.partition_point(|event| event.revision <= from);
        let watcher = Watcher {
            node,
            prefix,
            next: self.forgotten + past as u64,
            live,
            lagged,
            is_due: true,
        };
        if !is_late {
            self.all.insert(self.made, watcher);
        }
        (self.made, watch)
    }

    /// Takes what has changed; gives those to whom something is to be sent, by number and node.
    pub fn add(&mut self, news: &[Event]) -> Vec<(u64, usize)> {
        let before = self.forgotten + self.log.len() as u64;
        self.log.extend(news.iter().cloned());
        let after = self.forgotten + self.log.len() as u64;
        let mut due = Vec::new();
        for (number, watcher) in &mut self.all {
            if watcher.is_due {
                continue;
            }
            let is_meant = |event: &Event| event.key.starts_with(&watcher.prefix);
            if news.iter().any(is_meant) {
                watcher.is_due = true;
                due.push((*number, watcher.node));
            } else if watcher.next == before {
                watcher.next = after;
            }
        }
        while self.log.len() > REMEMBERED_MAX {
            self.forgotten += 1;
            self.forgotten_revision = self.log.pop_front().map_or(Revision(0), |e| e.revision);
        }
        due
    }

    /// Tells a watcher all there is, but what is `withheld`.
    pub fn tell(&mut self, number: u64, withheld: impl Fn(&Event) -> bool) {
        let Some(watcher) = self.all.get_mut(&number) else {
            return;
        };
        watcher.is_due = false;
        let told = match watcher.next.checked_sub(self.forgotten) {
            // What it was to be told is not there any more.
            None => false,
            Some(from) => {
                // No longer than the log, which is in memory.
                let rest = self.log.iter().skip(from as usize);
                let mut meant = rest.filter(|event| event.key.starts_with(&watcher.prefix));
                meant.all(|event| withheld(event) || watcher.live.try_send(event.clone()).is_ok())
            }
        };
        watcher.next = self.forgotten + self.log.len() as u64;
        if !told {
            watcher.lagged.store(true, Ordering::Release);
            self.all.remove(&number);
        }
    }

    /// Ends a watch: its connection is lost.
    pub fn end(&mut self, number: u64) {
        self.all.remove(&number);
    }
}
