//! Peers that are old, broken, dead or worse. They speak in plaintext, so that tests can.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod fixture;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fixture::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use transport::{
    CallError, Close, Config, Connection, Decoder, DialError, Features, Frame, GoAway, Hello, Open,
    Priority, Request, Security, Status, Versions,
};

fn plain(name: &str) -> Security {
    Security::DangerousPlaintext(node(name))
}

fn hello(name: &str) -> Hello {
    Hello {
        versions: Versions { min: 1, max: 1 },
        node: node(name),
        features: Features(0),
        requests_max: 16,
        window_bytes: 1000,
        body_bytes_max: 1000,
    }
}

fn open(id: u64, method: u16, body: &'static str) -> Frame {
    Frame::Open {
        id,
        open: Open {
            method,
            priority: Priority::Prompt,
            timeout_us: 0,
        },
        body: Bytes::from_static(body.as_bytes()),
        end: true,
    }
}

/// A peer made of bytes.
struct Raw {
    tcp: TcpStream,
    decoder: Decoder,
    input: BytesMut,
}

impl Raw {
    fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            decoder: Decoder::new(1 << 20),
            input: BytesMut::new(),
        }
    }

    async fn dial(serving: &Serving) -> Self {
        Self::new(TcpStream::connect(serving.address).await.unwrap())
    }

    /// Greets and is greeted.
    async fn greeted(serving: &Serving) -> Self {
        let mut raw = Self::dial(serving).await;
        raw.say(Frame::Hello(hello("raw"))).await;
        assert!(matches!(raw.hear().await, Some(Frame::Hello(_))));
        raw
    }

    async fn say(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        frame.write(&mut bytes);
        self.tcp.write_all(&bytes).await.unwrap();
    }

    /// The next frame; none once the other side has closed.
    async fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.input).unwrap() {
                return Some(frame);
            }
            match self.tcp.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn ended(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.hear().await {
            frames.push(frame);
        }
        frames
    }
}

/// A listener of bytes, and a node that dials it while `greeting` is what it hears.
async fn dialled(config: &Config, greeting: Frame) -> (Result<Connection, DialError>, Raw) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accept = async {
        let mut raw = Raw::new(listener.accept().await.unwrap().0);
        assert!(matches!(raw.hear().await, Some(Frame::Hello(_))));
        raw.say(greeting).await;
        raw
    };
    let (node, security) = (node("raw"), plain("a"));
    tokio::join!(
        transport::connect(address, &node, config, &security),
        accept
    )
}

#[tokio::test]
async fn an_older_neighbour_is_served_in_its_version_and_with_its_limits() {
    let config = Config {
        versions: Versions { min: 1, max: 2 },
        features: Features(0b11),
        ..Config::default()
    };
    let serving = serve(config.clone(), plain("b"), "127.0.0.1:0").await;
    let mut raw = Raw::dial(&serving).await;
    raw.say(Frame::Hello(hello("raw"))).await;
    let Some(Frame::Hello(theirs)) = raw.hear().await else {
        panic!("no greeting");
    };
    assert_eq!(theirs.versions, Versions { min: 1, max: 2 });
    raw.say(open(1, ECHO, "old")).await;
    let reply = Frame::Reply {
        id: 1,
        status: Status::OK,
        body: Bytes::from_static(b"old"),
        end: true,
    };
    assert_eq!(raw.hear().await, Some(reply));
    // Its frames are small and so is its window.
    raw.say(Frame::Open {
        id: 2,
        open: Open {
            method: BULK,
            priority: Priority::Prompt,
            timeout_us: 0,
        },
        body: number(5000).into(),
        end: true,
    })
    .await;
    let mut bytes = 0;
    while bytes < 5000 {
        match raw.hear().await {
            Some(Frame::Reply { id: 2, body, .. }) => assert!(body.len() <= 1000),
            Some(Frame::Data {
                id: 2, bytes: part, ..
            }) => {
                assert!(part.len() <= 1000);
                bytes += part.len();
                let bytes = part.len() as u32;
                raw.say(Frame::Credit { id: 2, bytes }).await;
            }
            other => panic!("{other:?}"),
        }
    }

    let (connection, _raw) = dialled(&config, Frame::Hello(hello("raw"))).await;
    let connection = connection.unwrap();
    assert_eq!(
        (connection.version(), connection.features()),
        (1, Features(0))
    );
}

#[tokio::test]
async fn versions_without_overlap_are_named_on_both_sides() {
    let newer = Config {
        versions: Versions { min: 2, max: 3 },
        ..Config::default()
    };
    let serving = serve(newer, plain("b"), "127.0.0.1:0").await;
    let result = dial(&serving, "b", &Config::default(), &plain("a")).await;
    let error = result.map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the peer speaks versions 2 to 3, this node 1 to 1"
    );
    let mut raw = Raw::dial(&serving).await;
    raw.say(Frame::Hello(hello("raw"))).await;
    let frames = raw.ended().await;
    assert!(matches!(frames[0], Frame::Hello(_)));
    let reason = GoAway::Version;
    assert_eq!(frames[1..], [Frame::GoAway { last: 0, reason }]);
}

#[tokio::test]
async fn bytes_that_are_no_frames_end_their_connection_only() {
    let serving = serve(Config::default(), plain("b"), "127.0.0.1:0").await;
    let good = dial(&serving, "b", &Config::default(), &plain("a"))
        .await
        .unwrap();
    let oversized = {
        let mut bytes = vec![2, 1, 0, 0];
        bytes.extend(u32::MAX.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        bytes
    };
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 100],
        &[0xff; 100],
        &oversized,
    ] {
        let mut raw = Raw::dial(&serving).await;
        raw.tcp.write_all(garbage).await.unwrap();
        assert_eq!(raw.ended().await, [], "before the greeting");
        let mut raw = Raw::greeted(&serving).await;
        raw.tcp.write_all(garbage).await.unwrap();
        raw.ended().await;
    }
    let mut raw = Raw::dial(&serving).await;
    raw.say(open(1, ECHO, "no greeting")).await;
    assert_eq!(raw.ended().await, []);
    assert_eq!(good.call(Request::new(ECHO, "x")).await.unwrap().1, "x");
}

#[tokio::test]
async fn who_breaks_the_protocol_is_told_so() {
    let serving = serve(Config::default(), plain("b"), "127.0.0.1:0").await;
    let mut raw = Raw::greeted(&serving).await;
    raw.say(open(1, HANG, "")).await;
    raw.say(open(1, HANG, "")).await;
    let reason = GoAway::Protocol;
    assert_eq!(raw.ended().await, [Frame::GoAway { last: 1, reason }]);
}

#[tokio::test]
async fn a_peer_that_dies_in_the_middle_of_a_stream_ends_it_on_the_other_side() {
    let config = Config::default();
    let (connection, mut raw) = dialled(&config, Frame::Hello(hello("raw"))).await;
    let connection = connection.unwrap();
    let asked = connection.ask(Request::new(1, "")).await.unwrap();
    assert!(matches!(raw.hear().await, Some(Frame::Open { id: 1, .. })));
    raw.say(Frame::Reply {
        id: 1,
        status: Status::OK,
        body: Bytes::from_static(b"beginning"),
        end: false,
    })
    .await;
    let mut reply = asked.reply().await.unwrap();
    assert_eq!(reply.body.chunk().await.unwrap().unwrap(), "beginning");
    let filling = reply.body.fill(vec![0; 10]);
    drop(raw);
    let lost = filling.await.map(|_| ()).unwrap_err();
    assert!(
        matches!(&lost, CallError::Lost(close) if matches!(**close, Close::Eof)),
        "{lost:?}"
    );
    let after = connection.call(Request::new(1, "")).await;
    assert!(matches!(after, Err(CallError::Draining)), "{after:?}");
}

#[tokio::test]
async fn a_caller_that_dies_stops_its_handlers() {
    let mut serving = serve(Config::default(), plain("b"), "127.0.0.1:0").await;
    let mut raw = Raw::greeted(&serving).await;
    raw.say(open(1, HANG, "")).await;
    let stopped = serving.hung.recv().await.unwrap();
    drop(raw);
    assert!(stopped.await.is_err());
}

#[tokio::test]
async fn a_peer_that_neither_speaks_nor_closes_is_taken_for_dead() {
    let config = Config {
        ping_after: Duration::from_millis(50),
        dead_after: Duration::from_millis(200),
        ..Config::default()
    };
    let (connection, mut raw) = dialled(&config, Frame::Hello(hello("raw"))).await;
    let connection = connection.unwrap();
    let call = connection.call(Request::new(1, ""));
    let lost = call.await.unwrap_err();
    assert!(matches!(&lost, CallError::Lost(close) if matches!(**close, Close::Dead(_))));
    assert!(
        raw.ended()
            .await
            .iter()
            .any(|frame| matches!(frame, Frame::Ping(_)))
    );
}

#[tokio::test]
async fn a_peer_that_lives_but_has_nothing_to_say_stays() {
    let config = Config {
        ping_after: Duration::from_millis(20),
        ..Config::default()
    };
    let (connection, mut raw) = dialled(&config, Frame::Hello(hello("raw"))).await;
    let connection = connection.unwrap();
    for _ in 0..5 {
        match raw.hear().await {
            Some(Frame::Ping(nonce)) => raw.say(Frame::Pong(nonce)).await,
            other => panic!("{other:?}"),
        }
    }
    assert!(connection.is_open());
}

#[tokio::test]
async fn a_peer_that_never_greets_gives_its_place_back() {
    let config = Config {
        connections_max: 1,
        handshake_max: Duration::from_millis(200),
        ..Config::default()
    };
    let serving = serve(config.clone(), plain("b"), "127.0.0.1:0").await;
    let mut raw = Raw::dial(&serving).await;
    assert_eq!(raw.ended().await, []);
    let patient = Config::default();
    let connection = dial(&serving, "b", &patient, &plain("a")).await.unwrap();
    assert_eq!(
        connection.call(Request::new(ECHO, "x")).await.unwrap().1,
        "x"
    );
}

#[tokio::test]
async fn calls_that_cross_a_drain_are_known_not_to_have_begun() {
    let config = Config::default();
    let (connection, mut raw) = dialled(&config, Frame::Hello(hello("raw"))).await;
    let connection = connection.unwrap();
    let first = connection.ask(Request::new(1, "")).await.unwrap();
    let second = connection.ask(Request::new(1, "")).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(raw.hear().await, Some(Frame::Open { .. })));
    }
    let reason = GoAway::Drain;
    raw.say(Frame::GoAway { last: 1, reason }).await;
    let refused = second.reply().await.map(|_| ());
    assert!(matches!(refused, Err(CallError::Draining)), "{refused:?}");
    raw.say(Frame::Reply {
        id: 1,
        status: Status(7),
        body: Bytes::new(),
        end: true,
    })
    .await;
    assert_eq!(first.reply().await.unwrap().status, Status(7));
    assert!(matches!(*connection.closed().await, Close::Drained));
}
