//! Components that are taken apart: what they share, what they load, and what stays their own.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use bytes::Bytes;
use faaslet::{ComponentConfig, Components};
use http_body_util::BodyExt;
use memory::{Arriving, Presence};
use model::{Digest, InvocationId, Kind, Limits, Settings, Status, TrapKind, VersionSpec};
use sandbox::Cache;
use sandbox::{
    Artifacts, BodyError, Call, CallLog, End, HttpCall, LogSink, LogStream, Payload, PrepareError,
    Prepared, Program, Sandbox, body_of,
};

const HTTP: &str = include_str!("wat/http.wat");

/// Replies with a byte of its memory, the number of layers that a global counts, and three letters
/// more; then it changes both, which the next call must not see.
const HANDLE: &str = "
    (i32.store8 (i32.const 4097) (i32.add (i32.const 48) (global.get $loaded)))
    (call $respond (local.get $out)) (call $write (i32.const 5)) (call $finish)
    (global.set $loaded (i32.const 7)) (i32.store8 (i32.const 4096) (i32.const 63))
    (i32.store8 (i32.const 1000000) (i32.const 63))";

/// Takes the first byte of a layer into memory, and refuses layers that begin with `!`.
const LOAD: &str = r#"
    (global $loaded (mut i32) (i32.const 0))
    (func (export "load") (param $at i32) (param $length i32) (result i32)
      (global.set $loaded (i32.add (global.get $loaded) (i32.const 1)))
      (i32.store8 (i32.const 4096) (i32.load8_u (local.get $at)))
      (i32.store8 (i32.const 8192) (i32.eq (i32.load8_u (local.get $at)) (i32.const 33)))
      (i32.store (i32.const 8196) (local.get $at))
      (i32.store (i32.const 8200) (local.get $length))
      (i32.const 8192))
    (func (export "handle")"#;

const LOADER: &str = r#"
  (func $load (param "layer" (list u8)) (result (result (error string)))
    (canon lift (core func $main "load") (memory (core memory $memory "memory"))
      (realloc (core func $memory "realloc"))))
  (instance $loader (export "load" (func $load)))
  (export "dunlin:runtime/loader@1.0.0" (instance $loader))
  (instance $handler"#;

/// A runtime with `handle`, which holds a MiB and more of `filled`.
fn runtime_of(handle: &str, filled: char) -> Bytes {
    let filled: String = std::iter::repeat_n(filled, 1_500_000).collect();
    let text = HTTP
        .replace(
            r#"(memory (export "memory") 2)"#,
            r#"(memory (export "memory") 40)"#,
        )
        .replace(
            r#"(data (i32.const 4096) "hello")"#,
            &format!(r#"(data (i32.const 4096) "hello") (data (i32.const 65536) "{filled}")"#),
        )
        .replace("    (func (export \"handle\")", LOAD)
        .replace("  (instance $handler", LOADER)
        .replace(";; HANDLE\n", handle);
    wat::parse_str(text).unwrap().into()
}

fn runtime() -> Bytes {
    runtime_of(HANDLE, 'a')
}

/// What was uploaded.
struct Uploads(Vec<Bytes>);

#[async_trait::async_trait]
impl Artifacts for Uploads {
    async fn artifact(&self, digest: &Digest) -> Result<Bytes, BodyError> {
        let found = self.0.iter().find(|bytes| Digest::of(bytes) == *digest);
        found.cloned().ok_or_else(|| "nobody has it".into())
    }
}

struct Silent;

impl LogSink for Silent {
    fn write(&self, _: InvocationId, _: LogStream, _: &[u8]) {}
}

struct Bed {
    cache: Arc<Cache>,
    components: Components,
    limits: Limits,
}

impl Bed {
    fn over(dir: &Path) -> Self {
        let config = ComponentConfig {
            sandboxes_max: 4,
            ..ComponentConfig::default()
        };
        let cache = Arc::new(Cache::new(dir).unwrap());
        Self {
            components: Components::new(
                &config,
                &[],
                cache.clone(),
                Arc::new(files::Library::empty()),
            )
            .unwrap(),
            cache,
            limits: Limits::default(),
        }
    }

    fn spec(&self, artifact: &Bytes, layers: &[&'static str]) -> VersionSpec {
        let digests = layers.iter().map(|layer| Digest::of(layer.as_bytes()));
        VersionSpec {
            kind: Kind::Http,
            artifact: Digest::of(artifact),
            settings: Settings {
                limits: self.limits.clone(),
                layers: digests.collect(),
                ..Settings::default()
            },
        }
    }

    async fn prepare(
        &self,
        artifact: &Bytes,
        layers: &[&'static str],
    ) -> Result<Prepared, PrepareError> {
        let spec = self.spec(artifact, layers);
        let layers = layers
            .iter()
            .map(|layer| Bytes::from_static(layer.as_bytes()));
        let prepared = self
            .components
            .prepare(&spec, artifact.clone(), layers.collect());
        prepared.await
    }

    async fn load(&self, artifact: &Bytes, layers: &[&'static str]) -> Arc<dyn Program> {
        let spec = self.spec(artifact, layers);
        let layers = layers
            .iter()
            .map(|layer| Bytes::from_static(layer.as_bytes()));
        let uploads = Uploads(layers.chain([artifact.clone()]).collect());
        self.components.load(&spec, &uploads).await.unwrap()
    }

    async fn call(&self, sandbox: &mut Box<dyn Sandbox>) -> (Status, String) {
        let (respond, response) = tokio::sync::oneshot::channel();
        let request = http::Request::builder().uri("http://127.0.0.1/");
        let request = request.body(body_of("")).unwrap();
        let id = InvocationId::new(0);
        let call = Call {
            asks: None,
            id,
            payload: Payload::Http(Box::new(HttpCall { request, respond })),
            limits: Arc::new(self.limits.clone()),
            budget: None,
            log: Arc::new(CallLog::new(id, Arc::new(Silent), 0)),
        };
        let read = async {
            let Ok(response) = response.await else {
                return Bytes::new();
            };
            let body = response.into_body().collect().await;
            body.map(|body| body.to_bytes()).unwrap_or_default()
        };
        let (completion, body) = tokio::join!(sandbox.invoke(call), read);
        let End::Done(status) = completion.end else {
            panic!("components have no budget");
        };
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// What two calls of one sandbox reply: the same, or something was left.
    async fn reply(&self, program: &Arc<dyn Program>) -> String {
        let mut sandbox = program.sandbox().unwrap();
        let first = self.call(&mut sandbox).await;
        sandbox.reset().unwrap();
        let second = self.call(&mut sandbox).await;
        assert_eq!(first, second);
        assert_eq!(first.0, Status::Ok);
        first.1
    }
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

fn bytes_of(files: &[PathBuf]) -> u64 {
    files
        .iter()
        .map(|file| file.metadata().unwrap().len())
        .sum()
}

#[tokio::test]
async fn functions_of_one_runtime_share_its_code_and_its_pages() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::over(dir.path());
    let artifact = runtime();
    let bare = bed.load(&artifact, &[]).await;
    let whole = bytes_of(&files(dir.path(), "pages"));
    let a = bed.load(&artifact, &["A"]).await;
    let b = bed.load(&artifact, &["B"]).await;
    assert_eq!(bed.reply(&bare).await, "h0llo");
    assert_eq!(bed.reply(&a).await, "A1llo");
    assert_eq!(bed.reply(&b).await, "B1llo");
    assert_eq!(files(dir.path(), "cwasm").len(), 1);
    let added = bytes_of(&files(dir.path(), "pages")) - whole;
    assert!(
        added <= 8 * 4096,
        "two functions added {added} bytes to {whole}"
    );
}

#[tokio::test]
async fn layers_are_loaded_one_over_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::over(dir.path());
    let artifact = runtime();
    assert!(!bed.prepare(&artifact, &["A", "B"]).await.unwrap().cached);
    assert!(bed.prepare(&artifact, &["A"]).await.unwrap().cached);
    assert!(!bed.prepare(&artifact, &["B", "A"]).await.unwrap().cached);
    let both = bed.load(&artifact, &["A", "B"]).await;
    assert_eq!(bed.reply(&both).await, "B2llo");
    let other = bed.load(&artifact, &["B", "A"]).await;
    assert_eq!(bed.reply(&other).await, "A2llo");
}

#[tokio::test]
async fn components_that_only_hold_different_bytes_have_one_code() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::over(dir.path());
    let handle = HANDLE.replace("(i32.const 5)", "(i32.const 6)");
    for (artifact, codes) in [
        (runtime(), 1),
        (runtime_of(HANDLE, 'b'), 1),
        (runtime_of(&handle, 'b'), 2),
    ] {
        bed.prepare(&artifact, &[]).await.unwrap();
        assert_eq!(files(dir.path(), "cwasm").len(), codes);
    }
}

#[tokio::test]
async fn what_a_loader_refuses_is_refused_in_its_words() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::over(dir.path());
    let refused = bed.prepare(&runtime(), &["A", "!no such module"]).await;
    let Err(PrepareError::Init { reason }) = refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("!no such module"), "{reason}");
    let small = wat::parse_str(HTTP.replace(";; HANDLE\n", ""))
        .unwrap()
        .into();
    let refused = bed.prepare(&small, &["A"]).await;
    assert!(
        matches!(refused, Err(PrepareError::Unsupported { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_component_that_is_no_runtime_loads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::over(dir.path());
    let text = renamed(&runtime());
    let refused = bed.prepare(&text, &["A"]).await;
    let Err(PrepareError::Init { reason }) = refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("dunlin:runtime/loader"), "{reason}");
}

/// The runtime with its loader under another name of the same length.
fn renamed(runtime: &Bytes) -> Bytes {
    let (name, other) = (b"dunlin:runtime/loader", b"dunlin:runtime/lodger");
    let mut bytes = runtime.to_vec();
    for at in 0..bytes.len() - name.len() {
        if bytes[at..].starts_with(name) {
            bytes[at..at + name.len()].copy_from_slice(other);
        }
    }
    bytes.into()
}

#[tokio::test]
async fn a_restarted_node_finds_images_and_remakes_spoiled_ones() {
    let dir = tempfile::tempdir().unwrap();
    let artifact = runtime();
    Bed::over(dir.path()).load(&artifact, &["A", "B"]).await;
    let nothing = Uploads(Vec::new());
    let again = Bed::over(dir.path());
    let spec = again.spec(&artifact, &["A", "B"]);
    let found = again.components.load(&spec, &nothing).await.unwrap();
    assert_eq!(again.reply(&found).await, "B2llo");
    drop((found, again));
    for extension in ["pages", "meta", "cwasm"] {
        for file in files(dir.path(), extension) {
            std::fs::write(&file, b"spoiled").unwrap();
        }
        let again = Bed::over(dir.path());
        assert!(
            again.components.load(&spec, &nothing).await.is_err(),
            "{extension}"
        );
        let remade = again.load(&artifact, &["A", "B"]).await;
        assert_eq!(again.reply(&remade).await, "B2llo", "{extension}");
    }
}

#[tokio::test]
async fn an_image_over_the_memory_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::over(dir.path());
    bed.limits.memory_bytes_max = 39 << 16;
    let refused = bed.prepare(&runtime(), &[]).await;
    assert!(
        matches!(refused, Err(PrepareError::TooLarge { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn nothing_is_to_be_read_past_the_end_of_memory() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::over(dir.path());
    for address in ["0x280000", "0xfffeffff", "0xffff0000", "0xfffffff8"] {
        let handle = format!("(drop (i32.load8_u (i32.const {address})))");
        let program = bed.load(&runtime_of(&handle, 'a'), &[]).await;
        let mut sandbox = program.sandbox().unwrap();
        for _ in 0..2 {
            let (status, _) = bed.call(&mut sandbox).await;
            let Status::Trap { kind, .. } = status else {
                panic!("{address}: {status:?}");
            };
            assert_eq!(kind, TrapKind::OutOfBounds, "{address}");
            sandbox.reset().unwrap();
        }
    }
}

#[tokio::test]
async fn memory_that_a_call_grew_is_gone_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::over(dir.path());
    let handle = "(i32.store8 (i32.const 4096) (i32.add (memory.size) (i32.const 48)))
        (drop (memory.grow (i32.const 3)))
        (if (i32.ne (memory.size) (i32.const 43)) (then unreachable))
        (if (i32.load (i32.const 0x290000)) (then unreachable))
        (i32.store (i32.const 0x290000) (i32.const 1))
        (call $respond (local.get $out)) (call $write (i32.const 5)) (call $finish)";
    let program = bed.load(&runtime_of(handle, 'a'), &[]).await;
    assert_eq!(bed.reply(&program).await, "Xello");
}

/// A program whose pages are still to come, and what they are.
struct Coming {
    bed: Bed,
    program: Arc<dyn Program>,
    arriving: Arc<Arriving>,
    wanted: Receiver<usize>,
    pages: Vec<u8>,
}

async fn coming(dir: &Path) -> Coming {
    let runtime = runtime();
    Bed::over(dir).prepare(&runtime, &[]).await.unwrap();
    let [file] = files(dir, "pages").try_into().unwrap();
    let pages = std::fs::read(&file).unwrap();
    std::fs::remove_file(file).unwrap();
    let bed = Bed::over(dir);
    let (wants, wanted) = channel();
    let wants = move |chunk| wants.send(chunk).expect("somebody hears it");
    let arriving = Arriving::new(pages.len(), wants).unwrap();
    assert!(bed.cache.expect(Digest::of(&pages), &arriving));
    let program = bed.load(&runtime, &[]).await;
    assert_eq!(program.presence(), Presence::Arriving);
    Coming {
        bed,
        program,
        arriving,
        wanted,
        pages,
    }
}

#[tokio::test]
async fn a_guest_runs_before_all_of_its_pages_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let story = coming(dir.path()).await;
    let (arriving, pages) = (Arc::downgrade(&story.arriving), story.pages.clone());
    let fetcher = thread::spawn(move || {
        for chunk in story.wanted {
            let arriving = arriving.upgrade().expect("somebody waits");
            arriving
                .fill(chunk, &pages[arriving.span(chunk)])
                .expect("it fits");
        }
    });
    let reply = story.bed.reply(&story.program).await;
    assert_eq!(story.arriving.presence(), Presence::Arriving);
    for chunk in 0..story.pages.len().div_ceil(memory::CHUNK_BYTES) {
        let span = story.arriving.span(chunk);
        story.arriving.fill(chunk, &story.pages[span]).unwrap();
    }
    assert_eq!(story.arriving.presence(), Presence::Whole);
    let again = story.bed.reply(&story.program).await;
    let whole = tempfile::tempdir().unwrap();
    let bed = Bed::over(whole.path());
    let expected = bed.reply(&bed.load(&runtime(), &[]).await).await;
    assert_eq!([reply, again], [expected.clone(), expected]);
    // Nobody wants anything any more.
    let Coming { bed, program, .. } = story;
    drop((bed, program, story.arriving));
    fetcher.join().unwrap();
}

#[tokio::test]
async fn what_runs_over_an_image_that_is_lost_fails_and_the_image_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let story = coming(dir.path()).await;
    let arriving = story.arriving.clone();
    let loser = thread::spawn(move || {
        story.wanted.recv().expect("a guest waits");
        arriving.lose();
    });
    let mut sandbox = story.program.sandbox().unwrap();
    let (status, reply) = story.bed.call(&mut sandbox).await;
    loser.join().unwrap();
    let Status::Platform { message } = status else {
        panic!("it ended with {status:?}");
    };
    assert!(message.contains("the rest of its image"), "{message}");
    assert_eq!(reply, "");
    assert!(sandbox.reset().is_err());
    assert!(story.program.sandbox().is_err());
    assert_eq!(story.program.presence(), Presence::Lost);
    let anew = story.bed.load(&runtime(), &[]).await;
    assert_eq!(story.bed.reply(&anew).await, "h0llo");
}
