//! Calls and streams between two nodes.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod fixture;

use std::any::Any;
use std::time::Duration;

use bytes::Bytes;
use fixture::*;
use tokio::time::timeout;
use transport::{CallError, Config, Landing, Request, Status};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_have_each_its_own_reply() {
    let (_cluster, _serving, connection) = pair(Config::default()).await;
    let calls = (0..500_usize).map(|at| {
        let connection = connection.clone();
        tokio::spawn(async move {
            let body = made_up(at * 97 % 200_000);
            let reply = connection.call(Request::new(ECHO, body.clone())).await;
            assert_eq!(reply.unwrap(), (Status::OK, body));
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    let unknown = connection.call(Request::new(99, "")).await.unwrap();
    assert_eq!(unknown.0, Status(404));
    assert_eq!(connection.calls(), 0);
    assert_eq!(connection.version(), 1);
}

#[tokio::test]
async fn a_request_leaves_on_the_thread_that_asks() {
    let elsewhere = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (cluster, config) = (Cluster::new(), Config::default());
    let at = serve(config.clone(), cluster.security("b"), "127.0.0.1:0");
    let serving = elsewhere.spawn(at).await.unwrap();
    let connection = dial(&serving, "b", &config, &cluster.security("a")).await;
    let connection = connection.unwrap();
    // More than one write takes, so that the connection's task does the rest.
    let body = made_up(4 << 20);
    let echo = connection.call(Request::new(ECHO, body.clone())).await;
    assert_eq!(echo.unwrap().1, body);
    let asked = connection.ask(Request::new(HANG, "")).await.unwrap();
    let (told, began) = std::sync::mpsc::channel();
    let mut hung = serving.hung;
    std::thread::spawn(move || told.send(hung.blocking_recv().is_some()));
    // This thread is held meanwhile, and with it the connection's task.
    assert_eq!(began.recv_timeout(Duration::from_secs(10)), Ok(true));
    drop(asked);
    elsewhere.shutdown_background();
}

#[tokio::test]
async fn more_calls_than_the_limit_wait_for_their_turn_and_more_than_that_are_refused() {
    let config = Config {
        requests_max: 2,
        requests_waiting_max: 1,
        ..Config::default()
    };
    let (_cluster, mut serving, connection) = pair(config).await;
    let mut hanging = Vec::new();
    for _ in 0..2 {
        hanging.push(connection.ask(Request::new(HANG, "")).await.unwrap());
        serving.hung.recv().await.unwrap();
    }
    let waiting = connection.call(Request::new(ECHO, "turn"));
    tokio::pin!(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    let refused = connection.call(Request::new(ECHO, "")).await;
    assert!(matches!(refused, Err(CallError::Busy { waiting: 1, .. })));
    drop(hanging.pop());
    assert_eq!(waiting.await.unwrap().1, "turn");
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_stops_its_handler() {
    let (_cluster, mut serving, connection) = pair(Config::default()).await;
    let asked = connection.ask(Request::new(HANG, "")).await.unwrap();
    let stopped = serving.hung.recv().await.unwrap();
    drop(asked);
    assert!(stopped.await.is_err(), "the handler's future was dropped");
    let reply = connection.call(Request::new(ECHO, "after")).await.unwrap();
    assert_eq!(reply.1, "after");
}

#[tokio::test]
async fn a_storm_of_cancelled_calls_leaves_the_connection_as_it_was() {
    let (_cluster, mut serving, connection) = pair(Config::default()).await;
    for round in 0..20 {
        let mut asked = Vec::new();
        for _ in 0..200 {
            asked.push(connection.ask(Request::new(HANG, "")).await.unwrap());
        }
        if round % 2 == 0 {
            serving.hung.recv().await.unwrap();
        }
        drop(asked);
    }
    let reply = connection.call(Request::new(ECHO, "calm")).await.unwrap();
    assert_eq!(reply.1, "calm");
    // Whatever began was stopped; what did not begin is not in the list.
    serving.hung.close();
    while let Some(stopped) = serving.hung.recv().await {
        assert!(stopped.await.is_err());
    }
}

#[tokio::test]
async fn deadlines_end_calls_on_both_sides() {
    let (_cluster, mut serving, connection) = pair(Config::default()).await;
    let request = Request::new(HANG, "").timeout(Duration::from_millis(50));
    let result = connection.call(request).await;
    assert!(matches!(result, Err(CallError::Deadline)), "{result:?}");
    let stopped = serving.hung.recv().await.unwrap();
    assert!(stopped.await.is_err());
}

#[tokio::test]
async fn handlers_that_fail_panic_or_stop_halfway_fail_their_call_only() {
    let (_cluster, _serving, connection) = pair(Config::default()).await;
    for method in [FAIL, PANIC, HALF] {
        let result = connection.call(Request::new(method, "")).await;
        assert!(
            matches!(result, Err(CallError::Failed)),
            "{method}: {result:?}"
        );
    }
    let reply = connection.call(Request::new(ECHO, "on")).await.unwrap();
    assert_eq!(reply.1, "on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_stream_both_ways_and_arrive_whole() {
    let (_cluster, _serving, connection) = pair(Config::default()).await;
    let body = made_up(5_000_000);
    let (mut sender, answer) = connection.stream(Request::new(PIPE, "")).await.unwrap();
    let sent = body.clone();
    let sending = tokio::spawn(async move {
        for at in (0..sent.len()).step_by(70_001) {
            let end = sent.len().min(at + 70_001);
            sender.send(sent.slice(at..end)).await.unwrap();
        }
        sender.finish().unwrap();
    });
    let reply = answer.reply().await.unwrap();
    let received = reply.body.collect(5_000_000).await.unwrap();
    sending.await.unwrap();
    assert!(received == body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_gets_bytes_in_its_own_buffer() {
    let (_cluster, _serving, connection) = pair(Config::default()).await;
    let bytes = 9_000_001;
    let asked = connection
        .ask(Request::new(BULK, number(bytes)).bulk())
        .await
        .unwrap();
    let mut reply = asked.reply().await.unwrap();
    let expected = made_up(bytes);
    let first = reply.body.fill(vec![0_u8; 5_000_000]).await.unwrap();
    assert!(first[..] == expected[..5_000_000]);
    let chunk = reply.body.chunk().await.unwrap().unwrap();
    let at = 5_000_000 + chunk.len();
    assert!(chunk == expected[5_000_000..at]);
    let rest = reply.body.fill(vec![0_u8; bytes - at]).await.unwrap();
    assert!(rest[..] == expected[at..]);
    assert_eq!(reply.body.chunk().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_goes_to_the_buffer_that_was_named_with_the_request() {
    let (_cluster, _serving, connection) = pair(Config::default()).await;
    let (bytes, room) = (900_001, 700_000);
    let expected = made_up(bytes);
    // A buffer that all of it fits in, one that it does not, and many at a time.
    for room in [bytes + 7, bytes, room] {
        let ask = || async {
            let request = Request::new(BULK, number(bytes));
            let asked = connection
                .ask_into(request, vec![0_u8; room])
                .await
                .unwrap();
            let mut reply = asked.reply().await.unwrap();
            let (buffer, filled) = reply.body.landed::<Vec<u8>>().await.unwrap();
            assert_eq!(filled, room.min(bytes));
            assert!(buffer[..filled] == expected[..filled]);
            let rest = reply.body.collect(bytes).await.unwrap();
            assert!(rest == expected[filled..]);
        };
        futures::future::join_all((0..5).map(|_| ask())).await;
    }
}

/// A buffer in several pieces.
struct Pieces(Vec<Vec<u8>>);

impl Landing for Pieces {
    fn bytes(&mut self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    fn room(&mut self, filled: usize) -> &mut [u8] {
        let mut skip = filled;
        for piece in &mut self.0 {
            if skip < piece.len() {
                return &mut piece[skip..];
            }
            skip -= piece.len();
        }
        &mut []
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buffer_may_be_in_pieces_and_is_filled_in_their_order() {
    let (_cluster, _serving, connection) = pair(Config::default()).await;
    let bytes = 400_001;
    let expected = made_up(bytes);
    for sizes in [vec![44, 1 << 20], vec![1, 70_000, 3, 300_000], vec![5]] {
        let all: usize = sizes.iter().sum();
        let pieces = Pieces(sizes.into_iter().map(|size| vec![0; size]).collect());
        let request = Request::new(BULK, number(bytes));
        let asked = connection.ask_into(request, pieces).await.unwrap();
        let mut reply = asked.reply().await.unwrap();
        let (pieces, filled) = reply.body.landed::<Pieces>().await.unwrap();
        assert_eq!(filled, all.min(bytes));
        assert!(pieces.0.concat()[..filled] == expected[..filled]);
        assert!(reply.body.collect(bytes).await.unwrap() == expected[filled..]);
    }
    // What is in them when their reader gives up is read as any other bytes.
    let (mut sender, answer) = connection.stream(Request::new(PIPE, "")).await.unwrap();
    sender.send(expected.slice(..100)).await.unwrap();
    let mut reply = answer.reply().await.unwrap();
    let filling = reply.body.fill(Pieces(vec![vec![0; 30], vec![0; 500]]));
    assert!(timeout(Duration::from_millis(100), filling).await.is_err());
    sender.finish().unwrap();
    assert!(reply.body.collect(bytes).await.unwrap() == expected[..100]);
}

#[tokio::test]
async fn a_buffer_that_the_body_does_not_fill_is_an_error() {
    let (_cluster, _serving, connection) = pair(Config::default()).await;
    let asked = connection
        .ask(Request::new(BULK, number(300_000)))
        .await
        .unwrap();
    let mut reply = asked.reply().await.unwrap();
    let result = reply.body.fill(vec![0_u8; 300_007]).await;
    assert!(
        matches!(result, Err(CallError::Short { missing: 7 })),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_reply_larger_than_was_asked_for_is_an_error_and_cancels() {
    let (_cluster, _serving, connection) = pair(Config::default()).await;
    let request = Request::new(BULK, number(10_000_000)).reply_bytes_max(100_000);
    let result = connection.call(request).await;
    assert!(matches!(result, Err(CallError::TooLarge { max: 100_000 })));
    assert_eq!(
        connection.call(Request::new(ECHO, "x")).await.unwrap().1,
        "x"
    );
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_its_sender_and_nobody_else() {
    let (_cluster, _serving, connection) = pair(Config::default()).await;
    // More than all windows and send buffers hold.
    let slow = connection
        .ask(Request::new(BULK, number(60_000_000)).bulk())
        .await
        .unwrap();
    let mut slow = slow.reply().await.unwrap();
    let first = slow.body.chunk().await.unwrap().unwrap();
    for at in 0..200_usize {
        let body = made_up(at);
        let reply = connection
            .call(Request::new(ECHO, body.clone()))
            .await
            .unwrap();
        assert_eq!(reply.1, body);
    }
    let other = connection
        .call(Request::new(BULK, number(3_000_000)))
        .await
        .unwrap();
    assert_eq!(other.1.len(), 3_000_000);
    let rest = slow.body.collect(60_000_000).await.unwrap();
    assert_eq!(first.len() + rest.len(), 60_000_000);
}

#[tokio::test]
async fn a_sender_waits_when_nobody_reads_and_is_told_when_the_call_is_over() {
    let (_cluster, mut serving, connection) = pair(Config::default()).await;
    let request = Request::new(HANG, "").without_timeout();
    let (mut sender, answer) = connection.stream(request).await.unwrap();
    serving.hung.recv().await.unwrap();
    let piece = made_up(100_000);
    let mut pieces = 0;
    let blocked = loop {
        let mut sending = Box::pin(sender.send(piece.clone()));
        match futures::poll!(&mut sending) {
            std::task::Poll::Ready(sent) => sent.unwrap(),
            std::task::Poll::Pending => break pieces,
        }
        pieces += 1;
        assert!(pieces < 100, "nothing stops the sender");
    };
    assert!(blocked >= 5, "a send buffer of 512 KiB holds five pieces");
    drop(answer);
    let result = loop {
        if let Err(error) = sender.send(piece.clone()).await {
            break error;
        }
    };
    assert!(matches!(result, CallError::Over), "{result:?}");
}

#[tokio::test]
async fn a_handler_hears_when_its_reply_has_gone() {
    let config = Config::default();
    assert!(
        (config.window_bytes as usize) > 100_000,
        "nothing else holds it back"
    );
    let (_cluster, mut serving, connection) = pair(config).await;
    let reply = connection.call(Request::new(TRACKED, "")).await.unwrap();
    assert_eq!(reply.1.len(), 100_000);
    let gone = serving.hung.recv().await.unwrap();
    assert!(gone.await.is_ok(), "the handler went on");
}

#[tokio::test]
async fn a_handler_may_reply_without_reading_its_request() {
    let (_cluster, _serving, connection) = pair(Config::default()).await;
    let (mut sender, answer) = connection.stream(Request::new(DEAF, "")).await.unwrap();
    let reply = answer.reply().await.unwrap();
    assert_eq!(reply.body.collect(10).await.unwrap(), "deaf");
    let result = sender.send(Bytes::from_static(b"more")).await;
    assert!(matches!(result, Err(CallError::Over)));
}

#[tokio::test]
async fn a_request_that_is_dropped_halfway_is_no_whole_request() {
    let (_cluster, _serving, connection) = pair(Config::default()).await;
    let (mut sender, answer) = connection.stream(Request::new(COUNT, "")).await.unwrap();
    sender.send(made_up(10)).await.unwrap();
    drop(sender);
    let result = answer.reply().await.map(|reply| reply.status);
    assert!(matches!(result, Err(CallError::Over)), "{result:?}");
}

#[tokio::test]
async fn a_large_request_is_streamed() {
    let (_cluster, _serving, connection) = pair(Config::default()).await;
    let reply = connection
        .call(Request::new(COUNT, made_up(20_000_000)))
        .await
        .unwrap();
    assert_eq!(reply.1, number(20_000_000));
}

#[tokio::test]
async fn a_small_call_overtakes_a_bulk_transfer_that_is_under_way() {
    let (_cluster, _serving, connection) = pair(Config::default()).await;
    let asked = connection
        .ask(Request::new(BULK, number(64 << 20)).bulk())
        .await
        .unwrap();
    let mut reply = asked.reply().await.unwrap();
    let mut transfer = Box::pin(reply.body.fill(vec![0_u8; 64 << 20]));
    let mut overtaken = 0;
    while futures::poll!(&mut transfer).is_pending() {
        connection.call(Request::new(ECHO, "")).await.unwrap();
        overtaken += 1;
    }
    // No more than a window of 2 MiB can be ahead of the reader.
    assert!(overtaken >= 4, "{overtaken}");
}

#[tokio::test]
async fn plaintext_is_there_for_those_who_insist() {
    let config = Config::default();
    let security = |name| transport::Security::DangerousPlaintext(node(name));
    let serving = serve(config.clone(), security("b"), "127.0.0.1:0").await;
    let connection = dial(&serving, "b", &config, &security("a")).await.unwrap();
    assert_eq!(
        connection.call(Request::new(ECHO, "x")).await.unwrap().1,
        "x"
    );
    let wrong = dial(&serving, "c", &config, &security("a"))
        .await
        .map(|_| ());
    assert!(matches!(wrong, Err(transport::DialError::WrongNode(_))));
}
