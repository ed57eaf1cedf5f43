//! Two machines over a wire of bytes, against a model that knows only what was handed over.
//!
//! The model's promises: what arrives is a prefix of what was sent, and all of it once nothing is
//! left to do; nobody is ever further ahead of a reader than its window; each call ends exactly
//! once on each side; and when all have ended, nothing is left.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::code::{Open, Priority, Reset, Status};
use crate::config::Config;
use crate::frame::Decoder;
use crate::hello::{Agreed, Features};

use super::{Action, End, Event, Machine, Side};

/// Small limits, so that few steps reach them.
fn config() -> Config {
    Config {
        requests_max: 4,
        body_bytes_max: 100,
        chunk_bytes: 70,
        window_bytes: 200,
        window_bytes_max: 1000,
        window_growth_bytes_max: 1500,
        ..Config::default()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open {
        bytes: usize,
        end: bool,
        bulk: bool,
        timeout_ms: Option<u64>,
    },
    /// More of the request of one of the calls.
    Ask {
        call: usize,
        bytes: usize,
        end: bool,
    },
    Reply {
        call: usize,
        bytes: usize,
        end: bool,
    },
    Answer {
        call: usize,
        bytes: usize,
        end: bool,
    },
    Read {
        call: usize,
        bytes: usize,
        dialler: bool,
    },
    /// One of the readers has room for bytes that are still to come.
    Expect {
        call: usize,
        bytes: usize,
        dialler: bool,
    },
    Cancel {
        call: usize,
        dialler: bool,
    },
    /// Lets a side send so many frames.
    Send {
        frames: usize,
        dialler: bool,
    },
    /// Lets so many of the bytes that it sent arrive.
    Arrive {
        bytes: usize,
        dialler: bool,
    },
    Wait {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let call = || 0_usize..6;
    let bytes = || 0_usize..700;
    let (flag, often) = (any::<bool>, || prop::bool::weighted(0.6));
    let timeout = prop::option::weighted(0.2, 1_u64..500);
    prop_oneof![
        2 => (bytes(), flag(), flag(), timeout).prop_map(|(bytes, end, bulk, timeout_ms)| {
            Step::Open { bytes, end, bulk, timeout_ms }
        }),
        2 => (call(), bytes(), flag()).prop_map(|(call, bytes, end)| Step::Ask { call, bytes, end }),
        2 => (call(), bytes(), flag())
            .prop_map(|(call, bytes, end)| Step::Reply { call, bytes, end }),
        2 => (call(), bytes(), flag())
            .prop_map(|(call, bytes, end)| Step::Answer { call, bytes, end }),
        3 => (call(), bytes(), flag())
            .prop_map(|(call, bytes, dialler)| Step::Read { call, bytes, dialler }),
        2 => (call(), 0_usize..2000, flag())
            .prop_map(|(call, bytes, dialler)| Step::Expect { call, bytes, dialler }),
        1 => (call(), flag()).prop_map(|(call, dialler)| Step::Cancel { call, dialler }),
        5 => (1_usize..8, often()).prop_map(|(frames, dialler)| Step::Send { frames, dialler }),
        5 => (1_usize..900, flag()).prop_map(|(bytes, dialler)| Step::Arrive { bytes, dialler }),
        1 => (1_u64..200).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// One direction of one call, as the model sees it.
#[derive(Default)]
struct Stream {
    sent: Vec<u8>,
    ended: bool,
    arrived: Vec<u8>,
    /// Bytes of those that came with the first frame.
    free: usize,
    read: usize,
    whole: bool,
}

#[derive(Default)]
struct Call {
    request: Stream,
    reply: Stream,
    accepted: bool,
    replied: bool,
    ends: [Option<End>; 2],
}

struct End2 {
    machine: Machine,
    decoder: Decoder,
    input: BytesMut,
    /// What it sent and what has not arrived.
    wire: VecDeque<u8>,
}

struct World {
    now: Instant,
    ends: [End2; 2],
    calls: HashMap<u64, Call>,
    last: u64,
    seed: u8,
}

const DIALLER: usize = 0;
const ACCEPTOR: usize = 1;

impl World {
    fn new() -> Self {
        let (now, config) = (Instant::now(), config());
        let agreed = Agreed {
            version: 1,
            features: Features::default(),
            requests_max: config.requests_max,
            window_bytes: config.window_bytes,
            body_bytes_max: config.body_bytes_max,
        };
        let end = |side| End2 {
            machine: Machine::new(now, side, &config, agreed),
            decoder: Decoder::new(config.body_bytes_max),
            input: BytesMut::new(),
            wire: VecDeque::new(),
        };
        Self {
            now,
            ends: [end(Side::Dialler), end(Side::Acceptor)],
            calls: HashMap::new(),
            last: 0,
            seed: 0,
        }
    }

    fn made_up(&mut self, bytes: usize) -> Vec<u8> {
        self.seed = self.seed.wrapping_mul(31).wrapping_add(7);
        (0..bytes)
            .map(|at| self.seed.wrapping_add(at as u8))
            .collect()
    }

    /// One of the calls that a side has not seen the end of.
    fn pick(&self, call: usize, side: usize) -> Option<u64> {
        let mut live: Vec<u64> = self.calls.keys().copied().collect();
        live.retain(|id| self.calls[id].ends[side].is_none());
        live.retain(|id| side == DIALLER || self.calls[id].accepted);
        live.sort_unstable();
        (!live.is_empty()).then(|| live[call % live.len()])
    }

    fn handle(&mut self, side: usize, event: Event) {
        self.ends[side].machine.handle(self.now, event);
        self.drain_actions(side);
    }

    fn drain_actions(&mut self, side: usize) {
        while let Some(action) = self.ends[side].machine.next_action() {
            match action {
                Action::Opened { id, body, end, .. } => {
                    let call = self.calls.get_mut(&id).expect("a call that was opened");
                    assert!(!call.accepted, "opened twice");
                    call.accepted = true;
                    call.request.free = body.len();
                    arrive(&mut call.request, &body, end);
                }
                Action::Replied { id, body, end, .. } => {
                    let call = self.calls.get_mut(&id).unwrap();
                    call.reply.free = body.len();
                    arrive(&mut call.reply, &body, end);
                }
                Action::Data { id, bytes, end } => {
                    let call = self.calls.get_mut(&id).unwrap();
                    let stream = match side {
                        DIALLER => &mut call.reply,
                        _ => &mut call.request,
                    };
                    arrive(stream, &bytes, end);
                    let ahead = stream.arrived.len() - stream.free - stream.read;
                    assert!(ahead <= 1000, "{ahead} bytes ahead of the reader");
                }
                Action::Over { id, end } => {
                    let call = self.calls.get_mut(&id).unwrap();
                    assert_eq!(call.ends[side], None, "call {id} ended twice");
                    call.ends[side] = Some(end);
                    if side == DIALLER && end == End::Done {
                        assert!(call.reply.whole);
                    }
                }
                Action::Sent { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Open {
                bytes,
                end,
                bulk,
                timeout_ms,
            } => self.open(bytes, end, bulk, timeout_ms),
            Step::Ask { call, bytes, end } => {
                self.send(DIALLER, call, bytes, end);
            }
            Step::Answer { call, bytes, end } => {
                self.send(ACCEPTOR, call, bytes, end);
            }
            Step::Reply { call, bytes, end } => self.reply(call, bytes, end),
            Step::Read {
                call,
                bytes,
                dialler,
            } => {
                self.read(side(dialler), call, bytes);
            }
            Step::Expect {
                call,
                bytes,
                dialler,
            } => {
                if let Some(id) = self.pick(call, side(dialler)) {
                    self.handle(side(dialler), Event::Expected { id, bytes });
                }
            }
            Step::Cancel { call, dialler } => {
                if let Some(id) = self.pick(call, side(dialler)) {
                    let reason = Reset::Cancelled;
                    self.handle(side(dialler), Event::Cancel { id, reason });
                }
            }
            Step::Send { frames, dialler } => {
                self.transmit(side(dialler), frames);
            }
            Step::Arrive { bytes, dialler } => {
                self.arrive(side(dialler), bytes);
            }
            Step::Wait { ms } => {
                self.now += Duration::from_millis(ms);
                self.handle(DIALLER, Event::Tick);
                self.handle(ACCEPTOR, Event::Tick);
            }
        }
    }

    fn open(&mut self, bytes: usize, end: bool, bulk: bool, timeout_ms: Option<u64>) {
        // Callers hold permits.
        let live = self.calls.values();
        if live.filter(|call| call.ends[DIALLER].is_none()).count() >= 4 {
            return;
        }
        self.last += 1;
        let (id, body) = (self.last, self.made_up(bytes));
        let mut call = Call::default();
        (call.request.sent, call.request.ended) = (body.clone(), end);
        self.calls.insert(id, call);
        let priorities = [Priority::Prompt, Priority::Bulk];
        let open = Open {
            method: 0,
            priority: priorities[usize::from(bulk)],
            timeout_us: timeout_ms.map_or(0, |ms| ms * 1000),
        };
        let event = Event::Open {
            id,
            open,
            body: body.into(),
            end,
        };
        self.handle(DIALLER, event);
    }

    fn reply(&mut self, call: usize, bytes: usize, end: bool) {
        let id = self.pick(call, ACCEPTOR);
        let Some(id) = id.filter(|id| !self.calls[id].replied) else {
            return;
        };
        let body = self.made_up(bytes);
        let call = self.calls.get_mut(&id).unwrap();
        call.replied = true;
        (call.reply.sent, call.reply.ended) = (body.clone(), end);
        let event = Event::Reply {
            id,
            status: Status::OK,
            body: body.into(),
            end,
        };
        self.handle(ACCEPTOR, event);
    }

    /// Whether there was a body to send more of.
    fn send(&mut self, side: usize, call: usize, bytes: usize, end: bool) -> bool {
        let Some(id) = self.pick(call, side) else {
            return false;
        };
        let body = self.made_up(bytes);
        let call = self.calls.get_mut(&id).unwrap();
        let (begun, stream) = match side {
            DIALLER => (true, &mut call.request),
            _ => (call.replied, &mut call.reply),
        };
        if !begun || stream.ended {
            return false;
        }
        stream.sent.extend(&body);
        stream.ended = end;
        let bytes = Bytes::from(body);
        self.handle(side, Event::Send { id, bytes, end });
        true
    }

    /// Whether there was anything to read.
    fn read(&mut self, side: usize, call: usize, bytes: usize) -> bool {
        let Some(id) = self.pick(call, side) else {
            return false;
        };
        let call = self.calls.get_mut(&id).unwrap();
        let stream = match side {
            DIALLER => &mut call.reply,
            _ => &mut call.request,
        };
        let bytes = bytes.min(stream.arrived.len() - stream.free - stream.read);
        stream.read += bytes;
        self.handle(side, Event::Consumed { id, bytes });
        bytes > 0
    }

    /// Whether anything was sent.
    fn transmit(&mut self, side: usize, frames: usize) -> bool {
        let mut sent = false;
        for _ in 0..frames {
            let end = &mut self.ends[side];
            let Some(encoded) = end.machine.transmit(self.now) else {
                break;
            };
            end.wire.extend(encoded.head());
            end.wire.extend(&encoded.payload[..]);
            sent = true;
            self.drain_actions(side);
        }
        sent
    }

    /// Whether anything arrived of what `side` sent.
    fn arrive(&mut self, side: usize, bytes: usize) -> bool {
        let bytes = bytes.min(self.ends[side].wire.len());
        let came: Vec<u8> = self.ends[side].wire.drain(..bytes).collect();
        let other = 1 - side;
        self.ends[other].input.extend_from_slice(&came);
        loop {
            let end = &mut self.ends[other];
            let Some(frame) = end.decoder.decode(&mut end.input).unwrap() else {
                return bytes > 0;
            };
            self.handle(other, Event::Received(frame));
        }
    }

    /// Ends all bodies, reads all that comes, and lets everything arrive.
    fn finish(&mut self) {
        loop {
            let mut busy = false;
            for side in [DIALLER, ACCEPTOR] {
                busy |= self.transmit(side, usize::MAX);
                busy |= self.arrive(side, usize::MAX);
            }
            for call in 0..self.calls.len() {
                for side in [DIALLER, ACCEPTOR] {
                    busy |= self.read(side, call, usize::MAX);
                }
                busy |= self
                    .pick(call, ACCEPTOR)
                    .is_some_and(|id| !self.calls[&id].replied);
                self.apply(Step::Reply {
                    call,
                    bytes: 5,
                    end: true,
                });
                busy |= self.send(DIALLER, call, 3, true);
                busy |= self.send(ACCEPTOR, call, 3, true);
            }
            if !busy {
                return;
            }
        }
    }

    fn check_end(&self) {
        for (id, call) in &self.calls {
            let [dialler, acceptor] = call.ends;
            assert!(dialler.is_some(), "call {id} did not end at the dialler");
            assert!(
                acceptor.is_some() || !call.accepted,
                "call {id} did not end"
            );
            if dialler == Some(End::Done) {
                assert_eq!(call.reply.arrived, call.reply.sent);
                assert_eq!(acceptor, Some(End::Done));
            }
        }
        for end in &self.ends {
            assert_eq!(end.machine.calls(), 0);
            assert!(end.machine.deadlines.is_empty());
            assert_eq!(end.machine.growth_left, 1500);
            assert!(end.wire.is_empty() && end.input.is_empty());
        }
    }
}

fn side(dialler: bool) -> usize {
    if dialler { DIALLER } else { ACCEPTOR }
}

fn arrive(stream: &mut Stream, bytes: &[u8], end: bool) {
    assert!(!stream.whole, "bytes after the end");
    stream.arrived.extend(bytes);
    assert!(
        stream.sent.starts_with(&stream.arrived),
        "other bytes than were sent"
    );
    if end {
        assert!(stream.ended && stream.arrived.len() == stream.sent.len());
        stream.whole = true;
    }
}

proptest! {
    #[test]
    fn two_machines_keep_the_promises(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
        }
        world.finish();
        world.check_end();
    }
}
