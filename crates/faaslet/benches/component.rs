//! What a call of an http component costs: a fresh instance, the call, and the reset after it.
//!
//! `cargo bench -p faaslet --bench component -- FILE.wasm...`; without files, the hello components
//! that `./x guests` builds, those that are there. With `BENCH_BODY` set the calls are POSTs of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use faaslet::{ComponentConfig, Components};
use http_body_util::BodyExt;
use model::{Digest, InvocationId, Kind, Limits, Settings, VersionSpec};
use sandbox::Cache;
use sandbox::{
    Artifacts, BodyError, Call, CallLog, Completion, End, HttpCall, LogSink, LogStream, Payload,
    Program, Sandbox, body_of,
};

const CALLS_MAX: u32 = 20_000;
const TIME_MAX: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;
const GUESTS: [&str; 2] = ["hello-http.wasm", "hello-http3.wasm"];

struct One(Bytes);

#[async_trait::async_trait]
impl Artifacts for One {
    async fn artifact(&self, _digest: &Digest) -> Result<Bytes, BodyError> {
        Ok(self.0.clone())
    }
}

struct Shown;

impl LogSink for Shown {
    fn write(&self, _: InvocationId, _: LogStream, bytes: &[u8]) {
        eprint!("{}", String::from_utf8_lossy(bytes));
    }
}

#[expect(clippy::print_stdout, reason = "a bench prints")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files: Vec<PathBuf> = std::env::args_os()
        .skip(1)
        .filter(|arg| !arg.as_encoded_bytes().starts_with(b"--"))
        .map(PathBuf::from)
        .collect();
    if files.is_empty() {
        let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests/out");
        files = GUESTS.map(|name| out.join(name)).to_vec();
        files.retain(|file| file.exists());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let dir = tempfile::tempdir()?;
    let cache = Arc::new(Cache::new(dir.path())?);
    let components = Components::new(
        &ComponentConfig::default(),
        &[],
        cache,
        Arc::new(files::Library::empty()),
    )?;
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        println!("{name}");
        runtime.block_on(measure(&components, &file))?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a bench prints")]
async fn measure(components: &Components, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let artifact = Bytes::from(std::fs::read(file)?);
    let spec = VersionSpec {
        kind: Kind::Http,
        artifact: Digest::of(&artifact),
        settings: Settings::default(),
    };
    let begun = Instant::now();
    let prepared = components
        .prepare(&spec, artifact.clone(), Vec::new())
        .await?;
    println!(
        "  prepare {:?}, {} bytes of code",
        begun.elapsed(),
        prepared.code_bytes
    );
    let begun = Instant::now();
    let program = components.load(&spec, &One(artifact)).await?;
    println!("  load {:?}", begun.elapsed());
    let begun = Instant::now();
    let (head, completion) = call(program.sandbox()?.as_mut(), true).await;
    println!(
        "  first call {:?}: {head}\n  {completion:?}",
        begun.elapsed()
    );
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let (wall, cpu) = round(&program).await?;
        best = (best.0.min(wall), best.1.min(cpu));
    }
    let (wall, cpu) = best;
    println!("  a call: {wall:?}, of which {cpu:?} processor time; best of {ROUNDS} rounds");
    Ok(())
}

/// Wall and processor time of a call; the guest, its host and the caller share the one thread.
async fn round(
    program: &Arc<dyn Program>,
) -> Result<(Duration, Duration), Box<dyn std::error::Error>> {
    let (begun, cpu_begun) = (Instant::now(), cpu_time());
    let mut calls = 0;
    let mut sandbox = program.sandbox()?;
    while calls < CALLS_MAX && begun.elapsed() < TIME_MAX {
        let (head, completion) = call(sandbox.as_mut(), false).await;
        if completion.end != End::Done(model::Status::Ok) {
            return Err(format!("{head}: {completion:?}").into());
        }
        sandbox.reset()?;
        calls += 1;
    }
    Ok((begun.elapsed() / calls, (cpu_time() - cpu_begun) / calls))
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

async fn call(sandbox: &mut dyn Sandbox, show: bool) -> (String, Completion) {
    let (respond, response) = tokio::sync::oneshot::channel();
    let body = std::env::var("BENCH_BODY").ok();
    let method = body
        .as_ref()
        .map_or(http::Method::GET, |_| http::Method::POST);
    let request = http::Request::builder()
        .method(method)
        .uri("http://127.0.0.1:8080/bench?n=5")
        .header("user-agent", "bench")
        .header("accept", "*/*")
        .body(body_of(body.unwrap_or_default()))
        .expect("the request is well-formed");
    let call = Call {
        asks: None,
        id: InvocationId::new(0),
        payload: Payload::Http(Box::new(HttpCall { request, respond })),
        limits: Arc::new(Limits::default()),
        budget: None,
        log: Arc::new(CallLog::new(InvocationId::new(0), Arc::new(Shown), 1 << 16)),
    };
    let read = async {
        let Ok(response) = response.await else {
            return "no response".to_owned();
        };
        let (parts, body) = response.into_parts();
        let exact = http_body::Body::size_hint(&body).exact();
        let body = body.collect().await.map(|body| body.to_bytes());
        if !show {
            return String::new();
        }
        format!("{} {exact:?} {body:?} {:?}", parts.status, parts.headers)
    };
    let (completion, head) = tokio::join!(sandbox.invoke(call), read);
    (head, completion)
}
