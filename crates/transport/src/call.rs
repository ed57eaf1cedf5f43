//! What a call's two owners share: the task of its connection, and who reads and writes its bodies.
//!
//! The lock is held for moves and copies only, and for one read from a socket that has bytes, when
//! these go straight to where their reader wants them.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use crate::code::{Open, Reset, Status};
use crate::error::CallError;

/// A buffer that bytes are read into: a part of a guest's memory, or a plain vector.
pub trait Landing: Send + 'static {
    /// Bytes of the buffer, always as many.
    fn bytes(&mut self) -> usize;
    /// What comes after its first `filled` bytes, or the beginning of that in one piece; nothing
    /// only if it is full.
    fn room(&mut self, filled: usize) -> &mut [u8];
    /// The buffer as what it is.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl<T: AsMut<[u8]> + Send + 'static> Landing for T {
    fn bytes(&mut self) -> usize {
        self.as_mut().len()
    }

    fn room(&mut self, filled: usize) -> &mut [u8] {
        &mut self.as_mut()[filled..]
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// What is asked of a connection's task. There are as many at a time as calls may be under way,
/// and for each of these as many as its credit and its send buffer allow.
pub(crate) enum Command {
    Open {
        call: Arc<Call>,
        open: Open,
        body: Bytes,
        end: bool,
        /// Bytes of the reply that may come at once.
        reply_bytes: usize,
        permit: OwnedSemaphorePermit,
    },
    Reply {
        call: Arc<Call>,
        status: Status,
        body: Bytes,
        end: bool,
    },
    Send {
        call: Arc<Call>,
        bytes: Bytes,
        end: bool,
    },
    Consumed {
        call: Arc<Call>,
        bytes: usize,
    },
    Expect {
        call: Arc<Call>,
        bytes: usize,
    },
    Cancel {
        call: Arc<Call>,
        reason: Reset,
    },
    Drain,
}

/// A part of a body that was received.
struct Piece {
    bytes: Bytes,
    /// Whether it used up credit, which is given again when it is read.
    on_credit: bool,
}

/// A buffer and how much of it is filled.
pub(crate) struct Target {
    buffer: Box<dyn Landing>,
    filled: usize,
}

impl Target {
    pub(crate) fn new(buffer: Box<dyn Landing>) -> Self {
        Self { buffer, filled: 0 }
    }

    pub(crate) fn missing(&mut self) -> usize {
        self.buffer.bytes() - self.filled
    }

    /// Copies as much as there is room for; how much that was.
    fn copy(&mut self, bytes: &[u8]) -> usize {
        let mut copied = 0;
        while copied < bytes.len() {
            let room = self.buffer.room(self.filled);
            let count = room.len().min(bytes.len() - copied);
            if count == 0 {
                break;
            }
            room[..count].copy_from_slice(&bytes[copied..copied + count]);
            self.filled += count;
            copied += count;
        }
        copied
    }

    pub(crate) fn filled_bytes(&self) -> usize {
        self.filled
    }

    pub(crate) fn into_buffer(self) -> Box<dyn Landing> {
        self.buffer
    }

    fn filled(&mut self) -> Vec<u8> {
        let mut filled = Vec::with_capacity(self.filled);
        while filled.len() < self.filled {
            let (left, part) = (self.filled - filled.len(), self.buffer.room(filled.len()));
            filled.extend_from_slice(&part[..part.len().min(left)]);
        }
        filled
    }
}

#[derive(Default)]
struct State {
    status: Option<Status>,
    pieces: VecDeque<Piece>,
    target: Option<Target>,
    /// How the received body ended.
    received: Option<Result<(), CallError>>,
    /// Why nothing more can be sent.
    closed: Option<CallError>,
    /// Room in the send buffer; below zero by less than one piece.
    room: i64,
    /// Whether nobody will read any more.
    unread: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl State {
    /// Wakes the reader, unless it waits for a buffer to be filled: that it is, or that no more
    /// comes, is soon enough.
    fn wake_reader(&mut self) {
        if self
            .target
            .as_mut()
            .is_none_or(|target| target.missing() == 0)
        {
            wake(&mut self.reader);
        }
    }
}

/// The shared part of a call.
pub(crate) struct Call {
    /// Its number on the connection, which the connection's task gives.
    id: AtomicU64,
    state: Mutex<State>,
}

/// What a reader gets.
pub(crate) enum Read {
    Bytes { bytes: Bytes, on_credit: bool },
    End,
}

impl Call {
    pub(crate) fn new(id: u64, send_buffer_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            id: AtomicU64::new(id),
            state: Mutex::new(State {
                room: i64::try_from(send_buffer_bytes).unwrap_or(i64::MAX),
                ..State::default()
            }),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    pub(crate) fn number(&self, id: u64) {
        self.id.store(id, Ordering::Relaxed);
    }

    // What the connection's task does.

    /// The reply began.
    pub(crate) fn replied(&self, status: Status) {
        let mut state = self.state.lock();
        state.status = Some(status);
        state.wake_reader();
    }

    /// Bytes came; how many of them, sent on credit, are already where their reader wants them.
    pub(crate) fn push(&self, mut bytes: Bytes, on_credit: bool) -> usize {
        let mut state = self.state.lock();
        if state.unread {
            return 0;
        }
        let mut taken = 0;
        if let Some(target) = &mut state.target {
            taken = target.copy(&bytes);
            bytes = bytes.split_off(taken);
        }
        if !bytes.is_empty() {
            state.pieces.push_back(Piece { bytes, on_credit });
        }
        state.wake_reader();
        if on_credit { taken } else { 0 }
    }

    /// Lets `read` write to the reader's buffer, if there is one with room, at most `bytes_max`;
    /// `read` says how many bytes it wrote.
    pub(crate) fn land<E>(
        &self,
        bytes_max: usize,
        read: impl FnOnce(&mut [u8]) -> Poll<Result<usize, E>>,
    ) -> Option<Poll<Result<usize, E>>> {
        let mut state = self.state.lock();
        let target = state.target.as_mut()?;
        let filled = target.filled;
        let room = target.buffer.room(filled);
        if room.is_empty() {
            return None;
        }
        let room_bytes = room.len().min(bytes_max);
        let outcome = read(&mut room[..room_bytes]);
        if let Poll::Ready(Ok(bytes)) = &outcome {
            target.filled += bytes;
            state.wake_reader();
        }
        Some(outcome)
    }

    /// The received body is over.
    pub(crate) fn received(&self, end: Result<(), CallError>) {
        let mut state = self.state.lock();
        if state.received.is_none() {
            state.received = Some(end);
        }
        wake(&mut state.reader);
    }

    /// The call is over: with its reply, or before it for a reason.
    pub(crate) fn over(&self, end: Result<(), CallError>) {
        let mut state = self.state.lock();
        let closed = match &end {
            Ok(()) => CallError::Over,
            Err(error) => error.clone(),
        };
        // A body that was still coming is not whole, even if the call went well without it.
        if state.received.is_none() {
            state.received = Some(Err(closed.clone()));
        }
        state.closed = Some(closed);
        wake(&mut state.reader);
        wake(&mut state.writer);
    }

    /// Queued bytes have gone.
    pub(crate) fn sent(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.room += bytes as i64;
        if state.room > 0 {
            wake(&mut state.writer);
        }
    }

    // What readers and writers do.

    pub(crate) fn is_over(&self) -> bool {
        self.state.lock().closed.is_some()
    }

    /// Bytes that the reader's buffer has room for.
    pub(crate) fn missing(&self) -> usize {
        self.state.lock().target.as_mut().map_or(0, Target::missing)
    }

    /// Whether all of the body is there, or will not come.
    pub(crate) fn is_received(&self) -> bool {
        self.state.lock().received.is_some()
    }

    pub(crate) fn poll_status(&self, cx: &mut Context<'_>) -> Poll<Result<Status, CallError>> {
        let mut state = self.state.lock();
        if let Some(status) = state.status {
            return Poll::Ready(Ok(status));
        }
        if let Some(closed) = &state.closed {
            return Poll::Ready(Err(closed.clone()));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<Result<Read, CallError>> {
        let mut state = self.state.lock();
        if let Some(Piece { bytes, on_credit }) = state.pieces.pop_front() {
            return Poll::Ready(Ok(Read::Bytes { bytes, on_credit }));
        }
        match &state.received {
            Some(Ok(())) => Poll::Ready(Ok(Read::End)),
            Some(Err(error)) => Poll::Ready(Err(error.clone())),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Fills `target` with what there is, and leaves it for the rest unless it is full; how many
    /// bytes that gave credit back for.
    pub(crate) fn aim(&self, mut target: Target) -> (usize, Option<Target>) {
        let mut state = self.state.lock();
        let mut taken = 0;
        while target.missing() > 0 {
            let Some(Piece { bytes, on_credit }) = state.pieces.front_mut() else {
                break;
            };
            let copied = target.copy(bytes);
            taken += if *on_credit { copied } else { 0 };
            if copied < bytes.len() {
                *bytes = bytes.slice(copied..);
            } else {
                state.pieces.pop_front();
            }
        }
        if target.missing() == 0 {
            return (taken, Some(target));
        }
        state.target = Some(target);
        (taken, None)
    }

    /// The target, once it is full.
    pub(crate) fn poll_filled(&self, cx: &mut Context<'_>) -> Poll<Result<Target, CallError>> {
        let mut state = self.state.lock();
        let missing = state.target.as_mut().map_or(0, Target::missing);
        if missing > 0 && state.received.is_none() {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let target = state.target.take();
        if missing > 0
            && let Some(Err(error)) = &state.received
        {
            return Poll::Ready(Err(error.clone()));
        }
        match target {
            Some(target) if missing == 0 => Poll::Ready(Ok(target)),
            _ => Poll::Ready(Err(CallError::Short { missing })),
        }
    }

    /// The target, once it is full or the body is over.
    pub(crate) fn poll_landed(&self, cx: &mut Context<'_>) -> Poll<Result<Target, CallError>> {
        let mut state = self.state.lock();
        let missing = state.target.as_mut().map_or(0, Target::missing);
        match &state.received {
            None if missing > 0 => {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Some(Err(error)) if missing > 0 => return Poll::Ready(Err(error.clone())),
            _ => {}
        }
        let target = state.target.take();
        Poll::Ready(target.ok_or(CallError::Over))
    }

    /// Takes the target away; what it holds is then read as any other bytes.
    pub(crate) fn unaim(&self) {
        let mut state = self.state.lock();
        let Some(mut target) = state.target.take() else {
            return;
        };
        let bytes = Bytes::from(target.filled());
        if !bytes.is_empty() {
            let on_credit = false;
            state.pieces.push_front(Piece { bytes, on_credit });
        }
    }

    /// Nobody will read: what came, and what comes, is dropped.
    pub(crate) fn unread(&self) {
        let mut state = self.state.lock();
        state.unread = true;
        state.target = None;
        state.pieces.clear();
    }

    /// Waits until nothing more is sent or received.
    pub(crate) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits for room in the send buffer and takes `bytes` of it.
    pub(crate) fn poll_room(
        &self,
        cx: &mut Context<'_>,
        bytes: usize,
    ) -> Poll<Result<(), CallError>> {
        let mut state = self.state.lock();
        if let Some(closed) = &state.closed {
            return Poll::Ready(Err(closed.clone()));
        }
        if state.room <= 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.room -= bytes as i64;
        Poll::Ready(Ok(()))
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A call with a buffer of four bytes whose reader waits for its status, and its wake-ups.
    fn waits() -> (Arc<Call>, Arc<Wakes>) {
        let call = Call::new(1, 1);
        call.aim(Target::new(Box::new(vec![0; 4])));
        let wakes = Arc::<Wakes>::default();
        let waker = Waker::from(Arc::clone(&wakes));
        assert!(
            call.poll_status(&mut Context::from_waker(&waker))
                .is_pending()
        );
        (call, wakes)
    }

    #[test]
    fn a_reader_that_has_a_buffer_is_woken_when_it_is_full() {
        let (call, wakes) = waits();
        call.replied(Status::OK);
        call.push(Bytes::from_static(b"ab"), true);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        let landed = call.land(9, |room| {
            room.copy_from_slice(b"cd");
            Poll::Ready(Ok::<_, ()>(2))
        });
        assert_eq!(landed, Some(Poll::Ready(Ok(2))));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn it_is_woken_before_if_no_more_comes() {
        let (call, wakes) = waits();
        call.replied(Status(7));
        call.received(Ok(()));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        let (call, wakes) = waits();
        call.over(Err(CallError::Deadline));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    }
}
