//! A node in this process, on ports of its own, and a client for it.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod cluster;
pub mod counting;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use model::Digest;
use node::{Config, Node, NodeError};
use serde_json::{Value, json};

/// Whether there is KVM; says so where not, and fails where it must be.
pub fn kvm() -> bool {
    let Some(missing) = node::micro_vms_missing() else {
        return true;
    };
    assert!(std::env::var_os("REQUIRE_KVM").is_none(), "{missing}");
    eprintln!("left out, since there are no micro-VMs: {missing}");
    false
}

/// A command that writes its standard input to its standard output.
pub const ECHO: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read"
    (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (loop $again
      (i32.store (i32.const 0) (i32.const 64))
      (i32.store (i32.const 4) (i32.const 65536))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (if (i32.load (i32.const 8)) (then
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
        (br $again))))))"#;

/// A command that replies with this text.
pub fn says(text: &str) -> String {
    let length = text.len();
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "{text}")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const {length}))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    )
}

/// A command that sleeps for so many milliseconds and then says `slept`.
pub fn sleeps(ms: u64) -> String {
    let ns = ms * 1_000_000;
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "slept")
  (func (export "_start")
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const {ns}))
    (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
    (i32.store (i32.const 256) (i32.const 1024))
    (i32.store (i32.const 260) (i32.const 5))
    (drop (call $write (i32.const 1) (i32.const 256) (i32.const 1) (i32.const 264)))))"#
    )
}

/// A command whose `_start` is this.
pub fn starts(body: &str) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func $down (call $down) (call $down))
  (func (export "_start") {body}))"#
    )
}

pub fn wasm(text: &str) -> Bytes {
    Bytes::from(wat::parse_str(text).expect("WebAssembly text"))
}

/// A configuration on free ports of the loopback.
pub fn config(data: &Path) -> Config {
    let mut config = Config::new(data);
    config.data_addr = "127.0.0.1:0".parse().expect("an address");
    config.admin_addr = config.data_addr;
    config.guest_threads = 4;
    config.drain_patience = Duration::from_secs(60);
    config
}

pub struct World {
    pub node: Node,
    pub client: Client<HttpConnector, Full<Bytes>>,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

pub async fn world(data: &Path) -> World {
    world_of(config(data)).await.expect("a node")
}

pub async fn world_of(config: Config) -> Result<World, NodeError> {
    let node = node::start(config).await?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    Ok(World { node, client })
}

impl World {
    pub fn data(&self, path: &str) -> String {
        format!("http://{}{path}", self.node.data_addr())
    }

    pub fn admin(&self, path: &str) -> String {
        format!("http://{}{path}", self.node.admin_addr())
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self
            .client
            .request(request)
            .await
            .expect("an answer")
            .into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Answer {
            status: StatusCode::as_u16(&parts.status),
            headers: parts.headers,
            body,
        }
    }

    pub async fn get(&self, uri: String) -> Answer {
        self.send(Request::get(uri).body(Full::default()).expect("a request"))
            .await
    }

    pub async fn call(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::post(self.data(path)).body(Full::new(body.into()));
        self.send(request.expect("a request")).await
    }

    pub async fn call_later(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::post(self.data(path))
            .header("prefer", "respond-async")
            .body(Full::new(body.into()));
        self.send(request.expect("a request")).await
    }

    pub async fn send_json(&self, method: &str, uri: String, json: Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", "application/json")
            .body(Full::from(json.to_string()));
        self.send(request.expect("a request")).await
    }

    /// Uploads and deploys; the answer to the deploy.
    pub async fn deploy(&self, path: &str, kind: &str, wasm: Bytes, limits: Value) -> Answer {
        self.deploy_with(path, kind, wasm, json!({ "limits": limits }))
            .await
    }

    /// As [`World::deploy`], with these settings.
    pub async fn deploy_with(
        &self,
        path: &str,
        kind: &str,
        wasm: Bytes,
        settings: Value,
    ) -> Answer {
        let artifact = Digest::of(&wasm);
        let upload = Request::put(self.admin(&format!("/v1/artifacts/{artifact}")));
        let uploaded = self
            .send(upload.body(Full::new(wasm)).expect("a request"))
            .await;
        if uploaded.status != 201 {
            return uploaded;
        }
        let (app, function) = path.split_once('/').expect("APP/FUNCTION");
        let deploy = json!({
            "kind": kind,
            "artifact": artifact.to_string(),
            "settings": settings,
        });
        let uri = self.admin(&format!("/v1/apps/{app}/functions/{function}/versions"));
        self.send_json("POST", uri, deploy).await
    }

    pub async fn deploy_command(&self, path: &str, text: &str) -> String {
        let deployed = self.deploy(path, "command", wasm(text), json!({})).await;
        assert_eq!(deployed.status, 201, "{}", deployed.text());
        deployed.json()["version"]
            .as_str()
            .expect("a version")
            .to_owned()
    }

    /// The invocation once it has ended.
    pub async fn ended(&self, id: &str) -> Value {
        loop {
            let path = format!("/v1/invocations/{id}?wait=30s");
            let found = self.get(self.admin(&path)).await;
            assert_eq!(found.status, 200, "{}", found.text());
            let json = found.json();
            if !["waiting", "running"].contains(&json["state"].as_str().expect("a state")) {
                return json;
            }
        }
    }
}
