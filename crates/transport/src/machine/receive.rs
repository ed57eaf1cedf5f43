//! What the peer's frames do.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::code::{GoAway, Open, Reset, Status};
use crate::error::Close;
use crate::frame::Frame;

use super::call::{Call, Inward, Outward};
use super::{Action, Breach, End, Machine, Phase, Side};

/// The most credit that a call may have: nobody sends that much ahead.
const CREDIT_BYTES_MAX: u64 = 1 << 48;

impl Machine {
    pub(super) fn receive(&mut self, now: Instant, frame: Frame) -> Result<(), Breach> {
        self.heard = now;
        self.pinged = false;
        match frame {
            Frame::Hello(_) => Err(Breach::Hello),
            Frame::Open {
                id,
                open,
                body,
                end,
            } => self.opened(now, id, open, body, end),
            Frame::Reply {
                id,
                status,
                body,
                end,
            } => self.replied(now, id, status, body, end),
            Frame::Data { id, bytes, end } => self.data(now, id, bytes, end),
            Frame::Credit { id, bytes } => self.credited(id, bytes),
            Frame::Reset { id, reason } => self.cut(now, id, reason),
            Frame::Ping(nonce) => {
                // One answer stands for all that were asked before it.
                self.out.pong = Some(nonce);
                Ok(())
            }
            Frame::Pong(_) => Ok(()),
            Frame::GoAway { last, reason } => {
                self.gone_away(now, last, reason);
                Ok(())
            }
        }
    }

    fn opened(
        &mut self,
        now: Instant,
        id: u64,
        open: Open,
        body: Bytes,
        end: bool,
    ) -> Result<(), Breach> {
        if self.side == Side::Dialler {
            return Err(Breach::Side);
        }
        if id <= self.last {
            return Err(Breach::Order(id));
        }
        // Calls that cross a `GOAWAY` are known by it to be not begun.
        if matches!(self.phase, Phase::Draining { .. }) {
            return Ok(());
        }
        self.last = id;
        // Every call may have to be answered by a reset, by its deadline if not at once.
        if self.out.control.len() >= self.limits.answers_max {
            return Err(Breach::Flood);
        }
        if self.calls.len() >= self.limits.requests_max {
            let reason = Reset::Refused;
            self.out.control.push_back(Frame::Reset { id, reason });
            return Ok(());
        }
        let deadline = match open.timeout_us {
            0 => None,
            us => now.checked_add(Duration::from_micros(us)),
        };
        let mut inward = Inward::new(true, self.limits.window_bytes);
        inward.ended = end;
        let call = Call {
            priority: open.priority,
            deadline,
            outward: Outward::new(u64::from(self.agreed.window_bytes)),
            inward,
        };
        self.calls.insert(id, call);
        self.deadlines
            .extend(deadline.map(|deadline| (deadline, id)));
        self.act(Action::Opened {
            id,
            open,
            body,
            end,
        });
        Ok(())
    }

    fn replied(
        &mut self,
        now: Instant,
        id: u64,
        status: Status,
        body: Bytes,
        end: bool,
    ) -> Result<(), Breach> {
        if self.side == Side::Acceptor {
            return Err(Breach::Side);
        }
        self.known(id)?;
        let Some(call) = self.calls.get_mut(&id) else {
            return Ok(());
        };
        if call.inward.begun || !call.outward.begun {
            return Err(Breach::Turn(id));
        }
        call.inward.begun = true;
        call.inward.ended = end;
        self.act(Action::Replied {
            id,
            status,
            body,
            end,
        });
        if end {
            self.over(now, id, End::Done);
        }
        Ok(())
    }

    fn data(&mut self, now: Instant, id: u64, bytes: Bytes, end: bool) -> Result<(), Breach> {
        if self.received_bytes(id, bytes.len(), end)? {
            self.act(Action::Data { id, bytes, end });
            self.ended(now, id, end);
        }
        Ok(())
    }

    /// Bytes of a body that went straight to their reader's buffer, which has thereby taken them.
    pub(super) fn landed(
        &mut self,
        now: Instant,
        id: u64,
        bytes: usize,
        end: bool,
    ) -> Result<(), Breach> {
        self.heard = now;
        self.pinged = false;
        if self.received_bytes(id, bytes, end)? {
            if end {
                self.act(Action::LandedAll { id });
            }
            self.ended(now, id, end);
            self.consumed(id, bytes as u64);
        }
        Ok(())
    }

    /// Counts bytes of a body; whether anybody still wants them.
    fn received_bytes(&mut self, id: u64, bytes: usize, end: bool) -> Result<bool, Breach> {
        self.known(id)?;
        let Some(call) = self.calls.get_mut(&id) else {
            return Ok(false);
        };
        let inward = &mut call.inward;
        if !inward.begun || inward.ended {
            return Err(Breach::Turn(id));
        }
        let left = inward.left.checked_sub(bytes as u64);
        inward.left = left.ok_or(Breach::Credit(id))?;
        inward.ended = end;
        Ok(true)
    }

    /// The end of a reply is the end of its call.
    fn ended(&mut self, now: Instant, id: u64, end: bool) {
        if end && self.side == Side::Dialler {
            self.over(now, id, End::Done);
        }
    }

    /// The reader has taken bytes: when they are enough, the peer hears of it.
    pub(super) fn consumed(&mut self, id: u64, bytes: u64) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let inward = &mut call.inward;
        // A reader cannot have taken more than came.
        let came = inward.window.saturating_sub(inward.left + inward.owed);
        inward.owed += bytes.min(came);
        self.line_up_credit(id);
    }

    /// The reader has room for bytes that are still to come: it need not take any before the peer
    /// may send them.
    pub(super) fn expected(&mut self, id: u64, bytes: u64) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        call.inward.expected = bytes;
        self.line_up_credit(id);
    }

    /// Puts a call in the line of those that give credit, if it should and is not there.
    pub(super) fn line_up_credit(&mut self, id: u64) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        // A call that the peer has not heard of cannot be given any.
        let is_known = self.side == Side::Acceptor || call.outward.begun;
        if is_known && call.inward.owes() {
            call.inward.in_line = true;
            self.out.credits.push_back(id);
        }
    }

    fn credited(&mut self, id: u64, bytes: u32) -> Result<(), Breach> {
        self.known(id)?;
        let Some(call) = self.calls.get_mut(&id) else {
            return Ok(());
        };
        call.outward.credit += u64::from(bytes);
        if call.outward.credit > CREDIT_BYTES_MAX {
            return Err(Breach::CreditRange(id));
        }
        self.line_up(id);
        Ok(())
    }

    fn cut(&mut self, now: Instant, id: u64, reason: Reset) -> Result<(), Breach> {
        self.known(id)?;
        self.over(now, id, End::Cut(reason));
        Ok(())
    }

    fn gone_away(&mut self, now: Instant, last: u64, reason: GoAway) {
        if reason != GoAway::Drain {
            self.close(None, Close::ByPeer(reason));
            return;
        }
        self.begin_drain(now);
        if self.side == Side::Dialler {
            let later: Vec<u64> = self.calls.keys().copied().filter(|id| *id > last).collect();
            for id in later {
                self.over(now, id, End::NotBegun);
            }
        }
    }

    /// Frames of calls that are over mean nothing; of calls that never were, they are a breach.
    fn known(&self, id: u64) -> Result<(), Breach> {
        // An acceptor that drains has not looked at the calls after its `GOAWAY`.
        let overlooked =
            self.side == Side::Acceptor && matches!(self.phase, Phase::Draining { .. });
        match id <= self.last || overlooked {
            true => Ok(()),
            false => Err(Breach::Unknown(id)),
        }
    }
}
