//! The reply of an http guest, on its way from the guest to the caller.
//!
//! ```text
//!   guest ── head ──▶ Reply ── send ──▶ caller's response
//!   guest ── body ──▶ frames waiting ──▶ ReplyBody (polled by the caller)
//! ```
//!
//! A guest that ends before it is suspended has its whole body waiting here when the head is sent:
//! its length is known then, and nothing has to be streamed. Otherwise the caller's polls reach
//! through to the guest's own channel, which holds the guest back while the caller is slow.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use sandbox::{Body, BodyError};
use wasmtime_wasi_http::WasiBody;

/// Why a reply's body is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cut {
    /// It passed its limit.
    #[error("the reply passed its limit")]
    OverLimit,
    /// The guest said so, or sent another length than it had promised.
    #[error("the function broke off its reply")]
    ByGuest,
    /// The guest was stopped.
    #[error("the function failed before its reply was complete")]
    Failed,
}

/// What the guest gave for a response: a message if it gave an error.
pub(super) type Head = Result<http::Response<WasiBody>, String>;

/// One reply, shared by the guest's call and the caller's body.
pub(super) struct Reply {
    /// Bytes of the request's body that the guest was sent.
    pub(super) input_bytes: AtomicU64,
    bytes_max: u64,
    state: Mutex<State>,
    /// Wakes the guest's call when the reply is over.
    over: AtomicWaker,
}

#[derive(Default)]
struct State {
    head: Option<Head>,
    source: Option<WasiBody>,
    waiting: VecDeque<Frame<Bytes>>,
    bytes: u64,
    end: Option<Result<(), Cut>>,
    reader: Option<Waker>,
}

impl Reply {
    pub(super) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            input_bytes: AtomicU64::new(0),
            bytes_max,
            state: Mutex::default(),
            over: AtomicWaker::new(),
        })
    }

    /// Takes what the guest set; a second head is ignored.
    pub(super) fn set(&self, head: Head) {
        self.state.lock().head.get_or_insert(head);
    }

    /// The head that was set and is not yet taken. Its body holds all that is there already.
    pub(super) fn take(self: &Arc<Self>) -> Option<Result<http::Response<Body>, String>> {
        let mut state = self.state.lock();
        let (parts, body) = match state.head.take()? {
            Ok(response) => response.into_parts(),
            Err(message) => return Some(Err(message)),
        };
        state.source = Some(body);
        state.pull_all(self.bytes_max);
        drop(state);
        let body = ReplyBody(self.clone()).boxed_unsync();
        Some(Ok(http::Response::from_parts(parts, body)))
    }

    /// Pulls in what is left of the body, now that the guest writes no more, and ends it as
    /// `otherwise` says if the guest has not ended it itself.
    pub(super) fn finish(&self, otherwise: Result<(), Cut>) {
        let mut state = self.state.lock();
        state.pull_all(self.bytes_max);
        state.source = None;
        state.end.get_or_insert(otherwise);
        state.wake_reader();
    }

    /// How the body ended, if it did.
    pub(super) fn end(&self) -> Option<Result<(), Cut>> {
        self.state.lock().end
    }

    /// As [`Reply::end`], and wakes the task once it has.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        self.over.register(cx.waker());
        self.end().map_or(Poll::Pending, Poll::Ready)
    }

    /// Bytes of the body that the guest has sent.
    pub(super) fn output_bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// Counts bytes that the guest was sent.
    pub(super) fn count_input(&self, bytes: usize) {
        self.input_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl State {
    /// One frame from the guest, counted against the limit.
    fn pull(&mut self, cx: &mut Context<'_>, bytes_max: u64) -> Poll<Option<Frame<Bytes>>> {
        let Some(source) = &mut self.source else {
            return Poll::Ready(None);
        };
        let frame = std::task::ready!(Pin::new(source).poll_frame(cx));
        let end = match frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.bytes += bytes;
                if self.bytes <= bytes_max {
                    return Poll::Ready(Some(frame));
                }
                Err(Cut::OverLimit)
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "a guest's reply broke off");
                Err(Cut::ByGuest)
            }
            None => Ok(()),
        };
        self.source = None;
        self.end = Some(end);
        Poll::Ready(None)
    }

    /// Every frame that is there now; the guest's channels bound how many that can be.
    fn pull_all(&mut self, bytes_max: u64) {
        let cx = &mut Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(frame)) = self.pull(cx, bytes_max) {
            self.waiting.push_back(frame);
        }
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The caller's side of a [`Reply`].
struct ReplyBody(Arc<Reply>);

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.0.state.lock();
        if let Some(frame) = state.waiting.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if state.end.is_none() {
            match state.pull(cx, self.0.bytes_max) {
                Poll::Ready(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Poll::Ready(None) => self.0.over.wake(),
                Poll::Pending => {
                    // Whoever pulls next takes the source's waker: this one is woken by hand.
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(match state.end {
            Some(Err(cut)) => Some(Err(cut.into())),
            _ => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.state.lock();
        state.waiting.is_empty() && state.end == Some(Ok(()))
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.0.state.lock();
        let waiting = state.waiting.iter().filter_map(Frame::data_ref);
        let bytes = waiting.map(|data| data.len() as u64).sum();
        if state.end == Some(Ok(())) {
            return SizeHint::with_exact(bytes);
        }
        let mut hint = SizeHint::new();
        hint.set_lower(bytes);
        hint
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        // The guest sees its stream closed; what it has sent is all there is.
        state.source = None;
        state.waiting.clear();
        state.end.get_or_insert(Ok(()));
        drop(state);
        self.0.over.wake();
    }
}

/// A request's body as the guest is given it: counted, and with the errors that WASI knows.
pub(super) struct RequestBody {
    pub(super) inner: Body,
    pub(super) reply: Arc<Reply>,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => {
                self.reply
                    .count_input(frame.data_ref().map_or(0, Bytes::len));
                Ok(frame)
            }
            Err(error) => {
                tracing::debug!(%error, "a request's body broke off");
                Err(wasmtime_wasi_http::Error::ConnectionTerminated)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
