//! Faaslets: functions behind WebAssembly's wall, on wasmtime.

mod cache;

pub use cache::{Cache, CacheError, EntryKind};
