//! Those who wait for an invocation to change: pushed to, never polling.

use std::collections::HashMap;
use std::sync::Arc;

use model::InvocationId;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::Invocation;

type Sender = watch::Sender<Option<Invocation>>;

/// A map of the invocations that somebody waits for.
#[derive(Debug, Default)]
pub struct Waiters {
    senders: Mutex<HashMap<InvocationId, Sender>>,
}

/// One who waits; leaves the map when dropped.
#[derive(Debug)]
pub struct Subscription {
    id: InvocationId,
    receiver: watch::Receiver<Option<Invocation>>,
    waiters: Arc<Waiters>,
}

impl Waiters {
    /// Waits for changes of `id` from now on.
    pub fn subscribe(self: &Arc<Self>, id: InvocationId) -> Subscription {
        let mut senders = self.senders.lock();
        let sender = senders
            .entry(id)
            .or_insert_with(|| watch::Sender::new(None));
        let receiver = sender.subscribe();
        Subscription {
            id,
            receiver,
            waiters: self.clone(),
        }
    }

    /// Tells those who wait; after a final state nothing follows.
    pub fn publish(&self, invocation: Invocation) {
        let mut senders = self.senders.lock();
        if invocation.state.is_final() {
            if let Some(sender) = senders.remove(&invocation.id) {
                sender.send_replace(Some(invocation));
            }
        } else if let Some(sender) = senders.get(&invocation.id) {
            sender.send_replace(Some(invocation));
        }
    }
}

impl Subscription {
    /// The latest state after the last that was given; states in between may be skipped. None
    /// when nothing follows.
    pub async fn next(&mut self) -> Option<Invocation> {
        self.receiver.changed().await.ok()?;
        self.receiver.borrow_and_update().clone()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut senders = self.waiters.senders.lock();
        // This receiver still counts.
        if senders
            .get(&self.id)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            senders.remove(&self.id);
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
        assert_eq!(waiters.senders.lock().len(), 1);
        drop(two);
        assert!(waiters.senders.lock().is_empty());
    }
}
