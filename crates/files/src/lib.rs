//! Files of a sandbox: a read-only layer that sandboxes share, and a private layer over it.
//!
//! ```text
//!   Library ─layer─▶ Layer (tree; contents by digest, mapped once for all)
//!                      │ under
//!                      ▼
//!   open ─▶ OpenFile   Files (what one invocation changed: pages, directories, names)
//!     read, write, …──▶  │ held to a Quota
//!                        ▼ dropped at the end of the invocation
//! ```
//!
//! The semantics are POSIX's as Linux has them; each failure is an [`Errno`]. There is one user,
//! who owns everything: of permission bits only "nobody may" counts.
//!
//! Invariants:
//! - Nothing that is done to a [`Files`] changes its layer or another `Files`.
//! - What it holds of its own never exceeds its [`Quota`].
//! - No path leads out of the root, nor out of a directory that it is to stay beneath.
//! - A `Files` that nobody uses holds no memory.

mod contents;
mod data;
mod directory;
mod errno;
mod inode;
mod layer;
mod ledger;
mod library;
mod names;
mod open;
mod path;
mod saved;
mod tree;

pub use contents::Contents;
pub use errno::Errno;
pub use inode::{Ino, Kind, Stat, Times};
pub use layer::{Layer, LayerBuilder, LayerError, Standard};
pub use ledger::Quota;
pub use library::{Library, LibraryError, Source, check_list};
pub use names::Replace;
pub use open::{DirEntry, OpenFile, OpenFlags, Whence};
pub use path::{At, NAME_BYTES_MAX, PATH_BYTES_MAX, SYMLINKS_MAX, Scope};
pub use saved::{OtherLayer, Saved};
pub use tree::{Files, Usage};

/// Bytes of the unit that private contents are held and counted in.
pub const PAGE_BYTES: usize = 4096;

#[cfg(test)]
mod tests;
