//! What the engines of a node are given.

use std::path::PathBuf;
use std::sync::Arc;

use files::Library;
use sandbox::host::HostCall;

use crate::component::ComponentConfig;

/// The engines' configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where compiled code and images are kept; the node's own, nobody else's.
    pub cache_dir: PathBuf,
    /// About the most bytes of what is kept there.
    pub cache_bytes_max: u64,
    /// Most live sandboxes of core modules; lowered to what the kernel's limits allow.
    pub sandboxes_max: usize,
    /// The pools of components.
    pub components: ComponentConfig,
    /// What guests may ask of the platform.
    pub table: &'static [HostCall],
    /// Where the files of versions are.
    pub files: Arc<Library>,
}

impl Config {
    /// Defaults, with the cache in `cache_dir`.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            cache_bytes_max: sandbox::CACHE_BYTES_MAX,
            sandboxes_max: 12_000,
            components: ComponentConfig::default(),
            table: &[],
            files: Arc::new(Library::empty()),
        }
    }
}
