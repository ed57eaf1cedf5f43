//! What nodes say to each other about calls reads back, and what is cut short is refused.

use std::collections::VecDeque;

use model::{Outcome, Status as End, Usage};

use super::*;

/// Bytes that come in chunks of one size.
struct Chunks(VecDeque<Bytes>);

impl Chunks {
    fn of(bytes: &[u8], size: usize) -> Self {
        Self(bytes.chunks(size).map(Bytes::copy_from_slice).collect())
    }
}

impl Source for Chunks {
    async fn chunk(&mut self) -> Result<Option<Bytes>, CallError> {
        Ok(self.0.pop_front())
    }
}

fn head() -> Head {
    Head {
        id: InvocationId::new(7),
        path: "shop/f".parse().unwrap(),
        version: Digest::of(b"v"),
        trace: TraceParent {
            trace: 5,
            span: 6,
            flags: 1,
        },
        may_wait: true,
        streams: false,
        stem: None,
        input: Input::Plain {
            args: vec!["a".into()],
            env: vec![("K".into(), "v".into())],
        },
    }
}

/// The head as it is sent.
fn to_send(head: &Head) -> Head<InputRef<'_>> {
    Head {
        id: head.id,
        path: head.path.clone(),
        version: head.version,
        trace: head.trace,
        may_wait: head.may_wait,
        streams: head.streams,
        stem: head.stem,
        input: head.input.to_send(),
    }
}

/// Its message, without what announces it.
fn message(head: &Head) -> BytesMut {
    let mut out = BytesMut::new();
    to_send(head).put(&mut out);
    out.split_off(KIND_AND_LENGTH)
}

fn outcome() -> Outcome {
    Outcome {
        status: End::Exit { code: 3 },
        start: StartKind::Restored,
        usage: Usage::default(),
    }
}

/// The pieces, with data joined.
async fn read(bytes: &[u8], size: usize) -> Result<Vec<Piece>, PieceError> {
    let mut pieces = Pieces::new(Chunks::of(bytes, size));
    let mut all: Vec<Piece> = Vec::new();
    while let Some(piece) = pieces.next().await? {
        match (all.last_mut(), piece) {
            (Some(Piece::Data(before)), Piece::Data(more)) => {
                *before = [&before[..], &more[..]].concat().into();
            }
            (_, piece) => all.push(piece),
        }
    }
    Ok(all)
}

#[tokio::test]
async fn pieces_are_the_same_however_they_are_cut() {
    let (mut out, sent) = (BytesMut::new(), head());
    to_send(&sent).put(&mut out);
    put_data(b"some bytes of a body", &mut out);
    put_data(b"", &mut out);
    put_end(&mut out);
    put_done(&outcome(), &mut out);
    put_broken("why", &mut out);
    for size in 1..=out.len() {
        let all = read(&out, size).await.unwrap();
        let [
            Piece::Head(found),
            data,
            Piece::End,
            Piece::Done(done),
            broken,
        ] = &all[..]
        else {
            panic!("{size}: {all:?}");
        };
        assert_eq!(Head::read(found.clone()).unwrap(), sent);
        assert_eq!(*data, Piece::Data("some bytes of a body".into()));
        assert_eq!(read_outcome(done.clone()).unwrap(), outcome());
        assert_eq!(*broken, Piece::Broken("why".into()));
    }
}

#[tokio::test]
async fn what_is_cut_short_or_no_piece_is_an_error() {
    let mut out = BytesMut::new();
    to_send(&head()).put(&mut out);
    put_data(b"body", &mut out);
    for length in 1..out.len() {
        let whole = read(&out[..length], 8).await;
        let head = KIND_AND_LENGTH + message(&head()).len();
        assert_eq!(whole.is_ok(), length == head, "{length}: {whole:?}");
    }
    assert!(matches!(
        read(&[9, 0, 0, 0, 0], 8).await,
        Err(PieceError::Kind(9))
    ));
    assert!(matches!(
        read(&[HEAD, 0, 0, 0, 1], 8).await,
        Err(PieceError::TooLarge(_))
    ));
}

#[test]
fn heads_are_pinned_and_fields_of_a_later_release_are_skipped() {
    let mut head = head();
    head.id = InvocationId::from_parts(1, 2);
    head.may_wait = false;
    let bytes = message(&head);
    let version = hex::encode(head.version.as_bytes());
    let pinned = [
        // The id: two numbers of eight bytes.
        "0a12",
        "090000010000000000",
        "110200000000000000",
        "1204",
        "73686f70",
        "1a01",
        "66",
        "2220",
        &version,
        // The trace, its span and flags.
        "2a09",
        "110500000000000000",
        "310600000000000000",
        "3801",
        "5a0b",
        "0a0161",
        "12060a014b120176",
    ];
    assert_eq!(hex::encode(&bytes), pinned.concat());
    let mut later = bytes.clone();
    later.extend_from_slice(&[0xfa, 0x01, 1, 7]);
    assert_eq!(Head::read(later.freeze()).unwrap(), head);
    // A reason that this release does not have.
    let later = Refusal::read(Bytes::from_static(&[0x08, 99, 0x12, 1, b'm']));
    assert_eq!((later.why, later.message.as_str()), (Why::Other, "m"));
}

#[test]
fn replies_and_refusals_are_pinned() {
    let mut out = BytesMut::new();
    let reply = ReplyHead {
        start: StartKind::Restored,
        brief: Some(Brief {
            used: 2,
            waiting: 3,
        }),
        response: Some((404, vec![("a".into(), "b".into())])),
    };
    reply.put(&mut out);
    let pinned = "08011204080210031a0b08940312060a0161120162";
    assert_eq!(hex::encode(&out[KIND_AND_LENGTH..]), pinned);
    out.clear();
    let usage = Usage {
        cpu_us: 1,
        log_bytes: 7,
        ..Usage::default()
    };
    let ended = Outcome {
        status: End::Timeout,
        start: StartKind::Reused,
        usage,
    };
    put_done(&ended, &mut out);
    let status = hex::encode(br#"{"status":"timeout"}"#);
    let pinned = format!("0a14{status}100218014807");
    assert_eq!(hex::encode(&out[KIND_AND_LENGTH..]), pinned);
    let refusal = Refusal::new(Why::Unknown, "m");
    assert_eq!(hex::encode(refusal.to_bytes()), "080312016d");
}

#[test]
fn a_head_that_lacks_something_is_refused() {
    let mut head = head();
    head.trace.span = 0;
    let lacks = Head::read(message(&head).freeze());
    assert!(
        matches!(lacks, Err(PieceError::Lacks("trace"))),
        "{lacks:?}"
    );
    for cut in 0..18 {
        let cut = message(&head).split_to(cut).freeze();
        assert!(Head::read(cut).is_err());
    }
}

#[test]
fn what_is_sent_reads_back() {
    let stem = Stem {
        root: InvocationId::new(1),
        parent: InvocationId::new(2),
        depth: 3,
        left_ms: 4,
    };
    let http = Input::Http {
        method: "GET".into(),
        uri: "http://h/".into(),
        headers: vec![("a".into(), "b".into())],
    };
    for input in [head().input, http] {
        let whole = Head {
            stem: Some(stem),
            input,
            ..head()
        };
        assert_eq!(Head::read(message(&whole).freeze()).unwrap(), whole);
    }
    let whys = [Why::Full, Why::Closed, Why::Unknown, Why::Failed];
    for why in whys.into_iter().chain([Why::Malformed, Why::Other]) {
        let refusal = Refusal {
            why,
            message: "m".into(),
            brief: Some(Brief::default()),
        };
        assert_eq!(Refusal::read(refusal.to_bytes()), refusal);
    }
    for start in StartKind::ALL {
        let reply = ReplyHead {
            start,
            brief: Some(Brief {
                used: 1,
                waiting: 2,
            }),
            response: Some((404, vec![("a".into(), "b".into())])),
        };
        let mut out = BytesMut::new();
        reply.put(&mut out);
        let message = out.split_off(KIND_AND_LENGTH).freeze();
        assert_eq!(ReplyHead::read(message).unwrap(), reply);
        let ended = Outcome {
            status: End::Ok,
            start,
            usage: Usage {
                cpu_us: 1,
                wall_ms: 2,
                memory_peak_bytes: 3,
                memory_kib_ms: 4,
                input_bytes: 5,
                output_bytes: 6,
                log_bytes: 7,
            },
        };
        let mut out = BytesMut::new();
        put_done(&ended, &mut out);
        let message = out.split_off(KIND_AND_LENGTH).freeze();
        assert_eq!(read_outcome(message).unwrap(), ended);
    }
}

#[tokio::test]
async fn a_body_is_gathered_up_to_its_bound_and_no_further() {
    let mut out = BytesMut::new();
    put_data(b"some bytes", &mut out);
    put_data(b" and more", &mut out);
    put_end(&mut out);
    for size in 1..=out.len() {
        let whole = Pieces::new(Chunks::of(&out, size)).whole(19).await;
        let (body, end) = whole.unwrap();
        assert_eq!((&body[..], end), (&b"some bytes and more"[..], Piece::End));
        let long = Pieces::new(Chunks::of(&out, size)).whole(18).await;
        assert!(matches!(long, Err(PieceError::TooLarge(_))), "{size}");
    }
    let cut = Pieces::new(Chunks::of(&out[..12], 5)).whole(99).await;
    assert!(matches!(cut, Err(PieceError::Short)));
}

#[test]
fn values_of_headers_keep_their_bytes() {
    let mut map = HeaderMap::new();
    let all: Vec<u8> = (0x20..0x7f).chain(0x80..=0xff).collect();
    map.append("x", HeaderValue::from_bytes(&all).unwrap());
    map.append("x", HeaderValue::from_static("second"));
    assert_eq!(from_headers(&to_headers(&map)), Some(map));
    assert_eq!(from_headers(&vec![("x".into(), "€".into())]), None);
    assert_eq!(from_headers(&vec![("a b".into(), "".into())]), None);
}
