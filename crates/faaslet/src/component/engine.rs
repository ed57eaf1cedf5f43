//! The engines that components run on, and the gate that counts what is live in their pools.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memory::{ImageBuilder, Slab, SlabConfig, Stacks};
use model::Digest;
use sandbox::SandboxError;
use wasmtime::component::Linker;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use sandbox::host::HostCall;

use super::ComponentConfig;
use super::apart::APART_VERSION;
use super::asks::add_asks;
use super::filesystem::add_files;
use super::guest::Guest;
use super::link;
use super::memories::Memories;
use crate::core_module::{ENGINE_RESERVATION_BYTES, GuestStacks};

/// Room on a guest's stack, above the guest's own part, for host calls and for a guest of the other
/// engine that they run.
const HOST_STACK_BYTES: usize = 3 << 20;
/// A backtrace is for a log line: deeper frames are left out, which keeps traps cheap.
const BACKTRACE_FRAMES_MAX: NonZeroUsize = NonZeroUsize::new(16).unwrap();
/// Core instances cost the pool only a count; components of linked libraries have dozens.
const CORE_INSTANCES_PER_SANDBOX: u32 = 64;
const MEMORY_BYTES_MAX: usize = 1 << 32;

/// Which of the engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// For components of WASI 0.2: it spares each call the set-up of the async component model.
    Plain,
    /// For components that use anything of WASI 0.3.
    Concurrent,
}

impl Flavour {
    pub(super) const ALL: [Flavour; 2] = [Flavour::Plain, Flavour::Concurrent];

    const fn as_str(self) -> &'static str {
        match self {
            Flavour::Plain => "plain",
            Flavour::Concurrent => "concurrent",
        }
    }
}

/// Where an engine's memories come from.
pub(super) enum Memory {
    /// From the engine's own pool, for components that are small or of an unusual make.
    Pool,
    /// From our slab, for components that were taken apart.
    Slab(Slab),
}

/// An engine with all that it offers to components.
pub(super) struct Machine {
    pub(super) flavour: Flavour,
    pub(super) engine: Engine,
    pub(super) linker: Linker<Guest>,
    pub(super) memory: Memory,
}

impl Machine {
    /// An engine over its own pool.
    pub(super) fn pooled(
        flavour: Flavour,
        config: &ComponentConfig,
        table: &'static [HostCall],
    ) -> wasmtime::Result<Self> {
        let mut settings = settings(flavour, config);
        settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pools(config)));
        Self::new(flavour, &settings, Memory::Pool, table)
    }

    /// An engine over a slab.
    pub(super) fn over_slab(
        flavour: Flavour,
        config: &ComponentConfig,
        table: &'static [HostCall],
    ) -> wasmtime::Result<Self> {
        let spans = SlabConfig {
            ranges_max: config.sandboxes_max as usize,
            ..SlabConfig::default()
        };
        let slab = Slab::new(spans);
        let memories = Memories {
            slab: slab.clone(),
            empty: Arc::new(ImageBuilder::new(0).freeze()?),
            reservation_bytes: spans.reservation_bytes,
        };
        let mut settings = settings(flavour, config);
        settings
            .memory_reservation(spans.reservation_bytes as u64)
            .memory_guard_size(spans.guard_bytes as u64)
            .memory_may_move(false)
            .gc_heap_reservation(ENGINE_RESERVATION_BYTES as u64)
            .gc_heap_guard_size(spans.guard_bytes as u64)
            .gc_heap_may_move(false)
            .memory_init_cow(false)
            .with_host_memory(Arc::new(memories))
            .with_host_stack(Arc::new(GuestStacks(Stacks::new(stack_bytes(config)))));
        Self::new(flavour, &settings, Memory::Slab(slab), table)
    }

    fn new(
        flavour: Flavour,
        settings: &Config,
        memory: Memory,
        table: &'static [HostCall],
    ) -> wasmtime::Result<Self> {
        let engine = Engine::new(settings)?;
        let mut linker = link::linker(&engine, flavour)?;
        add_files(&mut linker, flavour)?;
        add_asks(&mut linker, table)?;
        Ok(Self {
            flavour,
            engine,
            linker,
            memory,
        })
    }

    /// The cache key of the code that this engine makes of `artifact`.
    pub(super) fn key(&self, artifact: &Digest) -> Digest {
        let mut hasher = DefaultHasher::new();
        self.engine
            .precompile_compatibility_hash()
            .hash(&mut hasher);
        let make = match self.memory {
            Memory::Pool => "component".to_owned(),
            Memory::Slab(_) => format!("skeleton {APART_VERSION}"),
        };
        Digest::of_parts([
            make.as_bytes(),
            self.flavour.as_str().as_bytes(),
            artifact.as_bytes(),
            &hasher.finish().to_le_bytes(),
        ])
    }
}

fn settings(flavour: Flavour, config: &ComponentConfig) -> Config {
    let mut settings = Config::new();
    settings
        .epoch_interruption(true)
        .concurrency_support(flavour == Flavour::Concurrent)
        .max_wasm_stack(config.stack_bytes_max as usize)
        .async_stack_size(stack_bytes(config))
        .wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES_MAX))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .generate_address_map(false)
        .native_unwind_info(false);
    settings
}

/// Bytes of the stack that a guest and its host calls run on.
fn stack_bytes(config: &ComponentConfig) -> usize {
    config.stack_bytes_max as usize + HOST_STACK_BYTES
}

fn pools(config: &ComponentConfig) -> PoolingAllocationConfig {
    let sandboxes = config.sandboxes_max;
    let resident = usize::try_from(config.resident_bytes_max).unwrap_or(usize::MAX);
    let mut pools = PoolingAllocationConfig::default();
    pools
        .total_component_instances(sandboxes)
        .total_core_instances(sandboxes.saturating_mul(CORE_INSTANCES_PER_SANDBOX))
        .total_memories(sandboxes.saturating_mul(config.memories_per_sandbox))
        .total_tables(sandboxes.saturating_mul(config.tables_per_sandbox))
        .total_stacks(sandboxes)
        .max_memories_per_component(config.memories_per_component_max)
        .max_memories_per_module(config.memories_per_component_max)
        .max_memory_size(MEMORY_BYTES_MAX)
        .table_elements(config.table_elements_max as usize)
        .max_tables_per_module(config.tables_per_sandbox)
        .linear_memory_keep_resident(resident)
        .table_keep_resident(resident)
        .pagemap_scan(Enabled::Auto);
    pools
}

/// Counts the live sandboxes and their linear memories, so that a full pool is an error of its own
/// and not a failed call.
#[derive(Debug)]
pub(super) struct Gate {
    sandboxes: AtomicUsize,
    memories: AtomicUsize,
    sandboxes_max: usize,
    memories_max: usize,
}

impl Gate {
    pub(super) fn new(config: &ComponentConfig) -> Arc<Self> {
        let memories = config.sandboxes_max as usize * config.memories_per_sandbox as usize;
        Arc::new(Self {
            sandboxes: AtomicUsize::new(0),
            memories: AtomicUsize::new(0),
            sandboxes_max: config.sandboxes_max as usize,
            memories_max: memories,
        })
    }

    /// A place for a sandbox with `memories` linear memories.
    pub(super) fn enter(self: &Arc<Self>, memories: usize) -> Result<Place, SandboxError> {
        let place = Place {
            gate: self.clone(),
            memories,
        };
        let sandboxes = self.sandboxes.fetch_add(1, Ordering::Relaxed);
        let before = self.memories.fetch_add(memories, Ordering::Relaxed);
        // On refusal the place is dropped, which takes both counts back.
        if sandboxes >= self.sandboxes_max || before + memories > self.memories_max {
            return Err(SandboxError::Full {
                live: sandboxes,
                max: self.sandboxes_max,
            });
        }
        Ok(place)
    }
}

/// A sandbox's place in the pools, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    memories: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.sandboxes.fetch_sub(1, Ordering::Relaxed);
        self.gate
            .memories
            .fetch_sub(self.memories, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_refuses_what_the_pools_cannot_hold() {
        let gate = Gate::new(&ComponentConfig {
            sandboxes_max: 2,
            memories_per_sandbox: 2,
            ..ComponentConfig::default()
        });
        let large = gate.enter(3).unwrap();
        assert!(gate.enter(2).is_err());
        let small = gate.enter(1).unwrap();
        assert!(matches!(
            gate.enter(0),
            Err(SandboxError::Full { live: 2, max: 2 })
        ));
        drop((large, small));
        assert!(gate.enter(4).is_ok());
    }
}
