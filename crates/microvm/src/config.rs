//! What the micro-VMs of a node are given.

use std::path::PathBuf;
use std::sync::Arc;

use files::Library;
use sandbox::host::HostCall;

use crate::inside::Compile;

/// The configuration.
#[derive(Clone)]
pub struct Config {
    /// Where images are kept; the node's own, nobody else's.
    pub cache_dir: PathBuf,
    /// About the most bytes of what is kept there.
    pub cache_bytes_max: u64,
    /// Most live machines; lowered to what the kernel's limits allow.
    pub machines_max: usize,
    /// Machines that are made before they are needed.
    pub shells: usize,
    /// What guests may ask of the platform.
    pub table: &'static [HostCall],
    /// Where the files of versions are found.
    pub files: Arc<Library>,
    /// What compiles WebAssembly; none where only executables run.
    pub compiler: Option<Arc<Compile>>,
}

impl Config {
    /// Defaults, with the cache in `cache_dir`.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            cache_bytes_max: sandbox::CACHE_BYTES_MAX,
            machines_max: 4000,
            shells: 8,
            table: &[],
            files: Arc::new(Library::empty()),
            compiler: None,
        }
    }
}
