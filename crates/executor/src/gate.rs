//! The driver of [`Admission`]: its lock, its wakers, and the guards that give places back.

use std::sync::Arc;
use std::time::Duration;

use model::FunctionPath;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::Scope;
use crate::admission::{Admission, Answer, Bound, FunctionKey, Waiter};

type Wake = oneshot::Sender<()>;

/// The node's places and queues.
pub(crate) struct Gate {
    state: Mutex<Admission<Wake>>,
    emptied: Notify,
    wait_max: Duration,
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    Full(Scope),
    Closed,
}

impl Gate {
    pub(crate) fn new(node: Bound, app: Bound, wait_max: Duration) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(Admission::new(node, app)),
            emptied: Notify::new(),
            wait_max,
        })
    }

    /// A seat for a function: its way to places.
    pub(crate) fn seat(self: &Arc<Self>, path: &FunctionPath) -> Arc<Seat> {
        let key = self.state.lock().register(path);
        Arc::new(Seat {
            gate: self.clone(),
            key,
        })
    }

    pub(crate) fn running(&self) -> u32 {
        self.state.lock().running()
    }

    pub(crate) fn queued(&self) -> u32 {
        self.state.lock().queued()
    }

    /// Admits nobody from now on.
    pub(crate) fn close(&self) {
        self.state.lock().close();
    }

    #[cfg(test)]
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().is_closed()
    }

    /// Sends all who wait away.
    pub(crate) fn dismiss(&self) {
        // Dropping a sender wakes its waiter: not under the lock.
        let dismissed = self.state.lock().dismiss();
        drop(dismissed);
    }

    /// Waits until nobody runs or waits.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // Listed before the look, so that no emptying in between is missed.
            emptied.as_mut().enable();
            {
                let state = self.state.lock();
                if state.running() == 0 && state.queued() == 0 {
                    return;
                }
            }
            emptied.await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Admission<Wake>, &mut Vec<Wake>)) {
        let mut granted = Vec::new();
        let emptied = {
            let mut state = self.state.lock();
            change(&mut state, &mut granted);
            state.is_closed() && state.running() == 0 && state.queued() == 0
        };
        for wake in granted {
            // Whoever left meanwhile gives the place back itself.
            let _ = wake.send(());
        }
        if emptied {
            self.emptied.notify_waiters();
        }
    }
}

/// A function's way to places.
pub(crate) struct Seat {
    gate: Arc<Gate>,
    key: FunctionKey,
}

impl Seat {
    /// A place at once, or word that there is none, or `None`: wait for it.
    pub(crate) fn try_take(self: &Arc<Self>, bound: Bound) -> Option<Result<Place, NoPlace>> {
        match self.gate.state.lock().ask(self.key, bound) {
            Answer::Admitted => Some(Ok(Place(self.clone()))),
            Answer::MayWait => None,
            Answer::Full(scope) => Some(Err(NoPlace::Full(scope))),
            Answer::Closed => Some(Err(NoPlace::Closed)),
        }
    }

    /// A place, now or after a wait in the queue. Dropping the future leaves the queue.
    pub(crate) async fn take(self: &Arc<Self>, bound: Bound) -> Result<Place, NoPlace> {
        let (wake, woken) = oneshot::channel();
        let waiter = {
            let mut state = self.gate.state.lock();
            match state.ask(self.key, bound) {
                Answer::Admitted => return Ok(Place(self.clone())),
                Answer::Full(scope) => return Err(NoPlace::Full(scope)),
                Answer::Closed => return Err(NoPlace::Closed),
                Answer::MayWait => state.wait(self.key, bound.running_max, wake),
            }
        };
        let queueing = Queueing {
            seat: Some(self.clone()),
            waiter,
        };
        match tokio::time::timeout(self.gate.wait_max, woken).await {
            Ok(Ok(())) => Ok(queueing.granted()),
            Ok(Err(_)) => Err(NoPlace::Closed),
            Err(_) => Err(NoPlace::Full(Scope::Wait)),
        }
    }

    /// How many of the function wait.
    pub(crate) fn queued(&self) -> usize {
        self.gate.state.lock().queued_of(self.key)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gate.state.lock().unregister(self.key);
    }
}

/// The right to run one call; dropping it gives it back.
pub(crate) struct Place(Arc<Seat>);

impl Drop for Place {
    fn drop(&mut self) {
        let seat = &self.0;
        seat.gate
            .change(|state, granted| state.release(seat.key, granted));
    }
}

/// One who waits; dropping it leaves the queue, or gives back what was granted meanwhile.
struct Queueing {
    seat: Option<Arc<Seat>>,
    waiter: Waiter,
}

impl Queueing {
    fn granted(mut self) -> Place {
        #[expect(clippy::expect_used, reason = "taken here only, and this consumes it")]
        Place(self.seat.take().expect("one who waits has a seat"))
    }
}

impl Drop for Queueing {
    fn drop(&mut self) {
        if let Some(seat) = &self.seat {
            seat.gate
                .change(|state, granted| state.abandon(seat.key, self.waiter, granted));
        }
    }
}
