//! The calls of a connection: who is told what became of them.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use model::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use crate::body::{Body, Sender};
use crate::call::{Call, Command};
use crate::code::{Open, Reset};
use crate::error::{CallError, Close};
use crate::machine::{Action, End, Event};
use crate::server::{Handler, Incoming, Responder};

use super::{COMMANDS_MAX, Commands, Driver, Role};

/// What a dialler has besides.
pub(crate) struct Dialled {
    /// A permit for every call that may be under way.
    pub(crate) permits: Arc<Semaphore>,
}

/// What an acceptor has besides.
pub(crate) struct Serving {
    pub(crate) peer: NodeId,
    pub(crate) handler: Arc<dyn Handler>,
    /// For the replies of handlers.
    pub(crate) commands: Commands,
    pub(crate) send_buffer_bytes: usize,
}

/// A call that is not over.
pub(super) enum Entry {
    Asked {
        call: Arc<Call>,
        /// Held until the call is over.
        _permit: OwnedSemaphorePermit,
    },
    Handled {
        call: Arc<Call>,
        task: AbortHandle,
    },
}

impl Entry {
    pub(super) fn call(&self) -> &Arc<Call> {
        match self {
            Self::Asked { call, .. } | Self::Handled { call, .. } => call,
        }
    }

    /// Tells its owners that it is over; a handler that nobody waits for is stopped.
    fn over(self, end: Result<(), CallError>) {
        let cut = end.is_err();
        self.call().over(end);
        if let Self::Handled { task, .. } = self
            && cut
        {
            task.abort();
        }
    }
}

impl Driver {
    pub(super) fn take_commands(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        for count in 0..COMMANDS_MAX {
            match self.commands.poll_recv(cx) {
                Poll::Ready(Some(command)) => self.command(now, command),
                Poll::Ready(None) | Poll::Pending => return count > 0,
            }
        }
        true
    }

    /// Does what is asked, and sends as much as goes without a wait; gives it back if the
    /// connection's task must do it.
    pub(super) fn at_once(&mut self, command: Command) -> Option<Command> {
        // It has not begun, or has ended.
        let Some(waker) = self.waker.clone() else {
            return Some(command);
        };
        let mut cx = Context::from_waker(&waker);
        let now = Instant::now();
        self.take_commands(&mut cx, now);
        if !self.commands.is_empty() {
            return Some(command);
        }
        self.command(now, command);
        self.pass_time(&mut cx);
        // Whoever asks has something else to do than to send what others have to say.
        self.write(&mut cx, now, 1);
        if self.has_more || self.close.is_some() {
            waker.wake();
        }
        None
    }

    fn command(&mut self, now: Instant, command: Command) {
        let event = match command {
            Command::Open {
                call,
                open,
                body,
                end,
                reply_bytes,
                permit,
            } => {
                self.last += 1;
                let id = self.last;
                call.number(id);
                self.counts.calls.increment(1);
                let _permit = permit;
                self.calls.insert(id, Entry::Asked { call, _permit });
                let opened = Event::Open {
                    id,
                    open,
                    body,
                    end,
                };
                self.handle(now, opened);
                Event::Expected {
                    id,
                    bytes: reply_bytes,
                }
            }
            Command::Reply {
                call,
                status,
                body,
                end,
            } => Event::Reply {
                id: call.id(),
                status,
                body,
                end,
            },
            Command::Send { call, bytes, end } => Event::Send {
                id: call.id(),
                bytes,
                end,
            },
            Command::Consumed { call, bytes } => Event::Consumed {
                id: call.id(),
                bytes,
            },
            Command::Expect { call, bytes } => Event::Expected {
                id: call.id(),
                bytes,
            },
            Command::Cancel { call, reason } => Event::Cancel {
                id: call.id(),
                reason,
            },
            Command::Drain => Event::Drain,
        };
        self.handle(now, event);
    }

    /// Does what the machine says about a call.
    pub(super) fn act_on(&mut self, now: Instant, action: Action) {
        match action {
            Action::Opened {
                id,
                open,
                body,
                end,
            } => self.serve(now, id, &open, body, end),
            Action::Replied {
                id,
                status,
                body,
                end,
            } => {
                if let Some(entry) = self.calls.get(&id) {
                    entry.call().push(body, false);
                    if end {
                        entry.call().received(Ok(()));
                    }
                    entry.call().replied(status);
                }
            }
            Action::Data { id, bytes, end } => self.deliver(now, id, bytes, end),
            Action::LandedAll { id } => {
                if let Some(entry) = self.calls.get(&id) {
                    entry.call().received(Ok(()));
                }
            }
            Action::Sent { id, bytes } => {
                if let Some(entry) = self.calls.get(&id) {
                    entry.call().sent(bytes);
                }
            }
            Action::Over { id, end } => {
                if let Some(entry) = self.calls.remove(&id) {
                    if end != End::Done {
                        self.counts.calls_cut.increment(1);
                    }
                    entry.over(outcome(end));
                }
            }
            Action::Draining => {
                if let Role::Dialler(dialled) = &self.role {
                    dialled.permits.close();
                }
            }
            Action::Closed(_) => {}
        }
    }

    fn deliver(&mut self, now: Instant, id: u64, bytes: Bytes, end: bool) {
        let Some(entry) = self.calls.get(&id) else {
            return;
        };
        let taken = entry.call().push(bytes, true);
        if end {
            entry.call().received(Ok(()));
        } else if taken > 0 {
            let bytes = taken;
            self.machine.handle(now, Event::Consumed { id, bytes });
        }
    }

    /// Gives a call to the handler, in a task of its own.
    fn serve(&mut self, now: Instant, id: u64, open: &Open, body: Bytes, end: bool) {
        let Role::Acceptor(serving) = &self.role else {
            return;
        };
        self.counts.calls.increment(1);
        let call = Call::new(id, serving.send_buffer_bytes);
        call.push(body, false);
        if end {
            call.received(Ok(()));
        }
        let timeout = std::time::Duration::from_micros(open.timeout_us);
        let incoming = Incoming {
            peer: serving.peer.clone(),
            method: open.method,
            priority: open.priority,
            deadline: match open.timeout_us {
                0 => None,
                _ => now.checked_add(timeout),
            },
            body: Body::new(Arc::clone(&call), serving.commands.clone(), false),
            responder: Responder(Sender::new(
                Arc::clone(&call),
                serving.commands.clone(),
                Reset::Failed,
            )),
        };
        let handler = Arc::clone(&serving.handler);
        let task = tokio::spawn(async move { handler.handle(incoming).await }).abort_handle();
        self.calls.insert(id, Entry::Handled { call, task });
    }

    /// Nothing is left waiting when the connection is gone.
    pub(super) fn end_all(&mut self, close: &Arc<Close>) {
        self.waker = None;
        if let Role::Dialler(dialled) = &self.role {
            dialled.permits.close();
        }
        self.commands.close();
        // What was asked meanwhile never left.
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Open { call, .. } = command {
                call.over(Err(CallError::Draining));
            }
        }
        self.counts.calls_cut.increment(self.calls.len() as u64);
        for (_, entry) in self.calls.drain() {
            entry.over(Err(CallError::Lost(Arc::clone(close))));
        }
    }
}

impl Drop for Driver {
    /// The task may be stopped from outside, with its runtime or by a server that does not wait.
    fn drop(&mut self) {
        if self.closed.borrow().is_none() {
            let close = Arc::new(Close::Stopped);
            self.end_all(&close);
            self.closed.send_replace(Some(close));
        }
    }
}

fn outcome(end: End) -> Result<(), CallError> {
    Err(match end {
        End::Done => return Ok(()),
        End::Dropped => CallError::Over,
        End::Deadline | End::Cut(Reset::Deadline) => CallError::Deadline,
        End::NotBegun => CallError::Draining,
        End::Cut(Reset::Cancelled) => CallError::Cancelled,
        End::Cut(Reset::Refused) => CallError::Refused,
        End::Cut(Reset::Failed) => CallError::Failed,
        // A reason of a later version: all that is known is that there is no reply.
        End::Cut(Reset::Other(_)) => CallError::Failed,
    })
}
