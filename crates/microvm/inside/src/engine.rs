//! The engine, configured as the compiler outside is: wasmtime refuses code that was compiled
//! otherwise when it is loaded.

use alloc::sync::Arc;

use wasmtime::{Config, Engine, WasmFeatures};

use crate::abi::Given;
use crate::linear::Memories;
use crate::platform::Code;
use crate::processor;

/// An engine for what the host gives.
pub fn new(given: &Given) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .wasm_features(WasmFeatures::THREADS, true)
        .wasm_exceptions(true)
        .memory_reservation(given.memory_bytes)
        .memory_guard_size(given.guard_bytes)
        .memory_may_move(false)
        .gc_heap_reservation(given.engine_bytes)
        .gc_heap_guard_size(given.guard_bytes)
        .gc_heap_may_move(false)
        .guard_before_linear_memory(false)
        .memory_init_cow(false)
        .signals_based_traps(true)
        .max_wasm_stack(given.stack_bytes as usize)
        .with_custom_code_memory(Some(Arc::new(Code)))
        .with_host_memory(Arc::new(Memories::new(given)));
    // SAFETY: `has` tells the truth about the processor that it runs on, and an image is restored
    // only on processors with the same features.
    unsafe { config.detect_host_feature(processor::has) };
    Engine::new(&config)
}
