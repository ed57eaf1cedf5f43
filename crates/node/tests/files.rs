//! Files of a version on a node: uploaded by digest, found by each invocation, left by none.

mod support;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use model::{Digest, FileEntry, FileList};
use serde_json::{Value, json};
use support::{World, wasm, world};

/// A command that replies with `greeting`, or `none`, and then leaves another text in its place.
const READS: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open" (func $open
    (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "greeting")
  (data (i32.const 80) "none")
  (data (i32.const 96) "left over")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 80))
    (i32.store (i32.const 4) (i32.const 4))
    (if (i32.eqz (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 8)
          (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16)))
      (then
        (i32.store (i32.const 0) (i32.const 1024))
        (i32.store (i32.const 4) (i32.const 1000))
        (drop (call $read (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 4)))))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    ;; create and truncate, to write
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 8)
      (i32.const 9) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 16)))
    (i32.store (i32.const 0) (i32.const 96))
    (i32.store (i32.const 4) (i32.const 9))
    (if (call $write (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8))
      (then unreachable))))"#;

async fn upload(world: &World, bytes: impl Into<Bytes>) -> Digest {
    let bytes = bytes.into();
    let digest = Digest::of(&bytes);
    let request = Request::put(world.admin(&format!("/v1/files/{digest}")));
    let request = request.body(Full::new(bytes)).expect("a request");
    assert_eq!(world.send(request).await.status, 201);
    digest
}

fn list_of(contents: Digest, bytes: u64) -> Vec<u8> {
    let mut list = FileList::default();
    let file = FileEntry::File {
        digest: contents,
        bytes,
        executable: false,
    };
    list.entries.insert("greeting".to_owned(), file);
    list.to_bytes()
}

async fn settings(world: &World, greeting: &'static str) -> Value {
    let contents = upload(world, greeting).await;
    let list = upload(world, list_of(contents, greeting.len() as u64)).await;
    json!({ "files": list.to_string() })
}

#[tokio::test]
async fn each_invocation_finds_the_files_of_its_version_and_nothing_of_the_last() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let world = world(folder.path()).await;
        for (path, settings) in [
            ("app/with", settings(&world, "hello").await),
            ("app/without", json!({})),
        ] {
            let deployed = world.deploy_with(path, "command", wasm(READS), settings);
            let deployed = deployed.await;
            assert_eq!(deployed.status, 201, "{}", deployed.text());
        }
        for _ in 0..3 {
            assert_eq!(world.call("/app/with", "").await.text(), "hello");
            assert_eq!(world.call("/app/without", "").await.text(), "none");
        }
        assert!(world.node.shutdown().await);
    }
    let world = world(folder.path()).await;
    assert_eq!(
        world.call("/app/with", "").await.text(),
        "hello",
        "after a restart"
    );
}

#[tokio::test]
async fn a_deploy_whose_files_are_missing_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    let missing = Digest::of(b"never uploaded");
    let list = upload(&world, list_of(missing, 14)).await;
    let settings = json!({ "files": list.to_string() });
    let refused = world
        .deploy_with("app/f", "command", wasm(READS), settings)
        .await;
    assert_eq!(refused.code(), "files-not-found", "{}", refused.text());
    assert!(refused.text().contains(&missing.to_string()));
}
