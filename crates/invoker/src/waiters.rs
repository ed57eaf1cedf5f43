//! Those who wait for an invocation to change: pushed to, never polling.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::InvocationId;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::Invocation;

/// A map of the invocations that somebody waits for.
#[derive(Debug, Default)]
pub struct Waiters {
    entries: Mutex<BTreeMap<InvocationId, Entry>>,
}

#[derive(Debug)]
struct Entry {
    sender: watch::Sender<Option<Invocation>>,
    /// Brings what another node changes.
    follower: Option<Follower>,
}

/// Ends the following task when nobody waits any more.
#[derive(Debug)]
struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One who waits; leaves the map when dropped.
#[derive(Debug)]
pub struct Subscription {
    id: InvocationId,
    /// None only while it is dropped.
    receiver: Option<watch::Receiver<Option<Invocation>>>,
    waiters: Arc<Waiters>,
}

impl Waiters {
    /// Waits for changes of `id` from now on.
    pub fn subscribe(self: &Arc<Self>, id: InvocationId) -> Subscription {
        let mut entries = self.entries.lock();
        let entry = entries.entry(id).or_insert_with(|| Entry {
            sender: watch::Sender::new(None),
            follower: None,
        });
        Subscription {
            id,
            receiver: Some(entry.sender.subscribe()),
            waiters: self.clone(),
        }
    }

    /// Tells those who wait; after a final state nothing follows.
    pub fn publish(&self, invocation: Invocation) {
        let mut entries = self.entries.lock();
        let newer = |entry: &Entry| {
            let last = entry.sender.borrow();
            (last.as_ref()).is_none_or(|last| last.seq < invocation.seq)
        };
        // The node that made a change and the store's watch may both tell of it.
        let entry = entries.get(&invocation.id).filter(|entry| newer(entry));
        let (id, is_final) = (invocation.id, invocation.state.is_final());
        if let Some(entry) = entry {
            entry.sender.send_replace(Some(invocation));
            if is_final {
                entries.remove(&id);
            }
        }
    }

    /// Whether what another node changes of `id` is brought here already.
    pub fn is_followed(&self, id: InvocationId) -> bool {
        let entries = self.entries.lock();
        entries
            .get(&id)
            .is_some_and(|entry| entry.follower.is_some())
    }

    /// Lets the task that `start` starts bring what other nodes change, unless one does, or nobody
    /// waits.
    pub fn follow(&self, id: InvocationId, start: impl FnOnce() -> AbortHandle) {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries
            .get_mut(&id)
            .filter(|entry| entry.follower.is_none())
        {
            entry.follower = Some(Follower(start()));
        }
    }

    /// Those who wait for `id` look again whether it is there.
    pub fn forget(&self, id: InvocationId) {
        self.entries.lock().remove(&id);
    }

    /// Those who wait for what this node runs look again where it is now.
    pub fn disperse(&self) {
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| entry.follower.is_some());
    }
}

impl Subscription {
    /// The latest state after the last that was given; states in between may be skipped. None
    /// when nothing follows here.
    pub async fn next(&mut self) -> Option<Invocation> {
        let receiver = self.receiver.as_mut()?;
        receiver.changed().await.ok()?;
        receiver.borrow_and_update().clone()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut entries = self.waiters.entries.lock();
        drop(self.receiver.take());
        let is_alone = |entry: &Entry| entry.sender.receiver_count() == 0;
        if entries.get(&self.id).is_some_and(is_alone) {
            entries.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stops_waiting_leaves_nothing_behind() {
        let (waiters, id) = (Arc::new(Waiters::default()), InvocationId::new(0));
        let (one, two) = (waiters.subscribe(id), waiters.subscribe(id));
        drop(one);
        assert_eq!(waiters.entries.lock().len(), 1);
        drop(two);
        assert!(waiters.entries.lock().is_empty());
    }

    #[tokio::test]
    async fn who_looks_again_is_not_put_out_by_who_looked_before() {
        let (waiters, id) = (Arc::new(Waiters::default()), InvocationId::new(0));
        let mut old = waiters.subscribe(id);
        waiters.disperse();
        assert_eq!(old.next().await, None);
        let _new = waiters.subscribe(id);
        drop(old);
        assert_eq!(waiters.entries.lock().len(), 1);
    }

    #[tokio::test]
    async fn a_follower_ends_with_the_last_who_waits_and_outlives_a_tenure() {
        let (waiters, id) = (Arc::new(Waiters::default()), InvocationId::new(0));
        let waiting = waiters.subscribe(id);
        let task = tokio::spawn(std::future::pending::<()>());
        waiters.follow(id, || task.abort_handle());
        waiters.follow(id, || panic!("there is one"));
        waiters.disperse();
        assert!(waiters.is_followed(id));
        drop(waiting);
        assert!(task.await.unwrap_err().is_cancelled());
        waiters.follow(id, || panic!("nobody waits"));
    }
}
