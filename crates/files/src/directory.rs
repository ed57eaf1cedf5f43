//! A directory that was made or changed: its names, each with a place that never moves.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::inode::Ino;

/// A name in a directory.
pub(crate) type Name = Arc<[u8]>;

/// The cookies before those of names: `.` and `..` have the first two places.
pub(crate) const FIRST_COOKIE: u64 = 2;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub ino: Ino,
    /// Its place: reading goes on after it, whatever else comes and goes.
    pub cookie: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub parent: Ino,
    /// How many of its names are directories.
    pub subdirectories: u32,
    pub(crate) names: BTreeMap<Name, Entry>,
    places: BTreeMap<u64, Name>,
    pub(crate) next_cookie: u64,
}

impl Directory {
    pub fn new(parent: Ino) -> Self {
        Self {
            parent,
            subdirectories: 0,
            names: BTreeMap::new(),
            places: BTreeMap::new(),
            next_cookie: FIRST_COOKIE,
        }
    }

    pub fn find(&self, name: &[u8]) -> Option<Ino> {
        self.names.get(name).map(|entry| entry.ino)
    }

    /// Adds a name that is not there, at the end.
    pub fn add(&mut self, name: Name, ino: Ino) {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        self.places.insert(cookie, name.clone());
        self.names.insert(name, Entry { ino, cookie });
    }

    /// Adds a name at the place that it had.
    pub fn put_back(&mut self, name: Name, entry: Entry) {
        self.places.insert(entry.cookie, name.clone());
        self.names.insert(name, entry);
    }

    pub fn remove(&mut self, name: &[u8]) {
        if let Some(entry) = self.names.remove(name) {
            self.places.remove(&entry.cookie);
        }
    }

    /// Makes a name that is there mean another file.
    pub fn point(&mut self, name: &[u8], ino: Ino) {
        if let Some(entry) = self.names.get_mut(name) {
            entry.ino = ino;
        }
    }

    /// The first name whose place is `cookie` or later, its inode and its place.
    pub fn at_or_after(&self, cookie: u64) -> Option<(Name, Ino, u64)> {
        let (cookie, name) = self.places.range(cookie..).next()?;
        let entry = self.names.get(name)?;
        Some((name.clone(), entry.ino, *cookie))
    }
}
