//! The machine's single decisions.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::code::{GoAway, Open, Priority, Reset, Status};
use crate::config::Config;
use crate::error::Close;
use crate::frame::{Decoder, Frame};
use crate::hello::{Agreed, Features};

use super::{Action, Breach, End, Event, Machine, Side};

mod ends;
mod turns;

const SECOND: Duration = Duration::from_secs(1);

/// What these tests count with.
fn config() -> Config {
    Config {
        window_bytes: 64 << 10,
        ..Config::default()
    }
}

fn agreed(config: &Config) -> Agreed {
    Agreed {
        version: 1,
        features: Features::default(),
        requests_max: config.requests_max,
        window_bytes: config.window_bytes,
        body_bytes_max: config.body_bytes_max,
    }
}

struct One {
    machine: Machine,
    now: Instant,
}

impl One {
    fn new(side: Side, config: &Config) -> Self {
        let now = Instant::now();
        let machine = Machine::new(now, side, config, agreed(config));
        Self { machine, now }
    }

    fn dialler() -> Self {
        Self::new(Side::Dialler, &config())
    }

    fn acceptor() -> Self {
        Self::new(Side::Acceptor, &config())
    }

    fn open(&mut self, id: u64, priority: Priority, body: usize, end: bool) {
        let body = Bytes::from(vec![1; body]);
        let open = open(priority);
        self.handle(Event::Open {
            id,
            open,
            body,
            end,
        });
    }

    fn handle(&mut self, event: Event) {
        self.machine.handle(self.now, event);
    }

    fn receive(&mut self, frame: Frame) {
        self.handle(Event::Received(frame));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.handle(Event::Tick);
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.machine.next_action()).collect()
    }

    fn frame(&mut self) -> Option<Frame> {
        let encoded = self.machine.transmit(self.now)?;
        let mut bytes = bytes::BytesMut::from(encoded.head());
        bytes.extend_from_slice(&encoded.payload);
        let frame = Decoder::new(u32::MAX / 2).decode(&mut bytes).unwrap();
        assert!(bytes.is_empty());
        frame
    }

    fn frames(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.frame()).collect()
    }

    /// The breach that closed the connection.
    fn breach(&mut self) -> Option<Breach> {
        self.actions().into_iter().find_map(|action| match action {
            Action::Closed(Close::Protocol(breach)) => Some(breach),
            _ => None,
        })
    }

    fn ends(&mut self) -> Vec<(u64, End)> {
        let over = |action| match action {
            Action::Over { id, end } => Some((id, end)),
            _ => None,
        };
        self.actions().into_iter().filter_map(over).collect()
    }
}

fn open(priority: Priority) -> Open {
    Open {
        method: 1,
        priority,
        timeout_us: 0,
    }
}

fn asked(id: u64, timeout_us: u64) -> Frame {
    Frame::Open {
        id,
        open: Open {
            timeout_us,
            ..open(Priority::Prompt)
        },
        body: Bytes::new(),
        end: true,
    }
}

fn replied(id: u64, end: bool) -> Frame {
    Frame::Reply {
        id,
        status: Status::OK,
        body: Bytes::new(),
        end,
    }
}

fn data(id: u64, bytes: usize, end: bool) -> Frame {
    let bytes = Bytes::from(vec![2; bytes]);
    Frame::Data { id, bytes, end }
}
