//! All that is on its way: done in the order of its time, one thing after the other.
//!
//! Things of one moment come in the order of a number that goes with each, not in the order in
//! which tasks happened to put them here: a runtime may wake those who wait for one thing in any
//! order, and a seed must repeat.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

type Act = Box<dyn FnOnce() + Send>;

/// When, by which number, and which of those that have one number.
type Turn = (Duration, u64, u64);

/// What will happen.
pub(crate) struct Post {
    began: Instant,
    due: Mutex<Due>,
    wake: Notify,
}

#[derive(Default)]
struct Due {
    acts: BTreeMap<Turn, Act>,
    count: u64,
}

impl Post {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            due: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Does `act` at that time, among others of that time by `number`.
    pub fn at(&self, time: Duration, number: u64, act: impl FnOnce() + Send + 'static) {
        let mut due = self.due.lock();
        due.count += 1;
        let turn = (time, number, due.count);
        let is_first = due
            .acts
            .first_key_value()
            .is_none_or(|(first, _)| turn < *first);
        due.acts.insert(turn, Box::new(act));
        if is_first {
            self.wake.notify_one();
        }
    }

    /// Forgets all that is on its way.
    pub fn clear(&self) {
        let acts = std::mem::take(&mut self.due.lock().acts);
        // Outside of the lock: what is dropped may send.
        drop(acts);
    }

    /// Does everything when its time has come, for ever.
    pub async fn run(&self) {
        loop {
            let next = self
                .due
                .lock()
                .acts
                .first_key_value()
                .map(|(turn, _)| turn.0);
            let wait = async {
                match next {
                    Some(at) => tokio::time::sleep_until(self.began + at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.wake.notified() => continue,
                () = wait => self.act(),
            }
        }
    }

    fn act(&self) {
        let now = self.now();
        loop {
            let mut due = self.due.lock();
            let is_due = |turn: &Turn| turn.0 <= now;
            if !due
                .acts
                .first_key_value()
                .is_some_and(|(turn, _)| is_due(turn))
            {
                return;
            }
            let first = due.acts.pop_first();
            // What is done may send more.
            drop(due);
            if let Some((_, act)) = first {
                act();
            }
        }
    }
}
