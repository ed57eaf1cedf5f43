//! Paths to inodes.

use crate::inode::{Ino, Kind};
use crate::{Errno, Files};

/// Longest name.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest path, and longest target of a symbolic link.
pub const PATH_BYTES_MAX: usize = 4095;
/// Most symbolic links that are followed on the way of one path.
pub const SYMLINKS_MAX: usize = 40;

/// Where a path may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Anywhere: an absolute path begins at the root, and the root's parent is the root.
    Root,
    /// Nowhere above the directory that it begins at: paths that try are not permitted. This is
    /// WASI's rule. An absolute path is not permitted; the absolute target of a symbolic link only
    /// where the path begins at the root.
    Beneath,
}

/// A path, and the directory that it begins at.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// Where a relative path begins.
    pub directory: Ino,
    /// The path.
    pub path: &'a [u8],
    /// Where it may lead.
    pub scope: Scope,
}

impl<'a> At<'a> {
    /// A path that begins at `directory` and stays beneath it.
    pub fn beneath(directory: Ino, path: &'a [u8]) -> Self {
        let scope = Scope::Beneath;
        Self {
            directory,
            path,
            scope,
        }
    }

    /// A path as a process with the working directory `directory` means it.
    pub fn rooted(directory: Ino, path: &'a [u8]) -> Self {
        let scope = Scope::Root;
        Self {
            directory,
            path,
            scope,
        }
    }
}

/// What to do with a symbolic link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    Follow,
    /// Follow it; a slash at the end is refused, since only a file can be made there.
    Create,
    /// Take the link itself, unless a slash follows it.
    Stay,
    /// Take the name, whatever is there: it is to be made or removed.
    Name,
}

/// Where a path leads.
#[derive(Debug)]
pub(crate) struct Place {
    /// The directory of the last name.
    pub directory: Ino,
    pub last: Last,
    /// What is there.
    pub ino: Option<Ino>,
    /// Whether a slash follows the last name.
    pub slash: bool,
}

/// The last component of a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Last {
    Name(Box<[u8]>),
    Dot,
    DotDot,
    Root,
}

impl Place {
    /// The last name of what is to be made or removed; `otherwise` if it is no name.
    pub fn name(&self, otherwise: Errno) -> Result<&[u8], Errno> {
        match &self.last {
            Last::Name(name) => Ok(name),
            _ => Err(otherwise),
        }
    }
}

/// A walk along a path.
struct Walk<'a> {
    files: &'a Files,
    at: At<'a>,
    directory: Ino,
    /// The path's rest, under the rests of symbolic links' targets.
    rests: Vec<&'a [u8]>,
    links: usize,
}

impl Files {
    /// Follows a path to its last component.
    pub(crate) fn walk(&self, at: At<'_>, tail: Tail) -> Result<Place, Errno> {
        if at.path.is_empty() {
            return Err(Errno::NoEntry);
        }
        if at.path.len() > PATH_BYTES_MAX {
            return Err(Errno::NameTooLong);
        }
        if at.path.contains(&0) {
            return Err(Errno::Invalid);
        }
        let mut walk = Walk {
            files: self,
            at,
            directory: at.directory,
            rests: vec![at.path],
            links: 0,
        };
        if at.path[0] == b'/' {
            if at.scope == Scope::Beneath {
                return Err(Errno::NotPermitted);
            }
            walk.directory = Ino::ROOT;
        }
        walk.run(tail)
    }

    /// The inode at a path.
    pub fn find(&self, at: At<'_>, follow: bool) -> Result<Ino, Errno> {
        let tail = if follow { Tail::Follow } else { Tail::Stay };
        self.walk(at, tail)?.ino.ok_or(Errno::NoEntry)
    }
}

impl<'a> Walk<'a> {
    fn run(mut self, tail: Tail) -> Result<Place, Errno> {
        if self.files.kind(self.directory) != Some(Kind::Directory) {
            return Err(Errno::NotDirectory);
        }
        loop {
            let Some(component) = self.next() else {
                return Ok(self.place(Last::Root, Some(Ino::ROOT)));
            };
            let more = self.more();
            match component {
                b"." if more => {}
                b"." => return Ok(self.place(Last::Dot, Some(self.directory))),
                b".." => {
                    self.directory = self.parent()?;
                    if !more {
                        return Ok(self.place(Last::DotDot, Some(self.directory)));
                    }
                }
                name => {
                    if let Some(place) = self.name(name, more, tail)? {
                        return Ok(place);
                    }
                }
            }
        }
    }

    /// Takes a name; the place, if it is the end.
    fn name(&mut self, name: &'a [u8], more: bool, tail: Tail) -> Result<Option<Place>, Errno> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Errno::NameTooLong);
        }
        if !more && tail == Tail::Create && self.slash() {
            return Err(Errno::IsDirectory);
        }
        let ended = |walk: &Self, ino| Ok(Some(walk.place(Last::Name(name.into()), ino)));
        let Some(ino) = self.files.lookup(self.directory, name) else {
            return match more {
                true => Err(Errno::NoEntry),
                false => ended(self, None),
            };
        };
        let follow = more
            || matches!(tail, Tail::Follow | Tail::Create)
            || (tail == Tail::Stay && self.slash());
        match self.files.kind(ino) {
            Some(Kind::Symlink) if follow => self.follow(ino).map(|()| None),
            Some(Kind::Directory) if more => {
                self.directory = ino;
                Ok(None)
            }
            Some(Kind::Directory) => ended(self, Some(ino)),
            _ if more || (self.slash() && tail != Tail::Name) => Err(Errno::NotDirectory),
            _ => ended(self, Some(ino)),
        }
    }

    fn follow(&mut self, link: Ino) -> Result<(), Errno> {
        self.links += 1;
        if self.links > SYMLINKS_MAX {
            return Err(Errno::Loop);
        }
        let target = self.files.target(link).ok_or(Errno::Io)?;
        if target.first() == Some(&b'/') {
            if self.at.scope == Scope::Beneath && self.at.directory != Ino::ROOT {
                return Err(Errno::NotPermitted);
            }
            self.directory = Ino::ROOT;
        }
        self.rests.push(target);
        Ok(())
    }

    fn parent(&self) -> Result<Ino, Errno> {
        if self.at.scope == Scope::Beneath && self.directory == self.at.directory {
            return Err(Errno::NotPermitted);
        }
        self.files.parent(self.directory).ok_or(Errno::NoEntry)
    }

    /// The next component; none at the end, which only a path of slashes reaches.
    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let rest = self.rests.last_mut()?;
            let start = rest.iter().position(|byte| *byte != b'/');
            let Some(start) = start else {
                self.rests.pop();
                continue;
            };
            let from = &rest[start..];
            let end = from.iter().position(|byte| *byte == b'/');
            let (component, after) = from.split_at(end.unwrap_or(from.len()));
            *rest = after;
            return Some(component);
        }
    }

    /// Whether another component follows.
    fn more(&self) -> bool {
        let named = |rest: &&[u8]| rest.iter().any(|byte| *byte != b'/');
        self.rests.iter().any(named)
    }

    /// Whether a slash follows.
    fn slash(&self) -> bool {
        self.rests.iter().any(|rest| !rest.is_empty())
    }

    fn place(&self, last: Last, ino: Option<Ino>) -> Place {
        Place {
            directory: self.directory,
            last,
            ino,
            slash: self.slash(),
        }
    }
}
