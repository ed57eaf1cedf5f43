//! Makes programs of components: compiles them, keeps what they hold, finds both again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use memory::PAGE_BYTES;
use model::{Digest, VersionSpec};
use sandbox::{CacheError, EntryKind, PrepareError, Prepared, all_there};
use wasmtime::component::Component;

use super::apart::{self, Apart};
use super::egress::Rules;
use super::engine::{Flavour, Machine, Memory};
use super::holding::{self, Held, Holding, State};
use super::program::{ComponentProgram, Own};
use super::world::{self, Entry, World};
use super::{Inner, cache_failed, freeze};
use crate::layer::layer_of;

const WASM_PAGE_BYTES: u64 = 1 << 16;
/// Memory that a component holds, from which on it is taken apart. Below, the pool's start is the
/// quicker one, and there is little to share.
const APART_FROM_BYTES: usize = 1 << 20;

/// The code of functions that do the same, and what one of them holds.
struct Made {
    component: Arc<Component>,
    held: Held,
    /// Whether all of it was there before.
    cached: bool,
}

impl Inner {
    fn pooled(&self, flavour: Flavour) -> &Machine {
        &self.both(flavour)[0]
    }

    fn over_slab(&self, flavour: Flavour) -> &Machine {
        &self.both(flavour)[1]
    }

    fn both(&self, flavour: Flavour) -> &[Machine; 2] {
        match flavour {
            Flavour::Plain => &self.plain,
            Flavour::Concurrent => &self.concurrent,
        }
    }

    pub(super) fn prepare(
        &self,
        spec: &VersionSpec,
        artifact: &[u8],
        layers: &[Bytes],
    ) -> Result<(Prepared, ComponentProgram), PrepareError> {
        let world = world::read(artifact)?;
        let entry = world.entry(spec.kind)?;
        let flavour = world.flavour(entry);
        let machine = self.over_slab(flavour);
        world.check_imports(machine)?;
        if let Some(made) = self.root(machine, spec, artifact)? {
            let made = self.layered(machine, made, spec, layers)?;
            check_size(made.held.image.bytes() as u64, spec)?;
            let prepared = Prepared {
                cached: made.cached,
                code_bytes: self.code_bytes(machine, &made)?,
                image_bytes: made.held.own_bytes,
                note: None,
            };
            let program = self.own_program(machine, made, entry, spec)?;
            return Ok((prepared, program));
        }
        if !layers.is_empty() {
            let reason = "it is no runtime, which has one memory of 1 MiB or more and a \
                          loader, and so takes no `layers`"
                .into();
            return Err(PrepareError::Unsupported { reason });
        }
        self.prepare_pooled(self.pooled(flavour), spec, artifact, entry)
    }

    fn prepare_pooled(
        &self,
        machine: &Machine,
        spec: &VersionSpec,
        artifact: &[u8],
        entry: Entry,
    ) -> Result<(Prepared, ComponentProgram), PrepareError> {
        let key = machine.key(&spec.artifact);
        let found = self.cache.load(&key, EntryKind::Code);
        let found = found.map_err(cache_failed)?;
        let cached = found.is_some();
        let path = match found {
            Some(path) => path,
            None => self.compile(machine, &key, artifact)?,
        };
        let component = map_code(machine, &path)?;
        check_sizes(&component, spec)?;
        let program = self.program(machine, &component, entry, spec, None)?;
        let prepared = Prepared {
            cached,
            code_bytes: path.metadata().map_or(0, |metadata| metadata.len()),
            image_bytes: 0,
            note: None,
        };
        Ok((prepared, program))
    }

    fn compile(
        &self,
        machine: &Machine,
        key: &Digest,
        component: &[u8],
    ) -> Result<PathBuf, PrepareError> {
        let code = machine.engine.precompile_component(component);
        let code = code.map_err(|error| PrepareError::Invalid {
            reason: format!("{error:#}"),
        })?;
        self.cache
            .store(key, EntryKind::Code, &code)
            .map_err(cache_failed)
    }

    pub(super) fn load_cached(
        &self,
        spec: &VersionSpec,
    ) -> Result<Option<ComponentProgram>, PrepareError> {
        for flavour in Flavour::ALL {
            let machine = self.over_slab(flavour);
            let key = holding_key(machine, &spec.artifact, &spec.settings.layers);
            if let Some(held) = Held::find(&self.cache, &key)?
                && let Some(component) = self.skeleton(machine, &held.holding.skeleton)?
            {
                let entry = exported_entry(&component, spec)?;
                let made = Made {
                    component,
                    held,
                    cached: true,
                };
                return self.own_program(machine, made, entry, spec).map(Some);
            }
        }
        if !spec.settings.layers.is_empty() {
            return Ok(None);
        }
        for machine in Flavour::ALL.map(|flavour| self.pooled(flavour)) {
            let key = machine.key(&spec.artifact);
            let found = self.cache.load(&key, EntryKind::Code);
            let Some(path) = found.map_err(cache_failed)? else {
                continue;
            };
            let component = map_code(machine, &path)?;
            let entry = exported_entry(&component, spec)?;
            return self
                .program(machine, &component, entry, spec, None)
                .map(Some);
        }
        Ok(None)
    }

    /// Names what this node makes of a component and its layers, for all versions of them.
    pub(super) fn product(&self, spec: &VersionSpec) -> Digest {
        let machines = self.plain.iter().chain(&self.concurrent);
        let keys: Vec<_> = machines
            .map(|machine| holding_key(machine, &spec.artifact, &spec.settings.layers))
            .collect();
        let keys = keys.iter().map(|key| key.as_bytes().as_slice());
        Digest::of_parts([b"component".as_slice()].into_iter().chain(keys))
    }

    /// The entries of the cache that [`Inner::load_cached`] reads, if all of them are there.
    pub(super) fn entries(
        &self,
        spec: &VersionSpec,
    ) -> Result<Option<Vec<(Digest, EntryKind)>>, CacheError> {
        for flavour in Flavour::ALL {
            let machine = self.over_slab(flavour);
            let key = holding_key(machine, &spec.artifact, &spec.settings.layers);
            if let Some(mut entries) = holding::entries(&self.cache, &key)? {
                let skeleton = machine.key(&entries.skeleton);
                entries.all.push((skeleton, EntryKind::Code));
                if let Some(all) = all_there(&self.cache, entries.all)? {
                    return Ok(Some(all));
                }
            }
        }
        if !spec.settings.layers.is_empty() {
            return Ok(None);
        }
        for machine in Flavour::ALL.map(|flavour| self.pooled(flavour)) {
            let code = vec![(machine.key(&spec.artifact), EntryKind::Code)];
            if let Some(all) = all_there(&self.cache, code)? {
                return Ok(Some(all));
            }
        }
        Ok(None)
    }

    /// What the artifact does and holds by itself; none if it is not taken apart.
    fn root(
        &self,
        machine: &Machine,
        spec: &VersionSpec,
        artifact: &[u8],
    ) -> Result<Option<Made>, PrepareError> {
        let key = holding_key(machine, &spec.artifact, &[]);
        if let Some(held) = Held::find(&self.cache, &key)?
            && let Some(component) = self.skeleton(machine, &held.holding.skeleton)?
        {
            return Ok(Some(Made {
                component,
                held,
                cached: true,
            }));
        }
        match apart::take(artifact) {
            Ok(apart) if filled_bytes(&apart.memory) >= APART_FROM_BYTES => {
                self.keep_root(machine, &key, apart).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn keep_root(
        &self,
        machine: &Machine,
        key: &Digest,
        apart: Apart,
    ) -> Result<Made, PrepareError> {
        let digest = Digest::of(&apart.skeleton);
        let component = self.compiled(machine, &digest, &apart.skeleton)?;
        let required = component.resources_required();
        if required.is_none_or(|required| required.num_memories != 1) {
            return Err(platform("its skeleton has not one memory".into()));
        }
        // The first that is known of a skeleton is what later ones are told apart from.
        let first = base_key(machine, &digest);
        let base = Held::find(&self.cache, &first)?;
        let holding = Holding::new(digest, apart.declared_bytes, !apart.changes_tables);
        let state = State {
            memory: apart.memory,
            annex: apart.annex,
        };
        let held = Held::keep(&self.cache, key, holding, &state, base.as_ref())?;
        if base.is_none() {
            Held::keep(&self.cache, &first, held.holding.clone(), &state, None)?;
        }
        Ok(Made {
            component,
            held,
            cached: false,
        })
    }

    /// What is left after all layers were loaded, one over the other.
    fn layered(
        &self,
        machine: &Machine,
        mut made: Made,
        spec: &VersionSpec,
        layers: &[Bytes],
    ) -> Result<Made, PrepareError> {
        let digests = &spec.settings.layers;
        for (number, layer) in layers.iter().enumerate() {
            let below = digests.get(..=number).unwrap_or(digests);
            let key = holding_key(machine, &spec.artifact, below);
            if let Some(held) = Held::find(&self.cache, &key)? {
                made.held = held;
                continue;
            }
            let component = &made.component;
            let state = freeze::load(machine, component, &made.held, layer, spec, &self.ticker)?;
            let holding = made.held.holding.clone();
            made.held = Held::keep(&self.cache, &key, holding, &state, Some(&made.held))?;
            made.cached = false;
        }
        Ok(made)
    }

    /// The code of a skeleton, compiled if it is missing.
    fn compiled(
        &self,
        machine: &Machine,
        digest: &Digest,
        skeleton: &[u8],
    ) -> Result<Arc<Component>, PrepareError> {
        let _compiling = self.compiling.lock();
        if let Some(component) = self.skeleton(machine, digest)? {
            return Ok(component);
        }
        self.compile(machine, &machine.key(digest), skeleton)?;
        let component = self.skeleton(machine, digest)?;
        component.ok_or_else(|| platform("compiled code is gone again".into()))
    }

    /// The code of a skeleton, if it is in use or in the cache.
    fn skeleton(
        &self,
        machine: &Machine,
        digest: &Digest,
    ) -> Result<Option<Arc<Component>>, PrepareError> {
        let key = machine.key(digest);
        let in_use = || {
            self.skeletons
                .lock()
                .get(&key)
                .and_then(std::sync::Weak::upgrade)
        };
        if let Some(component) = in_use() {
            return Ok(Some(component));
        }
        let found = self.cache.load(&key, EntryKind::Code);
        let Some(path) = found.map_err(cache_failed)? else {
            return Ok(None);
        };
        let component = Arc::new(map_code(machine, &path)?);
        let mut skeletons = self.skeletons.lock();
        skeletons.retain(|_, component| component.strong_count() > 0);
        skeletons.insert(key, Arc::downgrade(&component));
        Ok(Some(component))
    }

    fn code_bytes(&self, machine: &Machine, made: &Made) -> Result<u64, PrepareError> {
        let key = machine.key(&made.held.holding.skeleton);
        let path = self
            .cache
            .load(&key, EntryKind::Code)
            .map_err(cache_failed)?;
        Ok(path
            .and_then(|path| path.metadata().ok())
            .map_or(0, |metadata| metadata.len()))
    }

    fn own_program(
        &self,
        machine: &Machine,
        made: Made,
        entry: Entry,
        spec: &VersionSpec,
    ) -> Result<ComponentProgram, PrepareError> {
        let Memory::Slab(slab) = &machine.memory else {
            return Err(platform(
                "an engine without a slab was asked for one".into(),
            ));
        };
        let own = Own {
            slab: slab.clone(),
            image: made.held.image,
            declared_bytes: made.held.holding.declared_bytes,
            code: made.component.clone(),
        };
        self.program(machine, &made.component, entry, spec, Some(own))
    }

    fn program(
        &self,
        machine: &Machine,
        component: &Component,
        entry: Entry,
        spec: &VersionSpec,
        own: Option<Own>,
    ) -> Result<ComponentProgram, PrepareError> {
        let layer = layer_of(&self.files, spec)?;
        let shared = (self.gate.clone(), self.ticker.clone(), layer);
        let egress = Rules::of(&spec.settings.allow, self.connections_per_call_max);
        let program = ComponentProgram::new(machine, component, entry, spec, egress, own, shared);
        program.map_err(|error| PrepareError::Invalid {
            reason: format!("{error:#}"),
        })
    }
}

/// Under what is kept what an artifact holds after it has loaded `layers`.
fn holding_key(machine: &Machine, artifact: &Digest, layers: &[Digest]) -> Digest {
    let root = machine.key(artifact);
    let parts = [b"holding".as_slice(), root.as_bytes()];
    let layers = layers.iter().map(|layer| layer.as_bytes().as_slice());
    Digest::of_parts(parts.into_iter().chain(layers))
}

/// Under what is kept what the first component of a skeleton holds.
fn base_key(machine: &Machine, skeleton: &Digest) -> Digest {
    Digest::of_parts([b"base".as_slice(), machine.key(skeleton).as_bytes()])
}

fn filled_bytes(memory: &[u8]) -> usize {
    let filled = |page: &&[u8]| page.iter().any(|byte| *byte != 0);
    memory.chunks(PAGE_BYTES).filter(filled).count() * PAGE_BYTES
}

fn exported_entry(component: &Component, spec: &VersionSpec) -> Result<Entry, PrepareError> {
    let ty = component.component_type();
    let names = ty
        .exports(component.engine())
        .map(|(name, _)| name.to_owned());
    World::of_exports(names.collect()).entry(spec.kind)
}

fn map_code(machine: &Machine, path: &Path) -> Result<Component, PrepareError> {
    // SAFETY: the cache has compared the file with the digest of what an engine of this
    // configuration made, and its directory is written by this node alone.
    let component = unsafe { Component::deserialize_file(&machine.engine, path) };
    component.map_err(|error| PrepareError::Platform {
        reason: format!("mapping compiled code: {error:#}"),
        source: None,
    })
}

/// Refuses what would fail every call.
fn check_sizes(component: &Component, spec: &VersionSpec) -> Result<(), PrepareError> {
    let required = component.resources_required();
    let pages = required.and_then(|required| required.max_initial_memory_size);
    check_size(pages.unwrap_or(0).saturating_mul(WASM_PAGE_BYTES), spec)
}

fn check_size(bytes: u64, spec: &VersionSpec) -> Result<(), PrepareError> {
    let bytes_max = spec.settings.limits.memory_bytes_max;
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(PrepareError::TooLarge {
        reason: format!(
            "a memory begins with {bytes} bytes, and `memory_bytes_max` is {bytes_max}"
        ),
    })
}

fn platform(reason: String) -> PrepareError {
    PrepareError::Platform {
        reason,
        source: None,
    }
}
