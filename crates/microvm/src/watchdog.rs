//! Stops guests that run past their time, from a thread of its own.
//!
//! ```text
//!          enter              over time           flag set, signal sent
//!   Idle ─────────▶ Running ───────────▶ Stopping ───────────▶ Stopped
//!    ▲                │ leave      (waits) ──┘                    │ leave
//!    └────────────────┴───────────────────────────────────────────┘ flag cleared
//! ```
//!
//! A processor that is in its guest leaves it when its thread gets a signal; one that is about to
//! enter sees the flag. Only the watchdog, or another thread by a [`Stopper`], leaves Running for
//! Stopping, and only the guest's thread leaves the others, so no flag or signal outlives the run
//! that it was meant for.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::kvm::Kick;

/// How often running guests are looked at: the grain of deadlines.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without any guest after which the watchdog sleeps until one comes.
const IDLE_TICKS: u32 = 100;

const IDLE: u32 = 0;
const RUNNING: u32 = 1;
const STOPPING: u32 = 2;
const STOPPED: u32 = 3;

/// What one thread runs.
#[derive(Default)]
struct Cell {
    state: AtomicU32,
    /// When the guest is to be stopped, in nanoseconds since [`epoch`].
    until_ns: AtomicU64,
    thread: AtomicI32,
    kick: Mutex<Option<Kick>>,
}

struct Watchdog {
    cells: Mutex<Vec<Weak<Cell>>>,
    asleep: AtomicBool,
    thread: Thread,
}

thread_local! {
    static CELL: RefCell<Option<Arc<Cell>>> = const { RefCell::new(None) };
}

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

fn since_epoch_ns(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(epoch()).as_nanos()).unwrap_or(u64::MAX)
}

/// A guest that runs on this thread.
pub(crate) struct Entered(Arc<Cell>);

/// This thread's cell.
fn cell(dog: &Watchdog) -> Arc<Cell> {
    CELL.with_borrow_mut(|cell| {
        let new = || {
            let cell = Arc::new(Cell::default());
            // SAFETY: the call only reads the thread's id.
            let thread = unsafe { libc::gettid() };
            cell.thread.store(thread, Ordering::Relaxed);
            dog.cells.lock().push(Arc::downgrade(&cell));
            cell
        };
        cell.get_or_insert_with(new).clone()
    })
}

/// Stops what a thread runs, from another thread.
pub(crate) struct Stopper(Arc<Cell>);

/// The one of this thread.
pub(crate) fn stopper() -> Stopper {
    Stopper(cell(watchdog()))
}

impl Stopper {
    /// Stops the guest that the thread runs now; false if it runs none. Its run ends as one that
    /// is over time does.
    pub fn stop(&self) -> bool {
        let claimed = self.0.claim();
        if claimed {
            self.0.stop_claimed();
        }
        claimed
    }
}

/// Begins to watch: from `until` on, `kick` is set and this thread gets a signal.
pub(crate) fn enter(kick: &Kick, until: Instant) -> Entered {
    let dog = watchdog();
    let cell = cell(dog);
    *cell.kick.lock() = Some(kick.clone());
    cell.until_ns
        .store(since_epoch_ns(until), Ordering::Relaxed);
    cell.state.store(RUNNING, Ordering::SeqCst);
    if dog.asleep.load(Ordering::SeqCst) {
        dog.thread.unpark();
    }
    Entered(cell)
}

impl Entered {
    /// Ends the watch, and says whether the guest was stopped.
    pub fn leave(self) -> bool {
        let cell = &self.0;
        loop {
            let left =
                cell.state
                    .compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire);
            match left {
                Ok(_) => return false,
                Err(STOPPED) => break,
                // The watchdog is between two lines of its own.
                Err(_) => thread::yield_now(),
            }
        }
        if let Some(kick) = cell.kick.lock().as_ref() {
            kick.flag().store(0, Ordering::SeqCst);
        }
        cell.state.store(IDLE, Ordering::Release);
        true
    }
}

fn watchdog() -> &'static Watchdog {
    static WATCHDOG: OnceLock<Watchdog> = OnceLock::new();
    WATCHDOG.get_or_init(|| {
        epoch();
        install_handler();
        // A node without its watchdog could not keep a deadline, so it does not go on.
        #[expect(
            clippy::expect_used,
            reason = "without threads the process cannot work at all"
        )]
        let spawned = thread::Builder::new()
            .name("vm-watchdog".into())
            .spawn(watch)
            .expect("the watchdog thread starts");
        Watchdog {
            cells: Mutex::default(),
            asleep: AtomicBool::new(false),
            thread: spawned.thread().clone(),
        }
    })
}

/// The signal that makes a thread leave its guest.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 1
}

extern "C" fn nothing(_: libc::c_int) {}

/// A signal that is handled interrupts what its thread waits in; handling it is all there is to do.
fn install_handler() {
    // SAFETY: the handler does nothing, so it may run anywhere; the signal is no one else's. Waits
    // that may go on afterwards do, by SA_RESTART; running a guest is none of those.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal(), &raw const action, std::ptr::null_mut());
    }
}

fn watch() {
    let dog = watchdog();
    let mut idle_ticks = 0;
    loop {
        thread::sleep(TICK);
        idle_ticks = if dog.look() { 0 } else { idle_ticks + 1 };
        if idle_ticks > IDLE_TICKS {
            dog.asleep.store(true, Ordering::SeqCst);
            // Whoever entered before the flag was set is seen here; whoever enters later unparks.
            if !dog.look() {
                thread::park();
            }
            dog.asleep.store(false, Ordering::SeqCst);
            idle_ticks = 0;
        }
    }
}

impl Watchdog {
    /// Stops who is over time. Returns whether anyone runs.
    fn look(&self) -> bool {
        let now_ns = since_epoch_ns(Instant::now());
        let mut running = false;
        self.cells.lock().retain(|cell| {
            let Some(cell) = cell.upgrade() else {
                return false;
            };
            if cell.state.load(Ordering::SeqCst) == RUNNING {
                running = true;
                if cell.until_ns.load(Ordering::Relaxed) <= now_ns {
                    cell.stop(now_ns);
                }
            }
            true
        });
        running
    }
}

impl Cell {
    fn claim(&self) -> bool {
        self.state
            .compare_exchange(RUNNING, STOPPING, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn stop(&self, now_ns: u64) {
        if !self.claim() {
            return;
        }
        if self.until_ns.load(Ordering::Relaxed) > now_ns {
            // Another run has begun since it was looked at.
            self.state.store(RUNNING, Ordering::Release);
            return;
        }
        self.stop_claimed();
    }

    fn stop_claimed(&self) {
        if let Some(kick) = self.kick.lock().as_ref() {
            kick.flag().store(1, Ordering::SeqCst);
        }
        let thread = self.thread.load(Ordering::Relaxed);
        // SAFETY: the thread is in `Entered::leave` or before it, and does not come out while the
        // state is Stopping; so it lives, and the signal is one that it handles.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
        self.state.store(STOPPED, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_over_time_is_stopped_and_the_flag_is_cleared_on_leaving() {
        let kick = Kick::own();
        for _ in 0..3 {
            let entered = enter(&kick, Instant::now());
            while kick.flag().load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            assert!(entered.leave());
            assert_eq!(kick.flag().load(Ordering::SeqCst), 0);
        }
    }

    #[test]
    fn who_is_in_time_is_left_alone() {
        let kick = Kick::own();
        for _ in 0..1000 {
            let entered = enter(&kick, Instant::now() + Duration::from_secs(100));
            assert!(!entered.leave());
        }
        assert_eq!(kick.flag().load(Ordering::SeqCst), 0);
    }
}
