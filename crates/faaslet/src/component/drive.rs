//! Drives a guest to its end, to its deadline, or until it is broken off.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::ticker::Ticker;

/// Why a guest does not run any more.
#[derive(Debug)]
pub(super) enum Ended<T> {
    /// It came to its own end, good or bad.
    Itself(wasmtime::Result<T>),
    /// Its deadline passed.
    Deadline,
    /// `suspended` asked for it.
    BrokenOff,
}

/// Polls `guest` within `limit` of `started`. Each time that it is suspended, `suspended` is called
/// and says whether to break it off.
///
/// Most guests end when they are polled first; so the timer is set only when one is suspended. The
/// clock is read as well as the timer awaited, since a guest that always yields keeps its thread
/// too busy to look at timers often.
pub(super) async fn drive<T>(
    guest: impl Future<Output = wasmtime::Result<T>>,
    (started, limit): (Instant, Duration),
    ticker: &Ticker,
    mut suspended: impl FnMut(&mut Context<'_>) -> bool,
) -> Ended<T> {
    let mut guest = pin!(guest);
    let mut timer = None;
    poll_fn(|cx| {
        let computing = ticker.computing();
        if let Poll::Ready(result) = guest.as_mut().poll(cx) {
            return Poll::Ready(Ended::Itself(result));
        }
        drop(computing);
        if suspended(cx) {
            return Poll::Ready(Ended::BrokenOff);
        }
        if started.elapsed() >= limit {
            return Poll::Ready(Ended::Deadline);
        }
        let timer = timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until((started + limit).into())));
        timer.as_mut().poll(cx).map(|()| Ended::Deadline)
    })
    .await
}
