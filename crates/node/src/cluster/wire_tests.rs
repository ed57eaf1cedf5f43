//! What nodes say to each other about calls reads back, and what is cut short is refused.

use std::collections::VecDeque;

use model::{Status as End, Usage};

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
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        may_wait: true,
        streams: false,
        stem: None,
        input: Input::Plain {
            args: vec!["a".into()],
            env: vec![("K".into(), "v".into())],
        },
    }
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
    sent.put(&mut out);
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
        assert_eq!(Head::read(found).unwrap(), sent);
        assert_eq!(*data, Piece::Data("some bytes of a body".into()));
        assert_eq!(read_outcome(done).unwrap(), outcome());
        assert_eq!(*broken, Piece::Broken("why".into()));
    }
}

#[tokio::test]
async fn what_is_cut_short_or_no_piece_is_an_error() {
    let mut out = BytesMut::new();
    head().put(&mut out);
    put_data(b"body", &mut out);
    for length in 1..out.len() {
        let whole = read(&out[..length], 8).await;
        let head = KIND_AND_LENGTH + serde_json::to_vec(&head()).unwrap().len();
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
    let json = concat!(
        r#"{"id":"ID","path":{"app":"shop","function":"f"},"version":"V","traceparent":"T","#,
        r#""new":1,"input":{"kind":"http","method":"GET","uri":"http://h/","#,
        r#""headers":[["a","b"]]}}"#,
    );
    let version = Digest::of(b"v").to_string();
    let id = InvocationId::new(7).to_string();
    let json = json
        .replace("ID", &id)
        .replace("\"V\"", &format!("\"{version}\""));
    let head = Head::read(json.as_bytes()).unwrap();
    assert!(!head.may_wait && head.stem.is_none());
    let Input::Http { headers, .. } = &head.input else {
        panic!("{head:?}");
    };
    assert_eq!(headers[..], [("a".to_owned(), "b".to_owned())]);
    let later = br#"{"why":"moon","message":"m"}"#;
    assert_eq!(Refusal::read(later).why, Why::Other);
}

#[test]
fn what_is_sent_of_an_input_reads_back_as_the_input() {
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
            input: input.clone(),
            ..head()
        };
        let sent = Head {
            stem: whole.stem,
            input: input.to_send(),
            id: whole.id,
            path: whole.path.clone(),
            version: whole.version,
            traceparent: whole.traceparent.clone(),
            may_wait: whole.may_wait,
            streams: whole.streams,
        };
        assert_eq!(Head::read(&json(&sent)).unwrap(), whole);
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
