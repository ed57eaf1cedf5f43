//! A node that is killed under load loses nothing that it accepted.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;

use support::Node;
use support::guests::ECHO;

/// Calls that must be accepted before the node is killed.
const ACCEPTED_MIN: usize = 200;
const CALLERS: usize = 4;

/// One HTTP/1.1 connection; any failure ends it.
struct Caller {
    connection: BufReader<TcpStream>,
    host: String,
}

impl Caller {
    fn new(address: &str) -> Option<Self> {
        Some(Self {
            connection: BufReader::new(TcpStream::connect(address).ok()?),
            host: address.to_owned(),
        })
    }

    fn send(&mut self, head: &str, body: &str) -> Option<(u16, String)> {
        let length = body.len();
        let host = &self.host;
        let request = format!("{head}\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n{body}");
        self.connection
            .get_mut()
            .write_all(request.as_bytes())
            .ok()?;
        let mut line = String::new();
        self.connection.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut length = 0;
        loop {
            line.clear();
            if self.connection.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        self.connection.read_exact(&mut body).ok()?;
        Some((status, String::from_utf8(body).ok()?))
    }
}

/// Calls again and again until the node is gone; notes each id with what it was called with.
fn call_until_killed(address: &str, caller: usize, accepted: &Mutex<Vec<(String, String)>>) {
    let Some(mut connection) = Caller::new(address) else {
        return;
    };
    for number in 0.. {
        let body = format!("{caller}-{number}");
        let head = "POST /e2e/echo HTTP/1.1\r\nprefer: respond-async";
        let Some((202, answer)) = connection.send(head, &body) else {
            return;
        };
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let id = answer["id"].as_str().unwrap().to_owned();
        accepted.lock().unwrap().push((id, body));
    }
}

#[test]
fn a_killed_node_gives_every_accepted_call_one_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Node::start_on(&data, &[]);
    node.deploy("echo", ECHO, &["--kind", "command"]).ok();
    let accepted = Mutex::new(Vec::new());
    let (address, admin) = (node.address.clone(), node.admin.clone());
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (address, accepted) = (&address, &accepted);
            scope.spawn(move || call_until_killed(address, caller, accepted));
        }
        let mut health = Caller::new(&admin).unwrap();
        while accepted.lock().unwrap().len() < ACCEPTED_MIN {
            // Each round trip lets the callers go on; a node that fails ends the test.
            health.send("GET /healthz HTTP/1.1", "").unwrap();
        }
        // SIGKILL, in the middle of the burst.
        drop(node);
    });

    let accepted = accepted.into_inner().unwrap();
    let node = Node::start_on(&data, &[]);
    let mut admin = Caller::new(&node.admin).unwrap();
    let mut get = |path: String| {
        let answer = admin.send(&format!("GET {path} HTTP/1.1"), "");
        answer.unwrap_or_else(|| panic!("no answer to {path}"))
    };
    for (id, body) in &accepted {
        let invocation = loop {
            let (status, text) = get(format!("/v1/invocations/{id}?wait=30s"));
            assert_eq!(status, 200, "{id} was accepted and is lost: {text}");
            let invocation: serde_json::Value = serde_json::from_str(&text).unwrap();
            let state = invocation["state"].as_str().unwrap();
            if state != "waiting" && state != "running" {
                break invocation;
            }
        };
        assert_eq!(invocation["state"], "succeeded", "{invocation}");
        assert_eq!(invocation["outcome"]["status"], "ok", "{invocation}");
        let (status, reply) = get(format!("/v1/invocations/{id}/result"));
        assert_eq!((status, &reply), (200, body), "{id}");
    }
    let mut ids: Vec<_> = accepted.iter().map(|(id, _)| id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), accepted.len(), "each call has an id of its own");
}
