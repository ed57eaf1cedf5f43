//! The engine of core modules: on-demand instances over our own memories and stacks.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use files::Library;
use memory::{ImageBuilder, Slab, SlabConfig, Stacks};
use model::Digest;
use sandbox::host::HostCall;
use sha2::{Digest as _, Sha256};
use wasmtime::{Config, Engine, Linker, OptLevel, Store};

use super::asks::add_asks;
use super::creator::{ENGINE_RESERVATION_BYTES, GuestStacks, Memories};
use super::host::{self, Host};
use super::preview1;
use super::rewrite::REWRITE_VERSION;

/// Stack of a guest that may wait, of the host calls on top of it, and of a guest that runs on top
/// of those, in its stead.
const ASYNC_STACK_BYTES: usize = 4 << 20;
/// Part of a stack that guest code may use; a deeper recursion traps.
const GUEST_STACK_BYTES: usize = 1 << 20;

/// What all core programs of a node share.
pub(crate) struct CoreEngine {
    pub engine: Engine,
    pub slab: Slab,
    /// Offers what guests that never wait may import.
    pub sync_linker: Linker<Host>,
    /// Offers that, and what may wait: of preview 1, and what guests may ask of the platform.
    pub waiting_linker: Linker<Host>,
    /// Every import that is offered, as module and name.
    pub offered: HashSet<(String, String)>,
    /// What guests may ask of the platform.
    pub table: &'static [HostCall],
    /// Where the files of versions are.
    pub files: Arc<Library>,
    /// Changes with everything that compiled code depends on.
    pub compatibility: Digest,
}

impl CoreEngine {
    pub fn new(
        sandboxes_max: usize,
        table: &'static [HostCall],
        files: Arc<Library>,
    ) -> wasmtime::Result<Self> {
        let slab_config = SlabConfig {
            ranges_max: sandboxes_max,
            ..SlabConfig::default()
        };
        let slab = Slab::new(slab_config);
        let empty = Arc::new(ImageBuilder::new(0).freeze()?);
        let memories = Memories {
            slab: slab.clone(),
            empty,
        };
        let engine = Engine::new(&config(&slab_config, memories))?;
        let mut sync_linker = Linker::new(&engine);
        host::add_dunlin(&mut sync_linker)?;
        preview1::offer(&mut sync_linker)?;
        let mut waiting_linker = Linker::new(&engine);
        host::add_dunlin(&mut waiting_linker)?;
        preview1::offer(&mut waiting_linker)?;
        preview1::offer_waiting(&mut waiting_linker)?;
        add_asks(&mut waiting_linker, table)?;
        let mut store = Store::new(&engine, Host::default());
        let offered = waiting_linker
            .iter(&mut store)
            .map(|(module, name, _)| (module.to_owned(), name.to_owned()))
            .collect();
        let compatibility = compatibility(&engine);
        Ok(Self {
            engine,
            slab,
            sync_linker,
            waiting_linker,
            offered,
            table,
            files,
            compatibility,
        })
    }
}

fn config(slab: &SlabConfig, memories: Memories) -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_threads(true)
        .wasm_multi_memory(true)
        .wasm_exceptions(true)
        .memory_reservation(slab.reservation_bytes as u64)
        .memory_guard_size(slab.guard_bytes as u64)
        .memory_may_move(false)
        .gc_heap_reservation(ENGINE_RESERVATION_BYTES as u64)
        .gc_heap_guard_size(slab.guard_bytes as u64)
        .gc_heap_may_move(false)
        .memory_init_cow(false)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(ASYNC_STACK_BYTES)
        .with_host_memory(Arc::new(memories))
        .with_host_stack(Arc::new(GuestStacks(Stacks::new(ASYNC_STACK_BYTES))));
    config
}

fn compatibility(engine: &Engine) -> Digest {
    let mut hasher = DigestHasher(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.update(REWRITE_VERSION);
    Digest::from_bytes(hasher.0.finalize().into())
}

/// Feeds what is hashed to SHA-256, so that the result is the same in every process.
struct DigestHasher(Sha256);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
