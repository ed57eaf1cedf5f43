//! Files of guests: what programs of C and Rust do with them, behind both engines.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use faaslet::{Config, Faaslets};
use files::{Contents, Library, Source};
use model::{
    Digest, FileEntry, FileList, InvocationId, Kind, Limits, Settings, Status, VersionSpec,
};
use sandbox::{
    Artifacts, Backend, BodyError, Call, CallLog, End, LogSink, LogStream, Payload, Program,
    Sandbox,
};

/// Contents by digest, and how often any was opened.
#[derive(Clone, Default)]
struct Shelf(Arc<(HashMap<Digest, Vec<u8>>, AtomicUsize)>);

impl Source for Shelf {
    fn open(&self, digest: &Digest) -> std::io::Result<Contents> {
        self.0.1.fetch_add(1, Ordering::Relaxed);
        let found = self.0.0.get(digest).ok_or(std::io::ErrorKind::NotFound)?;
        Ok(Contents::of(found.clone()))
    }
}

struct Artifact(Bytes);

#[async_trait::async_trait]
impl Artifacts for Artifact {
    async fn artifact(&self, _: &Digest) -> Result<Bytes, BodyError> {
        Ok(self.0.clone())
    }
}

#[derive(Default)]
struct Log(parking_lot::Mutex<Vec<u8>>);

impl LogSink for Log {
    fn write(&self, _: InvocationId, _: LogStream, bytes: &[u8]) {
        self.0.lock().extend_from_slice(bytes);
    }
}

struct Bench {
    backend: Faaslets,
    shelf: Shelf,
    list: Digest,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// Engines, and files that a function may be deployed with.
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mut list, mut contents) = (FileList::default(), HashMap::new());
        for (path, text) in files {
            let entry = match text.strip_prefix("-> ") {
                Some(target) => FileEntry::Link(target.into()),
                None => FileEntry::File {
                    digest: Digest::of(text.as_bytes()),
                    bytes: text.len() as u64,
                    executable: false,
                },
            };
            contents.insert(Digest::of(text.as_bytes()), text.as_bytes().to_vec());
            list.entries.insert((*path).into(), entry);
        }
        let bytes = list.to_bytes();
        let list = Digest::of(&bytes);
        contents.insert(list, bytes);
        let shelf = Shelf(Arc::new((contents, AtomicUsize::new(0))));
        let config = Config {
            files: Arc::new(Library::new(shelf.clone())),
            ..Config::new(dir.path())
        };
        Self {
            backend: Faaslets::new(config).unwrap(),
            shelf,
            list,
            _dir: dir,
        }
    }

    async fn deploy(&self, wasm: Bytes, kind: Kind, limits: Limits) -> Arc<dyn Program> {
        let spec = VersionSpec {
            kind,
            artifact: Digest::of(&wasm),
            settings: Settings {
                limits,
                files: Some(self.list),
                ..Settings::default()
            },
        };
        self.backend
            .prepare(&spec, wasm.clone(), Vec::new())
            .await
            .unwrap();
        self.backend.load(&spec, &Artifact(wasm)).await.unwrap()
    }

    async fn command(&self, guest: &str, limits: Limits) -> Box<dyn Sandbox> {
        let program = self.deploy(built(guest), Kind::Command, limits).await;
        program.sandbox().unwrap()
    }
}

/// A guest of `guests/files`.
fn built(name: &str) -> Bytes {
    let file = format!("../../guests/out/files/{name}.wasm");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let guest = std::fs::read(&file).expect("a guest; `./x guests` builds it");
    Bytes::from(guest)
}

/// Calls a fresh sandbox and resets it: how it ended, what it replied, what it logged.
async fn run(
    sandbox: &mut Box<dyn Sandbox>,
    args: &[&str],
    body: &str,
) -> (Status, String, String) {
    run_within(sandbox, args, body, Limits::default()).await
}

async fn run_within(
    sandbox: &mut Box<dyn Sandbox>,
    args: &[&str],
    body: &str,
    limits: Limits,
) -> (Status, String, String) {
    let log = Arc::new(Log::default());
    let id = InvocationId::new(0);
    let call = Call {
        asks: None,
        id,
        payload: Payload::Bytes {
            body: Bytes::copy_from_slice(body.as_bytes()),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: Vec::new(),
        },
        log: Arc::new(CallLog::new(id, log.clone(), limits.log_bytes_max)),
        limits: limits.into(),
        budget: None,
    };
    let completion = sandbox.invoke(call).await;
    sandbox.reset().unwrap();
    let End::Done(status) = completion.end else {
        panic!("{:?}", completion.end);
    };
    let log = String::from_utf8_lossy(&log.0.lock()).into_owned();
    (
        status,
        String::from_utf8_lossy(&completion.reply).into_owned(),
        log,
    )
}

const FILES: [(&str, &str); 4] = [
    ("data/greeting", "hello from the layer"),
    ("data/more/leaf", "leaf"),
    ("link", "-> data/greeting"),
    ("absolute", "-> /data/greeting"),
];

const GUESTS: [&str; 2] = ["rust-p1", "rust-p2"];

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_c_and_rust_find_what_posix_promises() {
    let bench = Bench::new(&FILES);
    for guest in ["c", "rust-p1", "rust-p2"] {
        let mut sandbox = bench.command(guest, Limits::default()).await;
        for _ in 0..2 {
            let (status, reply, log) = run(&mut sandbox, &["check"], "").await;
            assert_eq!(
                (status, reply.as_str()),
                (Status::Ok, "ok\n"),
                "{guest}: {log}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_version_are_read_and_changed_for_one_invocation_only() {
    let bench = Bench::new(&FILES);
    for guest in GUESTS {
        let mut sandbox = bench.command(guest, Limits::default()).await;
        for path in [
            "/data/greeting",
            "data/greeting",
            "link",
            "absolute",
            "/data/../link",
        ] {
            let (status, reply, log) = run(&mut sandbox, &["read", path], "").await;
            assert_eq!(status, Status::Ok, "{guest} {path}: {log}");
            assert_eq!(reply, FILES[0].1, "{guest} {path}");
        }
        let (_, reply, _) = run(&mut sandbox, &["list", "/"], "").await;
        assert_eq!(reply, "absolute data link\n", "{guest}");
        // What is written over the layer, and beside it, is gone with its invocation.
        for path in ["/data/greeting", "/canary"] {
            let (status, ..) = run(&mut sandbox, &["write", path], "secret").await;
            assert_eq!(status, Status::Ok, "{guest} {path}");
        }
        let (_, reply, _) = run(&mut sandbox, &["read", "/data/greeting"], "").await;
        assert_eq!(reply, FILES[0].1, "{guest}");
        let (_, reply, _) = run(&mut sandbox, &["list", "/"], "").await;
        assert_eq!(reply, "absolute data link\n", "{guest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_of_a_guest_leads_to_files_of_the_host() {
    let bench = Bench::new(&FILES);
    for guest in GUESTS {
        let mut sandbox = bench.command(guest, Limits::default()).await;
        for path in [
            "/etc/passwd",
            "../../../etc/passwd",
            "/../etc/passwd",
            "data/../../etc/passwd",
            "/proc/self/environ",
            "",
        ] {
            let (status, reply, _) = run(&mut sandbox, &["read", path], "").await;
            assert_ne!(status, Status::Ok, "{guest} {path}");
            assert_eq!(reply, "", "{guest} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_writes_as_much_as_its_quota_holds() {
    let bench = Bench::new(&FILES);
    let limits = Limits {
        files_bytes_max: 100_000,
        ..Limits::default()
    };
    for guest in GUESTS {
        let mut sandbox = bench.command(guest, limits.clone()).await;
        for _ in 0..2 {
            let filled = run_within(&mut sandbox, &["fill", "/big"], "", limits.clone()).await;
            // A stream's last write is told as failed, a descriptor's as cut off.
            let whole = if guest == "rust-p1" {
                100_000 / 4096 * 4096
            } else {
                90_000
            };
            assert_eq!(
                filled.1,
                format!("{whole} StorageFull\n"),
                "{guest}: {}",
                filled.2
            );
        }
    }
    let none = Limits {
        files_bytes_max: 0,
        files_max: 0,
        ..Limits::default()
    };
    for guest in GUESTS {
        let mut sandbox = bench.command(guest, none.clone()).await;
        let written = run_within(&mut sandbox, &["write", "/x"], "x", none.clone()).await;
        assert_ne!(written.0, Status::Ok);
        assert!(written.2.contains("Read-only"), "{guest}: {}", written.2);
        let (_, reply, _) = run_within(&mut sandbox, &["read", "/link"], "", none.clone()).await;
        assert_eq!(reply, FILES[0].1, "{guest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_with_the_same_files_hold_them_once() {
    let bench = Bench::new(&FILES);
    let opened = || bench.shelf.0.1.load(Ordering::Relaxed);
    let first = bench.command(GUESTS[0], Limits::default()).await;
    let before = opened();
    let second = bench.command(GUESTS[1], Limits::default()).await;
    assert_eq!(opened(), before);
    drop((first, second));
}

/// Opens `data/greeting` while it is initialised, and replies with what it read then.
const INITIALISED: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open" (func $open
    (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read"
    (func $read (param i32 i32 i32 i32) (result i32)))
  (import "dunlin" "output_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "data/greeting")
  (func (export "init") (result i32)
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 13) (i32.const 0)
          (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 8))
      (then (return (i32.const 1))))
    (i32.store (i32.const 0) (i32.const 128)) (i32.store (i32.const 4) (i32.const 64))
    (call $read (i32.load (i32.const 8)) (i32.const 0) (i32.const 1) (i32.const 12)))
  (func (export "handle") (result i32)
    (call $write (i32.const 128) (i32.load (i32.const 12)))))"#;

#[tokio::test(flavor = "multi_thread")]
async fn initialisation_finds_the_files_of_the_version() {
    let bench = Bench::new(&FILES);
    let wasm = Bytes::from(wat::parse_str(INITIALISED).unwrap());
    let program = bench.deploy(wasm, Kind::Reactor, Limits::default()).await;
    let mut sandbox = program.sandbox().unwrap();
    let (status, reply, _) = run(&mut sandbox, &[], "").await;
    assert_eq!((status, reply.as_str()), (Status::Ok, FILES[0].1));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_missing_fail_the_deploy_and_not_the_call() {
    let bench = Bench::new(&FILES);
    let wasm = Bytes::from(wat::parse_str(INITIALISED).unwrap());
    let spec = VersionSpec {
        kind: Kind::Reactor,
        artifact: Digest::of(&wasm),
        settings: Settings {
            files: Some(Digest::of(b"no such list")),
            ..Settings::default()
        },
    };
    let refused = bench.backend.prepare(&spec, wasm, Vec::new()).await;
    assert!(refused.is_err(), "{refused:?}");
}
