//! The tree that a sandbox sees: its layer, and what was changed over it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::data::Data;
use crate::directory::{Directory, Name};
use crate::inode::{Body, Ino, Inode, Kind, Stat, Times};
use crate::layer::{Layer, LayerBody, LayerNode};
use crate::ledger::{Ledger, Quota};
use crate::path::At;
use crate::{Errno, PAGE_BYTES};

/// What a private layer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of contents, in whole pages, and of symbolic links' targets.
    pub bytes: u64,
    /// Files, directories, symbolic links and further hard links that were made and are there.
    pub inodes: u64,
    /// The most that it may hold.
    pub quota: Quota,
}

/// The files of one invocation: a layer, and what it changed. A copy costs nothing until it
/// changes something: then it has the list of what was changed to itself, and each page it writes.
#[derive(Clone)]
pub struct Files {
    pub(crate) layer: Arc<Layer>,
    pub(crate) own: Arc<HashMap<Ino, Inode>>,
    /// How often each inode is open.
    pub(crate) opens: HashMap<Ino, u32>,
    pub(crate) next: Ino,
    pub(crate) ledger: Ledger,
    pub(crate) clock: fn() -> u64,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files")
            .field("own", &self.own.len())
            .field("ledger", &self.ledger)
            .finish_non_exhaustive()
    }
}

/// An inode, wherever it is.
pub(crate) enum View<'a> {
    Own(&'a Inode),
    Layer(&'a LayerNode),
}

impl Files {
    /// The files of a layer, unchanged so far. This costs nothing worth mentioning.
    pub fn new(layer: Arc<Layer>, quota: Quota) -> Self {
        Self::with_clock(layer, quota, now_ns)
    }

    /// The same, with a clock that gives nanoseconds since 1970.
    pub fn with_clock(layer: Arc<Layer>, quota: Quota, clock: fn() -> u64) -> Self {
        Self {
            next: layer.end(),
            layer,
            own: Arc::default(),
            opens: HashMap::new(),
            ledger: Ledger::new(quota),
            clock,
        }
    }

    /// What was changed, in numbers.
    pub fn usage(&self) -> Usage {
        Usage {
            bytes: self.ledger.bytes(),
            inodes: self.ledger.inodes(),
            quota: self.ledger.quota(),
        }
    }

    /// Everything that is known of an inode.
    pub fn stat(&self, ino: Ino) -> Result<Stat, Errno> {
        match self.view(ino).ok_or(Errno::NoEntry)? {
            View::Layer(node) => Ok(node.stat(ino)),
            View::Own(inode) => Ok(own_stat(ino, inode)),
        }
    }

    /// The same, of what is at a path.
    pub fn stat_at(&self, at: At<'_>, follow: bool) -> Result<Stat, Errno> {
        self.stat(self.find(at, follow)?)
    }

    /// The absolute path of a directory; none if it was removed.
    pub fn path_of(&self, directory: Ino) -> Option<Vec<u8>> {
        let mut names = Vec::new();
        let mut at = directory;
        while at != Ino::ROOT {
            let parent = self.parent(at)?;
            let name = self.name_in(parent, at)?;
            names.push(name);
            at = parent;
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Some(path)
    }

    fn name_in(&self, directory: Ino, child: Ino) -> Option<Name> {
        let mut cookie = 0;
        loop {
            let (name, ino, at) = self.name_at_or_after(directory, cookie)?;
            if ino == child {
                return Some(name);
            }
            cookie = at + 1;
        }
    }

    pub(crate) fn view(&self, ino: Ino) -> Option<View<'_>> {
        match self.own.get(&ino) {
            Some(inode) => Some(View::Own(inode)),
            None => self.layer.node(ino).map(View::Layer),
        }
    }

    pub(crate) fn kind(&self, ino: Ino) -> Option<Kind> {
        self.view(ino).map(|view| match view {
            View::Own(inode) => inode.kind(),
            View::Layer(node) => node.kind(),
        })
    }

    /// What a name in a directory stands for.
    pub(crate) fn lookup(&self, directory: Ino, name: &[u8]) -> Option<Ino> {
        match self.view(directory)? {
            View::Own(inode) => match &inode.body {
                Body::Directory(directory) => directory.find(name),
                _ => None,
            },
            View::Layer(node) => match &node.body {
                LayerBody::Directory(directory) => directory.find(name),
                _ => None,
            },
        }
    }

    pub(crate) fn name_at_or_after(&self, directory: Ino, cookie: u64) -> Option<(Name, Ino, u64)> {
        match self.view(directory)? {
            View::Own(inode) => match &inode.body {
                Body::Directory(directory) => directory.at_or_after(cookie),
                _ => None,
            },
            View::Layer(node) => match &node.body {
                LayerBody::Directory(directory) => directory.at_or_after(cookie),
                _ => None,
            },
        }
    }

    pub(crate) fn parent(&self, directory: Ino) -> Option<Ino> {
        match self.view(directory)? {
            View::Own(inode) => match &inode.body {
                Body::Directory(directory) => Some(directory.parent),
                _ => None,
            },
            View::Layer(node) => match &node.body {
                LayerBody::Directory(directory) => Some(directory.parent),
                _ => None,
            },
        }
    }

    /// Where a symbolic link leads.
    pub(crate) fn target(&self, link: Ino) -> Option<&[u8]> {
        match self.view(link)? {
            View::Own(inode) => match &inode.body {
                Body::Symlink(target) => Some(target),
                _ => None,
            },
            View::Layer(node) => match &node.body {
                LayerBody::Symlink(target) => Some(target),
                _ => None,
            },
        }
    }

    /// An inode to be changed, with the counts of what is changed.
    pub(crate) fn change(&mut self, ino: Ino) -> Result<(&mut Inode, &mut Ledger), Errno> {
        self.ledger.writable()?;
        let inode = match Arc::make_mut(&mut self.own).entry(ino) {
            std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let node = self.layer.node(ino).ok_or(Errno::NoEntry)?;
                vacant.insert(copied(node))
            }
        };
        Ok((inode, &mut self.ledger))
    }

    pub(crate) fn change_directory(&mut self, ino: Ino) -> Result<&mut Directory, Errno> {
        match self.change(ino)?.0 {
            Inode {
                body: Body::Directory(directory),
                ..
            } => Ok(directory),
            _ => Err(Errno::NotDirectory),
        }
    }

    /// An inode of its own that no name stands for yet, counted against the quota.
    pub(crate) fn make(&mut self, mode: u16, body: Body) -> Result<Ino, Errno> {
        self.ledger.writable()?;
        self.ledger.take_inode()?;
        if let Body::Symlink(target) = &body
            && let Err(errno) = self.ledger.take_bytes(target.len() as u64)
        {
            self.ledger.give_inode();
            return Err(errno);
        }
        let ino = self.next;
        self.next = Ino(ino.0 + 1);
        let now = (self.clock)();
        let inode = Inode {
            mode: mode & 0o7777,
            names: 0,
            counted_links: 0,
            times: Times {
                accessed_ns: now,
                modified_ns: now,
                changed_ns: now,
            },
            body,
        };
        Arc::make_mut(&mut self.own).insert(ino, inode);
        Ok(ino)
    }

    fn own_mut(&mut self, ino: Ino) -> Option<&mut Inode> {
        if !self.own.contains_key(&ino) {
            return None;
        }
        Arc::make_mut(&mut self.own).get_mut(&ino)
    }

    /// Notes that contents, or the names of a directory, changed now.
    pub(crate) fn modified(&mut self, ino: Ino) {
        let now = (self.clock)();
        if let Some(inode) = self.own_mut(ino) {
            inode.times.modified_ns = now;
            inode.times.changed_ns = now;
        }
    }

    /// Notes that something else of an inode changed now.
    pub(crate) fn changed(&mut self, ino: Ino) {
        let now = (self.clock)();
        if let Some(inode) = self.own_mut(ino) {
            inode.times.changed_ns = now;
        }
    }

    /// Notes a read, of what is not the layer's.
    pub(crate) fn accessed(&mut self, ino: Ino) {
        let now = (self.clock)();
        if let Some(inode) = self.own_mut(ino) {
            inode.times.accessed_ns = now;
        }
    }

    pub(crate) fn opened(&mut self, ino: Ino) {
        *self.opens.entry(ino).or_default() += 1;
    }

    pub(crate) fn closed(&mut self, ino: Ino) {
        if let Some(count) = self.opens.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                self.opens.remove(&ino);
                self.forget(ino);
            }
        }
    }

    /// Frees an inode that has no name and is not open.
    pub(crate) fn forget(&mut self, ino: Ino) {
        let nameless = |inode: &Inode| inode.names == 0;
        if self.opens.contains_key(&ino) || !self.own.get(&ino).is_some_and(nameless) {
            return;
        }
        let Some(inode) = Arc::make_mut(&mut self.own).remove(&ino) else {
            return;
        };
        if ino >= self.layer.end() {
            self.ledger.give_inode();
        }
        match inode.body {
            Body::File(data) => self.ledger.give_pages(data.pages()),
            // The layer's own targets were never counted.
            Body::Symlink(target) if ino >= self.layer.end() => {
                self.ledger.give_bytes(target.len() as u64);
            }
            Body::Symlink(_) | Body::Directory(_) => {}
        }
    }
}

/// An inode of the layer, to be changed.
fn copied(node: &LayerNode) -> Inode {
    let body = match &node.body {
        LayerBody::File(contents) => Body::File(Data::over(contents)),
        LayerBody::Symlink(target) => Body::Symlink(target.clone()),
        LayerBody::Directory(listed) => {
            let mut directory = Directory::new(listed.parent);
            directory.subdirectories = listed.subdirectories;
            for (name, ino) in &listed.names {
                directory.add(name.clone(), *ino);
            }
            Body::Directory(directory)
        }
    };
    Inode {
        mode: node.mode,
        names: 1,
        counted_links: 0,
        times: LayerNode::times(),
        body,
    }
}

fn own_stat(ino: Ino, inode: &Inode) -> Stat {
    let page = PAGE_BYTES as u64;
    let (links, bytes, allocated_bytes) = match &inode.body {
        Body::File(data) => (inode.names, data.bytes(), data.pages() * page),
        Body::Directory(directory) => match inode.names {
            0 => (0, page, page),
            _ => (2 + directory.subdirectories, page, page),
        },
        Body::Symlink(target) => (inode.names, target.len() as u64, 0),
    };
    Stat {
        ino,
        kind: inode.kind(),
        mode: inode.mode,
        links,
        bytes,
        allocated_bytes,
        times: inode.times,
    }
}

pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
