//! Deploying a core module: check, rewrite, compile, initialise, freeze, and load again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use files::Layer;
use memory::{Image, ImageBuilder, MemoryError};
use model::{Digest, Kind, VersionSpec};
use sandbox::{BodyError, PrepareError, Prepared};
use wasmtime::{Module, TypedFunc};

use super::CoreEngine;
use super::faaslet::{Faaslet, discard};
use super::host::{DUNLIN, HostCall, PREVIEW_1, TABLE_ELEMENTS_MAX};
use super::interrupt;
use super::pages::KeptPages;
use super::preview1::WAITING;
use super::program::{CoreParts, CoreProgram, Frozen, FrozenValue, Live, entry_of};
use super::rewrite::{rewrite, start_export};
use super::survey::Survey;
use crate::layer::layer_of;
use crate::status::status_of;
use crate::stdio::{Log, Reply};
use sandbox::{Cache, CacheError, EntryKind};

/// Bytes of a page of WebAssembly.
const WASM_PAGE_BYTES: u64 = 64 << 10;
/// What initialisation may reply or log: nothing is kept of it.
const INIT_REPLY_BYTES_MAX: u64 = 1 << 20;

impl CoreEngine {
    /// Prepares `artifact` and fills the cache. Compiles and runs guest code on this thread.
    pub fn prepare(
        self: &Arc<Self>,
        cache: &Cache,
        spec: &VersionSpec,
        artifact: &Bytes,
    ) -> Result<Prepared, PrepareError> {
        let survey = Survey::of(artifact)?;
        survey.check(spec.kind)?;
        self.check_imports(&survey)?;
        check_memory(&survey, spec)?;
        if let Some(program) = self.find(cache, spec)? {
            let image_bytes = program.0.image.stored_bytes() as u64;
            let code_bytes = program.0.pre.module().text().len() as u64;
            return Ok(Prepared {
                cached: true,
                code_bytes,
                image_bytes,
                note: None,
            });
        }
        let code = rewrite(artifact, &survey)?;
        let code = self
            .engine
            .precompile_module(&code)
            .map_err(|error| PrepareError::Invalid {
                reason: format!("it does not compile: {error:#}"),
            })?;
        let path = cache
            .store(&self.code_key(spec), EntryKind::Code, &code)
            .map_err(full)?;
        let module = self
            .module(&path)
            .map_err(|error| platform("load what it compiled", error))?;
        let (image, mut frozen) = self.freeze(module, spec, &survey, artifact)?;
        let key = self.image_key(spec);
        frozen.pages =
            KeptPages::keep(cache, &image).map_err(|error| platform("keep it", error))?;
        if frozen.pages.is_none() {
            let mut file = Vec::new();
            image
                .write(&mut file)
                .map_err(|error| platform("write an image", error))?;
            cache.store(&key, EntryKind::Image, &file).map_err(full)?;
        }
        let meta = serde_json::to_vec(&frozen).map_err(|error| platform("describe it", error))?;
        cache.store(&key, EntryKind::Meta, &meta).map_err(full)?;
        let image_bytes = image.stored_bytes() as u64;
        Ok(Prepared {
            cached: false,
            code_bytes: code.len() as u64,
            image_bytes,
            note: None,
        })
    }

    /// The program, if the cache holds all of it.
    pub fn find(
        self: &Arc<Self>,
        cache: &Cache,
        spec: &VersionSpec,
    ) -> Result<Option<CoreProgram>, PrepareError> {
        let key = self.image_key(spec);
        let entry = |key: &Digest, kind| cache.load(key, kind).map_err(full);
        let (Some(code), Some(meta)) = (
            entry(&self.code_key(spec), EntryKind::Code)?,
            entry(&key, EntryKind::Meta)?,
        ) else {
            return Ok(None);
        };
        let layer = layer_of(&self.files, spec)?;
        let loaded = || -> Result<Option<CoreProgram>, BodyError> {
            let frozen: Frozen = serde_json::from_slice(&std::fs::read(&meta)?)?;
            let image = match &frozen.pages {
                Some(pages) => pages.image(cache, key)?,
                None => {
                    let path = cache.load(&key, EntryKind::Image)?;
                    path.map(|path| Image::read(&path)).transpose()?
                }
            };
            let Some(image) = image else {
                return Ok(None);
            };
            let module = self.module(&code)?;
            let parts = self.parts(&module, Arc::new(image), frozen, spec, layer.clone())?;
            Ok(Some(CoreProgram(Arc::new(parts))))
        };
        match loaded() {
            Ok(program) => Ok(program),
            Err(error) => {
                tracing::warn!(%error, artifact = %spec.artifact, "a cache entry is unusable");
                Ok(None)
            }
        }
    }

    /// What `find` looks for; none if what tells is missing.
    pub fn entries(
        &self,
        cache: &Cache,
        spec: &VersionSpec,
    ) -> Result<Option<[(Digest, EntryKind); 3]>, CacheError> {
        let key = self.image_key(spec);
        let Some(meta) = cache.load(&key, EntryKind::Meta)? else {
            return Ok(None);
        };
        let meta = std::fs::read(meta).ok();
        let frozen = meta.and_then(|meta| serde_json::from_slice::<Frozen>(&meta).ok());
        Ok(frozen.map(|frozen| {
            [
                (self.code_key(spec), EntryKind::Code),
                match frozen.pages {
                    Some(pages) => (pages.file, EntryKind::Pages),
                    None => (key, EntryKind::Image),
                },
                (key, EntryKind::Meta),
            ]
        }))
    }

    fn module(&self, path: &Path) -> wasmtime::Result<Module> {
        // SAFETY: the file was written by `prepare` from this engine's own compiler, into a
        // directory that only the node writes, and the cache has just checked its sum.
        unsafe { Module::deserialize_file(&self.engine, path) }
    }

    fn parts(
        self: &Arc<Self>,
        module: &Module,
        image: Arc<Image>,
        frozen: Frozen,
        spec: &VersionSpec,
        layer: Arc<Layer>,
    ) -> wasmtime::Result<CoreParts> {
        let linker = if frozen.waits {
            &self.waiting_linker
        } else {
            &self.sync_linker
        };
        Ok(CoreParts {
            core: self.clone(),
            pre: linker.instantiate_pre(module)?,
            image,
            frozen,
            settings: spec.settings.clone(),
            entry: entry_of(spec.kind),
            layer,
        })
    }

    fn code_key(&self, spec: &VersionSpec) -> Digest {
        Digest::of_parts([
            b"core".as_slice(),
            self.compatibility.as_bytes(),
            spec.artifact.as_bytes(),
        ])
    }

    /// An image depends on all settings, since initialisation sees the environment.
    pub fn image_key(&self, spec: &VersionSpec) -> Digest {
        let (code, version) = (self.code_key(spec), spec.digest());
        Digest::of_parts([b"image".as_slice(), code.as_bytes(), version.as_bytes()])
    }

    fn check_imports(&self, survey: &Survey) -> Result<(), PrepareError> {
        let unknown = survey
            .imports
            .iter()
            .filter(|import| !self.offers(import))
            .chain(&survey.other_imports);
        let mut names: Vec<_> = unknown
            .map(|import| format!("{}.{}", import.module, import.name))
            .collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            Ok(())
        } else {
            Err(PrepareError::UnknownImports { names })
        }
    }

    fn offers(&self, import: &super::survey::Import) -> bool {
        self.offered
            .contains(&(import.module.clone(), import.name.clone()))
    }

    /// Puts the data in place, runs what is to be run once, and takes the image.
    fn freeze(
        self: &Arc<Self>,
        module: Module,
        spec: &VersionSpec,
        survey: &Survey,
        artifact: &Bytes,
    ) -> Result<(Image, Frozen), PrepareError> {
        let blank = data_image(survey, artifact)?;
        let wasi = survey.imports_of(PREVIEW_1);
        let asks = self
            .table
            .iter()
            .any(|call| survey.imports_call(DUNLIN, call.name));
        let waits = WAITING
            .iter()
            .any(|name| survey.imports_call(PREVIEW_1, name));
        let mut frozen = Frozen {
            globals: Vec::new(),
            has_memory: survey.memory.is_some(),
            waits: asks || waits,
            wasi,
            asks,
            new_instance: survey.leaves_unfrozen || survey.heap,
            first: Vec::new(),
            pages: None,
        };
        let entries = init_entries(survey, spec.kind);
        let image = Arc::new(
            blank
                .freeze()
                .map_err(|error| platform("freeze it", error))?,
        );
        let layer = layer_of(&self.files, spec)?;
        let unlinked = |error: wasmtime::Error| PrepareError::Invalid {
            reason: format!("it does not link: {error:#}"),
        };
        let parts = self
            .parts(&module, image, frozen.clone(), spec, layer)
            .map_err(unlinked)?;
        let mut faaslet = Faaslet::new(Arc::new(parts))
            .map_err(|error| platform("make its first sandbox", error))?;
        if survey.leaves_unfrozen && !entries.is_empty() {
            // An image does not hold all that these may change, so that each instance runs them;
            // here they show that they can.
            let blank = faaslet.initialise(&[], spec)?;
            if let Some(live) = faaslet.live_mut() {
                frozen.globals = globals(live, survey);
            }
            faaslet.initialise(&entries, spec)?;
            frozen.first = entries;
            return Ok((blank, frozen));
        }
        let image = faaslet.initialise(&entries, spec)?;
        if let Some(live) = faaslet.live_mut() {
            frozen.globals = globals(live, survey);
        }
        Ok((image, frozen))
    }
}

/// The exports to run once, in order.
fn init_entries(survey: &Survey, kind: Kind) -> Vec<String> {
    let start = survey.start.map(|_| start_export());
    let named: &[&str] = if kind == Kind::Reactor {
        &["_initialize", "init"]
    } else {
        &[]
    };
    let exported = |name: &&&str| survey.exported_function(name).is_some();
    start
        .into_iter()
        .chain(named.iter().filter(exported).map(|name| (*name).to_owned()))
        .collect()
}

fn check_memory(survey: &Survey, spec: &VersionSpec) -> Result<(), PrepareError> {
    let bytes = survey
        .memory
        .map_or(0, |memory| memory.initial.saturating_mul(WASM_PAGE_BYTES));
    let most = spec.settings.limits.memory_bytes_max;
    let elements = survey.table_elements;
    let reason = if bytes > most {
        format!("it begins with {bytes} bytes of memory, and `memory_bytes_max` is {most}")
    } else if elements > TABLE_ELEMENTS_MAX as u64 {
        format!("a table begins with {elements} elements, and {TABLE_ELEMENTS_MAX} are the most")
    } else {
        return Ok(());
    };
    Err(PrepareError::TooLarge { reason })
}

/// The memory as active data segments leave it.
fn data_image(survey: &Survey, artifact: &[u8]) -> Result<ImageBuilder, PrepareError> {
    let pages = survey.memory.map_or(0, |memory| memory.initial);
    let mut image = ImageBuilder::new((pages * WASM_PAGE_BYTES) as usize);
    for (offset, bytes) in &survey.active_data {
        if !image.write(*offset as usize, &artifact[bytes.clone()]) {
            return Err(PrepareError::Invalid {
                reason: format!("a data segment at {offset} lies outside of the memory"),
            });
        }
    }
    Ok(image)
}

impl Faaslet {
    /// Runs `entries` and returns the memory that they leave.
    fn initialise(
        &mut self,
        entries: &[String],
        spec: &VersionSpec,
    ) -> Result<Image, PrepareError> {
        let deadline = Instant::now() + Duration::from_millis(spec.settings.limits.deadline_ms);
        for entry in entries {
            self.run_once(entry, deadline)?;
        }
        let Some(live) = self.live_mut() else {
            return Err(PrepareError::Init {
                reason: "its instance is gone".into(),
            });
        };
        let contents = live
            .memory
            .map_or(&[][..], |memory| memory.data(&live.store));
        ImageBuilder::of_memory(contents)
            .freeze()
            .map_err(|error: MemoryError| platform("freeze it", error))
    }

    fn run_once(&mut self, entry: &str, deadline: Instant) -> Result<(), PrepareError> {
        let failed = |reason: String| PrepareError::Init {
            reason: format!("`{entry}`: {reason}"),
        };
        let range = self.range().clone();
        let parts = self.parts().clone();
        let Some(live) = self.live_mut() else {
            return Err(failed("the instance is gone".into()));
        };
        let log = Log::new(discard(), false);
        let reply = Reply::new(INIT_REPLY_BYTES_MAX);
        if parts.frozen.wasi {
            live.store.data_mut().wasi = Some(super::faaslet::wasi_for_init(&parts, &log));
        }
        live.store.data_mut().call = Some(HostCall {
            input: Bytes::new(),
            reply,
            log,
        });
        let entered = interrupt::enter(&range, deadline);
        let result = call_once(live, entry, parts.frozen.waits);
        let stopped = entered.leave();
        let refused = live.store.data().limiter.refused;
        let host = live.store.data_mut();
        (host.call, host.wasi) = (None, None);
        match result {
            Ok(0) => Ok(()),
            Ok(code) => Err(failed(format!("it returned {code}"))),
            Err(_) if stopped => Err(failed("it ran past its deadline".into())),
            Err(error) => Err(failed(status_of(&error, refused).to_string())),
        }
    }
}

fn call_once(live: &mut Live, entry: &str, waits: bool) -> wasmtime::Result<i32> {
    let store = &mut live.store;
    let instance = live.instance;
    if let Ok(typed) = instance.get_typed_func::<(), i32>(&mut *store, entry) {
        return block_on(waits, typed, store);
    }
    let typed: TypedFunc<(), ()> = instance.get_typed_func(&mut *store, entry)?;
    block_on(waits, typed, store).map(|()| 0)
}

fn block_on<R: wasmtime::WasmResults + Send + Sync + 'static>(
    waits: bool,
    entry: TypedFunc<(), R>,
    store: &mut wasmtime::Store<super::host::Host>,
) -> wasmtime::Result<R> {
    if !waits {
        return entry.call(store, ());
    }
    let handle = tokio::runtime::Handle::try_current()?;
    handle.block_on(entry.call_async(store, ()))
}

fn globals(live: &mut Live, survey: &Survey) -> Vec<(u32, FrozenValue)> {
    let mut values = Vec::new();
    for index in &survey.mutable_globals {
        let name = super::rewrite::global_export(*index);
        let global = live.instance.get_global(&mut live.store, &name);
        let value = global.and_then(|global| FrozenValue::of(&global.get(&mut live.store)));
        values.extend(value.map(|value| (*index, value)));
    }
    values
}

fn full(error: CacheError) -> PrepareError {
    match error {
        CacheError::Full { .. } => PrepareError::DiskFull,
        other => platform("use its cache", other),
    }
}

fn platform<E: Into<BodyError>>(doing: &str, error: E) -> PrepareError {
    let source = error.into();
    PrepareError::Platform {
        reason: format!("it could not {doing}: {source}"),
        source: Some(source),
    }
}
