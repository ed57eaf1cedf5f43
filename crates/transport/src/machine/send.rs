//! What goes out, and in which order.
//!
//! First what keeps the connection going (answers, resets, credit), then first frames, then data
//! of prompt streams, then data of bulk streams, each of these in its turn of [`TURN_BYTES`]. Lest
//! prompt calls starve bulk streams, one frame of bulk goes after every [`PROMPT_BYTES_MAX`] of
//! theirs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::code::{Open, Priority, Status};
use crate::frame::{Encoded, Frame};

use super::call::{Call, Head, Inward, Outward};
use super::{Action, End, Machine, Phase, Side};

/// Bytes of prompt calls after which a bulk stream has its turn.
const PROMPT_BYTES_MAX: usize = 256 << 10;

/// Bytes of a stream after which the next one of its line has its turn: streams that are short
/// enough end one after the other, and not all of them at the end.
pub(super) const TURN_BYTES: usize = 1 << 20;

/// The lines of what waits for the socket.
#[derive(Default)]
pub(super) struct Out {
    pub(super) pong: Option<u64>,
    pub(super) control: VecDeque<Frame>,
    /// Calls whose reader has taken enough.
    pub(super) credits: VecDeque<u64>,
    /// Calls whose first frame is to be sent.
    heads: VecDeque<u64>,
    prompt: VecDeque<u64>,
    bulk: VecDeque<u64>,
    /// Bytes of prompt calls since a bulk stream had its turn.
    prompt_bytes: usize,
}

impl Out {
    fn line(&mut self, priority: Priority) -> &mut VecDeque<u64> {
        match priority {
            Priority::Prompt => &mut self.prompt,
            Priority::Bulk => &mut self.bulk,
        }
    }

    /// Takes a call out of the lines, so that calls which come and go while the socket is full
    /// leave nothing behind.
    pub(super) fn forget(&mut self, id: u64, call: &Call) {
        if call.outward.head.is_some() {
            self.heads.retain(|other| *other != id);
        }
        if call.outward.in_line {
            self.line(call.priority).retain(|other| *other != id);
        }
        if call.inward.in_line {
            self.credits.retain(|other| *other != id);
        }
    }
}

impl Machine {
    pub(super) fn open(&mut self, now: Instant, id: u64, open: &Open, body: Bytes, end: bool) {
        debug_assert!(self.side == Side::Dialler && id > self.last);
        self.last = id;
        if self.phase != Phase::Open {
            let end = End::NotBegun;
            self.act(Action::Over { id, end });
            return;
        }
        let deadline = match open.timeout_us {
            0 => None,
            us => now.checked_add(Duration::from_micros(us)),
        };
        let call = Call {
            priority: open.priority,
            deadline,
            outward: Outward::new(u64::from(self.agreed.window_bytes)),
            inward: Inward::new(false, self.limits.window_bytes),
        };
        self.calls.insert(id, call);
        self.deadlines
            .extend(deadline.map(|deadline| (deadline, id)));
        self.begin(id, Head::Open(open.clone()), body, end);
    }

    pub(super) fn reply(&mut self, id: u64, status: Status, body: Bytes, end: bool) {
        self.begin(id, Head::Reply(status), body, end);
    }

    /// Queues a direction's first frame: with as much of the body as it may carry.
    fn begin(&mut self, id: u64, head: Head, mut body: Bytes, end: bool) {
        let with = body.len().min(self.agreed.body_bytes_max as usize);
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let outward = &mut call.outward;
        if outward.begun || outward.head.is_some() {
            return;
        }
        let first = body.split_to(with);
        if !body.is_empty() {
            outward.queue.push_back(body);
        }
        outward.ending = end;
        outward.head = Some((head, first));
        self.out.heads.push_back(id);
    }

    /// Queues more of a body.
    pub(super) fn queue(&mut self, id: u64, bytes: Bytes, end: bool) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let outward = &mut call.outward;
        if outward.ending {
            return;
        }
        if !bytes.is_empty() {
            outward.queue.push_back(bytes);
        }
        outward.ending = end;
        self.line_up(id);
    }

    /// Puts a call in its line if it could send and is not there.
    pub(super) fn line_up(&mut self, id: u64) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        if call.outward.ready() && !call.outward.in_line {
            call.outward.in_line = true;
            call.outward.turn_bytes = 0;
            let priority = call.priority;
            self.out.line(priority).push_back(id);
        }
    }

    /// After a frame of its data: a call that has more goes on until its turn is over.
    fn go_on(&mut self, id: u64, bytes: usize) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let outward = &mut call.outward;
        outward.turn_bytes += bytes;
        if outward.turn_bytes >= TURN_BYTES || outward.in_line || !outward.ready() {
            return self.line_up(id);
        }
        outward.in_line = true;
        let priority = call.priority;
        self.out.line(priority).push_front(id);
    }

    /// The next frame, if there is one that may go.
    pub(crate) fn transmit(&mut self, now: Instant) -> Option<Encoded> {
        if let Some(frame) = self.next_control() {
            return Some(frame.encode());
        }
        if self.phase == Phase::Closed {
            return None;
        }
        let bulk_waits = !self.out.bulk.is_empty();
        if !(bulk_waits && self.out.prompt_bytes >= PROMPT_BYTES_MAX) {
            let head = self.next_head(now);
            if let Some(frame) = head.or_else(|| self.next_data(now, Priority::Prompt)) {
                let encoded = frame.encode();
                if bulk_waits {
                    self.out.prompt_bytes += encoded.bytes();
                }
                return Some(encoded);
            }
        }
        self.out.prompt_bytes = 0;
        self.next_data(now, Priority::Bulk).map(Frame::encode)
    }

    fn next_control(&mut self) -> Option<Frame> {
        if let Some(nonce) = self.out.pong.take() {
            return Some(Frame::Pong(nonce));
        }
        if let Some(frame) = self.out.control.pop_front() {
            return Some(frame);
        }
        while let Some(id) = self.out.credits.pop_front() {
            let Some(call) = self.calls.get_mut(&id) else {
                continue;
            };
            call.inward.in_line = false;
            let window_max = self.limits.window_bytes_max;
            let credit = call.inward.grant(window_max, &mut self.growth_left);
            // All windows together may have grown as far as they may.
            if credit > 0 {
                let bytes = u32::try_from(credit).unwrap_or(u32::MAX);
                return Some(Frame::Credit { id, bytes });
            }
        }
        None
    }

    fn next_head(&mut self, now: Instant) -> Option<Frame> {
        let id = self.out.heads.pop_front()?;
        let call = self.calls.get_mut(&id)?;
        let outward = &mut call.outward;
        let (head, body) = outward.head.take()?;
        outward.begun = true;
        outward.ended = outward.ending && outward.queue.is_empty();
        let end = outward.ended;
        self.sent(now, id, 0, end);
        self.line_up_credit(id);
        Some(match head {
            Head::Open(open) => Frame::Open {
                id,
                open,
                body,
                end,
            },
            Head::Reply(status) => Frame::Reply {
                id,
                status,
                body,
                end,
            },
        })
    }

    fn next_data(&mut self, now: Instant, priority: Priority) -> Option<Frame> {
        let id = self.out.line(priority).pop_front()?;
        let call = self.calls.get_mut(&id)?;
        call.outward.in_line = false;
        let (bytes, end) = call.outward.take(self.limits.chunk_bytes);
        self.sent(now, id, bytes.len(), end);
        Some(Frame::Data { id, bytes, end })
    }

    /// After a frame of a call: the call is over, or stands in line again if it has more.
    fn sent(&mut self, now: Instant, id: u64, bytes: usize, end: bool) {
        if bytes > 0 {
            self.act(Action::Sent { id, bytes });
        }
        if end && self.side == Side::Acceptor {
            self.over(now, id, End::Done);
            self.settle();
        } else if bytes > 0 {
            self.go_on(id, bytes);
        } else {
            self.line_up(id);
        }
    }
}
