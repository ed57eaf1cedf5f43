//! A node that is killed under load loses nothing that it accepted.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::sync::Mutex;

use support::Node;
use support::caller::Caller;
use support::guests::ECHO;

/// Calls that must be accepted before the node is killed.
const ACCEPTED_MIN: usize = 200;
const CALLERS: usize = 4;

/// Calls again and again until the node is gone; notes each id with what it was called with.
fn call_until_killed(address: &str, caller: usize, accepted: &Mutex<Vec<(String, String)>>) {
    let Ok(mut connection) = Caller::new(address) else {
        return;
    };
    for number in 0.. {
        let body = format!("{caller}-{number}");
        let head = "POST /e2e/echo HTTP/1.1\r\nprefer: respond-async";
        let accepted_one = connection.send(head, &body).ok();
        let Some(reply) = accepted_one.filter(|reply| reply.status == 202) else {
            return;
        };
        let id = reply.json()["id"].as_str().unwrap().to_owned();
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
        answer.unwrap_or_else(|error| panic!("no answer to {path}: {error}"))
    };
    for (id, body) in &accepted {
        let invocation = loop {
            let found = get(format!("/v1/invocations/{id}?wait=30s"));
            assert_eq!(
                found.status, 200,
                "{id} was accepted and is lost: {found:?}"
            );
            let invocation = found.json();
            let state = invocation["state"].as_str().unwrap();
            if state != "waiting" && state != "running" {
                break invocation;
            }
        };
        assert_eq!(invocation["state"], "succeeded", "{invocation}");
        assert_eq!(invocation["outcome"]["status"], "ok", "{invocation}");
        let reply = get(format!("/v1/invocations/{id}/result"));
        assert_eq!((reply.status, &reply.body), (200, body), "{id}");
    }
    let mut ids: Vec<_> = accepted.iter().map(|(id, _)| id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), accepted.len(), "each call has an id of its own");
}
