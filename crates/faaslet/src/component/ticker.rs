//! The clock that makes computing guests yield: a thread that advances the engines' epoch.
//!
//! ```text
//!             a guest computes                 none for a while
//!   parked ───────────────────▶ ticking ───────────────────────▶ parked
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::EngineWeak;

/// How long a guest may compute before it yields, at least.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without a computing guest before the thread parks: waking it costs a caller microseconds.
const IDLE_TICKS_MAX: u32 = 100;

/// A handle on the ticking thread, which ends with it.
#[derive(Debug)]
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Shared {
    computing: AtomicUsize,
    parked: AtomicBool,
    stopped: AtomicBool,
}

impl Ticker {
    pub(super) fn start(engines: Vec<EngineWeak>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let handle = thread::Builder::new()
            .name("component-ticks".into())
            .spawn(move || theirs.run(&engines))?;
        let thread = handle.thread().clone();
        Ok(Self { shared, thread })
    }

    /// Ticks until the guard is dropped.
    pub(super) fn computing(&self) -> Computing<'_> {
        self.shared.computing.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Computing(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// Says that a guest computes.
pub(super) struct Computing<'a>(&'a Shared);

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        self.0.computing.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn run(&self, engines: &[EngineWeak]) {
        let mut idle_ticks = 0;
        while !self.stopped.load(Ordering::SeqCst) {
            thread::sleep(TICK);
            for engine in engines.iter().filter_map(EngineWeak::upgrade) {
                engine.increment_epoch();
            }
            idle_ticks = match self.computing.load(Ordering::SeqCst) {
                0 => idle_ticks + 1,
                _ => 0,
            };
            if idle_ticks >= IDLE_TICKS_MAX {
                self.park();
                idle_ticks = 0;
            }
        }
    }

    /// Parks until a guest computes. Whoever begins to compute counts itself before it looks at
    /// `parked`, and the thread looks at the count after it has set `parked`: one sees the other.
    fn park(&self) {
        self.parked.store(true, Ordering::SeqCst);
        let idle = || self.computing.load(Ordering::SeqCst) == 0;
        while idle() && !self.stopped.load(Ordering::SeqCst) {
            thread::park();
        }
        self.parked.store(false, Ordering::SeqCst);
    }
}
