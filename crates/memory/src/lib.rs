//! Guest memory: one layer under every wall.
//!
//! ```text
//!   Image (sealed memfd, content-addressed file)
//!     │ MAP_PRIVATE over
//!     ▼
//!   Slab ──take──▶ Range  [image … grown | unmapped reservation + guard | poll page]
//!     ▲              │ reset: dirty pages (PAGEMAP_SCAN) copied back, growth undone
//!     └────drop──────┘ kept under its image, for the next sandbox of the same program
//! ```
//!
//! Invariants:
//! - After [`Range::reset`] the range equals its image bit for bit, is as long as its image, and
//!   nothing else is mapped in it.
//! - A range that could not be reset is never handed out again before it is mapped anew.
//! - Live ranges never exceed the slab's cap, and the cap fits `vm.max_map_count`.

mod error;
mod image;
mod pagemap;
mod range;
mod slab;
mod stacks;
mod sysctl;

pub use error::MemoryError;
pub use image::{Image, ImageBuilder};
pub use pagemap::dirty_tracking;
pub use range::Range;
pub use slab::{Slab, SlabConfig};
pub use stacks::{Stack, Stacks};

/// Bytes of a host page; guest images and ranges are made of whole ones.
pub const PAGE_BYTES: usize = 4096;

#[cfg(test)]
mod tests;
