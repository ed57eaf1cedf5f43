//! The watchdog: stops guests that compute past their time by taking their poll page away.
//!
//! Each thread that runs guests has a cell for each guest on its stack: more than one where a guest
//! waits for another that runs in its stead. A guest is *entered* in its cell for as long as it
//! computes or is waited for there, and left before anything else of the sandbox is touched.
//!
//! ```text
//!            enter                 watchdog: over time        page protected
//!   Idle ───────────▶ Running ───────────────────▶ Stopping ────────────────▶ Stopped
//!    ▲                  │ leave       ◀── not yet ──┘                            │ leave
//!    └──────────────────┴────────────────────────────────────────────────────────┘ page restored
//! ```
//!
//! Only the watchdog moves Running → Stopping → Stopped, and only the guest's thread moves out of
//! Running and Stopped, so neither acts on a page that the other has handed on.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use memory::Range;
use parking_lot::Mutex;

/// How often running guests are looked at: the grain of deadlines.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without any guest after which the watchdog sleeps until one comes.
const IDLE_TICKS: u32 = 100;

const IDLE: u32 = 0;
const RUNNING: u32 = 1;
const STOPPING: u32 = 2;
const STOPPED: u32 = 3;

struct Cell {
    state: AtomicU32,
    /// When the guest is to be stopped, in nanoseconds since [`epoch`].
    until_ns: AtomicU64,
    range: AtomicPtr<Range>,
    /// Entries so far, so that the watchdog sees activity between its ticks.
    entries: AtomicU64,
}

struct Watchdog {
    cells: Mutex<Vec<Weak<Cell>>>,
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

fn since_epoch_ns(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(epoch()).as_nanos()).unwrap_or(u64::MAX)
}

fn watchdog() -> &'static Watchdog {
    static WATCHDOG: OnceLock<Watchdog> = OnceLock::new();
    let dog = WATCHDOG.get_or_init(|| {
        epoch();
        Watchdog {
            cells: Mutex::default(),
            asleep: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    });
    dog.thread.get_or_init(|| {
        // A node without its watchdog could not keep a deadline, so it does not go on.
        #[expect(
            clippy::expect_used,
            reason = "without threads the process cannot work at all"
        )]
        let spawned = thread::Builder::new()
            .name("watchdog".into())
            .spawn(|| dog_loop(watchdog()))
            .expect("the watchdog thread starts");
        spawned.thread().clone()
    });
    dog
}

/// The cells of one thread, of which the first `entered` have a guest.
#[derive(Default)]
struct Cells {
    all: Vec<Arc<Cell>>,
    entered: usize,
}

impl Cells {
    fn enter(&mut self) -> Arc<Cell> {
        if self.entered == self.all.len() {
            let cell = Arc::new(Cell {
                state: AtomicU32::new(IDLE),
                until_ns: AtomicU64::new(u64::MAX),
                range: AtomicPtr::new(std::ptr::null_mut()),
                entries: AtomicU64::new(0),
            });
            watchdog().cells.lock().push(Arc::downgrade(&cell));
            self.all.push(cell);
        }
        self.entered += 1;
        self.all[self.entered - 1].clone()
    }
}

thread_local! {
    static CELLS: RefCell<Cells> = RefCell::default();
}

fn dog_loop(dog: &Watchdog) {
    let (mut idle_ticks, mut entries_before) = (0, 0);
    loop {
        thread::sleep(TICK);
        let now_ns = since_epoch_ns(Instant::now());
        let (mut entries, mut running) = (0u64, false);
        dog.cells.lock().retain(|cell| {
            let Some(cell) = cell.upgrade() else {
                return false;
            };
            entries = entries.wrapping_add(cell.entries.load(Ordering::Relaxed));
            running |= cell.state.load(Ordering::Relaxed) != IDLE;
            stop_if_over(&cell, now_ns);
            true
        });
        let active = running || entries != entries_before;
        entries_before = entries;
        idle_ticks = if active { 0 } else { idle_ticks + 1 };
        if idle_ticks > IDLE_TICKS {
            sleep_until_entered(dog, entries_before);
            idle_ticks = 0;
        }
    }
}

fn sleep_until_entered(dog: &Watchdog, entries_before: u64) {
    dog.asleep.store(true, Ordering::SeqCst);
    let total = |sum: u64, cell: &Weak<Cell>| {
        sum.wrapping_add(
            cell.upgrade()
                .map_or(0, |cell| cell.entries.load(Ordering::SeqCst)),
        )
    };
    if dog.cells.lock().iter().fold(0, total) == entries_before {
        thread::park_timeout(Duration::from_secs(1));
    }
    dog.asleep.store(false, Ordering::SeqCst);
}

fn stop_if_over(cell: &Cell, now_ns: u64) {
    if cell.until_ns.load(Ordering::Relaxed) > now_ns
        || cell
            .state
            .compare_exchange(RUNNING, STOPPING, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
    {
        return;
    }
    // The guest may have changed since the first look; now it cannot.
    if cell.until_ns.load(Ordering::Relaxed) > now_ns {
        cell.state.store(RUNNING, Ordering::Release);
        return;
    }
    let range = cell.range.load(Ordering::Relaxed);
    // SAFETY: `enter` borrowed the range for as long as its `Entered` lives, and that cannot be
    // left while the state is Stopping.
    if let Err(error) = unsafe { &*range }.set_poll_passes(false) {
        tracing::error!(%error, "a guest over its time could not be stopped");
    }
    cell.state.store(STOPPED, Ordering::Release);
}

/// A guest that is computing on this thread. Guests are left in the reverse of the order in which
/// they were entered, since each is polled within the one before.
pub(super) struct Entered<'a> {
    cell: Arc<Cell>,
    range: &'a Range,
    left: bool,
    /// Cells are a thread's own.
    _here: PhantomData<*const ()>,
}

/// Has the guest in `range` stopped at its next poll after `until`, from now until it is left.
pub(super) fn enter(range: &Range, until: Instant) -> Entered<'_> {
    let cell = CELLS.with_borrow_mut(Cells::enter);
    cell.until_ns
        .store(since_epoch_ns(until), Ordering::Relaxed);
    cell.range
        .store(std::ptr::from_ref(range).cast_mut(), Ordering::Relaxed);
    cell.state.store(RUNNING, Ordering::Release);
    cell.entries.store(
        cell.entries.load(Ordering::Relaxed).wrapping_add(1),
        Ordering::SeqCst,
    );
    let dog = watchdog();
    if dog.asleep.load(Ordering::SeqCst)
        && let Some(thread) = dog.thread.get()
    {
        thread.unpark();
    }
    Entered {
        cell,
        range,
        left: false,
        _here: PhantomData,
    }
}

impl Entered<'_> {
    /// The guest computes no more. Returns whether it was over its time.
    pub fn leave(mut self) -> bool {
        self.settle()
    }

    fn settle(&mut self) -> bool {
        if std::mem::replace(&mut self.left, true) {
            return false;
        }
        CELLS.with_borrow_mut(|cells| cells.entered -= 1);
        while let Err(state) =
            self.cell
                .state
                .compare_exchange(RUNNING, IDLE, Ordering::Release, Ordering::Acquire)
        {
            if state == STOPPED {
                return self.let_polls_pass();
            }
            std::hint::spin_loop();
        }
        false
    }

    fn let_polls_pass(&self) -> bool {
        if let Err(error) = self.range.set_poll_passes(true) {
            tracing::error!(%error, "a stopped guest's poll page could not be restored");
        }
        self.cell.state.store(IDLE, Ordering::Release);
        true
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}
