//! The task that keeps a node a member, says its load, and follows the others.

use std::future::pending;
use std::sync::Arc;

use storage::{Change, Range, StorageError, Watch, WatchItem};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::handle::Shared;
use crate::keys::{self, ROOT};
use crate::pace::Pace;
use crate::requests::{Heard, perform, say};
use crate::session::{Event, Moment, Session};
use crate::{Report, Roster, Tenure};

/// Keeps a node a member while it runs. See [`crate::Membership::new`].
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
}

/// What the task owns.
struct State {
    shared: Arc<Shared>,
    session: Session,
    began: Instant,
    pace: Pace<Report>,
    /// A report is on its way.
    is_saying: bool,
    asked: JoinSet<Heard>,
}

impl Service {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Joins, and stays a member until `stop`; then gives up what the node has, and ends. Dropping
    /// the future is what a crash is: the lease runs out.
    pub async fn run(self, stop: CancellationToken) {
        let shared = self.shared;
        let _last = Farewell(shared.clone());
        let freed = Notify::new();
        let mut following = std::pin::pin!(follow(&shared, &freed));
        let mut reports = shared.reports.subscribe();
        // One may have been offered before the task ran.
        reports.mark_changed();
        let mut state = State::new(shared.clone());
        let (mut event, mut is_leaving) = (None, false);
        loop {
            state.step(event.take());
            if state.session.has_left() && state.asked.is_empty() {
                return;
            }
            let wake = state.next_wake();
            // In this order, so that a simulation repeats; each of them ends by being heard.
            event = tokio::select! {
                biased;
                () = stop.cancelled(), if !is_leaving => {
                    is_leaving = true;
                    Some(Event::Leave)
                }
                Some(heard) = state.asked.join_next() => match heard {
                    Ok(heard) => state.hear(heard),
                    // A request that panics is a fault of the store's code; it is not hidden.
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                () = at(wake) => None,
                () = freed.notified() => Some(Event::Freed),
                Ok(()) = reports.changed() => {
                    if let Some(report) = reports.borrow_and_update().clone() {
                        state.pace.offer(report);
                    }
                    None
                }
                () = &mut following => None,
            };
        }
    }
}

/// Whatever ends the task ends the tenure, also for those who hold handles.
struct Farewell(Arc<Shared>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.tenure.send_replace(None);
    }
}

async fn at(wake: Option<Instant>) {
    match wake {
        Some(wake) => sleep_until(wake).await,
        None => pending().await,
    }
}

impl State {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            session: Session::new(shared.config.terms()),
            began: Instant::now(),
            pace: Pace::new(),
            is_saying: false,
            asked: JoinSet::new(),
            shared,
        }
    }

    fn now(&self) -> Moment {
        self.began.elapsed()
    }

    fn step(&mut self, event: Option<Event>) {
        let now = self.now();
        for action in self.session.handle(now, event) {
            self.asked.spawn(perform(self.shared.clone(), action));
        }
        self.publish(now);
        self.say(now);
    }

    fn hear(&mut self, heard: Heard) -> Option<Event> {
        match heard {
            Heard::Session(event) => return Some(event),
            Heard::Reported(was_put) => {
                self.is_saying = false;
                if !was_put {
                    self.pace.again();
                }
            }
            Heard::Nothing => (),
        }
        None
    }

    /// Tells the handles where the node stands.
    fn publish(&mut self, now: Moment) {
        let standpoint = self.session.standpoint(now);
        let tenure = standpoint.map(|standpoint| Tenure {
            token: standpoint.token,
            lease: standpoint.lease,
            until: self.began + standpoint.until,
        });
        let before = *self.shared.tenure.borrow();
        if before == tenure {
            return;
        }
        let token = |tenure: Option<Tenure>| tenure.map(|tenure| tenure.token);
        if token(before) != token(tenure) {
            let node = &self.shared.id;
            match tenure {
                Some(Tenure { token, .. }) => tracing::info!(%node, token, "joined the cluster"),
                None => tracing::warn!(%node, "is no member of the cluster now"),
            }
            // A report goes with its tenure.
            self.pace.again();
        }
        self.shared.tenure.send_replace(tenure);
    }

    fn say(&mut self, now: Moment) {
        let Some(tenure) = *self.shared.tenure.borrow() else {
            return;
        };
        if self.is_saying {
            return;
        }
        let nodes = self.shared.roster.read().peers().len();
        let every = self.shared.config.report_every(nodes);
        if let Some(report) = self.pace.take(now, every) {
            self.is_saying = true;
            self.asked.spawn(say(self.shared.clone(), tenure, report));
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let may_say = !self.is_saying && self.shared.tenure.borrow().is_some();
        let report = self.pace.next_wake().filter(|_| may_say);
        let wake = self.session.next_wake().into_iter().chain(report).min();
        wake.map(|wake| self.began + wake)
    }
}

/// Follows what all nodes put, for ever: a watch that ends is begun anew.
async fn follow(shared: &Shared, freed: &Notify) {
    loop {
        let over = match begin(shared, freed).await {
            Ok(watch) => watch_on(shared, freed, watch).await,
            Err(error) => {
                tracing::warn!(%error, "the cluster's nodes cannot be read");
                None
            }
        };
        // One that has lagged goes on at once: the store is there.
        if over != Some(WatchItem::Lagged) {
            sleep(shared.config.retry_after).await;
        }
    }
}

/// Reads all there is, and watches from there.
async fn begin(shared: &Shared, freed: &Notify) -> Result<Watch, StorageError> {
    let (mut entries, mut from) = (Vec::new(), None);
    let mut next = Some(Range::prefix(ROOT));
    while let Some(range) = next {
        let page = shared.store.range(range.clone()).await?;
        next = range.rest(&page);
        // What changed between two pages comes again by the watch.
        from.get_or_insert(page.revision);
        entries.extend(page.entries);
    }
    let watch = shared.store.watch(ROOT.as_bytes(), from).await?;
    let (roster, faults) = Roster::of(&entries);
    faults
        .iter()
        .for_each(|error| tracing::warn!(%error, "a record was skipped"));
    if !roster.peers().contains_key(&shared.id) {
        freed.notify_one();
    }
    let mut known = shared.roster.write();
    *known = roster.instead_of(&known);
    drop(known);
    shared.changes.send_modify(|count| *count += 1);
    Ok(watch)
}

async fn watch_on(shared: &Shared, freed: &Notify, mut watch: Watch) -> Option<WatchItem> {
    let own = keys::record_key(&shared.id);
    loop {
        let event = match watch.next().await {
            Some(WatchItem::Event(event)) => event,
            over => return over,
        };
        if let Err(error) = shared.roster.write().apply(&event) {
            tracing::warn!(%error, "a record was skipped");
        }
        shared.changes.send_modify(|count| *count += 1);
        if event.change == Change::Delete && event.key == own.as_bytes() {
            freed.notify_one();
        }
    }
}
