//! The read-only tree under a private layer.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use model::Digest;

use crate::directory::{FIRST_COOKIE, Name};
use crate::inode::{Ino, Kind, Stat, Times};
use crate::path::{NAME_BYTES_MAX, PATH_BYTES_MAX};
use crate::{Contents, PAGE_BYTES};

/// Most files, directories and links of a layer.
pub const LAYER_ENTRIES_MAX: usize = 1 << 17;

/// When everything in a layer was made: 1980-01-01, the first day that archives know, so that the
/// same files are the same layer whenever they were uploaded.
const MADE_NS: u64 = 315_532_800 * 1_000_000_000;

/// Why a layer cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayerError {
    /// A path that is none: empty, absolute, with `..`, or too long.
    #[error("`{path}` is not a path within the files")]
    BadPath {
        /// The path.
        path: String,
    },
    /// Two entries that cannot be in the same place.
    #[error("`{path}` is listed twice, or lies in something that is not a directory")]
    Conflict {
        /// The path.
        path: String,
    },
    /// Too many entries.
    #[error("more than {max} files and directories are listed")]
    TooMany {
        /// The most.
        max: usize,
    },
}

#[derive(Debug)]
pub(crate) struct LayerNode {
    pub mode: u16,
    pub body: LayerBody,
}

#[derive(Debug)]
pub(crate) enum LayerBody {
    File(Contents),
    Directory(LayerDirectory),
    Symlink(Arc<[u8]>),
}

#[derive(Debug)]
pub(crate) struct LayerDirectory {
    pub parent: Ino,
    pub subdirectories: u32,
    /// Sorted by name.
    pub names: Vec<(Name, Ino)>,
}

/// A read-only tree; its root is inode 1.
#[derive(Debug)]
pub struct Layer {
    /// Another one for other files, or for the same in another order.
    digest: Digest,
    /// Inode `n` is at `n - 1`.
    nodes: Vec<LayerNode>,
}

impl Layer {
    /// A layer with nothing in it but its root.
    pub fn empty() -> Arc<Self> {
        static EMPTY: LazyLock<Arc<Layer>> =
            LazyLock::new(|| Arc::new(LayerBuilder::default().build()));
        EMPTY.clone()
    }

    /// What tells it from others.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) fn node(&self, ino: Ino) -> Option<&LayerNode> {
        let index = usize::try_from(ino.0).ok()?.checked_sub(1)?;
        self.nodes.get(index)
    }

    /// The number of the first inode that is not of the layer.
    pub(crate) fn end(&self) -> Ino {
        Ino(self.nodes.len() as u64 + 1)
    }

    /// Files, directories and links, without the root.
    pub fn entries(&self) -> usize {
        self.nodes.len() - 1
    }
}

impl LayerDirectory {
    pub fn find(&self, name: &[u8]) -> Option<Ino> {
        let at = self
            .names
            .binary_search_by(|(other, _)| (**other).cmp(name));
        at.ok().map(|at| self.names[at].1)
    }

    /// The first name whose place is `cookie` or later, its inode and its place.
    pub fn at_or_after(&self, cookie: u64) -> Option<(Name, Ino, u64)> {
        let at = usize::try_from(cookie.saturating_sub(FIRST_COOKIE)).ok()?;
        let (name, ino) = self.names.get(at)?;
        Some((name.clone(), *ino, at as u64 + FIRST_COOKIE))
    }
}

impl LayerNode {
    pub fn kind(&self) -> Kind {
        match self.body {
            LayerBody::File(_) => Kind::File,
            LayerBody::Directory(_) => Kind::Directory,
            LayerBody::Symlink(_) => Kind::Symlink,
        }
    }

    pub const fn times() -> Times {
        Times {
            accessed_ns: MADE_NS,
            modified_ns: MADE_NS,
            changed_ns: MADE_NS,
        }
    }

    pub fn stat(&self, ino: Ino) -> Stat {
        let (links, bytes) = match &self.body {
            LayerBody::File(contents) => (1, contents.bytes()),
            LayerBody::Directory(directory) => (2 + directory.subdirectories, PAGE_BYTES as u64),
            LayerBody::Symlink(target) => (1, target.len() as u64),
        };
        Stat {
            ino,
            kind: self.kind(),
            mode: self.mode,
            links,
            bytes,
            allocated_bytes: bytes.next_multiple_of(512),
            times: Self::times(),
        }
    }
}

/// An entry that a layer has unless its list says otherwise.
#[derive(Clone, Copy, Debug)]
pub enum Standard {
    /// A directory at a path.
    Directory(&'static str),
    /// A file at a path, with a text in it.
    File(&'static str, &'static str),
}

impl Standard {
    /// What tells lists of them apart.
    pub(crate) fn digest(entries: &[Standard]) -> Digest {
        let parts = entries.iter().flat_map(|entry| match *entry {
            Standard::Directory(path) => ["directory", path, ""],
            Standard::File(path, text) => ["file", path, text],
        });
        Digest::of_parts(parts.map(str::as_bytes))
    }
}

/// Collects the entries of a layer. Directories on the way to an entry come by themselves.
#[derive(Debug)]
pub struct LayerBuilder {
    nodes: Vec<Planned>,
}

#[derive(Debug)]
struct Planned {
    mode: u16,
    body: PlannedBody,
}

#[derive(Debug)]
enum PlannedBody {
    File(Contents),
    Directory {
        parent: usize,
        names: BTreeMap<Name, usize>,
    },
    Symlink(Arc<[u8]>),
}

const DIRECTORY_MODE: u16 = 0o755;
const SYMLINK_MODE: u16 = 0o777;

impl Default for LayerBuilder {
    fn default() -> Self {
        let root = Planned::directory(0);
        Self { nodes: vec![root] }
    }
}

impl Planned {
    fn directory(parent: usize) -> Self {
        Self {
            mode: DIRECTORY_MODE,
            body: PlannedBody::Directory {
                parent,
                names: BTreeMap::new(),
            },
        }
    }
}

impl LayerBuilder {
    /// Begins with these entries.
    pub fn of(entries: &[Standard]) -> Result<Self, LayerError> {
        let mut builder = Self::default();
        builder.fill(entries)?;
        Ok(builder)
    }

    /// Adds a file.
    pub fn file(
        &mut self,
        path: &str,
        contents: Contents,
        executable: bool,
    ) -> Result<(), LayerError> {
        let mode = if executable { 0o755 } else { 0o644 };
        let body = PlannedBody::File(contents);
        self.add(path, Planned { mode, body })
    }

    /// Adds a symbolic link; where it leads is looked at when it is followed.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), LayerError> {
        if target.is_empty() || target.len() > PATH_BYTES_MAX || target.contains('\0') {
            let path = target.to_owned();
            return Err(LayerError::BadPath { path });
        }
        let body = PlannedBody::Symlink(target.as_bytes().into());
        let mode = SYMLINK_MODE;
        self.add(path, Planned { mode, body })
    }

    /// Adds a directory; one that is there already is the same.
    pub fn directory(&mut self, path: &str) -> Result<(), LayerError> {
        let mut at = 0;
        for name in components(path)? {
            at = self.enter(at, name).map_err(|refused| refused.of(path))?;
        }
        Ok(())
    }

    fn add(&mut self, path: &str, planned: Planned) -> Result<(), LayerError> {
        let names = components(path)?;
        let Some((last, way)) = names.split_last() else {
            let path = path.to_owned();
            return Err(LayerError::BadPath { path });
        };
        let mut at = 0;
        for name in way {
            at = self.enter(at, name).map_err(|refused| refused.of(path))?;
        }
        self.insert(at, last, planned)
            .map_err(|refused| refused.of(path))?;
        Ok(())
    }

    fn enter(&mut self, at: usize, name: &str) -> Result<usize, Refused> {
        let PlannedBody::Directory { names, .. } = &self.nodes[at].body else {
            return Err(Refused::Conflict);
        };
        match names.get(name.as_bytes()) {
            Some(next) if matches!(self.nodes[*next].body, PlannedBody::Directory { .. }) => {
                Ok(*next)
            }
            Some(_) => Err(Refused::Conflict),
            None => self.insert(at, name, Planned::directory(at)),
        }
    }

    fn insert(&mut self, at: usize, name: &str, planned: Planned) -> Result<usize, Refused> {
        let index = self.nodes.len();
        if index > LAYER_ENTRIES_MAX {
            return Err(Refused::TooMany);
        }
        let PlannedBody::Directory { names, .. } = &mut self.nodes[at].body else {
            return Err(Refused::Conflict);
        };
        if names.contains_key(name.as_bytes()) {
            return Err(Refused::Conflict);
        }
        names.insert(name.as_bytes().into(), index);
        self.nodes.push(planned);
        Ok(index)
    }

    /// Makes what `entries` lists, but for what is there already.
    pub(crate) fn fill(&mut self, entries: &[Standard]) -> Result<(), LayerError> {
        for entry in entries {
            let made = match *entry {
                Standard::Directory(path) => self.directory(path),
                Standard::File(path, text) => self.file(path, Contents::of(text.as_bytes()), false),
            };
            match made {
                Ok(()) | Err(LayerError::Conflict { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// The layer. All of it is read for its digest.
    pub fn build(self) -> Layer {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        for planned in &self.nodes {
            parts.push(planned.mode.to_le_bytes().to_vec());
            match &planned.body {
                PlannedBody::File(contents) => {
                    let mut bytes = vec![0; usize::try_from(contents.bytes()).unwrap_or(0)];
                    contents.read(0, &mut bytes);
                    parts.extend([b"file".to_vec(), bytes]);
                }
                PlannedBody::Symlink(target) => parts.extend([b"link".to_vec(), target.to_vec()]),
                PlannedBody::Directory { names, .. } => {
                    parts.push(b"directory".to_vec());
                    parts.push((names.len() as u64).to_le_bytes().to_vec());
                    for (name, at) in names {
                        parts.extend([name.to_vec(), (*at as u64).to_le_bytes().to_vec()]);
                    }
                }
            }
        }
        self.build_as(Digest::of_parts(parts.iter().map(Vec::as_slice)))
    }

    /// The layer, by a digest that no other layer has.
    pub(crate) fn build_as(self, digest: Digest) -> Layer {
        let is_directory: Vec<_> = self
            .nodes
            .iter()
            .map(|node| matches!(node.body, PlannedBody::Directory { .. }))
            .collect();
        let ino = |index: usize| Ino(index as u64 + 1);
        let finish = |planned: Planned| LayerNode {
            mode: planned.mode,
            body: match planned.body {
                PlannedBody::File(contents) => LayerBody::File(contents),
                PlannedBody::Symlink(target) => LayerBody::Symlink(target),
                PlannedBody::Directory { parent, names } => LayerBody::Directory(LayerDirectory {
                    parent: ino(parent),
                    subdirectories: names.values().filter(|at| is_directory[**at]).count() as u32,
                    names: names.into_iter().map(|(n, at)| (n, ino(at))).collect(),
                }),
            },
        };
        Layer {
            digest,
            nodes: self.nodes.into_iter().map(finish).collect(),
        }
    }
}

enum Refused {
    Conflict,
    TooMany,
}

impl Refused {
    fn of(self, path: &str) -> LayerError {
        match self {
            Refused::Conflict => LayerError::Conflict {
                path: path.to_owned(),
            },
            Refused::TooMany => LayerError::TooMany {
                max: LAYER_ENTRIES_MAX,
            },
        }
    }
}

/// The names of a path within the layer; a slash in front says the same as none.
fn components(path: &str) -> Result<Vec<&str>, LayerError> {
    let names: Vec<_> = path
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .collect();
    let bad = |name: &&str| *name == ".." || name.len() > NAME_BYTES_MAX || name.contains('\0');
    if path.len() > PATH_BYTES_MAX || names.iter().any(bad) {
        let path = path.chars().take(200).collect();
        return Err(LayerError::BadPath { path });
    }
    Ok(names)
}
