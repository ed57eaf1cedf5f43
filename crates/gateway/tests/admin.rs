//! The admin API.

mod support;

use http::Request;
use http_body_util::{BodyExt as _, Full};
use metering::Begun;
use model::{Digest, InvocationId, Outcome, StartKind, Status, Usage};
use serde_json::json;
use support::world;
use testkit::Guest;

const FUNCTION: &str = "/v1/apps/shop/functions/f";

#[tokio::test]
async fn deploys_make_versions_and_aliases_move_between_them() {
    let world = world(|_| ()).await;
    let first = world.deploy("shop/f", &Guest::Echo).await;
    let second = world.deploy("shop/f", &Guest::Counter).await;
    let function = world.get(world.admin(FUNCTION)).await.json();
    assert_eq!(
        (&function["live"], &function["versions"]),
        (&json!(second), &json!(2))
    );
    let versions = world
        .get(world.admin(&format!("{FUNCTION}/versions")))
        .await
        .json();
    assert_eq!(versions["versions"].as_array().map(Vec::len), Some(2));

    let back = world
        .send_json(
            "POST",
            world.admin(&format!("{FUNCTION}/rollback")),
            json!({}),
        )
        .await;
    assert_eq!(back.json()["targets"][0]["version"], json!(first));
    assert_eq!(world.post(world.data("/shop/f"), "x").await.text(), "x");
    let again = world
        .send_json(
            "POST",
            world.admin(&format!("{FUNCTION}/rollback")),
            json!({}),
        )
        .await;
    assert_eq!(
        (again.status.as_u16(), again.code().as_str()),
        (400, "invalid-alias")
    );
}

#[tokio::test]
async fn aliases_are_set_weighted_and_deleted() {
    let world = world(|_| ()).await;
    let first = world.deploy("shop/f", &Guest::Echo).await;
    let second = world.deploy("shop/f", &Guest::Counter).await;
    let canary = world.admin(&format!("{FUNCTION}/aliases/canary"));
    let targets = json!({ "targets": [
        { "version": first, "weight": 90 }, { "version": second, "weight": 10 } ] });
    assert_eq!(
        world.send_json("PUT", canary.clone(), targets).await.status,
        200
    );
    let wrong = json!({ "targets": [{ "version": first, "weight": 0 }] });
    assert_eq!(
        world.send_json("PUT", canary.clone(), wrong).await.code(),
        "invalid-alias"
    );
    let unknown = json!({ "targets": [{ "version": Digest::of(b"?"), "weight": 1 }] });
    assert_eq!(
        world.send_json("PUT", canary.clone(), unknown).await.code(),
        "version-not-found"
    );
    assert_eq!(world.delete(canary).await.status, 204);
    let live = world.admin(&format!("{FUNCTION}/aliases/live"));
    assert_eq!(world.delete(live).await.code(), "invalid-alias");

    assert_eq!(
        world.get(world.admin("/v1/apps")).await.json()["apps"][0]["functions"],
        1
    );
    assert_eq!(world.delete(world.admin(FUNCTION)).await.status, 204);
    assert_eq!(
        world.get(world.admin(FUNCTION)).await.code(),
        "function-not-found"
    );
    assert_eq!(
        world.post(world.data("/shop/f"), "x").await.code(),
        "function-not-found"
    );
}

#[tokio::test]
async fn a_deploy_to_another_alias_leaves_live_where_it_is() {
    let world = world(|_| ()).await;
    let first = world.deploy("shop/f", &Guest::Echo).await;
    let artifact = Digest::of(&Guest::Counter.artifact());
    let upload = world.admin(&format!("/v1/artifacts/{artifact}"));
    assert_eq!(
        world
            .put(upload.clone(), Guest::Counter.artifact())
            .await
            .status,
        201
    );
    assert_eq!(world.get(upload).await.status, 200);
    let deploy = json!({ "kind": "reactor", "artifact": artifact, "alias": "next" });
    let uri = world.admin(&format!("{FUNCTION}/versions"));
    assert_eq!(
        world.send_json("POST", uri, deploy).await.json()["alias"],
        "next"
    );
    assert_eq!(
        world.get(world.admin(FUNCTION)).await.json()["live"],
        json!(first)
    );
}

/// Deploys that are refused, with their status and code.
fn bad_deploys(artifact: &Digest) -> Vec<(serde_json::Value, u16, &'static str)> {
    let settings = |settings| json!({ "kind": "http", "artifact": artifact, "settings": settings });
    vec![
        (
            json!({ "kind": "reactor", "artifact": artifact }),
            422,
            "not-wasm",
        ),
        (
            json!({ "kind": "applet", "artifact": artifact }),
            400,
            "bad-request",
        ),
        (
            json!({ "kind": "http", "artifact": "x" }),
            400,
            "bad-request",
        ),
        (
            json!({ "kind": "http", "artifact": artifact, "more": 1 }),
            400,
            "bad-request",
        ),
        (json!([]), 400, "bad-request"),
        (
            settings(json!({ "limits": { "deadline_ms": 0 } })),
            400,
            "invalid-settings",
        ),
        (
            settings(json!({ "limits": { "deadline": 1 } })),
            400,
            "bad-request",
        ),
        (
            settings(json!({ "env": { "A=B": "" } })),
            400,
            "invalid-settings",
        ),
        (
            settings(json!({ "args": ["\u{0}"] })),
            400,
            "invalid-settings",
        ),
        (
            settings(json!({ "args": ["x".repeat(200_000)] })),
            400,
            "invalid-settings",
        ),
    ]
}

#[tokio::test]
async fn bad_deploys_say_what_is_wrong() {
    let world = world(|_| ()).await;
    let uri = world.admin(&format!("{FUNCTION}/versions"));
    let check = async |json: serde_json::Value, status: u16, code: &str| {
        let refused = world.send_json("POST", uri.clone(), json).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code().as_str()),
            (status, code)
        );
        assert_eq!(refused.json()["instance"], format!("{FUNCTION}/versions"));
    };
    let artifact = Digest::of(b"not wasm");
    check(
        json!({ "kind": "reactor", "artifact": artifact }),
        404,
        "artifact-not-found",
    )
    .await;
    let upload = world.admin(&format!("/v1/artifacts/{artifact}"));
    assert_eq!(world.put(upload, "not wasm").await.status, 201);
    for (json, status, code) in bad_deploys(&artifact) {
        check(json, status, code).await;
    }
}

#[tokio::test]
async fn uploads_and_deploys_of_the_wrong_form_are_refused() {
    let world = world(|_| ()).await;
    let upload = world.admin(&format!("/v1/artifacts/{}", Digest::of(b"not wasm")));
    assert_eq!(world.put(upload, "other").await.code(), "digest-mismatch");
    let uri = world.admin(&format!("{FUNCTION}/versions"));
    let no_json = world.post(uri.clone(), "{}").await;
    assert_eq!(
        (no_json.status.as_u16(), no_json.code().as_str()),
        (415, "unsupported-media-type")
    );
    let large = json!({ "kind": "http", "artifact": "x".repeat(2 << 20) });
    let refused = world.send_json("POST", uri, large).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (413, "body-too-large")
    );
}

#[tokio::test]
async fn bad_names_are_refused() {
    let world = world(|_| ()).await;
    let long = "x".repeat(64);
    let deploy = json!({ "kind": "http", "artifact": Digest::of(b"") });
    for name in [
        "A",
        "a.b",
        "a%2Fb",
        "..",
        "%C3%A9",
        "-a",
        "a_b",
        "a%00",
        long.as_str(),
    ] {
        let uri = world.admin(&format!("/v1/apps/{name}/functions/f/versions"));
        let refused = world.send_json("POST", uri, deploy.clone()).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code().as_str()),
            (400, "invalid-name"),
            "{name}"
        );
    }
    let endless = format!("/v1/apps/{}/functions/f/versions", "x".repeat(60_000));
    let refused = world.send_json("POST", world.admin(&endless), deploy).await;
    assert!(
        refused.body.len() < 2000,
        "a problem does not repeat what it was sent"
    );
}

#[tokio::test]
async fn a_page_of_somebody_else_changes_nothing_on_a_node_without_tokens() {
    let ask = async |world: &support::World, uri: String, name: &str, value: &str| {
        let request = Request::builder().uri(uri).header(name, value);
        let request = request.body(Full::from("")).expect("a request");
        world.send(request).await
    };
    let world = world(|_| ()).await;
    let apps = world.admin("/v1/apps");
    for (name, value) in [("host", "evil.example"), ("origin", "http://evil.example")] {
        let refused = ask(&world, apps.clone(), name, value).await;
        assert_eq!(refused.code(), "foreign-page", "{name}");
        let probe = ask(&world, world.admin("/healthz"), name, value).await;
        assert_eq!(probe.status, 200, "a probe tells nothing: {name}");
    }
    assert_eq!(world.get(apps).await.status, 200);
}

#[tokio::test]
async fn tokens_are_asked_for_on_both_listeners() {
    let world = world(|config| config.require_token = true).await;
    for uri in [
        world.admin("/v1/apps"),
        world.admin("/metrics"),
        world.data("/shop/f"),
    ] {
        let refused = world.get(uri.clone()).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code().as_str()),
            (401, "unauthorized"),
            "{uri}"
        );
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
    for open in ["/healthz", "/readyz", "/openapi.json", "/errors/queue-full"] {
        assert_eq!(world.get(world.admin(open)).await.status, 200, "{open}");
    }
    let (_, token) = world.tokens.create("first", 1).await.expect("a token");
    let with = async |method: &str, uri: String, body: serde_json::Value| {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()));
        world.send(request.expect("a request")).await
    };
    assert_eq!(
        with("GET", world.admin("/v1/apps"), json!({})).await.status,
        200
    );
    assert_eq!(
        with("GET", world.data("/shop/f"), json!({})).await.code(),
        "function-not-found"
    );
    let made = with(
        "POST",
        world.admin("/v1/tokens"),
        json!({ "name": "second" }),
    )
    .await;
    assert_eq!(made.status, 201);
    let listed = with("GET", world.admin("/v1/tokens"), json!({})).await;
    assert_eq!(listed.json()["tokens"].as_array().map(Vec::len), Some(2));
    assert!(
        !listed
            .text()
            .contains(made.json()["token"].as_str().expect("a token"))
    );
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    let uri = world.admin(&format!("/v1/tokens/{id}"));
    assert_eq!(with("DELETE", uri.clone(), json!({})).await.status, 204);
    assert_eq!(
        with("DELETE", uri, json!({})).await.code(),
        "token-not-found"
    );
}

#[tokio::test]
async fn functions_are_invoked_through_the_admin_api() {
    let world = world(|_| ()).await;
    world.deploy("shop/f", &Guest::Echo).await;
    let uri = |query: &str| world.admin(&format!("{FUNCTION}/invocations{query}"));
    let replied = world.post(uri(""), "hello").await;
    assert_eq!((replied.status.as_u16(), replied.text()), (200, "hello"));
    assert!(replied.headers.contains_key("dunlin-version"));
    let accepted = world.post(uri("?mode=async"), "hello").await;
    assert_eq!(accepted.status, 202);
    assert_eq!(
        world.post(uri("?mode=later"), "").await.code(),
        "bad-request"
    );
    let listed = world
        .get(world.admin("/v1/invocations?app=shop&limit=5"))
        .await
        .json();
    assert_eq!(listed["invocations"][0]["id"], accepted.json()["id"]);
    let none = world
        .get(world.admin("/v1/invocations?app=other"))
        .await
        .json();
    assert_eq!(none["invocations"].as_array().map(Vec::len), Some(0));
    let id = accepted.json()["id"].as_str().expect("an id").to_owned();
    let waited = world
        .get(world.admin(&format!("/v1/invocations/{id}?wait=1ms")))
        .await;
    assert_eq!(waited.json()["state"], "waiting");
    let bad = world
        .get(world.admin(&format!("/v1/invocations/{id}?wait=long")))
        .await;
    assert_eq!(bad.code(), "bad-request");
    let unknown = format!("/v1/invocations/{}", "0".repeat(32));
    assert_eq!(
        world.get(world.admin(&unknown)).await.code(),
        "invocation-not-found"
    );
    let redrive = json!({ "ids": [id] });
    let refused = world
        .send_json("POST", world.admin("/v1/dead-letters/redrive"), redrive)
        .await;
    assert_eq!(refused.code(), "not-a-dead-letter");
}

#[tokio::test]
async fn logs_are_shown_and_followed() {
    let world = world(|_| ()).await;
    world.deploy("shop/f", &Guest::Print(10)).await;
    let request = Request::get(world.admin("/v1/logs?app=shop&follow=true&tail=0"));
    let mut followed = world
        .begin(request.body(Full::default()).expect("a request"))
        .await;
    assert_eq!(followed.headers()["content-type"], "text/event-stream");
    let called = world.post(world.data("/shop/f"), "").await;
    let id = called.header("dunlin-invocation-id").to_owned();
    world
        .executor
        .drain(std::time::Duration::from_secs(60))
        .await;
    let _ = (&mut followed, id);
    let shown = world.get(world.admin("/v1/logs?function=f")).await;
    assert_eq!(shown.status, 200);
    assert_eq!(
        world.get(world.admin("/v1/logs?app=No.Name")).await.code(),
        "invalid-name"
    );
    world.gateway.begin_drain();
    // The stream ends when the gateway does.
    followed.body_mut().collect().await.expect("the rest");
}

#[tokio::test]
async fn usage_pools_node_and_metrics_answer() {
    let world = world(|_| ()).await;
    world.deploy("shop/f", &Guest::Echo).await;
    world.post(world.data("/shop/f"), "x").await;
    let pools = world.get(world.admin("/v1/pools")).await.json();
    assert_eq!(pools["pools"][0]["starts"]["cold"], 1);
    assert!(pools["resident_bytes"].as_u64().expect("bytes") > 0);
    let node = world.get(world.admin("/v1/node")).await.json();
    assert_eq!(node["data_addr"], world.gateway.data_addr().to_string());
    assert_eq!(
        world.get(world.admin("/metrics")).await.text(),
        "# metrics\n"
    );
    let usage = world
        .get(world.admin("/v1/usage?from=2026-01-01&to=2026-12-31"))
        .await;
    assert_eq!(usage.json()["from"], "2026-01-01");
    for bad in ["?from=yesterday", "?from=2026-02-01&to=2026-01-01"] {
        let refused = world.get(world.admin(&format!("/v1/usage{bad}"))).await;
        assert_eq!(refused.code(), "bad-request", "{bad}");
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let world = world(|_| ()).await;
    let missing = world.get(world.admin("/v1/nothing")).await;
    assert_eq!(
        (missing.code().as_str(), missing.json()["instance"].as_str()),
        ("route-not-found", Some("/v1/nothing"))
    );
    let method = world.delete(world.admin("/v1/apps")).await;
    assert_eq!(
        (method.status.as_u16(), method.code().as_str()),
        (405, "method-not-allowed")
    );
    assert_eq!(
        world.get(world.admin("/errors/no-such")).await.code(),
        "route-not-found"
    );
}

#[tokio::test]
async fn every_code_has_its_page_where_problems_point() {
    let world = world(|_| ()).await;
    for code in api::Code::ALL {
        let page = world.get(world.admin(code.page_path())).await;
        assert_eq!(page.status, 200, "{code}");
        assert!(page.text().contains(code.title()));
    }
}

#[tokio::test]
async fn routes_lead_to_functions_beside_their_names() {
    let world = world(|_| ()).await;
    world.deploy("shop/f", &Guest::Echo).await;
    let artifact = Digest::of(&Guest::Echo.artifact());
    let deploy = |routes| json!({ "kind": "reactor", "artifact": artifact, "routes": routes });
    let uri = world.admin(&format!("{FUNCTION}/versions"));
    let refused = world
        .send_json("POST", uri.clone(), deploy(json!(["no-slash"])))
        .await;
    assert_eq!(refused.code(), "invalid-settings");
    let taken = world
        .send_json("POST", uri, deploy(json!(["/echo/"])))
        .await;
    assert_eq!(taken.status, 201);
    for path in ["/echo", "/echo/deep?q", "/shop/f"] {
        let reply = world.post(world.data(path), "said").await;
        assert_eq!(reply.text(), "said", "{path}");
    }
    let near = world.post(world.data("/echoes"), "said").await;
    assert_eq!(near.code(), "route-not-found");
    let other = world.admin("/v1/apps/shop/functions/g/versions");
    let second = world
        .send_json("POST", other, deploy(json!(["/echo"])))
        .await;
    assert_eq!(
        (second.status.as_u16(), second.code().as_str()),
        (409, "conflict")
    );
}

#[tokio::test]
async fn graphs_are_shown_by_the_id_of_any_call_in_them() {
    let world = world(|_| ()).await;
    let (root, child) = (InvocationId::new(1), InvocationId::new(2));
    let begun = |id, name: &str, unix_us| Begun {
        id,
        path: name.parse().expect("a path"),
        version: Digest::of(b"version"),
        unix_us,
    };
    let now = metering::unix_us();
    let graphs = &world.graphs;
    graphs.root(root, || begun(root, "shop/f", now));
    graphs.child(root, root, begun(child, "shop/g", now + 7), true);
    let outcome = Outcome {
        status: Status::Exit { code: 3 },
        start: StartKind::Restored,
        usage: Usage::default(),
    };
    graphs.ended(root, child, &outcome);
    for id in [root, child] {
        let uri = world.admin(&format!("/v1/invocations/{id}/graph"));
        let graph = world.get(uri).await.json();
        assert_eq!(graph["root"], root.to_string());
        let nodes = graph["nodes"].as_array().expect("nodes");
        assert_eq!(nodes.len(), 2);
        assert!(nodes[0].get("parent").is_none() && nodes[0].get("end").is_none());
        assert_eq!(nodes[1]["parent"], root.to_string());
        assert_eq!(nodes[1]["function"], "g");
        assert_eq!(nodes[1]["begun_unix_us"], now + 7);
        assert_eq!(nodes[1]["end"]["status"], "exit");
        assert_eq!(nodes[1]["end"]["start"], "restored");
    }
    let stranger = InvocationId::new(3);
    let uri = world.admin(&format!("/v1/invocations/{stranger}/graph"));
    assert_eq!(world.get(uri).await.code(), "invocation-not-found");
    let uri = world.admin("/v1/invocations/nonsense/graph");
    assert_eq!(world.get(uri).await.code(), "bad-request");
}
