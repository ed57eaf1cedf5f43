//! Watches one connection for clients that are too slow.
//!
//! ```text
//!            first byte              head complete
//!   Idle ───────────────▶ Head ───────────────────▶ Busy (requests in flight)
//!    ▲  idle_timeout       head_timeout              │  write_timeout while nothing is read
//!    └───────────────────────────────────────────────┘ last reply sent
//! ```
//!
//! The request path only stores coarse timestamps; one timer per connection, which fires at a
//! fraction of the shortest timeout, compares them. So a request costs no timer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::ListenerConfig;

/// Milliseconds of a coarse monotonic clock, never 0.
fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let ms = now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000;
    ms.max(1)
}

/// What one connection is doing, since when.
#[derive(Debug)]
pub(crate) struct Watch {
    in_flight: AtomicU32,
    /// Whether it speaks HTTP/2, whose idle connections exchange frames that begin no request.
    http2: AtomicBool,
    /// When the first byte of a head came that is not complete yet; 0 if there is none.
    head_since: AtomicU64,
    /// When the connection last had nothing to do.
    idle_since: AtomicU64,
    /// When a write could not go on; 0 if none waits.
    blocked_since: AtomicU64,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    Head,
    Idle,
    Write,
}

impl Watch {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicU32::new(0),
            http2: AtomicBool::new(false),
            head_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(now_ms()),
            blocked_since: AtomicU64::new(0),
        })
    }

    fn bytes_came(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0
            && self.head_since.load(Ordering::Relaxed) == 0
            && !self.http2.load(Ordering::Relaxed)
        {
            self.head_since.store(now_ms(), Ordering::Relaxed);
        }
    }

    /// A request's head is complete; the request is in flight until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>, version: http::Version) -> InFlight {
        if version == http::Version::HTTP_2 {
            self.http2.store(true, Ordering::Relaxed);
        }
        self.head_since.store(0, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    fn expired_at(&self, now: u64, config: &ListenerConfig) -> Option<Expired> {
        let past = |since: u64, limit: Duration| {
            since != 0 && u128::from(now.saturating_sub(since)) > limit.as_millis()
        };
        if past(
            self.blocked_since.load(Ordering::Relaxed),
            config.write_timeout,
        ) {
            return Some(Expired::Write);
        }
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return None;
        }
        if past(self.head_since.load(Ordering::Relaxed), config.head_timeout) {
            return Some(Expired::Head);
        }
        let idle = past(self.idle_since.load(Ordering::Relaxed), config.idle_timeout);
        (idle && self.head_since.load(Ordering::Relaxed) == 0).then_some(Expired::Idle)
    }

    /// Ends when the client has been too slow.
    pub(crate) async fn expired(&self, config: &ListenerConfig) -> Expired {
        let shortest = config
            .head_timeout
            .min(config.idle_timeout)
            .min(config.write_timeout);
        let period = (shortest / 4).clamp(PERIOD_MIN, PERIOD_MAX);
        loop {
            tokio::time::sleep(period).await;
            if let Some(expired) = self.expired_at(now_ms(), config) {
                return expired;
            }
        }
    }
}

const PERIOD_MIN: Duration = Duration::from_millis(20);
const PERIOD_MAX: Duration = Duration::from_secs(5);

/// One request in flight.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Watch>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.idle_since.store(now_ms(), Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A reply body that keeps its request in flight until it is sent or dropped.
#[derive(Debug)]
pub(crate) struct WatchedBody<B> {
    inner: B,
    _in_flight: InFlight,
}

impl<B> WatchedBody<B> {
    pub(crate) fn new(inner: B, in_flight: InFlight) -> Self {
        Self {
            inner,
            _in_flight: in_flight,
        }
    }
}

impl<B: Body + Unpin> Body for WatchedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A connection whose reads and writes are noted.
#[derive(Debug)]
pub(crate) struct WatchedIo<T> {
    inner: T,
    watch: Arc<Watch>,
}

impl<T> WatchedIo<T> {
    pub(crate) fn new(inner: T, watch: Arc<Watch>) -> Self {
        Self { inner, watch }
    }

    fn wrote<R>(&self, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        let blocked = &self.watch.blocked_since;
        if polled.is_ready() {
            if blocked.load(Ordering::Relaxed) != 0 {
                blocked.store(0, Ordering::Relaxed);
            }
        } else if blocked.load(Ordering::Relaxed) == 0 {
            blocked.store(now_ms(), Ordering::Relaxed);
        }
        polled
    }
}

impl<T: Read + Unpin> Read for WatchedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.watch.bytes_came();
        Poll::Ready(Ok(()))
    }
}

impl<T: Write + Unpin> Write for WatchedIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(polled)
    }
}

/// Runs `work` until it ends or the client was too slow.
pub(crate) async fn until_expired<F: Future>(
    work: F,
    watch: &Watch,
    config: &ListenerConfig,
) -> Result<F::Output, Expired> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        expired = watch.expired(config) => Err(expired),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(set: impl Fn(&Arc<Watch>), after_ms: u64, expected: Option<Expired>) {
        let config = ListenerConfig {
            head_timeout: Duration::from_millis(100),
            idle_timeout: Duration::from_millis(1000),
            write_timeout: Duration::from_millis(500),
            ..ListenerConfig::default()
        };
        let watch = Watch::new();
        set(&watch);
        let now = now_ms() + after_ms;
        assert_eq!(
            watch.expired_at(now, &config),
            expected,
            "after {after_ms} ms"
        );
    }

    #[test]
    fn a_connection_without_requests_expires_when_idle() {
        check(|_| (), 900, None);
        check(|_| (), 1200, Some(Expired::Idle));
    }

    #[test]
    fn a_head_that_never_ends_expires() {
        check(|w| w.bytes_came(), 50, None);
        check(|w| w.bytes_came(), 200, Some(Expired::Head));
    }

    #[test]
    fn a_request_in_flight_does_not_expire() {
        let busy = |w: &Arc<Watch>| std::mem::forget(w.begin(http::Version::HTTP_11));
        check(busy, 100_000, None);
    }

    #[test]
    fn frames_of_an_idle_http2_connection_begin_no_head() {
        let frames = |w: &Arc<Watch>| {
            drop(w.begin(http::Version::HTTP_2));
            w.bytes_came();
        };
        check(frames, 200, None);
        check(frames, 1200, Some(Expired::Idle));
    }

    #[test]
    fn a_reply_that_is_not_read_expires() {
        let blocked = |w: &Arc<Watch>| w.blocked_since.store(now_ms(), Ordering::Relaxed);
        check(blocked, 400, None);
        check(blocked, 600, Some(Expired::Write));
    }
}
