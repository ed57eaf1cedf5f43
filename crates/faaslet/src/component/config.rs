//! How many components may be live at once, and how large their parts may be.

/// The sizes of the component engines' pools.
///
/// Pools reserve address space, not memory: each linear memory takes 4 GiB of the 128 TiB that a
/// process has, so that the default of a thousand sandboxes takes 16 TiB over both engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentConfig {
    /// Live sandboxes, over all components.
    pub sandboxes_max: u32,
    /// Linear memories that a sandbox has on average; one component may have up to
    /// [`ComponentConfig::memories_per_component_max`].
    pub memories_per_sandbox: u32,
    /// Linear memories of one component.
    pub memories_per_component_max: u32,
    /// Tables that a sandbox has on average.
    pub tables_per_sandbox: u32,
    /// Elements of one table.
    pub table_elements_max: u32,
    /// Bytes of a linear memory that stay resident between two calls, if they were written.
    pub resident_bytes_max: u64,
    /// The guest's call stack.
    pub stack_bytes_max: u32,
    /// Connections that the outgoing requests of one call have at once; more wait.
    pub connections_per_call_max: u32,
}

impl Default for ComponentConfig {
    fn default() -> Self {
        Self {
            sandboxes_max: 1000,
            memories_per_sandbox: 2,
            memories_per_component_max: 16,
            tables_per_sandbox: 8,
            table_elements_max: 1 << 16,
            resident_bytes_max: 8 << 20,
            stack_bytes_max: 1 << 20,
            connections_per_call_max: 64,
        }
    }
}
