//! Nodes that are one cluster: any of them answers anything.

mod support;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use node::NodeError;
use serde_json::json;
use support::cluster::{Cluster, standing};
use support::{Answer, ECHO, World, says, sleeps, wasm, world_of};

fn node_of(answer: &Answer) -> &str {
    answer.headers["dunlin-node"].to_str().expect("a name")
}

/// Deploys a command of which each node runs one call at a time.
async fn deploy_one_at_a_time(world: &World, path: &str, text: &str) {
    let limits = json!({ "concurrency_max": 1 });
    let deployed = world.deploy(path, "command", wasm(text), limits).await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deployed_on_one_node_is_called_on_all() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three().await;
    one.deploy_command("shop/echo", ECHO).await;
    for (world, name) in [(&one, "n1"), (&two, "n2"), (&three, "n3")] {
        world.knows("shop/echo").await;
        let answer = world.call("/shop/echo", "hello").await;
        assert_eq!((answer.status, answer.text()), (200, "hello"));
        assert_eq!(node_of(&answer), name, "a call stays where there is room");
    }
    // Of calls that stayed there is nothing to be explained.
    let answer = one.call("/shop/echo", "").await;
    let id = answer.headers["dunlin-invocation-id"]
        .to_str()
        .expect("an id");
    let explained = one.admin(&format!("/v1/invocations/{id}/decision"));
    assert_eq!(one.get(explained).await.code(), "decision-not-found");
    for world in [one, two, three] {
        assert!(world.node.shutdown().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_without_tls_are_one_cluster_on_private_addresses_only() {
    let cluster = Cluster::new();
    let plain = |number, address: &str| {
        let mut config = cluster.config(number);
        let joined = config.cluster.as_mut().expect("a cluster");
        joined.dangerous_plaintext = true;
        joined.peer_addr = address.parse().expect("an address");
        world_of(config)
    };
    let refused = plain(1, "0.0.0.0:0").await.map(|_| ());
    let error = refused.expect_err("whoever comes would be let in");
    assert!(matches!(error, NodeError::Plaintext(_)), "{error}");
    let (one, two) = tokio::join!(plain(1, "127.0.0.1:0"), plain(2, "127.0.0.1:0"));
    let (one, two) = (one.expect("a node"), two.expect("a node"));
    one.deploy_command("shop/echo", ECHO).await;
    two.knows("shop/echo").await;
    assert_eq!(one.wants("n1", "cordoned").await, 204);
    let has_room = |node: &serde_json::Value| node["running_max"].as_u64() > Some(0);
    one.sees(|nodes| {
        let is_cordoned = standing(nodes, "n1") == Some("cordoned");
        is_cordoned && nodes.len() == 2 && nodes.iter().all(has_room)
    })
    .await;
    let answer = one.call("/shop/echo", "hello").await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    assert_eq!(node_of(&answer), "n2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_sends_calls_to_others_and_says_why() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three().await;
    deploy_one_at_a_time(&one, "shop/slow", &sleeps(700)).await;
    for world in [&two, &three] {
        world.knows("shop/slow").await;
    }
    let calls = futures::future::join_all((0..3).map(|_| one.call("/shop/slow", ""))).await;
    let mut nodes: Vec<_> = calls.iter().map(node_of).collect();
    for call in &calls {
        assert_eq!(
            (call.status, call.text()),
            (200, "slept"),
            "{}",
            call.text()
        );
    }
    nodes.sort_unstable();
    assert_eq!(nodes, ["n1", "n2", "n3"]);
    let sent = calls
        .iter()
        .find(|call| node_of(call) != "n1")
        .expect("one");
    let id = sent.headers["dunlin-invocation-id"]
        .to_str()
        .expect("an id");
    let uri = one.admin(&format!("/v1/invocations/{id}/decision"));
    let explained = one.get(uri).await.json();
    let text = explained["text"].as_str().expect("text");
    let ran = format!("{} ran it", node_of(sent));
    assert!(
        text.contains(&ran) && text.contains("to be avoided"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_no_queue_here_takes_wait_in_those_of_others() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three().await;
    // Each node runs one call, and has one wait.
    let limits = json!({ "concurrency_max": 1, "queue_max": 1 });
    let deployed = one.deploy("shop/slow", "command", wasm(&sleeps(500)), limits);
    assert_eq!(deployed.await.status, 201);
    for world in [&two, &three] {
        world.knows("shop/slow").await;
    }
    let calls = (0..9).map(|_| one.call("/shop/slow", ""));
    let calls = futures::future::join_all(calls).await;
    let statuses: Vec<_> = calls.iter().map(|call| call.status).collect();
    let ran = statuses.iter().filter(|status| **status == 200).count();
    // Six have a place or wait for one; a place that is free again may take one more of each node.
    assert!((6..9).contains(&ran), "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordoned_node_runs_nothing_new_and_answers_still() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three().await;
    one.deploy_command("shop/echo", ECHO).await;
    for world in [&two, &three] {
        world.knows("shop/echo").await;
    }
    assert_eq!(two.wants("n1", "cordoned").await, 204);
    one.sees(|nodes| standing(nodes, "n1") == Some("cordoned"))
        .await;
    let large = vec![b'x'; 300_000];
    let answer = one.call("/shop/echo", large.clone()).await;
    assert_eq!((answer.status, answer.body == large), (200, true));
    assert!(["n2", "n3"].contains(&node_of(&answer)));
    // With nobody to send it to, the cordon holds.
    for name in ["n2", "n3"] {
        assert_eq!(one.wants(name, "cordoned").await, 204);
    }
    let all = |nodes: &[_]| {
        ["n1", "n2", "n3"]
            .iter()
            .all(|n| standing(nodes, n) == Some("cordoned"))
    };
    one.sees(all).await;
    let refused = one.call("/shop/echo", "x").await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "no-node"));
    assert_eq!(one.wants("n1", "serving").await, 204);
    one.sees(|nodes| standing(nodes, "n1") == Some("serving"))
        .await;
    assert_eq!(node_of(&one.call("/shop/echo", "x").await), "n1");
    assert_eq!(one.wants("n9", "cordoned").await, 404);
    assert_eq!(one.wants("n1", "lost").await, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_lost_is_forgotten_and_its_calls_end() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three().await;
    deploy_one_at_a_time(&one, "shop/slow", &sleeps(20_000)).await;
    one.deploy_command("shop/says", &says("well")).await;
    for world in [&two, &three] {
        world.knows("shop/slow").await;
    }
    assert_eq!(one.wants("n1", "cordoned").await, 204);
    assert_eq!(one.wants("n3", "cordoned").await, 204);
    one.sees(|nodes| standing(nodes, "n1") == Some("cordoned"))
        .await;
    one.sees(|nodes| standing(nodes, "n3") == Some("cordoned"))
        .await;
    let call = one.call("/shop/slow", "");
    let runs_there = |nodes: &[serde_json::Value]| {
        nodes
            .iter()
            .any(|node| node["name"] == "n2" && node["running"] == 1)
    };
    let kill = async {
        one.sees(runs_there).await;
        // Dropped, it ends as in a crash: nothing is said to anybody.
        drop(two);
    };
    let (lost, ()) = tokio::join!(call, kill);
    assert_eq!(
        (lost.status, lost.code().as_str()),
        (502, "node-lost"),
        "{}",
        lost.text()
    );
    assert_eq!(one.wants("n3", "serving").await, 204);
    one.sees(|nodes| nodes.len() == 2 && standing(nodes, "n3") == Some("serving"))
        .await;
    let answer = one.call("/shop/says", "").await;
    assert_eq!((answer.text(), node_of(&answer)), ("well", "n3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_loses_no_call() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three().await;
    deploy_one_at_a_time(&one, "shop/slow", &sleeps(300)).await;
    for world in [&two, &three] {
        world.knows("shop/slow").await;
    }
    let calls = async {
        let mut statuses = Vec::new();
        for _ in 0..6 {
            let some = (0..4).map(|_| one.call("/shop/slow", ""));
            let some = futures::future::join_all(some).await;
            statuses.extend(some.into_iter().map(|call| call.status));
        }
        statuses
    };
    let (statuses, stopped) = tokio::join!(calls, two.node.shutdown());
    assert!(stopped, "all that ran there was finished");
    assert_eq!(statuses, [200; 24]);
    one.sees(|nodes| nodes.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_authority_is_a_stranger() {
    let cluster = Cluster::new();
    let other = Cluster::new();
    let one = cluster.start(1).await.expect("a node");
    one.deploy_command("shop/echo", ECHO).await;
    let mut config = cluster.config(2);
    let stranger = config.cluster.as_mut().expect("a cluster");
    stranger.folder = other.certificates();
    let two = support::world_of(config).await.expect("it reaches etcd");
    two.knows("shop/echo").await;
    // It says that it is there; nobody believes it, and it believes nobody.
    one.sees(|nodes| nodes.len() == 2).await;
    assert_eq!(one.wants("n1", "cordoned").await, 204);
    one.sees(|nodes| standing(nodes, "n1") == Some("cordoned"))
        .await;
    let refused = one.call("/shop/echo", "x").await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "no-node"));
    assert!(
        refused.text().contains("n2 was not reached"),
        "{}",
        refused.text()
    );
}

/// A command that prints a line to its standard error.
fn complains(text: &str) -> String {
    says(text).replace("(call $write (i32.const 1)", "(call $write (i32.const 2)")
}

/// Reads on until what was heard is so.
async fn until(body: &mut Incoming, heard: &mut String, is_so: impl Fn(&str) -> bool) {
    while !is_so(heard) {
        let frame = body.frame().await.expect("a frame").expect("no error");
        let bytes = frame.into_data().expect("bytes");
        heard.push_str(std::str::from_utf8(&bytes).expect("text"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_tells_what_was_printed_on_all() {
    let cluster = Cluster::new();
    let [one, two, three] = cluster.three().await;
    let text = wasm(&complains("oh"));
    let deployed = one.deploy("shop/loud", "command", text, json!({})).await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
    let mut follower = one.begin(one.admin("/v1/logs?follow=true&tail=5")).await;
    for world in [&two, &three] {
        world.knows("shop/loud").await;
        assert_eq!(world.call("/shop/loud", "").await.status, 200);
    }
    let mut heard = String::new();
    until(&mut follower, &mut heard, |heard| {
        heard.matches("\"oh").count() == 2
    })
    .await;
    let shown = three
        .get(three.admin("/v1/logs?function=loud"))
        .await
        .json();
    assert_eq!(shown.get("silent"), None, "{shown}");
    let nodes = shown["lines"].as_array().expect("lines").iter();
    let mut nodes: Vec<_> = nodes.map(|line| line["node"].clone()).collect();
    nodes.sort_by_key(ToString::to_string);
    assert_eq!(nodes, [json!("n2"), json!("n3")]);
    // Of two, the last is the one that was printed last, wherever that was.
    let shown = one.get(one.admin("/v1/logs?tail=1")).await.json();
    assert_eq!(shown["lines"][0]["node"], "n3", "{shown}");
    // A reader does not keep a node from stopping.
    assert!(two.node.shutdown().await);
    assert_eq!(one.call("/shop/loud", "").await.status, 200);
    until(&mut follower, &mut heard, |heard| {
        heard.matches("\"oh").count() == 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_has_no_nodes() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = support::world(folder.path()).await;
    let nodes = world.get(world.admin("/v1/nodes")).await;
    assert_eq!((nodes.status, nodes.code().as_str()), (404, "no-cluster"));
    world.deploy_command("shop/echo", ECHO).await;
    let request = http::Request::post(world.data("/shop/echo")).body(Full::from("x"));
    let answer = world.send(request.expect("a request")).await;
    assert!(!answer.headers.contains_key("dunlin-node"));
}
