//! The Runtime API as a value: bytes of connections in, bytes out, and how the call ended.
//!
//! ```text
//!  Starting ── next, restore/next ─▶ Waiting ── give ─▶ Running ── response, error ─▶ Ended
//!     │ give: kept for the first `next`                                  ▲
//!     └── init/error ────────────────────────────────────────────────────┘
//! ```
//!
//! Invariants:
//! - One invocation is given once, and ended once; what comes after its end changes nothing.
//! - What a connection holds is bounded: a head, a body of at most so many bytes, and answers to
//!   requests that were read.
//! - A request that makes no sense is answered, and its connection closed if no more can be read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::Head;
use super::http::{Event, Reader, Request, Unreadable};
use super::report::{ERROR_TYPE, Report};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 32;
/// Answers that a connection may leave unread before it is not read any more.
const ANSWERS_MAX: usize = 64;
/// What all connections may keep of requests past one body of the most bytes.
const HELD_BYTES_MAX: usize = 4 << 20;

const PREFIX: &str = "/2018-06-01/runtime/";

/// What a program is given when it asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// Its id.
    pub id: String,
    /// When it ends at the latest, in milliseconds since 1970.
    pub deadline_unix_ms: u64,
    /// The name by which the function was called.
    pub arn: String,
    /// Its place in a trace, as X-Ray writes it.
    pub trace: Option<String>,
    /// What the caller says of itself, in JSON.
    pub client: Option<String>,
    /// What the function gets.
    pub event: Bytes,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a reply.
    Response(Vec<u8>),
    /// With the program's report of an error.
    Error(Report),
    /// Before it could be given an invocation, with a report.
    InitError(Report),
    /// With a reply that is too long.
    TooLong,
}

/// The number of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Connection(u32);

/// What was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// So much.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// Nothing ever.
    End,
}

#[derive(Clone, Debug)]
struct Open {
    reader: Reader,
    answers: VecDeque<Bytes>,
    /// Whether nothing more is read, and it ends after its answers.
    ends: bool,
}

/// The Runtime API of one program.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "Standing", from = "Standing")]
pub struct RuntimeApi {
    body_bytes_max: usize,
    connections: BTreeMap<Connection, Open>,
    next: u32,
    /// Who waits, the first first: for an invocation,
    waiting: VecDeque<Connection>,
    /// or, of these, to be told that there is one.
    restoring: BTreeSet<Connection>,
    /// Nobody has asked for it yet.
    kept: Option<Invocation>,
    /// The id of the one that was given.
    given: Option<String>,
    /// Whether the call has ended, and how, until that is taken.
    is_over: bool,
    ended: Option<Ended>,
}

/// What is left of it while a program waits for its invocation: nothing is half said.
#[derive(Serialize, Deserialize)]
struct Standing {
    body_bytes_max: u64,
    /// And whether the program sends nothing more.
    connections: Vec<(Connection, bool)>,
    next: u32,
    waiting: Vec<Connection>,
    restoring: Vec<Connection>,
}

impl From<RuntimeApi> for Standing {
    fn from(api: RuntimeApi) -> Self {
        let connections = api.connections.iter();
        Self {
            body_bytes_max: api.body_bytes_max as u64,
            connections: connections.map(|(at, open)| (*at, open.ends)).collect(),
            next: api.next,
            waiting: api.waiting.into(),
            restoring: api.restoring.into_iter().collect(),
        }
    }
}

impl From<Standing> for RuntimeApi {
    fn from(standing: Standing) -> Self {
        let bytes_max = usize::try_from(standing.body_bytes_max).unwrap_or(usize::MAX);
        let mut api = Self::new(bytes_max);
        for (connection, ends) in standing.connections {
            api.connections
                .insert(connection, Open::new(bytes_max, ends));
        }
        (api.next, api.waiting) = (standing.next, standing.waiting.into());
        api.restoring = standing.restoring.into_iter().collect();
        api
    }
}

impl Open {
    fn new(body_bytes_max: usize, ends: bool) -> Self {
        Self {
            reader: Reader::new(body_bytes_max),
            answers: VecDeque::new(),
            ends,
        }
    }
}

impl RuntimeApi {
    /// One that takes replies of at most so many bytes.
    pub fn new(body_bytes_max: usize) -> Self {
        Self {
            body_bytes_max,
            connections: BTreeMap::new(),
            next: 0,
            waiting: VecDeque::new(),
            restoring: BTreeSet::new(),
            kept: None,
            given: None,
            is_over: false,
            ended: None,
        }
    }

    /// A new connection; none if there are too many.
    pub fn connect(&mut self) -> Option<Connection> {
        if self.connections.len() >= CONNECTIONS_MAX {
            return None;
        }
        let connection = Connection(self.next);
        self.next = self.next.wrapping_add(1);
        let open = Open::new(self.body_bytes_max, false);
        self.connections.insert(connection, open);
        Some(connection)
    }

    /// Ends a connection.
    pub fn close(&mut self, connection: Connection) {
        self.connections.remove(&connection);
        self.waiting.retain(|waiting| *waiting != connection);
        self.restoring.remove(&connection);
    }

    /// The program sends nothing more on a connection.
    pub fn ends(&mut self, connection: Connection) {
        if let Some(open) = self.connections.get_mut(&connection) {
            open.ends = true;
        }
    }

    /// Whether the connection takes more bytes: not before what it asked is answered, and the
    /// answers are read.
    pub fn takes(&self, connection: Connection) -> bool {
        let open = self.connections.get(&connection);
        let reads = open.is_some_and(|open| open.answers.len() < ANSWERS_MAX);
        reads && !self.waiting.contains(&connection)
    }

    /// Whether a connection sends nothing after the answers that it has.
    pub fn has_ended(&self, connection: Connection) -> bool {
        let open = self.connections.get(&connection);
        open.is_none_or(|open| open.ends) && !self.waiting.contains(&connection)
    }

    /// Bytes that can be received now.
    pub fn bytes(&self, connection: Connection) -> usize {
        let open = self.connections.get(&connection);
        open.map_or(0, |open| open.answers.iter().map(Bytes::len).sum())
    }

    /// Receives up to `most` bytes, which stay where they are if this is but a look.
    pub fn receive(&mut self, connection: Connection, most: usize, look: bool) -> Received {
        let has_ended = self.has_ended(connection);
        let Some(open) = self.connections.get_mut(&connection) else {
            return Received::End;
        };
        if open.answers.is_empty() {
            return if has_ended {
                Received::End
            } else {
                Received::Nothing
            };
        }
        let mut out = Vec::new();
        for answer in &open.answers {
            let room = most - out.len();
            out.extend_from_slice(&answer[..answer.len().min(room)]);
        }
        if !look {
            let mut left = out.len();
            while left > 0
                && let Some(mut answer) = open.answers.pop_front()
            {
                left -= answer.split_to(answer.len().min(left)).len();
                if !answer.is_empty() {
                    open.answers.push_front(answer);
                }
            }
            // What was sent with more requests than are answered at a time is read on.
            self.read(connection);
        }
        Received::Bytes(out)
    }

    /// Takes bytes that the program sent.
    pub fn send(&mut self, connection: Connection, bytes: &[u8]) {
        let Some(open) = self.connections.get_mut(&connection) else {
            return;
        };
        if open.ends {
            return;
        }
        open.reader.push(bytes);
        self.read(connection);
        let held: usize = self
            .connections
            .values()
            .map(|open| open.reader.held())
            .sum();
        if held > self.body_bytes_max.saturating_add(HELD_BYTES_MAX) {
            self.unreadable(connection, Unreadable::BodyTooLarge);
        }
    }

    /// Answers the requests that have come whole, up to one that is not answered yet.
    fn read(&mut self, connection: Connection) {
        while self.takes(connection) {
            let Some(open) = self.connections.get_mut(&connection) else {
                return;
            };
            match open.reader.read() {
                Ok(None) => return,
                Ok(Some(Event::Expects)) => {
                    let go_on = Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n");
                    open.answers.push_back(go_on);
                }
                Ok(Some(Event::Request(request))) => {
                    open.ends |= !request.keeps;
                    self.request(connection, request);
                }
                Err(why) => return self.unreadable(connection, why),
            }
        }
    }

    /// Whether the program is ready and waits for its invocation, with nothing half said.
    pub fn is_waiting(&self) -> bool {
        let quiet = |open: &Open| open.answers.is_empty() && open.reader.is_between_requests();
        self.given.is_none()
            && self.kept.is_none()
            && !self.is_over
            && !self.waiting.is_empty()
            && self.connections.values().all(quiet)
    }

    /// Gives the program its invocation: now, if it waits for one, or when it asks.
    pub fn give(&mut self, invocation: Invocation) {
        self.kept = Some(invocation);
        while self.kept.is_some()
            && let Some(connection) = self.waiting.pop_front()
        {
            if self.restoring.remove(&connection) {
                self.restored(connection);
            } else if let Some(invocation) = self.kept.take() {
                self.hand_over(connection, invocation);
            }
            self.read(connection);
        }
    }

    /// How the call ended, until that is taken.
    #[cfg(test)]
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Whether the call has ended.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// How the call ended, once it has; told once.
    pub fn take_end(&mut self) -> Option<Ended> {
        self.ended.take()
    }

    fn hand_over(&mut self, connection: Connection, invocation: Invocation) {
        let mut head = Head::new(200, "OK");
        head.set("Lambda-Runtime-Aws-Request-Id", &invocation.id);
        let deadline = invocation.deadline_unix_ms.to_string();
        head.set("Lambda-Runtime-Deadline-Ms", &deadline);
        head.set("Lambda-Runtime-Invoked-Function-Arn", &invocation.arn);
        if let Some(trace) = &invocation.trace {
            head.set("Lambda-Runtime-Trace-Id", trace);
        }
        if let Some(client) = &invocation.client {
            head.set("Lambda-Runtime-Client-Context", client);
        }
        self.given = Some(invocation.id);
        self.answer(connection, head, invocation.event);
    }

    fn answer(&mut self, connection: Connection, head: Head, body: Bytes) {
        if let Some(open) = self.connections.get_mut(&connection) {
            open.answers.push_back(head.end(body.len(), open.ends));
            if !body.is_empty() {
                open.answers.push_back(body);
            }
        }
    }

    fn answer_json(&mut self, connection: Connection, head: Head, value: &Value) {
        self.answer(connection, head, Bytes::from(value.to_string()));
    }

    fn refuse(&mut self, connection: Connection, status: (u16, &str), kind: &str, words: &str) {
        let error = json!({"errorType": kind, "errorMessage": words});
        self.answer_json(connection, Head::new(status.0, status.1), &error);
    }

    /// Ends a connection whose requests cannot be read on.
    fn unreadable(&mut self, connection: Connection, why: Unreadable) {
        let Some(open) = self.connections.get_mut(&connection) else {
            return;
        };
        open.ends = true;
        let reader = std::mem::replace(&mut open.reader, Reader::new(0));
        match why {
            Unreadable::Malformed => {
                let words = "the request is malformed";
                self.refuse(connection, (400, "Bad Request"), "InvalidRequest", words);
            }
            Unreadable::HeadTooLarge => {
                let status = (431, "Request Header Fields Too Large");
                self.refuse(
                    connection,
                    status,
                    "InvalidRequest",
                    "its head is too large",
                );
            }
            Unreadable::BodyTooLarge => {
                let words = "the reply passes its limit";
                self.refuse(connection, TOO_LARGE, "RequestEntityTooLarge", words);
                let reply = |id: &String| format!("{PREFIX}invocation/{id}/response");
                let path = reader.path().split('?').next();
                if self.given.as_ref().map(reply).as_deref() == path {
                    self.over(Ended::TooLong);
                }
            }
        }
    }

    fn request(&mut self, connection: Connection, request: Request) {
        let path = request.path.split('?').next().unwrap_or_default();
        let path = path.strip_prefix(PREFIX).unwrap_or_default().to_owned();
        match path.split('/').collect::<Vec<_>>().as_slice() {
            ["invocation", "next"] if request.method == "GET" => self.asks(connection),
            ["restore", "next"] if request.method == "GET" => match self.kept {
                Some(_) => self.restored(connection),
                None => {
                    self.waiting.push_back(connection);
                    self.restoring.insert(connection);
                }
            },
            ["restore", "error"] if request.method == "POST" => {
                let report = Report::of(&request);
                self.end(connection, Ended::Error(report));
            }
            ["init", "error"] if request.method == "POST" => {
                if self.given.is_some() {
                    let words = "it has begun an invocation already";
                    return self.refuse(connection, FORBIDDEN, "InvalidStateTransition", words);
                }
                let report = Report::of(&request);
                self.end(connection, Ended::InitError(report));
            }
            ["invocation", id, which @ ("response" | "error")] if request.method == "POST" => {
                if self.given.as_deref() != Some(id) || self.is_over {
                    let words = "no invocation of this id runs";
                    let status = (400, "Bad Request");
                    return self.refuse(connection, status, "InvalidRequestID", words);
                }
                let ended = match *which {
                    "error" => Ended::Error(Report::of(&request)),
                    _ if request.trailers.find(ERROR_TYPE).is_some() => {
                        Ended::Error(Report::of_trailers(&request))
                    }
                    _ => Ended::Response(request.body),
                };
                self.end(connection, ended);
            }
            ["invocation" | "restore", "next"]
            | ["init" | "restore", "error"]
            | ["invocation", _, "response" | "error"] => {
                let status = (405, "Method Not Allowed");
                self.refuse(connection, status, "InvalidMethod", "use another method");
            }
            _ => {
                let words = "the Runtime API has nothing at this path";
                self.refuse(connection, (404, "Not Found"), "NotFound", words);
            }
        }
    }

    /// Tells that what comes now is a call.
    fn restored(&mut self, connection: Connection) {
        self.answer_json(connection, Head::new(200, "OK"), &json!({}));
    }

    fn asks(&mut self, connection: Connection) {
        match self.kept.take() {
            Some(invocation) => self.hand_over(connection, invocation),
            None => self.waiting.push_back(connection),
        }
    }

    fn over(&mut self, ended: Ended) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.ended = Some(ended);
        }
    }

    fn end(&mut self, connection: Connection, ended: Ended) {
        self.over(ended);
        let done = json!({"status": "OK"});
        self.answer_json(connection, Head::new(202, "Accepted"), &done);
    }
}

const TOO_LARGE: (u16, &str) = (413, "Payload Too Large");
const FORBIDDEN: (u16, &str) = (403, "Forbidden");

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
