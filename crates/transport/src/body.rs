//! The two ends of a stream of bytes: `Body` reads one, `Sender` writes one.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};

use crate::call::{Call, Command, Landing, Read, Target};
use crate::code::{Reset, Status};
use crate::driver::Commands;
use crate::error::CallError;

/// Bytes that a reader takes before the connection's task hears of it.
const TOLD_BYTES: usize = 32 << 10;

/// A body that is received.
///
/// At the dialler dropping it before its end cancels the call.
pub struct Body {
    call: Arc<Call>,
    commands: Commands,
    /// Bytes that were read and not yet told.
    untold: usize,
    /// Whether the call is of no use without its reader.
    cancels: bool,
}

impl Body {
    pub(crate) fn new(call: Arc<Call>, commands: Commands, cancels: bool) -> Self {
        Self {
            call,
            commands,
            untold: 0,
            cancels,
        }
    }

    pub(crate) fn call(&self) -> &Arc<Call> {
        &self.call
    }

    /// The next bytes, as they came; none at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, CallError> {
        poll_fn(|cx| {
            if let Poll::Ready(read) = self.call.poll_read(cx) {
                return Poll::Ready(self.took(read));
            }
            // Who waits for more has taken all there was.
            self.tell(1);
            let read = ready!(self.call.poll_read(cx));
            Poll::Ready(self.took(read))
        })
        .await
    }

    /// All of the body, in one piece of at most `bytes_max`.
    pub async fn collect(mut self, bytes_max: usize) -> Result<Bytes, CallError> {
        let Some(first) = self.chunk().await? else {
            return Ok(Bytes::new());
        };
        let check = |bytes: usize| match bytes > bytes_max {
            true => Err(CallError::TooLarge { max: bytes_max }),
            false => Ok(()),
        };
        check(first.len())?;
        let Some(second) = self.chunk().await? else {
            return Ok(first);
        };
        check(first.len() + second.len())?;
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(bytes) = self.chunk().await? {
            check(all.len() + bytes.len())?;
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// Fills all of `buffer` with the next bytes, those that are still to come without a copy of
    /// their own: they are decrypted on their way into it.
    pub async fn fill<L: Landing>(&mut self, buffer: L) -> Result<L, CallError> {
        let (taken, full) = self.call.aim(Target::new(Box::new(buffer)));
        self.untold += taken;
        self.tell(1);
        let target = match full {
            Some(target) => target,
            None => {
                let aimed = Aimed(&self.call);
                self.expect(self.call.missing());
                let target = poll_fn(|cx| self.call.poll_filled(cx)).await?;
                drop(aimed);
                target
            }
        };
        Ok(own(target))
    }

    /// The buffer that was given to [`crate::Connection::ask_into`] once it is full, or all of the
    /// body is in it, and how much of it is filled. What it had no room for is read after it.
    pub async fn landed<L: Landing>(&mut self) -> Result<(L, usize), CallError> {
        let target = poll_fn(|cx| self.call.poll_landed(cx)).await?;
        let filled = target.filled_bytes();
        Ok((own(target), filled))
    }

    /// Lets the peer send what there is room for.
    fn expect(&self, bytes: usize) {
        let call = Arc::clone(&self.call);
        // The same as of what was read.
        let _ = self.commands.send(Command::Expect { call, bytes });
    }

    fn took(&mut self, read: Result<Read, CallError>) -> Result<Option<Bytes>, CallError> {
        match read? {
            Read::End => Ok(None),
            Read::Bytes { bytes, on_credit } => {
                self.untold += if on_credit { bytes.len() } else { 0 };
                self.tell(TOLD_BYTES);
                Ok(Some(bytes))
            }
        }
    }

    /// Tells the connection's task what was read, if it is at least `bytes_min` and of use.
    fn tell(&mut self, bytes_min: usize) {
        if self.untold < bytes_min || self.call.is_received() {
            return;
        }
        let bytes = std::mem::take(&mut self.untold);
        let call = Arc::clone(&self.call);
        // A connection that is gone has ended the call, which the next read says.
        let _ = self.commands.send(Command::Consumed { call, bytes });
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.call.unread();
        if self.cancels && !self.call.is_over() {
            let call = Arc::clone(&self.call);
            let reason = Reset::Cancelled;
            let _ = self.commands.send(Command::Cancel { call, reason });
        }
    }
}

fn own<L: Landing>(target: Target) -> L {
    match target.into_buffer().into_any().downcast::<L>() {
        Ok(buffer) => *buffer,
        Err(_) => unreachable!("the buffer that was given is the one that comes back"),
    }
}

/// Takes the buffer back when its reader no longer waits.
struct Aimed<'a>(&'a Call);

impl Drop for Aimed<'_> {
    fn drop(&mut self) {
        self.0.unaim();
    }
}

/// A body that is sent.
///
/// Dropping it without `finish` cuts the call: half a body must not pass for a whole one.
pub struct Sender {
    call: Arc<Call>,
    commands: Commands,
    /// What the peer is told if this is dropped before its end.
    reason: Reset,
    finished: bool,
}

impl Sender {
    pub(crate) fn new(call: Arc<Call>, commands: Commands, reason: Reset) -> Self {
        Self {
            call,
            commands,
            reason,
            finished: false,
        }
    }

    /// Hands over more bytes, after waiting for room in the send buffer.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), CallError> {
        poll_fn(|cx| self.call.poll_room(cx, bytes.len())).await?;
        self.command(bytes, false)
    }

    /// Says that this was all.
    pub fn finish(mut self) -> Result<(), CallError> {
        self.finished = true;
        self.command(Bytes::new(), true)
    }

    fn command(&self, bytes: Bytes, end: bool) -> Result<(), CallError> {
        let call = Arc::clone(&self.call);
        let sent = self.commands.send(Command::Send { call, bytes, end });
        sent.map_err(|_| CallError::Over)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.finished && !self.call.is_over() {
            let call = Arc::clone(&self.call);
            let reason = self.reason;
            let _ = self.commands.send(Command::Cancel { call, reason });
        }
    }
}

/// A reply on its way to the connection's socket.
pub struct Leaving(Arc<Call>);

impl Leaving {
    /// Waits until the socket has all of it, or never will.
    pub async fn gone(self) {
        poll_fn(|cx| self.0.poll_over(cx)).await;
    }
}

impl Sender {
    pub(crate) fn leaving(&self) -> Leaving {
        Leaving(Arc::clone(&self.call))
    }

    /// Begins the reply; what remains of it, if anything, is sent by what is returned.
    pub(crate) fn reply(
        mut self,
        status: Status,
        body: Bytes,
        end: bool,
    ) -> Result<Self, CallError> {
        let call = Arc::clone(&self.call);
        let command = Command::Reply {
            call,
            status,
            body,
            end,
        };
        self.finished = end;
        let sent = self.commands.send(command);
        sent.map_err(|_| CallError::Over)?;
        Ok(self)
    }
}
