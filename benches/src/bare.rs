//! Wasmtime alone: the loop that a platform's start is held against.

use anyhow::{Context, Result};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module,
    PoolingAllocationConfig, Store,
};

/// A module, linked, in an engine with a pool whose slots are cleaned with MADV_DONTNEED.
pub struct Bare {
    engine: Engine,
    linked: InstancePre<()>,
}

impl Bare {
    /// Compiles `wasm`, which imports nothing.
    pub fn new(wasm: &[u8]) -> Result<Self> {
        let mut pool = PoolingAllocationConfig::default();
        // What wasmtime does unless told otherwise, said aloud: a slot is cleaned by
        // madvise(MADV_DONTNEED), nothing stays resident, no page map is read.
        pool.linear_memory_keep_resident(0).table_keep_resident(0);
        pool.pagemap_scan(Enabled::No);
        let mut config = Config::new();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config)
            .map_err(anyhow::Error::from)
            .context("an engine")?;
        let module = Module::new(&engine, wasm)?;
        let linked = Linker::new(&engine).instantiate_pre(&module)?;
        Ok(Self { engine, linked })
    }

    /// Instantiates, calls `handle`, drops.
    pub fn call(&self) -> Result<()> {
        let mut store = Store::new(&self.engine, ());
        let instance = self.linked.instantiate(&mut store)?;
        let handle = instance.get_typed_func::<(), ()>(&mut store, "handle")?;
        handle.call(&mut store, ())?;
        Ok(())
    }
}
