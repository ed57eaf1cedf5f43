//! Calls of `wasi:cli` components, of WASI 0.2 and 0.3.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use model::{Settings, Status};
use sandbox::{CallLog, Completion, LogStream};
use wasmtime::Store;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, p2, p3};

use super::drive::{Ended, drive};
use super::egress::Egress;
use super::guest::Guest;
use super::http::Bounds;
use super::program::{failure, in_time};
use super::ticker::Ticker;
use crate::stdio::{Log, Reply, Stdio};

/// The name of the program, before its arguments.
const PROGRAM: &str = "function";
/// The variable that says a call's place in its trace.
const TRACE_VARIABLE: &str = "TRACEPARENT";

/// A command, ready to be instantiated.
pub(super) enum Command {
    /// `wasi:cli/run` 0.2.
    P2(p2::bindings::CommandPre<Guest>),
    /// `wasi:cli/run` 0.3.
    P3(p3::bindings::CommandPre<Guest>),
}

/// What a command is given.
pub(super) struct Input {
    pub(super) body: Bytes,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
}

/// The outside of a command: its input, and what it prints into.
pub(super) fn context(
    settings: &Settings,
    input: Input,
    reply: &Reply,
    egress: &Egress,
    log: Arc<CallLog>,
) -> WasiCtx {
    let mut env: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, value) in settings
        .env
        .iter()
        .chain(input.env.iter().map(|(k, v)| (k, v)))
    {
        env.insert(key, value);
    }
    let env: Vec<_> = env.into_iter().collect();
    closed_but(egress)
        .stdin(MemoryInputPipe::new(input.body))
        .stdout(Stdio::Reply(reply.clone()))
        .stderr(Stdio::Log(LogStream::Stderr, Log::new(log, false)))
        .arg(PROGRAM)
        .args(&settings.args)
        .args(&input.args)
        .envs(&env)
        .build()
}

/// A context without files or anything of the node's, and with no network but `egress`.
pub(super) fn closed_but(egress: &Egress) -> WasiCtxBuilder {
    let mut builder = WasiCtxBuilder::new();
    egress.open(&mut builder);
    builder
}

/// The call's place in its trace, from its environment.
pub(super) fn trace(env: &[(String, String)]) -> Option<HeaderValue> {
    let trace = env.iter().find(|(name, _)| name == TRACE_VARIABLE);
    trace.and_then(|(_, trace)| trace.parse().ok())
}

impl Command {
    /// Calls the component in `store`, which is fresh and writes into `reply`.
    pub(super) async fn call(
        &self,
        store: &mut Store<Guest>,
        reply: &Reply,
        bounds: &Bounds,
        ticker: &Ticker,
    ) -> Completion {
        let guest = async {
            match self {
                Command::P2(pre) => run_p2(store, pre).await,
                Command::P3(pre) => run_p3(store, pre).await,
            }
        };
        let ended = drive(guest, in_time(bounds), ticker, |_| reply.is_over()).await;
        let status = match ended {
            _ if reply.is_over() => Status::OutputLimit,
            Ended::Itself(Ok(Ok(()))) => Status::Ok,
            Ended::Itself(Ok(Err(()))) => Status::Exit { code: 1 },
            Ended::Itself(Err(error)) => failure(&error, store.data()).unwrap_or(Status::Ok),
            Ended::Deadline => Status::Timeout,
            Ended::BrokenOff => Status::OutputLimit,
        };
        Completion {
            reply: reply.take(),
            memory_peak_bytes: store.data().memory.peak_bytes as u64,
            ..Completion::without_reply(status)
        }
    }
}

async fn run_p2(
    store: &mut Store<Guest>,
    pre: &p2::bindings::CommandPre<Guest>,
) -> wasmtime::Result<Result<(), ()>> {
    let command = pre.instantiate_async(&mut *store).await?;
    store.data().instantiated()?;
    command.wasi_cli_run().call_run(store).await
}

async fn run_p3(
    store: &mut Store<Guest>,
    pre: &p3::bindings::CommandPre<Guest>,
) -> wasmtime::Result<Result<(), ()>> {
    let command = pre.instantiate_async(&mut *store).await?;
    store.data().instantiated()?;
    store
        .run_concurrent(async |guest| {
            let result = command.wasi_cli_run().call_run(guest).await?;
            // What it prints may still be on its way.
            poll_fn(|cx| guest.poll_no_interesting_tasks(cx)).await;
            Ok(result)
        })
        .await?
}
