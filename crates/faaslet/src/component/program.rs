//! A loaded component and its sandboxes.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use files::Layer;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::HeaderValue;
use memory::{AnnexAccess, Image, Range, Slab};
use model::{Kind, Status, VersionSpec};
use sandbox::{
    Call, CallLog, Completion, LogStream, Payload, Presence, Program, Sandbox, SandboxError, State,
};
use wasmtime::component::Component;
use wasmtime::{Engine, PoolConcurrencyLimitError, Store};
use wasmtime_wasi::{WasiCtx, p2, p3};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::asks;
use super::command::{self, Command, Input};
use super::egress::{Egress, Rules};
use super::engine::{Gate, Machine, Place};
use super::filesystem::GuestFiles;
use super::guest::{Guest, Surroundings};
use super::http::{Bounds, Handler};
use super::memories;
use super::ticker::Ticker;
use super::world::Entry;
use crate::lost;
use crate::status::status_of;
use crate::stdio::{Log, Reply, Stdio};

/// The header of an http call that says its place in its trace.
const TRACE: &str = "traceparent";
/// Ticks before a guest first yields. The first may come at once: with two, a guest that is quick
/// ends without having been suspended.
const FIRST_YIELD_TICKS: u64 = 2;
const NEXT_YIELD_TICKS: u64 = 1;

/// A loaded component.
pub(super) struct ComponentProgram(Arc<Loaded>);

struct Loaded {
    engine: Engine,
    entry: Callable,
    spec: VersionSpec,
    memories: usize,
    /// Whether it imports anything of the platform.
    asks: bool,
    /// Where its calls may connect to; none for nowhere.
    egress: Option<Arc<Rules>>,
    gate: Arc<Gate>,
    ticker: Arc<Ticker>,
    /// Its image, if its memory is ours.
    own: Option<Own>,
    /// The files that every call begins with.
    layer: Arc<Layer>,
}

/// Memory of ours, for the sandboxes of a program.
pub(super) struct Own {
    pub(super) slab: Slab,
    pub(super) image: Arc<Image>,
    /// Bytes of memory that the code declares.
    pub(super) declared_bytes: usize,
    /// Held so that the next program of the same code finds it.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) code: Arc<Component>,
}

enum Callable {
    Http(Handler),
    Command(Command),
}

impl ComponentProgram {
    /// Resolves the imports and exports of `component`, once for all of its calls.
    pub(super) fn new(
        machine: &Machine,
        component: &Component,
        entry: Entry,
        spec: &VersionSpec,
        egress: Option<Arc<Rules>>,
        own: Option<Own>,
        (gate, ticker, layer): (Arc<Gate>, Arc<Ticker>, Arc<Layer>),
    ) -> wasmtime::Result<Self> {
        let pre = machine.linker.instantiate_pre(component)?;
        let entry = match entry {
            Entry::Http2 => Callable::Http(Handler::P2(ProxyPre::new(pre)?)),
            Entry::Http3 => Callable::Http(Handler::P3(ServicePre::new(pre)?)),
            Entry::Command2 => Callable::Command(Command::P2(p2::bindings::CommandPre::new(pre)?)),
            Entry::Command3 => Callable::Command(Command::P3(p3::bindings::CommandPre::new(pre)?)),
        };
        let required = component.resources_required();
        Ok(Self(Arc::new(Loaded {
            engine: machine.engine.clone(),
            entry,
            spec: spec.clone(),
            asks: asks::imported(component),
            memories: required.map_or(1, |required| required.num_memories as usize),
            egress,
            gate,
            ticker,
            own,
            layer,
        })))
    }
}

impl Program for ComponentProgram {
    fn sandbox(&self) -> Result<Box<dyn Sandbox>, SandboxError> {
        if let Some(own) = &self.0.own {
            lost::check("made", &own.image)?;
        }
        let place = self.0.gate.enter(self.0.memories)?;
        let take = |own: &Own| own.slab.take(&own.image).map(Arc::new);
        let range = self.0.own.as_ref().map(take).transpose();
        Ok(Box::new(ComponentSandbox {
            place,
            range: range.map_err(|error| failed("made", &error))?,
            program: self.0.clone(),
            state: State::Fresh,
            spent: None,
        }))
    }

    fn cooperative(&self) -> bool {
        true
    }

    fn presence(&self) -> Presence {
        let own = self.0.own.as_ref();
        own.map_or(Presence::Whole, |own| own.image.presence())
    }

    fn asks(&self) -> bool {
        self.0.asks
    }
}

/// A place for calls of one component. Each call instantiates the component anew from its image,
/// which the engine's pool keeps mapped; nothing but the place outlives the call.
struct ComponentSandbox {
    /// Dropped before `place`, so that the pools have room for whoever takes the place.
    spent: Option<Store<Guest>>,
    /// Its memory, if that is ours.
    range: Option<Arc<Range>>,
    program: Arc<Loaded>,
    state: State,
    #[expect(dead_code, reason = "held for its drop")]
    place: Place,
}

impl Sandbox for ComponentSandbox {
    fn invoke(&mut self, call: Call) -> BoxFuture<'_, Completion> {
        async move {
            if let Err(error) = self.state.step(State::Running) {
                return platform(error.to_string());
            }
            // Nobody can look while the call borrows the sandbox; if it is dropped, this holds.
            self.state = State::Spent;
            let range = self.range.clone();
            let image = range.as_ref().map(|range| range.image());
            let arriving = image.filter(|image| image.presence() != Presence::Whole);
            let call = self.program.call(call, range);
            let (store, completion) = match arriving {
                Some(image) => Box::pin(unless_lost(&image, call)).await,
                None => call.await,
            };
            // Giving the instance back to its pool can wait for the reset, after the reply.
            self.spent = store;
            completion
        }
        .boxed()
    }

    fn reset(&mut self) -> Result<(), SandboxError> {
        self.spent = None;
        if let Some(range) = &self.range {
            lost::check("reset", &range.image())?;
            range.reset().map_err(|error| failed("reset", &error))?;
            range
                .set_annex_access(AnnexAccess::Read)
                .map_err(|error| failed("reset", &error))?;
        }
        Ok(self.state.step(State::Fresh)?)
    }

    fn state(&self) -> State {
        self.state
    }
}

impl Loaded {
    async fn call(
        self: &Arc<Self>,
        call: Call,
        range: Option<Arc<Range>>,
    ) -> (Option<Store<Guest>>, Completion) {
        let bounds = Bounds {
            started: Instant::now(),
            deadline: Duration::from_millis(call.limits.deadline_ms),
            output_bytes_max: call.limits.output_bytes_max,
        };
        let memory_bytes_max = call.limits.memory_bytes_max;
        let files = GuestFiles::new(&self.layer, &call.limits);
        match (&self.entry, call.payload) {
            (Callable::Http(handler), Payload::Http(http)) => {
                let egress = self.egress(&bounds, || http.request.headers().get(TRACE).cloned());
                let (program, way_out) = (self.clone(), egress.clone());
                let wasi = Surroundings::later(move || program.http_context(&way_out, call.log));
                let guest = Guest::new(wasi, memory_bytes_max, call.asks).with_files(files);
                let mut store = self.store(guest.with_egress(egress), range.as_ref());
                let run = handler.call(&mut store, *http, &bounds, &self.ticker);
                let completion = match range {
                    Some(range) => Box::pin(memories::over(range, run)).await,
                    None => run.await,
                };
                store.data_mut().end_session();
                (Some(store), completion)
            }
            (Callable::Command(command), Payload::Bytes { body, args, env }) => {
                let reply = Reply::new(bounds.output_bytes_max);
                let egress = self.egress(&bounds, || command::trace(&env));
                let input = Input { body, args, env };
                let settings = &self.spec.settings;
                let wasi = command::context(settings, input, &reply, &egress, call.log);
                let guest = Guest::new(wasi, memory_bytes_max, call.asks).with_files(files);
                let mut store = self.store(guest.with_egress(egress), range.as_ref());
                // Boxed, so that http calls do not carry its size.
                let run = command.call(&mut store, &reply, &bounds, &self.ticker);
                let completion = match range {
                    Some(range) => Box::pin(memories::over(range, run)).await,
                    None => Box::pin(run).await,
                };
                store.data_mut().end_session();
                (Some(store), completion)
            }
            (Callable::Http(_), Payload::Bytes { .. }) => (None, wrong_payload(Kind::Http)),
            (Callable::Command(_), Payload::Http(_)) => (None, wrong_payload(Kind::Command)),
        }
    }

    /// The way out of a call; `trace` says its place in its trace.
    fn egress(&self, bounds: &Bounds, trace: impl FnOnce() -> Option<HeaderValue>) -> Egress {
        match &self.egress {
            Some(rules) => Egress::new(rules, bounds.started + bounds.deadline, trace()),
            None => Egress::default(),
        }
    }

    fn http_context(&self, egress: &Egress, log: Arc<CallLog>) -> WasiCtx {
        let log = Log::new(log, false);
        let settings = &self.spec.settings;
        let env: Vec<_> = settings.env.iter().collect();
        command::closed_but(egress)
            .stdout(Stdio::Log(LogStream::Stdout, log.clone()))
            .stderr(Stdio::Log(LogStream::Stderr, log))
            .args(&settings.args)
            .envs(&env)
            .build()
    }

    fn store(&self, guest: Guest, range: Option<&Arc<Range>>) -> Store<Guest> {
        let guest = match (range, &self.own) {
            (Some(range), Some(own)) => guest.with_memory(range.clone(), own.declared_bytes),
            _ => guest,
        };
        let mut store = Store::new(&self.engine, guest);
        store.limiter(|guest| &mut guest.memory);
        if let Some(range) = range {
            lost::guard(&mut store, &range.image());
        }
        store.set_epoch_deadline(FIRST_YIELD_TICKS);
        store.epoch_deadline_async_yield_and_update(NEXT_YIELD_TICKS);
        store
    }
}

/// Runs a call over an image that is still arriving, as long as it is not lost. A guest yields each
/// millisecond, so that one which runs over zeros in the place of its pages is soon ended.
async fn unless_lost(
    image: &Image,
    call: impl Future<Output = (Option<Store<Guest>>, Completion)>,
) -> (Option<Store<Guest>>, Completion) {
    let mut call = pin!(call);
    poll_fn(|cx| {
        let polled = match lost::is_lost(image) {
            true => Poll::Pending,
            false => call.as_mut().poll(cx),
        };
        // Also what has just ended may have run over zeros.
        match lost::is_lost(image) {
            true => Poll::Ready((None, Completion::without_reply(lost::status()))),
            false => polled,
        }
    })
    .await
}

/// The start and the length of a call's time.
pub(super) fn in_time(bounds: &Bounds) -> (Instant, Duration) {
    (bounds.started, bounds.deadline)
}

/// How a guest failed that ended with `error`; `None` if it only exited with success.
pub(super) fn failure(error: &wasmtime::Error, guest: &Guest) -> Option<Status> {
    if error.is::<PoolConcurrencyLimitError>() {
        let message = error.to_string();
        return Some(Status::Platform { message });
    }
    match status_of(error, guest.memory.refused) {
        Status::Ok => None,
        status => Some(status),
    }
}

fn failed(doing: &'static str, error: &memory::MemoryError) -> SandboxError {
    SandboxError::Failed {
        doing,
        reason: error.to_string(),
    }
}

fn wrong_payload(kind: Kind) -> Completion {
    platform(format!("a function of kind {kind} was called as another"))
}

fn platform(message: String) -> Completion {
    Completion::without_reply(Status::Platform { message })
}
