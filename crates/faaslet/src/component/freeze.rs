//! Runs a runtime's loader over a layer, and freezes what it leaves.
//!
//! A runtime is a component that exports `dunlin:runtime/loader`, whose `load` takes the bytes of a
//! layer: packages, or a function's source. It runs once, at deploy, in a sandbox of the image
//! below; its memory and globals afterwards are what every invocation begins with. It has no
//! environment and no files, since what it makes is shared between functions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use memory::{AnnexAccess, Range};
use model::VersionSpec;
use sandbox::{LogStream, PrepareError};
use wasmtime::Store;
use wasmtime::component::{Component, Instance, TypedFunc};

use super::apart::{RESET_PREFIX, SAVE_PREFIX};
use super::command::closed_but;
use super::drive::{Ended, drive};
use super::egress::Egress;
use super::engine::{Machine, Memory};
use super::guest::Guest;
use super::holding::{Held, State};
use super::memories;
use super::ticker::Ticker;
use crate::core_module::discard;
use crate::stdio::{Log, Stdio};

/// The interface of runtimes.
const LOADER: &str = "dunlin:runtime/loader@1.0.0";
const LOAD: &str = "load";
/// Characters of a loader's words that are passed on.
const WORDS_MAX: usize = 4000;

type Load = TypedFunc<(Vec<u8>,), (Result<(), String>,)>;

/// What a guest holds that has loaded `layer` over `below`.
pub(super) fn load(
    machine: &Machine,
    component: &Component,
    below: &Held,
    layer: &Bytes,
    spec: &VersionSpec,
    ticker: &Ticker,
) -> Result<State, PrepareError> {
    if !below.holding.freezable {
        return Err(failed(
            "its code may change tables, which an image does not hold",
        ));
    }
    let Memory::Slab(slab) = &machine.memory else {
        return Err(failed("its engine has no memory of ours"));
    };
    let range = slab
        .take(&below.image)
        .map_err(|error| failed(&error.to_string()))?;
    let range = Arc::new(range);
    // What is in it belongs to no image, and nobody may find it under that of its parent.
    range.spoil();
    let limits = &spec.settings.limits;
    let limit = Duration::from_millis(limits.deadline_ms);
    let mut store = store(machine, &range, below, limits.memory_bytes_max);
    let run = memories::over(
        range.clone(),
        run(machine, component, &mut store, layer, &range),
    );
    let run = drive(run, (Instant::now(), limit), ticker, |_| false);
    let handle = tokio::runtime::Handle::try_current();
    let handle = handle.map_err(|error| failed(&error.to_string()))?;
    match handle.block_on(run) {
        Ended::Itself(Ok(Ok(()))) => {}
        Ended::Itself(Ok(Err(words))) => {
            return Err(failed(&words.chars().take(WORDS_MAX).collect::<String>()));
        }
        Ended::Itself(Err(error)) => return Err(failed(&format!("{error:#}"))),
        Ended::Deadline | Ended::BrokenOff => return Err(failed("it ran past its deadline")),
    }
    drop(store);
    let mut annex = range.annex();
    annex.truncate(below.annex_bytes());
    Ok(State {
        memory: range.contents(),
        annex,
    })
}

fn store(
    machine: &Machine,
    range: &Arc<Range>,
    below: &Held,
    memory_bytes_max: u64,
) -> Store<Guest> {
    let log = Log::new(discard(), false);
    let wasi = closed_but(&Egress::default())
        .stdout(Stdio::Log(LogStream::Stdout, log.clone()))
        .stderr(Stdio::Log(LogStream::Stderr, log))
        .build();
    let guest = Guest::new(wasi, memory_bytes_max, None);
    let guest = guest.with_memory(range.clone(), below.holding.declared_bytes);
    let mut store = Store::new(&machine.engine, guest);
    store.limiter(|guest| &mut guest.memory);
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

async fn run(
    machine: &Machine,
    component: &Component,
    store: &mut Store<Guest>,
    layer: &Bytes,
    range: &Range,
) -> wasmtime::Result<Result<(), String>> {
    let instance = machine
        .linker
        .instantiate_async(&mut *store, component)
        .await?;
    store.data().instantiated()?;
    let load = loader(&instance, store)?;
    let (loaded,) = load.call_async(&mut *store, (layer.to_vec(),)).await?;
    if loaded.is_err() {
        return Ok(loaded);
    }
    call_all(component, &instance, store, RESET_PREFIX).await?;
    range.set_annex_access(AnnexAccess::Write)?;
    call_all(component, &instance, store, SAVE_PREFIX).await?;
    Ok(Ok(()))
}

fn loader(instance: &Instance, store: &mut Store<Guest>) -> wasmtime::Result<Load> {
    let missing = || wasmtime::Error::msg(format!("it exports no `{LOADER}#{LOAD}`"));
    let interface = instance
        .get_export_index(&mut *store, None, LOADER)
        .ok_or_else(missing)?;
    let load = instance.get_export_index(&mut *store, Some(&interface), LOAD);
    instance.get_typed_func(store, load.ok_or_else(missing)?)
}

/// Calls every function whose name begins with `prefix`.
async fn call_all(
    component: &Component,
    instance: &Instance,
    store: &mut Store<Guest>,
    prefix: &str,
) -> wasmtime::Result<()> {
    let ty = component.component_type();
    let names: Vec<_> = ty
        .exports(component.engine())
        .map(|(name, _)| name.to_owned())
        .collect();
    for name in names.iter().filter(|name| name.starts_with(prefix)) {
        let function: TypedFunc<(), ()> = instance.get_typed_func(&mut *store, name)?;
        function.call_async(&mut *store, ()).await?;
    }
    Ok(())
}

fn failed(reason: &str) -> PrepareError {
    PrepareError::Init {
        reason: format!("loading a layer: {reason}"),
    }
}
