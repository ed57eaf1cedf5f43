//! Locks of a key: carries out what [`Turns`] decides. Who waits keeps the time for all.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::clock::micros;
use crate::error::Quota;
use crate::state::Node;
use crate::turns::{Action, Ask, Event, Mode, Refusal, Turns};
use crate::{StateError, Value};

/// The locks of one key; nothing while nobody uses them.
#[derive(Debug, Default)]
pub(crate) struct Locks(Mutex<Option<Box<Desk>>>);

#[derive(Debug, Default)]
struct Desk {
    turns: Turns,
    waiting: HashMap<u64, oneshot::Sender<Result<(), Refusal>>>,
    /// Told to all who wait when the next time to wake may have changed.
    changed: Arc<Notify>,
}

impl Locks {
    pub fn are_free(&self) -> bool {
        self.0.lock().is_none()
    }
}

impl Value {
    /// Nobody holds the locks any more, and who waits hears that they are elsewhere.
    pub(crate) fn end_locks(&self) {
        drop(self.locks.0.lock().take());
    }
}

/// Locks by owner, so that all of a dead one's can be freed.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<HashMap<u128, Vec<Weak<Value>>>>);

impl Held {
    fn add(&self, owner: u128, value: &Arc<Value>) {
        let mut held = self.0.lock();
        let values = held.entry(owner).or_default();
        let value = Arc::downgrade(value);
        if !values.iter().any(|other| other.ptr_eq(&value)) {
            values.push(value);
        }
    }

    fn remove(&self, owner: u128, value: &Arc<Value>) {
        let mut held = self.0.lock();
        if let Some(values) = held.get_mut(&owner) {
            values.retain(|other| other.as_ptr() != Arc::as_ptr(value));
            if values.is_empty() {
                held.remove(&owner);
            }
        }
    }

    pub fn take(&self, owner: u128) -> Vec<Weak<Value>> {
        self.0.lock().remove(&owner).unwrap_or_default()
    }
}

/// Somebody who waits; gone when dropped.
struct Waiter<'a> {
    value: &'a Arc<Value>,
    ticket: u64,
    answered: bool,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let ticket = self.ticket;
            self.value.turn(Event::Cancel { ticket });
        }
    }
}

impl Value {
    /// Locks the key for `owner`, after at most `wait`; the lock is free again after `hold` at the
    /// latest. First come, first served. An owner that holds the lock already has it at once, for
    /// at least `hold` from now; from shared to exclusive only if nobody else shares it.
    ///
    /// Locks bind only those who lock, and whether there is a value does not matter.
    pub async fn lock(
        self: &Arc<Self>,
        mode: Mode,
        owner: u128,
        wait: Duration,
        hold: Duration,
    ) -> Result<(), StateError> {
        self.check_held()?;
        let node = &self.core.node;
        let ticket = node.ticket();
        let wait = micros(wait.min(node.config.lock_wait_max));
        let ask = Ask {
            ticket,
            owner,
            mode,
            wait_until: node.uptime_us() + wait,
            hold: micros(hold.min(node.config.lock_hold_max)),
        };
        let (tell, mut answer) = oneshot::channel();
        {
            let mut desk = self.locks.0.lock();
            let desk = desk.get_or_insert_default();
            desk.waiting.insert(ticket, tell);
        }
        let mut waiter = Waiter {
            value: self,
            ticket,
            answered: false,
        };
        self.turn(Event::Ask(ask));
        let answer = self.wait(&mut answer).await;
        // Granted, and too late: dropping the waiter frees it.
        self.check_held()?;
        waiter.answered = true;
        answer.map_err(|why| self.refused(why))
    }

    /// Frees the owner's lock.
    pub fn unlock(self: &Arc<Self>, owner: u128) -> Result<(), StateError> {
        self.check_held()?;
        let freed = Action::Freed {
            owner,
            in_time: true,
        };
        let actions = self.turn(Event::Release { owner });
        let held = actions.contains(&freed);
        held.then_some(()).ok_or(StateError::NotLocked)
    }

    async fn wait(
        self: &Arc<Self>,
        answer: &mut oneshot::Receiver<Result<(), Refusal>>,
    ) -> Result<(), Refusal> {
        let node = &self.core.node;
        loop {
            let Some((changed, wake)) = self.next_wake() else {
                // Nobody waits, so this one was answered.
                return answer.await.unwrap_or(Err(Refusal::Ended));
            };
            let changed = changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // What changed before that was noticed now.
            let wake = self.next_wake().map_or(wake, |(_, wake)| wake);
            tokio::select! {
                biased;
                answer = &mut *answer => return answer.unwrap_or(Err(Refusal::Ended)),
                () = &mut changed => {}
                () = tokio::time::sleep_until(node.at(wake)) => drop(self.turn(Event::Tick)),
            }
        }
    }

    fn next_wake(&self) -> Option<(Arc<Notify>, u64)> {
        let desk = self.locks.0.lock();
        let desk = desk.as_ref()?;
        Some((desk.changed.clone(), desk.turns.wake_at()?))
    }

    /// Something happened to the locks.
    pub(crate) fn turn(self: &Arc<Self>, event: Event) -> Vec<Action> {
        let node = &self.core.node;
        let mut held = self.locks.0.lock();
        let Some(desk) = held.as_mut() else {
            return Vec::new();
        };
        let most = node.config.lock_waiters_max;
        let actions = desk.turns.handle(node.uptime_us(), event, most);
        for action in &actions {
            desk.carry_out(self, node, action);
        }
        if !actions.is_empty() {
            desk.changed.notify_waiters();
        }
        if let Event::Cancel { ticket } = event {
            desk.waiting.remove(&ticket);
        }
        if desk.turns.is_free() && desk.waiting.is_empty() {
            *held = None;
        }
        actions
    }

    fn refused(&self, why: Refusal) -> StateError {
        match why {
            Refusal::TimedOut => {
                metrics::counter!(crate::metrics::LOCK_TIMEOUTS_TOTAL).increment(1);
                StateError::LockTimedOut
            }
            Refusal::Upgrade => StateError::LockUpgrade,
            Refusal::Ended => StateError::Elsewhere,
            Refusal::Full => StateError::Full {
                quota: Quota::LockWaiters,
                max: self.core.node.config.lock_waiters_max as u64,
            },
        }
    }
}

impl Desk {
    fn carry_out(&mut self, value: &Arc<Value>, node: &Node, action: &Action) {
        match *action {
            Action::Grant { ticket, owner } => {
                node.held.add(owner, value);
                self.answer(ticket, Ok(()));
            }
            Action::Refuse { ticket, why } => self.answer(ticket, Err(why)),
            Action::Freed { owner, .. } => node.held.remove(owner, value),
        }
    }

    fn answer(&mut self, ticket: u64, answer: Result<(), Refusal>) {
        if let Some(waiting) = self.waiting.remove(&ticket) {
            // Who does not listen any more cancels, which frees what was granted.
            let _ = waiting.send(answer);
        }
    }
}
