//! One call's two directions.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::code::{Open, Priority, Status};

/// A call that is not over.
pub(super) struct Call {
    pub(super) priority: Priority,
    pub(super) deadline: Option<Instant>,
    pub(super) outward: Outward,
    pub(super) inward: Inward,
}

/// The frame that begins a direction.
pub(super) enum Head {
    Open(Open),
    Reply(Status),
}

/// What this side sends.
pub(super) struct Outward {
    /// The first frame, with the part of the body that goes in it, until it is sent.
    pub(super) head: Option<(Head, Bytes)>,
    /// Whether the first frame was given to the socket.
    pub(super) begun: bool,
    pub(super) queue: VecDeque<Bytes>,
    /// What the peer lets us send.
    pub(super) credit: u64,
    /// Whether the queue's end is the body's.
    pub(super) ending: bool,
    /// Whether `END` was sent.
    pub(super) ended: bool,
    /// Whether the call stands in a line of those that may send.
    pub(super) in_line: bool,
    /// Bytes that it has sent in its turn.
    pub(super) turn_bytes: usize,
}

impl Outward {
    pub(super) fn new(credit: u64) -> Self {
        Self {
            head: None,
            begun: false,
            queue: VecDeque::new(),
            credit,
            ending: false,
            ended: false,
            in_line: false,
            turn_bytes: 0,
        }
    }

    /// Whether a data frame could go now.
    pub(super) fn ready(&self) -> bool {
        self.begun
            && !self.ended
            && match self.queue.is_empty() {
                true => self.ending,
                false => self.credit > 0,
            }
    }

    /// The next data frame's bytes, and whether it is the last.
    pub(super) fn take(&mut self, chunk_bytes: usize) -> (Bytes, bool) {
        let bytes_max = chunk_bytes.min(usize::try_from(self.credit).unwrap_or(usize::MAX));
        let bytes = match self.queue.front_mut() {
            None => Bytes::new(),
            Some(first) if first.len() > bytes_max => first.split_to(bytes_max),
            Some(_) => self.queue.pop_front().unwrap_or_default(),
        };
        self.credit -= bytes.len() as u64;
        self.ended = self.ending && self.queue.is_empty();
        (bytes, self.ended)
    }
}

/// What the peer sends.
pub(super) struct Inward {
    /// Whether its first frame came.
    pub(super) begun: bool,
    pub(super) ended: bool,
    /// How far ahead of the reader the peer may be.
    pub(super) window: u64,
    /// What it may still send.
    pub(super) left: u64,
    /// What the reader took since credit was last given.
    pub(super) owed: u64,
    /// What its reader said that it has room for, until credit is given for that.
    pub(super) expected: u64,
    /// Whether credit is about to be given.
    pub(super) in_line: bool,
}

impl Inward {
    pub(super) fn new(begun: bool, window: u64) -> Self {
        Self {
            begun,
            ended: false,
            window,
            left: window,
            owed: 0,
            expected: 0,
            in_line: false,
        }
    }

    /// By how much the window has grown.
    pub(super) fn growth(&self, window_bytes: u64) -> u64 {
        self.window.saturating_sub(window_bytes)
    }

    /// Whether the reader has taken so much, or has room for so much, that credit should be given.
    pub(super) fn owes(&self) -> bool {
        !self.ended && !self.in_line && (self.owed * 2 >= self.window || self.lacks() > 0)
    }

    /// What the reader has room for beyond what may come.
    fn lacks(&self) -> u64 {
        self.expected.saturating_sub(self.left + self.owed)
    }

    /// The credit to give: what was taken, and as much as the window grows since its reader keeps
    /// up or has room. Takes the growth from `growth_left`.
    pub(super) fn grant(&mut self, window_max: u64, growth_left: &mut u64) -> u64 {
        let keeps_up = self.owed * 2 >= self.window;
        let growth = if keeps_up { self.window } else { 0 };
        let growth = growth
            .max(self.lacks())
            .min(window_max.saturating_sub(self.window))
            .min(*growth_left);
        *growth_left -= growth;
        self.window += growth;
        let credit = self.owed + growth;
        self.left += credit;
        (self.owed, self.expected) = (0, 0);
        credit
    }
}
