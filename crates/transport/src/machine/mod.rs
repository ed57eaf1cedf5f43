//! A connection without its socket: calls, credit, turns, signs of life and the end.
//!
//! ```text
//!              Drain, GOAWAY, idle            calls all over
//!   open ────────────────────────▶ draining ─────────────────▶ closed
//!     └──────── dead, breach, EOF, reason of the peer ───────────▲
//!
//!   a call, at the dialler:  queued ─OPEN─▶ sent ─REPLY─▶ replied ─END─▶ over
//!   a call, at the acceptor: OPEN ─▶ asked ─reply─▶ replied ─END─▶ over
//!   and from each of these to over by RESET, by either side's deadline, or with the connection
//! ```
//!
//! A call is over when its reply is, whatever of the request was still to be sent. Frames of calls
//! that are over may be under way and mean nothing.
//!
//! `handle` takes what happened, `next_action` says what the driver is to do about it, and
//! `transmit` gives the next frame when the socket can take one: so nothing is queued for a socket
//! that is full but what callers have handed over, and turns are decided as late as possible.

mod call;
mod end;
mod receive;
mod send;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::code::{GoAway, Open, Reset, Status};
use crate::config::Config;
use crate::error::Close;
use crate::frame::Frame;
use crate::hello::Agreed;

use call::Call;

/// Which end of the connection this is: calls go one way, from the dialler to the acceptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Dialler,
    Acceptor,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A call begins here; ids grow.
    Open {
        id: u64,
        open: Open,
        body: Bytes,
        end: bool,
    },
    /// The handler replies.
    Reply {
        id: u64,
        status: Status,
        body: Bytes,
        end: bool,
    },
    /// More of a body.
    Send { id: u64, bytes: Bytes, end: bool },
    /// The reader has taken bytes that were sent on credit.
    Consumed { id: u64, bytes: usize },
    /// The reader has room for so many bytes that are still to come.
    Expected { id: u64, bytes: usize },
    /// Nobody here needs the call any more.
    Cancel { id: u64, reason: Reset },
    /// Finish what is there and take no more.
    Drain,
    /// A frame came.
    Received(Frame),
    /// Bytes of a body came, and lie where their reader wants them.
    Landed { id: u64, bytes: usize, end: bool },
    /// The peer sends no more.
    Eof,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Action {
    /// A peer calls.
    Opened {
        id: u64,
        open: Open,
        body: Bytes,
        end: bool,
    },
    /// The reply to a call begins.
    Replied {
        id: u64,
        status: Status,
        body: Bytes,
        end: bool,
    },
    /// More of a body, on credit.
    Data { id: u64, bytes: Bytes, end: bool },
    /// The body that landed is complete.
    LandedAll { id: u64 },
    /// Queued bytes have gone, so there is room for more.
    Sent { id: u64, bytes: usize },
    /// The call is over; nothing is heard of it again.
    Over { id: u64, end: End },
    /// No call may be opened any more.
    Draining,
    /// The connection is to be closed, after what `transmit` still gives.
    Closed(Close),
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With its whole reply.
    Done,
    /// By the peer.
    Cut(Reset),
    /// By this side.
    Dropped,
    /// Its deadline passed.
    Deadline,
    /// It was not begun, since the connection takes no more.
    NotBegun,
}

/// What a peer may not do.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Breach {
    /// A second greeting.
    #[error("a second greeting")]
    Hello,
    /// A frame that only the other side sends.
    #[error("a frame of the wrong side")]
    Side,
    /// A call that does not come after the last.
    #[error("call {0} does not come after the last")]
    Order(u64),
    /// A frame of a call that never was.
    #[error("a frame of call {0}, which never was")]
    Unknown(u64),
    /// More bytes than there was credit for.
    #[error("call {0} sent more than its credit")]
    Credit(u64),
    /// Credit beyond what can be counted.
    #[error("call {0} was given too much credit")]
    CreditRange(u64),
    /// Bytes of a reply before it, or a second reply, or bytes after the end.
    #[error("call {0} sent a frame out of turn")]
    Turn(u64),
    /// Frames that are answered, faster than it takes the answers.
    #[error("answers to the peer pile up")]
    Flood,
}

/// How far the connection is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Since a drain began: when what is left is cut.
    Draining {
        until: Instant,
    },
    Closed,
}

/// The connection's state. See the module's text.
pub(crate) struct Machine {
    side: Side,
    limits: Limits,
    agreed: Agreed,
    calls: HashMap<u64, Call>,
    /// The last call that was opened, by either side.
    last: u64,
    deadlines: BTreeSet<(Instant, u64)>,
    phase: Phase,
    heard: Instant,
    pinged: bool,
    pings: u64,
    /// When the last call was over, or the connection began.
    idle_since: Instant,
    growth_left: u64,
    out: send::Out,
    actions: VecDeque<Action>,
}

/// The parts of the configuration that decide.
struct Limits {
    requests_max: usize,
    chunk_bytes: usize,
    window_bytes: u64,
    window_bytes_max: u64,
    ping_after: Duration,
    dead_after: Duration,
    idle_after: Duration,
    drain_max: Duration,
    answers_max: usize,
}

impl Machine {
    pub(crate) fn new(now: Instant, side: Side, config: &Config, agreed: Agreed) -> Self {
        let requests_max = config.requests_max as usize;
        let body_bytes_max = agreed.body_bytes_max as usize;
        Self {
            side,
            limits: Limits {
                requests_max,
                chunk_bytes: body_bytes_max.min(config.chunk_bytes.max(1) as usize),
                window_bytes: u64::from(config.window_bytes),
                window_bytes_max: u64::from(config.window_bytes_max),
                ping_after: config.ping_after,
                dead_after: config.dead_after,
                idle_after: config.idle_after,
                drain_max: config.drain_max,
                answers_max: 4 * requests_max + 64,
            },
            agreed,
            calls: HashMap::new(),
            last: 0,
            deadlines: BTreeSet::new(),
            phase: Phase::Open,
            heard: now,
            pinged: false,
            pings: 0,
            idle_since: now,
            growth_left: config.window_growth_bytes_max,
            out: send::Out::default(),
            actions: VecDeque::new(),
        }
    }

    /// Takes what happened; what is to be done is then given by `next_action`.
    pub(crate) fn handle(&mut self, now: Instant, event: Event) {
        if self.phase == Phase::Closed {
            return;
        }
        let outcome = match event {
            Event::Open {
                id,
                open,
                body,
                end,
            } => {
                self.open(now, id, &open, body, end);
                Ok(())
            }
            Event::Reply {
                id,
                status,
                body,
                end,
            } => {
                self.reply(id, status, body, end);
                Ok(())
            }
            Event::Send { id, bytes, end } => {
                self.queue(id, bytes, end);
                Ok(())
            }
            Event::Consumed { id, bytes } => {
                self.consumed(id, bytes as u64);
                Ok(())
            }
            Event::Expected { id, bytes } => {
                self.expected(id, bytes as u64);
                Ok(())
            }
            Event::Cancel { id, reason } => {
                self.cancel(now, id, reason, End::Dropped);
                Ok(())
            }
            Event::Drain => {
                self.drain(now);
                Ok(())
            }
            Event::Received(frame) => self.receive(now, frame),
            Event::Landed { id, bytes, end } => self.landed(now, id, bytes, end),
            Event::Eof => {
                self.eof();
                Ok(())
            }
            Event::Tick => {
                self.tick(now);
                Ok(())
            }
        };
        if let Err(breach) = outcome {
            self.close(Some(GoAway::Protocol), Close::Protocol(breach));
        }
        self.settle();
    }

    /// What is to be done next.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When `Tick` is due, unless something happens first.
    pub(crate) fn wake_at(&self) -> Instant {
        let life = match self.pinged {
            true => self.heard + self.limits.dead_after,
            false => self.heard + self.limits.ping_after,
        };
        let mut due = life;
        if let Some((deadline, _)) = self.deadlines.first() {
            due = due.min(*deadline);
        }
        match self.phase {
            Phase::Draining { until } => due = due.min(until),
            Phase::Open if self.may_idle() => {
                due = due.min(self.idle_since + self.limits.idle_after)
            }
            Phase::Open | Phase::Closed => {}
        }
        due
    }

    /// Calls that are not over.
    #[cfg(test)]
    pub(crate) fn calls(&self) -> usize {
        self.calls.len()
    }

    fn may_idle(&self) -> bool {
        self.side == Side::Dialler && self.calls.is_empty()
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// Forgets a call and says how it ended.
    fn over(&mut self, now: Instant, id: u64, end: End) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        if let Some(deadline) = call.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.out.forget(id, &call);
        self.growth_left += call.inward.growth(self.limits.window_bytes);
        self.idle_since = now;
        self.act(Action::Over { id, end });
    }
}
