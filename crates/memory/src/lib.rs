//! Guest memory: one layer under every wall.
//!
//! ```text
//!   Image (sealed memfd or files of the cache: pieces, those of its parents first)
//!     │ MAP_PRIVATE over              ▲ a file may still be arriving (Arriving): guests
//!     │                                 wait at pages that are not there (pager)
//!     ▼
//!   Slab ──take──▶ Range  [image … grown | unmapped reservation + guard | poll page]
//!     ▲              │ reset: dirty pages (PAGEMAP_SCAN) copied back, growth undone
//!     │              │ lay_over: another image, whose few pages that differ are copied (Overlay)
//!     └────drop──────┘ kept under its image, for the next sandbox of the same program
//!                    ▲
//!                    │ map, in the grown part: shared, or private for reading
//!                 Region (memfd that cannot shrink, mapped in the host once)
//! ```
//!
//! Invariants:
//! - After [`Range::reset`] the range equals its image bit for bit, is as long as its image, and
//!   nothing else is mapped in it; the regions that were mapped are the first to go.
//! - Nothing that a guest or the host does to a range changes a region that it maps for reading.
//! - No access of the host to a region faults, tears a word, or is undefined beside guests' writes.
//! - A part of a guest's buffer is lent to one at a time, and back before the guest goes on.
//! - A range that could not be reset is never handed out again before it is mapped anew.
//! - Live ranges never exceed the slab's cap, and the cap fits `vm.max_map_count`.

mod access;
mod error;
mod image;
mod mapped_file;
mod mapping;
mod out;
mod overlay;
mod own;
mod pagemap;
mod pager;
mod pieces;
mod range;
mod region;
mod slab;
mod stacks;
mod sysctl;

pub use error::MemoryError;
pub use image::{Image, ImageBuilder};
pub use mapped_file::MappedFile;
pub use mapping::{Access, RANGE_MAPPINGS_MAX};
pub use out::{Out, Part};
pub use overlay::Overlay;
pub use pagemap::dirty_tracking;
pub use pager::{Arriving, CHUNK_BYTES, Presence, pages_can_arrive};
pub use pieces::{Difference, PageRun, Pages, Piece, RUNS_MAX};
pub use range::{AnnexAccess, Range};
pub use region::{REGION_UNIT_BYTES, Region};
pub use slab::{Slab, SlabConfig};
pub use stacks::{Stack, Stacks};

/// Bytes of a host page; guest images and ranges are made of whole ones.
pub const PAGE_BYTES: usize = 4096;

/// Bytes that the annex of an image takes at the end of a reservation: a page of WebAssembly.
pub const ANNEX_BYTES: usize = 64 << 10;

#[cfg(test)]
mod out_tests;
#[cfg(test)]
mod region_tests;
#[cfg(test)]
mod tests;
