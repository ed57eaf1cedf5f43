//! The poll loop around a guest: processor time, the backstop, and no panic past it.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use rustix::time::{ClockId, clock_gettime};
use sandbox::Completion;
use tokio::time::Sleep;

/// Processor time of one call, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter(AtomicU64);

impl CpuMeter {
    pub(crate) fn ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, ns: u64) {
        self.0.fetch_add(ns, Ordering::Relaxed);
    }
}

/// How far a poll's processor time may be off. Asking the kernel costs as much as a small guest.
const COARSE: Duration = Duration::from_micros(100);

thread_local! {
    /// When this thread's processor time was last read, and what it was.
    static LAST_READ: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
    /// What the calls took that were polled within this thread's innermost metered poll.
    static NESTED_NS: Cell<u64> = const { Cell::new(0) };
}

/// The processor time of this thread, in nanoseconds.
fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, ns) = (time.tv_sec as u64, time.tv_nsec as u64);
    seconds * 1_000_000_000 + ns
}

/// The processor time that `poll` took, within [`COARSE`].
///
/// A short poll took what the clock says. A longer one may have been off its processor: it took
/// what the thread did since it was last asked, which was at most [`COARSE`] before the poll.
fn timed<T>(poll: impl FnOnce() -> T) -> (T, u64) {
    let begun = Instant::now();
    let last = LAST_READ.get().filter(|(at, _)| begun - *at < COARSE);
    let (_, before) = last.unwrap_or_else(|| {
        let read = (begun, thread_cpu_ns());
        LAST_READ.set(Some(read));
        read
    });
    let value = poll();
    let ended = Instant::now();
    let wall = ended - begun;
    let wall_ns = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
    if wall < COARSE {
        return (value, wall_ns);
    }
    let after = thread_cpu_ns();
    LAST_READ.set(Some((ended, after)));
    (value, wall_ns.min(after.saturating_sub(before)))
}

/// The same, less what calls nested in `poll` took: each is charged to itself only.
fn timed_alone<T>(poll: impl FnOnce() -> T) -> (T, u64) {
    let before = NESTED_NS.replace(0);
    let (value, ns) = timed(poll);
    let nested_ns = NESTED_NS.replace(before + ns);
    (value, ns.saturating_sub(nested_ns))
}

/// Why a call ended without its back-end saying so.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The back-end did not end it in time.
    Overdue,
    /// The back-end panicked, with these words.
    Panicked(String),
}

/// One call of a guest, metered in each poll.
pub(crate) struct Metered<'a> {
    guest: BoxFuture<'a, Completion>,
    cpu: &'a CpuMeter,
    overdue: Instant,
    /// Armed by the first wait only: a call that never waits needs no timer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<'a> Metered<'a> {
    pub(crate) fn new(
        guest: BoxFuture<'a, Completion>,
        cpu: &'a CpuMeter,
        overdue: Instant,
    ) -> Self {
        Self {
            guest,
            cpu,
            overdue,
            timer: None,
        }
    }
}

impl Future for Metered<'_> {
    type Output = Result<Completion, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (polled, cpu_ns) =
            timed_alone(|| catch_unwind(AssertUnwindSafe(|| this.guest.as_mut().poll(cx))));
        this.cpu.add(cpu_ns);
        match polled {
            Ok(Poll::Ready(completion)) => return Poll::Ready(Ok(completion)),
            Ok(Poll::Pending) => {}
            Err(panic) => return Poll::Ready(Err(Fault::Panicked(words_of(&*panic)))),
        }
        let overdue = this.overdue;
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(overdue.into())));
        timer.as_mut().poll(cx).map(|()| Err(Fault::Overdue))
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no words".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_that_waits_is_not_charged_for_waiting() {
        let ((), cpu_ns) = timed(|| std::thread::sleep(Duration::from_millis(50)));
        assert!(cpu_ns < 25_000_000, "{cpu_ns} ns for a sleep");
    }

    #[test]
    fn a_poll_that_computes_is_charged_for_it() {
        let begun = thread_cpu_ns();
        let ((), cpu_ns) = timed(|| while thread_cpu_ns() - begun < 20_000_000 {});
        assert!(cpu_ns >= 19_000_000, "{cpu_ns} ns for 20 ms of work");
    }

    #[test]
    fn nested_polls_are_charged_to_themselves() {
        let spin = || {
            let begun = thread_cpu_ns();
            while thread_cpu_ns() - begun < 20_000_000 {}
        };
        let (inner, outer) = timed_alone(|| (0..2).map(|_| timed_alone(spin).1).sum::<u64>());
        assert!(inner >= 38_000_000, "{inner} ns for 40 ms of work");
        assert!(outer < 10_000_000, "{outer} ns beside 40 ms of nested work");
        let ((), after) = timed_alone(spin);
        assert!(after >= 19_000_000, "{after} ns for 20 ms of work");
    }
}
