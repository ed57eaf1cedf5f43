//! A runtime that loads packages and a source at deploy, as its callers see it.

mod support;

use std::path::Path;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use model::Digest;
use serde_json::json;
use support::{World, world};

fn built(path: &str) -> Bytes {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = root.join(path);
    let bytes = std::fs::read(&file);
    bytes
        .unwrap_or_else(|error| panic!("{}: {error}; run ./x guests", file.display()))
        .into()
}

async fn upload(world: &World, bytes: Bytes) -> String {
    let digest = Digest::of(&bytes).to_string();
    let request = Request::put(world.admin(&format!("/v1/artifacts/{digest}")));
    let request = request.body(Full::new(bytes)).expect("a request");
    assert_eq!(world.send(request).await.status, 201);
    digest
}

#[tokio::test(flavor = "multi_thread")]
async fn python_functions_share_a_runtime_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let runtime = built("guests/out/runtimes/python.wasm");
    let source = |text: &str| {
        Bytes::from(format!(
            "import random\nseen = []\ndef handle(environ):\n    seen.append(1)\n    \
             return f'{text} {{len(seen)}} {{random.getrandbits(64)}}'\n"
        ))
    };
    for name in ["one", "two"] {
        let layer = upload(&world, source(name)).await;
        let settings = json!({ "layers": [layer] });
        let path = format!("py/{name}");
        let deployed = world.deploy_with(&path, "http", runtime.clone(), settings);
        let deployed = deployed.await;
        assert_eq!(deployed.status, 201, "{}", deployed.text());
    }
    let mut replies = Vec::new();
    for name in ["one", "two", "one", "two"] {
        let reply = world.call(&format!("/py/{name}"), "").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let words: Vec<_> = reply.text().split(' ').map(str::to_owned).collect();
        assert_eq!(
            words[..2],
            [name, "1"],
            "each call is the first of its sandbox"
        );
        replies.push(words[2].clone());
    }
    replies.sort();
    replies.dedup();
    assert_eq!(
        replies.len(),
        4,
        "each call draws random numbers of its own"
    );
}

#[tokio::test]
async fn what_is_no_runtime_takes_no_layers() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let layer = upload(&world, Bytes::from_static(b"text")).await;
    let settings = json!({ "layers": [layer] });
    let echo = support::wasm(support::ECHO);
    let refused = world
        .deploy_with("app/echo", "command", echo, settings)
        .await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (400, "invalid-settings")
    );
}
