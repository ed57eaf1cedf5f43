//! Core modules that hold much when they are deployed: mapped from a file of pages, which may still
//! be arriving.
#![allow(clippy::unwrap_used, missing_docs)]

mod bench;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

use bench::{Artifact, invoke};
use bytes::Bytes;
use faaslet::{Config, Faaslets};
use memory::Arriving;
use model::{Digest, Kind, Settings, Status, VersionSpec};
use sandbox::{Backend, End, EntryKind, Portable, Presence, Program, Sandbox};

/// Fills 16 MiB at deploy, and answers with a byte of their end and one that it has changed before.
const LARGE: &str = r#"(module
  (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
  (memory 272)
  (data (i32.const 0) "-")
  (func (export "_initialize")
    (memory.fill (i32.const 1048576) (i32.const 97) (i32.const 16777216)))
  (func (export "handle")
    (i32.store8 (i32.const 1) (i32.load8_u (i32.const 17000000)))
    (i32.store8 (i32.const 2) (i32.load8_u (i32.const 9000000)))
    (i32.store8 (i32.const 9000000) (i32.const 63))
    (drop (call $write (i32.const 0) (i32.const 3)))))"#;
const REPLY: &str = "-aa";

fn wasm() -> Bytes {
    wat::parse_str(LARGE).unwrap().into()
}

fn spec() -> VersionSpec {
    VersionSpec {
        kind: Kind::Reactor,
        artifact: Digest::of(&wasm()),
        settings: Settings::default(),
    }
}

fn backend(dir: &Path) -> Faaslets {
    Faaslets::new(Config::new(dir)).unwrap()
}

async fn load(backend: &Faaslets) -> Arc<dyn Program> {
    backend.load(&spec(), &Artifact(wasm())).await.unwrap()
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    paths.filter(is_one).collect()
}

/// Two calls of a sandbox reply the same.
async fn replies(program: &Arc<dyn Program>) {
    let mut sandbox = program.sandbox().unwrap();
    for _ in 0..2 {
        assert_eq!(invoke(&mut sandbox, "").await.reply, REPLY);
        sandbox.reset().unwrap();
    }
}

#[tokio::test]
async fn a_large_memory_is_mapped_from_its_pages_and_made_anew_if_they_are_spoiled() {
    let dir = tempfile::tempdir().unwrap();
    let first = backend(dir.path());
    let prepared = first.prepare(&spec(), wasm(), Vec::new()).await.unwrap();
    assert!(!prepared.cached && prepared.image_bytes > 16 << 20);
    assert_eq!(files(dir.path(), "image"), Vec::<PathBuf>::new());
    let entries = first.entries(&spec()).unwrap().unwrap();
    assert!(entries.iter().any(|(_, kind)| *kind == EntryKind::Pages));
    replies(&load(&first).await).await;
    replies(&load(&backend(dir.path())).await).await;
    for spoil in [
        |path: &Path| std::fs::remove_file(path).unwrap(),
        |path: &Path| std::fs::write(path, b"spoiled").unwrap(),
    ] {
        let [pages] = files(dir.path(), "pages").try_into().unwrap();
        spoil(&pages);
        replies(&load(&backend(dir.path())).await).await;
    }
}

/// A program whose pages are still to come, which `then` is told of with what they are, and the
/// first chunk that is wanted.
async fn coming(
    dir: &Path,
    then: impl Fn(&Arriving, &[u8], usize) + Send + 'static,
) -> Arc<dyn Program> {
    let first = backend(dir);
    first.prepare(&spec(), wasm(), Vec::new()).await.unwrap();
    let [file] = files(dir, "pages").try_into().unwrap();
    let pages = std::fs::read(&file).unwrap();
    std::fs::remove_file(file).unwrap();
    let (wants, wanted) = channel();
    let wants = move |chunk| wants.send(chunk).expect("somebody hears it");
    let arriving = Arriving::new(pages.len(), wants).unwrap();
    let backend = backend(dir);
    let key = Digest::of(&pages);
    assert!(backend.cache().expect(key, &arriving));
    thread::spawn(move || {
        for chunk in wanted {
            then(&arriving, &pages, chunk);
        }
    });
    let program = load(&backend).await;
    assert_eq!(program.presence(), Presence::Arriving);
    program
}

#[tokio::test]
async fn a_module_runs_before_all_of_its_memory_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let fill = |arriving: &Arriving, pages: &[u8], chunk: usize| {
        arriving.fill(chunk, &pages[arriving.span(chunk)]).unwrap();
    };
    let program = coming(dir.path(), fill).await;
    replies(&program).await;
    assert_eq!(program.presence(), Presence::Arriving);
}

#[tokio::test]
async fn nothing_comes_out_of_a_module_whose_memory_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let lose = |arriving: &Arriving, _: &[u8], _| arriving.lose();
    let program = coming(dir.path(), lose).await;
    let mut sandbox: Box<dyn Sandbox> = program.sandbox().unwrap();
    let ended = invoke(&mut sandbox, "").await;
    assert!(matches!(ended.end, End::Done(Status::Platform { .. })));
    assert_eq!(ended.reply, "");
    assert!(sandbox.reset().is_err());
    assert!(program.sandbox().is_err());
    replies(&load(&backend(dir.path())).await).await;
}
