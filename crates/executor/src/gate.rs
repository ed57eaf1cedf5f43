//! The driver of [`Admission`]: its lock, its wakers, and the guards that give places back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use model::FunctionPath;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::Scope;
use crate::admission::{Admission, Answer, Bound, FunctionKey, Waiter};
use crate::stead::Heir;

type Wake = oneshot::Sender<()>;

/// The node's places and queues.
pub(crate) struct Gate {
    state: Mutex<Admission<Wake>>,
    /// Those who run in their parents' stead: they take no place, but a drain waits for them.
    steads: AtomicU32,
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
            steads: AtomicU32::new(0),
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

    /// Those who run, in a place or in their parents' stead.
    pub(crate) fn running(&self) -> u32 {
        self.state.lock().running() + self.steads.load(Ordering::SeqCst)
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
            if self.running() == 0 && self.queued() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn stead_ends(&self) {
        if self.steads.fetch_sub(1, Ordering::SeqCst) == 1 && self.state.lock().is_closed() {
            self.emptied.notify_waiters();
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
            Answer::Admitted => Some(Ok(self.place())),
            Answer::MayWait => None,
            Answer::Full(scope) => Some(Err(NoPlace::Full(scope))),
            Answer::Closed => Some(Err(NoPlace::Closed)),
        }
    }

    /// A place at once, or one in the queue.
    pub(crate) fn stand(self: &Arc<Self>, bound: Bound) -> Result<Standing, NoPlace> {
        let (wake, woken) = oneshot::channel();
        let mut state = self.gate.state.lock();
        let waiter = match state.ask(self.key, bound) {
            Answer::Admitted => return Ok(Standing::Placed(self.place())),
            Answer::Full(scope) => return Err(NoPlace::Full(scope)),
            Answer::Closed => return Err(NoPlace::Closed),
            Answer::MayWait => state.wait(self.key, bound.running_max, wake),
        };
        Ok(Standing::Queues(Queueing {
            seat: Some(self.clone()),
            waiter,
            woken,
        }))
    }

    /// A place, now or after a wait in the queue. Dropping the future leaves the queue.
    pub(crate) async fn take(self: &Arc<Self>, bound: Bound) -> Result<Place, NoPlace> {
        match self.stand(bound)? {
            Standing::Placed(place) => Ok(place),
            Standing::Queues(queueing) => queueing.wait().await,
        }
    }

    /// The right to run in the stead of a parent, which waits meanwhile: it is always there. An
    /// heir is told of the end.
    pub(crate) fn in_stead(self: &Arc<Self>, heir: Option<Heir>) -> Place {
        self.gate.steads.fetch_add(1, Ordering::SeqCst);
        Place {
            seat: self.clone(),
            own: false,
            _heir: heir,
        }
    }

    fn place(self: &Arc<Self>) -> Place {
        Place {
            seat: self.clone(),
            own: true,
            _heir: None,
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
pub(crate) struct Place {
    seat: Arc<Seat>,
    /// Whether it is counted as a place of the function's.
    own: bool,
    _heir: Option<Heir>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let (gate, key) = (&self.seat.gate, self.seat.key);
        if self.own {
            gate.change(|state, granted| state.release(key, granted));
        } else {
            gate.stead_ends();
        }
    }
}

/// Where one stands who asked for a place.
pub(crate) enum Standing {
    Placed(Place),
    Queues(Queueing),
}

/// One who waits; dropping it leaves the queue, or gives back what was granted meanwhile.
pub(crate) struct Queueing {
    seat: Option<Arc<Seat>>,
    waiter: Waiter,
    woken: oneshot::Receiver<()>,
}

impl Queueing {
    /// The place that one waits for.
    pub(crate) async fn wait(mut self) -> Result<Place, NoPlace> {
        let wait_max = self.seat.as_ref().map(|seat| seat.gate.wait_max);
        match tokio::time::timeout(wait_max.unwrap_or_default(), &mut self.woken).await {
            Ok(Ok(())) => Ok(self.granted()),
            Ok(Err(_)) => Err(NoPlace::Closed),
            Err(_) => Err(NoPlace::Full(Scope::Wait)),
        }
    }

    fn granted(mut self) -> Place {
        #[expect(clippy::expect_used, reason = "taken here only, and this consumes it")]
        self.seat.take().expect("one who waits has a seat").place()
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
