//! The wire format, byte by byte, and what it does with bytes that nobody meant.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::code::{GoAway, Open, Priority, Reset, Status};
use crate::frame::{Decoder, Frame, FrameError};
use crate::hello::{Features, Hello, HelloError, Versions, agree};

const BODY_MAX: u32 = 64 << 10;

fn hello() -> Hello {
    Hello {
        versions: Versions { min: 1, max: 2 },
        node: "n1".parse().unwrap(),
        features: Features(0x0102),
        requests_max: 1024,
        window_bytes: 65536,
        body_bytes_max: 65536,
    }
}

fn bytes_of(frames: &[Frame]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for frame in frames {
        frame.clone().write(&mut bytes);
    }
    bytes
}

fn decode_all(mut input: BytesMut) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = Decoder::new(BODY_MAX);
    let mut frames = Vec::new();
    while let Some(frame) = decoder.decode(&mut input)? {
        frames.push(frame);
    }
    Ok(frames)
}

/// The frames that have bodies, and the greeting.
fn golden_bodies() -> [(Frame, &'static [u8]); 4] {
    let open = Open {
        method: 0x0201,
        priority: Priority::Bulk,
        timeout_us: 1_000_000,
    };
    let body = Bytes::from_static(b"body");
    [
        (
            Frame::Hello(hello()),
            b"\x01\0\0\0\x1f\0\0\0\0\0\0\0\0\0\0\0\
              DNLN\x01\0\x02\0\x02n1\x02\x01\0\0\0\0\0\0\0\x04\0\0\0\0\x01\0\0\0\x01\0",
        ),
        (
            Frame::Open {
                id: 7,
                open,
                body: body.clone(),
                end: true,
            },
            b"\x02\x01\0\0\x10\0\0\0\x07\0\0\0\0\0\0\0\x01\x02\x01\0\x40\x42\x0f\0\0\0\0\0body",
        ),
        (
            Frame::Reply {
                id: 7,
                status: Status(3),
                body: body.clone(),
                end: false,
            },
            b"\x03\0\0\0\x06\0\0\0\x07\0\0\0\0\0\0\0\x03\0body",
        ),
        (
            Frame::Data {
                id: 7,
                bytes: body,
                end: true,
            },
            b"\x04\x01\0\0\x04\0\0\0\x07\0\0\0\0\0\0\0body",
        ),
    ]
}

fn golden_signals() -> [(Frame, &'static [u8]); 5] {
    [
        (
            Frame::Credit {
                id: 7,
                bytes: 0x10000,
            },
            b"\x05\0\0\0\x04\0\0\0\x07\0\0\0\0\0\0\0\0\0\x01\0",
        ),
        (
            Frame::Reset {
                id: 7,
                reason: Reset::Deadline,
            },
            b"\x06\0\0\0\x02\0\0\0\x07\0\0\0\0\0\0\0\x02\0",
        ),
        (
            Frame::Ping(9),
            b"\x07\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0",
        ),
        (
            Frame::Pong(9),
            b"\x08\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0",
        ),
        (
            Frame::GoAway {
                last: 7,
                reason: GoAway::Drain,
            },
            b"\x09\0\0\0\x02\0\0\0\x07\0\0\0\0\0\0\0\x01\0",
        ),
    ]
}

#[test]
fn the_wire_format_is_what_it_was() {
    for (frame, bytes) in golden_bodies().into_iter().chain(golden_signals()) {
        assert_eq!(&bytes_of(std::slice::from_ref(&frame))[..], bytes);
        assert_eq!(decode_all(BytesMut::from(bytes)), Ok(vec![frame]));
    }
}

#[test]
fn frames_that_are_wrong_are_refused() {
    let header = |kind: u8, flags: u8, zero: u8, length: u32| {
        let mut bytes = vec![kind, flags, zero, 0];
        bytes.extend(length.to_le_bytes());
        bytes.extend([0; 8]);
        bytes
    };
    let refused = |bytes: Vec<u8>| decode_all(BytesMut::from(&bytes[..])).unwrap_err();
    let length = |kind, bytes, min, max| FrameError::Length {
        kind,
        bytes,
        min,
        max,
    };
    assert_eq!(refused(header(0, 0, 0, 0)), FrameError::Kind(0));
    assert_eq!(refused(header(10, 0, 0, 0)), FrameError::Kind(10));
    assert_eq!(
        refused(header(7, 1, 0, 8)),
        FrameError::Flags { kind: 7, flags: 1 }
    );
    assert_eq!(
        refused(header(2, 2, 0, 12)),
        FrameError::Flags { kind: 2, flags: 2 }
    );
    assert_eq!(refused(header(4, 0, 1, 1)), FrameError::Reserved(4));
    assert_eq!(refused(header(4, 0, 0, 65537)), length(4, 65537, 0, 65536));
    assert_eq!(
        refused(header(2, 0, 0, u32::MAX)),
        length(2, u32::MAX, 12, 65548)
    );
    assert_eq!(refused(header(2, 0, 0, 11)), length(2, 11, 12, 65548));
    assert_eq!(refused(header(1, 0, 0, 1025)), length(1, 1025, 0, 1024));
    assert_eq!(refused(header(5, 0, 0, 5)), length(5, 5, 4, 4));
    assert_eq!(refused(header(4, 0, 0, 0)), FrameError::Empty(4));
    let with = |mut header: Vec<u8>, payload: &[u8]| {
        header.extend(payload);
        header
    };
    assert_eq!(
        refused(with(header(5, 0, 0, 4), &[0; 4])),
        FrameError::Empty(5)
    );
    let payload = [0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(
        refused(with(header(2, 0, 0, 12), &payload)),
        FrameError::Priority(2)
    );
    let http = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec();
    assert_eq!(refused(http), FrameError::Kind(b'G'));
    let greeting = with(header(1, 0, 0, 9), b"DNLX\x01\0\x01\0\0");
    assert_eq!(refused(greeting), FrameError::Hello(HelloError::NotANode));
}

#[test]
fn a_greeting_with_more_fields_is_read_as_far_as_it_is_known() {
    let mut bytes = bytes_of(&[Frame::Hello(hello())]);
    bytes.extend_from_slice(b"fields of a later version");
    bytes[4] += 25;
    assert_eq!(decode_all(bytes), Ok(vec![Frame::Hello(hello())]));
}

#[test]
fn a_greeting_that_accepts_nothing_is_refused() {
    let refused = |change: fn(&mut Hello)| {
        let mut hello = hello();
        change(&mut hello);
        decode_all(bytes_of(&[Frame::Hello(hello)])).unwrap_err()
    };
    let nothing = |what| FrameError::Hello(HelloError::Nothing(what));
    assert_eq!(refused(|h| h.requests_max = 0), nothing("calls"));
    assert_eq!(refused(|h| h.window_bytes = 0), nothing("window"));
    assert_eq!(refused(|h| h.body_bytes_max = 0), nothing("bodies"));
    assert_eq!(refused(|h| h.versions.min = 3), nothing("versions"));
}

#[test]
fn neighbours_agree_on_the_newest_common_version_and_on_common_features() {
    let check = |ours: (u16, u16), theirs: (u16, u16), version: Option<u16>| {
        let with = |(min, max), features| Hello {
            versions: Versions { min, max },
            features: Features(features),
            ..hello()
        };
        let agreed = agree(&with(ours, 0b0110), &with(theirs, 0b0011));
        assert_eq!(agreed.map(|agreed| agreed.version), version);
        if let Some(agreed) = agreed {
            assert_eq!(agreed.features, Features(0b0010));
        }
    };
    check((1, 1), (1, 1), Some(1));
    check((1, 2), (1, 1), Some(1));
    check((1, 2), (2, 3), Some(2));
    check((2, 3), (1, 4), Some(3));
    check((2, 3), (1, 1), None);
    check((1, 1), (2, 3), None);
}

fn frame() -> impl Strategy<Value = Frame> {
    let body = || prop::collection::vec(any::<u8>(), 0..5000).prop_map(Bytes::from);
    let priority = prop_oneof![Just(Priority::Prompt), Just(Priority::Bulk)];
    let open =
        (any::<u16>(), priority, any::<u64>()).prop_map(|(method, priority, timeout_us)| Open {
            method,
            priority,
            timeout_us,
        });
    prop_oneof![
        (any::<u64>(), open, body(), any::<bool>()).prop_map(|(id, open, body, end)| Frame::Open {
            id,
            open,
            body,
            end
        }),
        (any::<u64>(), any::<u16>(), body(), any::<bool>()).prop_map(|(id, status, body, end)| {
            let status = Status(status);
            Frame::Reply {
                id,
                status,
                body,
                end,
            }
        }),
        (any::<u64>(), body(), any::<bool>()).prop_map(|(id, bytes, end)| Frame::Data {
            id,
            end: end || bytes.is_empty(),
            bytes,
        }),
        (any::<u64>(), 1..=u32::MAX).prop_map(|(id, bytes)| Frame::Credit { id, bytes }),
        (any::<u64>(), any::<u16>()).prop_map(|(id, code)| Frame::Reset {
            id,
            reason: Reset::of(code)
        }),
        any::<u64>().prop_map(Frame::Ping),
        any::<u64>().prop_map(Frame::Pong),
        (any::<u64>(), any::<u16>()).prop_map(|(last, code)| Frame::GoAway {
            last,
            reason: GoAway::of(code)
        }),
        Just(Frame::Hello(hello())),
    ]
}

/// Joins the parts in which the data of one frame may come.
fn joined(frames: Vec<Frame>) -> Vec<Frame> {
    let mut all: Vec<Frame> = Vec::new();
    for frame in frames {
        match (all.last_mut(), frame) {
            (
                Some(Frame::Data { id, bytes, end }),
                Frame::Data {
                    id: next,
                    bytes: more,
                    end: last,
                },
            ) if *id == next && !*end => {
                let mut joined = BytesMut::from(&bytes[..]);
                joined.extend_from_slice(&more);
                *bytes = joined.freeze();
                *end = last;
            }
            (_, frame) => all.push(frame),
        }
    }
    all
}

proptest! {
    #[test]
    fn no_split_of_the_bytes_changes_the_frames(
        frames in prop::collection::vec(frame(), 0..12),
        cuts in prop::collection::vec(1_usize..4000, 1..40),
    ) {
        let mut bytes = bytes_of(&frames);
        let mut decoder = Decoder::new(BODY_MAX);
        let (mut input, mut decoded) = (BytesMut::new(), Vec::new());
        for cut in cuts.iter().cycle() {
            input.extend_from_slice(&bytes.split_to((*cut).min(bytes.len())));
            while let Some(frame) = decoder.decode(&mut input).unwrap() {
                decoded.push(frame);
            }
            if bytes.is_empty() {
                break;
            }
        }
        prop_assert!(input.is_empty());
        prop_assert_eq!(joined(decoded), joined(frames));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_or_ask_for_more_than_a_frame(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..64),
    ) {
        let mut decoder = Decoder::new(BODY_MAX);
        let mut input = BytesMut::new();
        for chunk in chunks {
            input.extend_from_slice(&chunk);
            loop {
                match decoder.decode(&mut input) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
            prop_assert!(input.len() <= BODY_MAX as usize + 28);
            prop_assert!(input.capacity() <= 4 * BODY_MAX as usize);
        }
    }

    #[test]
    fn no_change_of_one_byte_makes_the_decoder_panic(
        frames in prop::collection::vec(frame(), 1..6),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = bytes_of(&frames);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode_all(bytes);
    }
}
