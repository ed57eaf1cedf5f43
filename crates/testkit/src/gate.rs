//! A gate that holds guests until a test lets them go.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::Thread;

use tokio::sync::Semaphore;

/// Guests wait at it; tests know who has come, and say who may go on.
#[derive(Debug)]
pub struct Gate {
    came: Semaphore,
    open: Semaphore,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            came: Semaphore::new(0),
            open: Semaphore::new(0),
        }
    }
}

impl Gate {
    /// Waits until `count` more guests have come.
    pub async fn came(&self, count: u32) {
        if let Ok(permit) = self.came.acquire_many(count).await {
            permit.forget();
        }
    }

    /// Lets `count` guests go on, now or when they come.
    pub fn open(&self, count: usize) {
        self.open.add_permits(count);
    }

    /// A guest comes, and waits until it may go on.
    pub async fn pass(&self) {
        self.came.add_permits(1);
        if let Ok(permit) = self.open.acquire().await {
            permit.forget();
        }
    }

    /// The same, but holds the thread meanwhile.
    pub fn pass_blocking(&self) {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut cx = Context::from_waker(&waker);
        let mut passed = pin!(self.pass());
        while passed.as_mut().poll(&mut cx).is_pending() {
            std::thread::park();
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
