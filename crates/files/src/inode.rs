//! What a name stands for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::data::Data;
use crate::directory::Directory;

/// The number of a file, directory or symbolic link; never used twice in one [`crate::Files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ino(pub(crate) u64);

impl Ino {
    /// The root directory.
    pub const ROOT: Ino = Ino(1);

    /// As a number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// Nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Of the last read.
    pub accessed_ns: u64,
    /// Of the last change of contents.
    pub modified_ns: u64,
    /// Of the last change of anything.
    pub changed_ns: u64,
}

/// Everything that can be known of an inode without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its number.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, twelve of them.
    pub mode: u16,
    /// How many names it has.
    pub links: u32,
    /// Length of the contents, or of a symbolic link's target.
    pub bytes: u64,
    /// Bytes that it takes.
    pub allocated_bytes: u64,
    /// When it was used.
    pub times: Times,
}

/// An inode that was made or changed.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub mode: u16,
    /// Names; of a directory 1 while it is in the tree, and 0 after.
    pub names: u32,
    /// Names that were added to it by links, and are counted against the quota.
    pub counted_links: u32,
    pub times: Times,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    File(Data),
    Directory(Directory),
    Symlink(Arc<[u8]>),
}

impl Inode {
    pub fn kind(&self) -> Kind {
        match self.body {
            Body::File(_) => Kind::File,
            Body::Directory(_) => Kind::Directory,
            Body::Symlink(_) => Kind::Symlink,
        }
    }
}
