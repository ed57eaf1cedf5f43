//! Signs of life, deadlines, and how a connection ends.

use std::time::Instant;

use crate::code::{GoAway, Reset};
use crate::error::Close;
use crate::frame::Frame;

use super::{Action, End, Machine, Phase, Side};

impl Machine {
    /// Does what is due by now.
    pub(super) fn tick(&mut self, now: Instant) {
        self.expire(now);
        let silent = now.saturating_duration_since(self.heard);
        if silent >= self.limits.dead_after {
            self.close(None, Close::Dead(silent));
            return;
        }
        if silent >= self.limits.ping_after && !self.pinged {
            self.pinged = true;
            self.pings += 1;
            self.out.control.push_back(Frame::Ping(self.pings));
        }
        match self.phase {
            Phase::Draining { until } if now >= until => {
                let close = match self.calls.is_empty() {
                    true => Close::Drained,
                    false => Close::DrainTimeout,
                };
                self.close(None, close);
            }
            Phase::Open
                if self.may_idle()
                    && now.saturating_duration_since(self.idle_since) >= self.limits.idle_after =>
            {
                self.drain(now);
            }
            _ => {}
        }
    }

    /// Calls whose time is over are cut, on both sides.
    fn expire(&mut self, now: Instant) {
        while let Some((deadline, id)) = self.deadlines.first().copied() {
            if deadline > now {
                return;
            }
            self.deadlines.pop_first();
            self.cancel(now, id, Reset::Deadline, End::Deadline);
        }
    }

    /// Cuts a call; the peer hears of it unless it never heard of the call.
    pub(super) fn cancel(&mut self, now: Instant, id: u64, reason: Reset, end: End) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        if self.side == Side::Acceptor || call.outward.begun {
            self.out.control.push_back(Frame::Reset { id, reason });
        }
        self.over(now, id, end);
    }

    /// Takes no more calls, and says so.
    pub(super) fn drain(&mut self, now: Instant) {
        if self.phase != Phase::Open {
            return;
        }
        self.begin_drain(now);
        self.out.control.push_back(Frame::GoAway {
            last: self.last,
            reason: GoAway::Drain,
        });
    }

    pub(super) fn begin_drain(&mut self, now: Instant) {
        if self.phase == Phase::Open {
            let until = now + self.limits.drain_max;
            self.phase = Phase::Draining { until };
            self.act(Action::Draining);
        }
    }

    pub(super) fn eof(&mut self) {
        let drained = matches!(self.phase, Phase::Draining { .. }) && self.calls.is_empty();
        let close = match drained {
            true => Close::Drained,
            false => Close::Eof,
        };
        self.close(None, close);
    }

    /// Closes a drained connection once its calls are over.
    ///
    /// The dialler closes first: an acceptor that closed with calls under way to it would have the
    /// kernel reset the connection, and its `GOAWAY` would be lost with it. It waits for the
    /// dialler, until the drain's time is over.
    pub(super) fn settle(&mut self) {
        let drained = matches!(self.phase, Phase::Draining { .. }) && self.calls.is_empty();
        if drained && self.side == Side::Dialler {
            self.close(None, Close::Drained);
        }
    }

    /// Ends it, with a reason for the peer if there is one to give.
    pub(super) fn close(&mut self, reason: Option<GoAway>, close: Close) {
        if self.phase == Phase::Closed {
            return;
        }
        if self.phase == Phase::Open {
            self.act(Action::Draining);
        }
        self.phase = Phase::Closed;
        if let Some(reason) = reason {
            let last = self.last;
            self.out.control.push_back(Frame::GoAway { last, reason });
        }
        self.act(Action::Closed(close));
    }
}
