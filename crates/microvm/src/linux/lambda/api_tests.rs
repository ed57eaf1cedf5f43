//! The Runtime API, asked as clients ask it.

use proptest::prelude::*;

use super::*;

fn api() -> RuntimeApi {
    RuntimeApi::new(64)
}

fn invocation() -> Invocation {
    Invocation {
        id: "7".into(),
        deadline_unix_ms: 9,
        arn: "arn:aws:lambda:us-east-1:000000000000:function:a_f".into(),
        trace: Some("Root=1-2-3\r\nX: y".into()),
        client: None,
        event: Bytes::from_static(b"{\"a\":1}"),
    }
}

fn received(api: &mut RuntimeApi, connection: Connection) -> String {
    match api.receive(connection, 4096, false) {
        Received::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Received::Nothing => String::new(),
        Received::End => "END".into(),
    }
}

fn next(api: &mut RuntimeApi, connection: Connection) {
    api.send(
        connection,
        b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n",
    );
}

fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /2018-06-01/runtime/{path} HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// One that was given its invocation, and the connection that asked.
fn running() -> (RuntimeApi, Connection) {
    let mut api = api();
    let connection = api.connect().expect("room");
    next(&mut api, connection);
    api.give(invocation());
    received(&mut api, connection);
    (api, connection)
}

const GIVEN: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
    Lambda-Runtime-Aws-Request-Id: 7\r\nLambda-Runtime-Deadline-Ms: 9\r\n\
    Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:000000000000:function:a_f\r\n\
    Lambda-Runtime-Trace-Id: Root=1-2-3X: y\r\nContent-Length: 7\r\n\r\n{\"a\":1}";

#[test]
fn an_invocation_is_given_to_who_asks_before_or_after() {
    let mut api = api();
    let connection = api.connect().expect("room");
    next(&mut api, connection);
    assert!(api.is_waiting());
    assert_eq!(received(&mut api, connection), "");
    api.give(invocation());
    assert!(!api.is_waiting());
    assert_eq!(received(&mut api, connection), GIVEN);
    let mut later = self::api();
    let connection = later.connect().expect("room");
    later.give(invocation());
    next(&mut later, connection);
    assert_eq!(received(&mut later, connection), GIVEN);
}

#[test]
fn a_response_ends_the_call_once() {
    let (mut api, connection) = running();
    assert_eq!(api.ended(), None);
    api.send(
        connection,
        post("invocation/7/response", "", "done").as_bytes(),
    );
    assert_eq!(api.ended(), Some(&Ended::Response(b"done".to_vec())));
    assert!(received(&mut api, connection).starts_with("HTTP/1.1 202 "));
    api.send(connection, post("invocation/7/error", "", "{}").as_bytes());
    assert!(received(&mut api, connection).starts_with("HTTP/1.1 400 "));
    assert_eq!(api.ended(), Some(&Ended::Response(b"done".to_vec())));
}

#[test]
fn a_response_may_come_in_chunks_and_on_another_connection() {
    let (mut api, _) = running();
    let other = api.connect().expect("room");
    let head = "POST /2018-06-01/runtime/invocation/7/response HTTP/1.1\r\n\
                Lambda-Runtime-Function-Response-Mode: streaming\r\n\
                Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
    api.send(other, head.as_bytes());
    assert_eq!(received(&mut api, other), "HTTP/1.1 100 Continue\r\n\r\n");
    api.send(other, b"2\r\nab\r\n1\r\nc\r\n");
    assert_eq!(api.ended(), None);
    api.send(other, b"0\r\n\r\n");
    assert_eq!(api.ended(), Some(&Ended::Response(b"abc".to_vec())));
}

#[test]
fn a_response_that_broke_off_is_an_error() {
    let (mut api, connection) = running();
    let text = "POST /2018-06-01/runtime/invocation/7/response HTTP/1.1\r\n\
                Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\
                Lambda-Runtime-Function-Error-Type: Runtime.Broke\r\n\
                Lambda-Runtime-Function-Error-Body: eyJlcnJvck1lc3NhZ2UiOiJ3aHkifQ==\r\n\r\n";
    api.send(connection, text.as_bytes());
    let Some(Ended::Error(report)) = api.ended() else {
        panic!("{:?}", api.ended());
    };
    assert_eq!(
        (report.kind.as_str(), report.message.as_str()),
        ("Runtime.Broke", "why")
    );
}

#[test]
fn a_report_is_kept_whole_and_told_in_short() {
    let check = |headers: &str, body: &str, kind: &str, message: &str| {
        let (mut api, connection) = running();
        api.send(
            connection,
            post("invocation/7/error", headers, body).as_bytes(),
        );
        let Some(Ended::Error(report)) = api.ended() else {
            panic!("{:?}", api.ended());
        };
        assert_eq!(
            (report.kind.as_str(), report.message.as_str()),
            (kind, message)
        );
        assert_eq!(report.body, body.as_bytes());
    };
    let json = "{\"errorType\":\"T\",\"errorMessage\":\"words\"}";
    check("", json, "T", "words");
    check(
        "Lambda-Runtime-Function-Error-Type: unhandled\r\n",
        json,
        "unhandled",
        "words",
    );
    check("", "plain words", "", "plain words");
    check("", "", "", "");
}

#[test]
fn an_initialisation_may_fail_before_an_invocation_only() {
    let mut api = api();
    let connection = api.connect().expect("room");
    let failed = post("init/error", "", "{\"errorMessage\":\"no key\"}");
    api.send(connection, failed.as_bytes());
    assert!(matches!(api.ended(), Some(Ended::InitError(report)) if report.message == "no key"));
    let (mut api, connection) = running();
    api.send(connection, failed.as_bytes());
    assert!(received(&mut api, connection).starts_with("HTTP/1.1 403 "));
    assert_eq!(api.ended(), None);
}

#[test]
fn a_runtime_may_ask_to_be_told_that_it_was_restored() {
    let restore = b"GET /2018-06-01/runtime/restore/next HTTP/1.1\r\n\r\n";
    let mut api = api();
    let connection = api.connect().expect("room");
    api.send(connection, restore);
    assert!(api.is_waiting());
    let saved = postcard::to_allocvec(&api).expect("it is saved");
    let mut api: RuntimeApi = postcard::from_bytes(&saved).expect("it is back");
    api.give(invocation());
    assert!(received(&mut api, connection).ends_with("\r\n\r\n{}"));
    next(&mut api, connection);
    assert_eq!(received(&mut api, connection), GIVEN);
    let mut at_once = self::api();
    let connection = at_once.connect().expect("room");
    at_once.give(invocation());
    at_once.send(connection, restore);
    assert!(received(&mut at_once, connection).ends_with("\r\n\r\n{}"));
    let failed = post("restore/error", "", "{\"errorMessage\":\"stale\"}");
    at_once.send(connection, failed.as_bytes());
    assert!(matches!(at_once.ended(), Some(Ended::Error(report)) if report.message == "stale"));
}

#[test]
fn what_makes_no_sense_is_answered() {
    let check = |text: &str, status: &str| {
        let (mut api, connection) = running();
        api.send(connection, text.as_bytes());
        let answer = received(&mut api, connection);
        assert!(answer.contains(status), "{text} {answer}");
        assert_eq!(api.ended(), None);
    };
    check(&post("invocation/8/response", "", "x"), " 400 ");
    check(&post("invocation/next", "", ""), " 405 ");
    check(&post("elsewhere", "", ""), " 404 ");
    check(
        "GET /2020-01-01/extension/register HTTP/1.1\r\n\r\n",
        " 404 ",
    );
    check(
        "GET /2018-06-01/runtime/invocation/7/response HTTP/1.1\r\n\r\n",
        " 405 ",
    );
    check("nonsense\r\n\r\n", " 400 ");
}

#[test]
fn a_reply_over_its_limit_ends_the_call() {
    let (mut api, connection) = running();
    let body = "x".repeat(65);
    api.send(
        connection,
        post("invocation/7/response", "", &body).as_bytes(),
    );
    assert_eq!(api.ended(), Some(&Ended::TooLong));
    assert!(received(&mut api, connection).starts_with("HTTP/1.1 413 "));
    assert_eq!(received(&mut api, connection), "END");
}

#[test]
fn a_body_over_its_limit_that_is_no_reply_is_refused_alone() {
    let (mut api, _) = running();
    let other = api.connect().expect("room");
    let body = "x".repeat(65);
    api.send(other, post("elsewhere", "", &body).as_bytes());
    assert!(received(&mut api, other).starts_with("HTTP/1.1 413 "));
    assert_eq!(
        (received(&mut api, other).as_str(), api.ended()),
        ("END", None)
    );
}

#[test]
fn many_requests_at_once_are_answered_a_few_at_a_time() {
    let (mut api, connection) = running();
    let many = "GET / HTTP/1.1\r\n\r\n".repeat(1000);
    api.send(connection, many.as_bytes());
    let mut answers = 0;
    loop {
        let bytes = api.bytes(connection);
        assert!(bytes <= 64 * 200, "{bytes} bytes wait");
        let Received::Bytes(got) = api.receive(connection, 97, false) else {
            break;
        };
        answers += got.iter().filter(|byte| **byte == b'{').count();
    }
    assert_eq!(answers, 1000);
    assert!(api.takes(connection));
}

#[test]
fn what_connections_keep_of_requests_is_bounded_together() {
    let mut api = RuntimeApi::new(3 << 20);
    let all: Vec<_> = (0..32).map(|_| api.connect().expect("room")).collect();
    let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", 3 << 20);
    let refused = all.iter().filter(|connection| {
        api.send(**connection, head.as_bytes());
        api.send(**connection, &vec![b'x'; 1 << 20]);
        received(&mut api, **connection).starts_with("HTTP/1.1 413 ")
    });
    assert_eq!(refused.count(), 32 - 7);
}

#[test]
fn connections_are_counted_and_end_as_asked() {
    let mut api = api();
    let all: Vec<_> = std::iter::from_fn(|| api.connect()).collect();
    assert_eq!(all.len(), CONNECTIONS_MAX);
    next(&mut api, all[0]);
    api.close(all[0]);
    assert!(!api.is_waiting());
    let again = api.connect().expect("room");
    api.ends(again);
    assert_eq!(received(&mut api, again), "END");
    api.send(all[1], b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(received(&mut api, all[1]).contains("Connection: close"));
    assert_eq!(received(&mut api, all[1]), "END");
}

/// What a program may do.
#[derive(Clone, Debug)]
enum Step {
    Connect,
    Close(u32),
    Next(u32),
    Give,
    Post(u32, bool, bool),
    Receive(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Connect),
        (0..4_u32).prop_map(Step::Close),
        (0..4_u32).prop_map(Step::Next),
        Just(Step::Give),
        (0..4_u32, any::<bool>(), any::<bool>()).prop_map(|(c, e, own)| Step::Post(c, e, own)),
        (0..4_u32).prop_map(Step::Receive),
    ]
}

/// What has to come of it: how often the event was handed over, and the first end.
#[derive(Debug, Default)]
struct Model {
    open: Vec<u32>,
    waiting: Vec<u32>,
    kept: bool,
    given: bool,
    ended: Option<bool>,
}

impl Model {
    fn step(&mut self, step: &Step, new: Option<u32>) {
        match step {
            Step::Connect => self.open.extend(new),
            Step::Close(c) => {
                self.open.retain(|open| open != c);
                self.waiting.retain(|open| open != c);
            }
            Step::Next(c) if self.open.contains(c) => match self.kept {
                true => (self.kept, self.given) = (false, true),
                false => self.waiting.push(*c),
            },
            Step::Give => match self.waiting.is_empty() {
                true => self.kept = true,
                false => {
                    self.waiting.remove(0);
                    self.given = true;
                }
            },
            Step::Post(c, error, true) if self.open.contains(c) && self.given => {
                self.ended.get_or_insert(*error);
            }
            Step::Next(_) | Step::Post(..) | Step::Receive(_) => {}
        }
    }
}

proptest! {
    #[test]
    fn one_invocation_is_given_and_ended_once(steps in proptest::collection::vec(step(), 0..40)) {
        let (mut api, mut model) = (api(), Model::default());
        let mut gave = false;
        for step in steps {
            if matches!(step, Step::Give) && std::mem::replace(&mut gave, true) {
                continue;
            }
            if let Step::Next(c) | Step::Post(c, ..) = &step
                && !api.takes(Connection(*c))
            {
                // A program has to wait until it does.
                continue;
            }
            let mut new = None;
            match &step {
                Step::Connect => new = api.connect().map(|connection| connection.0),
                Step::Close(c) => api.close(Connection(*c)),
                Step::Next(c) => next(&mut api, Connection(*c)),
                Step::Give => api.give(invocation()),
                Step::Post(c, error, own) => {
                    let id = if *own { "7" } else { "8" };
                    let which = if *error { "error" } else { "response" };
                    let text = post(&format!("invocation/{id}/{which}"), "", "x");
                    api.send(Connection(*c), text.as_bytes());
                }
                Step::Receive(c) => drop(received(&mut api, Connection(*c))),
            }
            model.step(&step, new);
            let ended = api.ended().map(|ended| matches!(ended, Ended::Error(_)));
            prop_assert_eq!(ended, model.ended);
            prop_assert_eq!(api.given.is_some(), model.given);
            prop_assert_eq!(api.waiting.len(), model.waiting.len());
        }
    }
}

#[test]
fn what_is_asked_after_it_waits_is_answered_after_its_invocation() {
    let mut api = api();
    let connection = api.connect().expect("room");
    let request = "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n";
    let both = format!("{request}{}", post("elsewhere", "", ""));
    api.send(connection, both.as_bytes());
    assert!(!api.is_waiting() && !api.takes(connection));
    assert_eq!(received(&mut api, connection), "");
    api.give(invocation());
    let answers = received(&mut api, connection);
    let rest = answers.strip_prefix(GIVEN).expect("the invocation first");
    assert!(rest.starts_with("HTTP/1.1 404 "), "{rest}");
}

#[test]
fn bytes_are_received_in_parts_and_stay_when_looked_at() {
    let mut api = api();
    let connection = api.connect().expect("room");
    next(&mut api, connection);
    api.give(invocation());
    assert_eq!(api.bytes(connection), GIVEN.len());
    let mut all = Vec::new();
    while api.bytes(connection) > 0 {
        let looked = api.receive(connection, 50, true);
        let received = api.receive(connection, 50, false);
        assert_eq!(looked, received);
        let Received::Bytes(bytes) = received else {
            panic!("{received:?}");
        };
        assert!(!bytes.is_empty() && bytes.len() <= 50);
        all.extend(bytes);
    }
    assert_eq!(all, GIVEN.as_bytes());
    assert_eq!(api.receive(connection, 50, false), Received::Nothing);
}

#[test]
fn who_waits_when_it_is_saved_is_answered_when_it_is_back() {
    let mut api = api();
    let (idle, asks) = (api.connect().expect("room"), api.connect().expect("room"));
    next(&mut api, asks);
    let bytes = postcard::to_allocvec(&api).expect("it is saved");
    let mut back: RuntimeApi = postcard::from_bytes(&bytes).expect("it is back");
    assert!(back.is_waiting());
    back.give(invocation());
    assert_eq!(received(&mut back, asks), GIVEN);
    assert_eq!(received(&mut back, idle), "");
    back.send(idle, post("invocation/7/response", "", "done").as_bytes());
    assert_eq!(back.take_end(), Some(Ended::Response(b"done".to_vec())));
    assert_ne!(back.connect(), Some(idle));
    let large = "x".repeat(65);
    let mut over: RuntimeApi = postcard::from_bytes(&bytes).expect("it is back");
    over.give(invocation());
    over.send(idle, post("invocation/7/response", "", &large).as_bytes());
    assert_eq!(over.take_end(), Some(Ended::TooLong));
}
