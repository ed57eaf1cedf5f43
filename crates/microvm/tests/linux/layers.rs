//! The files of a version under the private ones of a call.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use files::{Contents, Library, Source};
use microvm::{Config, MicroVms};
use model::{
    Digest, FileEntry, FileList, InvocationId, Isolation, Kind, Limits, Settings, Snapshot, Status,
    VersionSpec,
};
use sandbox::{
    Artifacts, Backend, BodyError, Call, CallLog, End, LoadError, LogSink, LogStream, Payload,
    PrepareError, Program, Sandbox,
};

use crate::support::{build, kvm};

/// Contents by digest.
#[derive(Clone, Default)]
struct Shelf(Arc<HashMap<Digest, Vec<u8>>>);

impl Source for Shelf {
    fn open(&self, digest: &Digest) -> std::io::Result<Contents> {
        let found = self.0.get(digest).ok_or(std::io::ErrorKind::NotFound)?;
        Ok(Contents::of(found.clone()))
    }
}

struct Nothing;

#[async_trait]
impl Artifacts for Nothing {
    async fn artifact(&self, _: &Digest) -> Result<Bytes, BodyError> {
        Err("the cache has all of it".into())
    }
}

impl LogSink for Nothing {
    fn write(&self, _: InvocationId, _: LogStream, _: &[u8]) {}
}

/// The list of these files, and all that it takes to read it.
fn shelf(files: &[(&str, &str)]) -> (Digest, Shelf) {
    let (mut list, mut contents) = (FileList::default(), HashMap::new());
    for (path, text) in files {
        let entry = match text.strip_prefix("-> ") {
            Some(target) => FileEntry::Link(target.into()),
            None => FileEntry::File {
                digest: Digest::of(text.as_bytes()),
                bytes: text.len() as u64,
                executable: *path == "tool",
            },
        };
        contents.insert(Digest::of(text.as_bytes()), text.as_bytes().to_vec());
        list.entries.insert((*path).into(), entry);
    }
    let bytes = list.to_bytes();
    let digest = Digest::of(&bytes);
    contents.insert(digest, bytes);
    (digest, Shelf(Arc::new(contents)))
}

const FILES: [(&str, &str); 6] = [
    ("data/greeting", "hello from the layer"),
    ("data/more/leaf", "leaf"),
    ("link", "-> data/greeting"),
    ("etc/hosts", "127.0.0.1 shop"),
    ("tool", "#!"),
    ("var/task/greeting", "\"hello\""),
];

struct Bench {
    dir: tempfile::TempDir,
    spec: VersionSpec,
    artifact: Bytes,
    shelf: Shelf,
}

impl Bench {
    fn new(kind: Kind, snapshot: Snapshot) -> Self {
        let (list, shelf) = shelf(&FILES);
        let source = match kind {
            Kind::Lambda => "../guests/bootstrap.c",
            _ => "layered.c",
        };
        let artifact: Bytes = build(source, "gcc", &["-w"]).into();
        let limits = Limits {
            deadline_ms: 60_000,
            memory_bytes_max: 64 << 20,
            ..Limits::default()
        };
        let spec = VersionSpec {
            kind,
            artifact: Digest::of(&artifact),
            settings: Settings {
                limits,
                files: Some(list),
                isolation: Isolation::Vm,
                snapshot,
                ..Settings::default()
            },
        };
        Self {
            dir: tempfile::tempdir().unwrap(),
            spec,
            artifact,
            shelf,
        }
    }

    /// A node, begun anew over the same cache.
    fn node(&self, shelf: Shelf) -> MicroVms {
        MicroVms::new(Config {
            shells: 1,
            files: Arc::new(Library::new(shelf)),
            ..Config::new(self.dir.path().join("cache"))
        })
        .unwrap()
    }

    async fn prepare(&self, node: &MicroVms) -> Result<Option<String>, PrepareError> {
        let artifact = self.artifact.clone();
        let prepared = node.prepare(&self.spec, artifact, Vec::new()).await?;
        Ok(prepared.note)
    }

    async fn load(&self, node: &MicroVms) -> Arc<dyn Program> {
        node.load(&self.spec, &Nothing).await.unwrap()
    }

    async fn call(&self, sandbox: &mut Box<dyn Sandbox>, body: &'static str) -> String {
        let id = InvocationId::new(0);
        let of_lambda = self.spec.kind == Kind::Lambda;
        let env = of_lambda.then(|| ("DUNLIN_INVOCATION_ID".to_owned(), id.to_string()));
        let call = Call {
            id,
            payload: Payload::Bytes {
                body: Bytes::from_static(body.as_bytes()),
                args: Vec::new(),
                env: env.into_iter().collect(),
            },
            limits: Arc::new(self.spec.settings.limits.clone()),
            budget: None,
            log: Arc::new(CallLog::new(id, Arc::new(Nothing), 1 << 16)),
            asks: None,
        };
        let completion = sandbox.invoke(call).await;
        assert_eq!(completion.end, End::Done(Status::Ok));
        sandbox.reset().unwrap();
        String::from_utf8(completion.reply.to_vec()).unwrap()
    }
}

const READ: &str = "first hello from the layer\nnow hello from the layer\nkept leaf mapped leaf\n\
                    prepared at its start\nlink hello from the layer\nhosts 127.0.0.1 shop\n\
                    group function:x:1000:\nruns -1 0\ndata greeting more prepared\nmore leaf\n";
const WRITTEN: &str = "first hello from the layer\nnow secret\nkept leaf mapped leaf\n\
                       prepared secret\nlink -\nhosts 127.0.0.1 shop\ngroup function:x:1000:\n\
                       runs -1 0\ndata canary greeting more prepared\nmore\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_program_finds_its_files_and_changes_them_for_its_call_only() {
    if kvm().is_none() {
        return;
    }
    for snapshot in [Snapshot::Auto, Snapshot::Never] {
        let bench = Bench::new(Kind::Command, snapshot);
        let node = bench.node(bench.shelf.clone());
        let note = bench.prepare(&node).await.unwrap();
        assert_eq!(note.is_some(), snapshot == Snapshot::Never, "{note:?}");
        let program = bench.load(&node).await;
        let (mut one, mut two) = (program.sandbox().unwrap(), program.sandbox().unwrap());
        for _ in 0..2 {
            assert_eq!(bench.call(&mut one, "read").await, READ);
            assert_eq!(bench.call(&mut one, "write").await, WRITTEN);
            assert_eq!(bench.call(&mut two, "read").await, READ);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lambda_runtime_finds_its_files() {
    if kvm().is_none() {
        return;
    }
    for snapshot in [Snapshot::Auto, Snapshot::Never] {
        let bench = Bench::new(Kind::Lambda, snapshot);
        let node = bench.node(bench.shelf.clone());
        bench.prepare(&node).await.unwrap();
        let mut sandbox = bench.load(&node).await.sandbox().unwrap();
        assert_eq!(bench.call(&mut sandbox, "\"greet\"").await, "\"hello\"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_begins_anew_finds_the_process_with_its_files() {
    if kvm().is_none() {
        return;
    }
    let bench = Bench::new(Kind::Command, Snapshot::Auto);
    bench
        .prepare(&bench.node(bench.shelf.clone()))
        .await
        .unwrap();
    let node = bench.node(bench.shelf.clone());
    let program = bench.load(&node).await;
    let mut sandbox = program.sandbox().unwrap();
    assert_eq!(bench.call(&mut sandbox, "read").await, READ);
    let gone = bench.node(Shelf::default());
    let refused = gone.load(&bench.spec, &Nothing).await.err().unwrap();
    let LoadError::Prepare(refused) = refused else {
        panic!("{refused}");
    };
    let refused = refused.to_string();
    assert!(refused.contains("it could not open its files"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_whose_files_are_not_there_fails() {
    if kvm().is_none() {
        return;
    }
    let bench = Bench::new(Kind::Command, Snapshot::Auto);
    let refused = bench.prepare(&bench.node(Shelf::default())).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("it could not open its files"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_no_linux_program_has_none() {
    if kvm().is_none() {
        return;
    }
    let bench = Bench::new(Kind::Reactor, Snapshot::Auto);
    let refused = bench.prepare(&bench.node(bench.shelf.clone())).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, PrepareError::Unsupported { .. }),
        "{refused}"
    );
}
