//! Making, removing and moving names.

use crate::Errno;
use crate::Files;
use crate::directory::Directory;
use crate::inode::{Body, Ino, Kind, Stat};
use crate::path::{At, PATH_BYTES_MAX, Place, Tail};
use crate::tree::View;

/// Most names of one file.
const LINKS_MAX: u32 = 65_000;

/// What a rename does to what is already at its new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// It takes its place, as POSIX says.
    Yes,
    /// It fails with [`Errno::Exists`].
    No,
}

impl Files {
    /// Makes a directory.
    pub fn make_directory(&mut self, at: At<'_>, mode: u16) -> Result<Stat, Errno> {
        let place = self.walk(at, Tail::Name)?;
        let name = self.vacant(&place)?;
        let ino = self.make(mode, Body::Directory(Directory::new(place.directory)))?;
        self.add(place.directory, name, ino)?;
        self.stat(ino)
    }

    /// Makes a symbolic link to `target`, which may lead nowhere.
    pub fn make_symlink(&mut self, target: &[u8], at: At<'_>) -> Result<Stat, Errno> {
        if target.is_empty() {
            return Err(Errno::NoEntry);
        }
        if target.len() > PATH_BYTES_MAX {
            return Err(Errno::NameTooLong);
        }
        if target.contains(&0) {
            return Err(Errno::Invalid);
        }
        let place = self.walk(at, Tail::Name)?;
        let name = self.vacant(&place)?;
        if place.slash {
            return Err(Errno::NoEntry);
        }
        let ino = self.make(0o777, Body::Symlink(target.into()))?;
        self.add(place.directory, name, ino)?;
        self.stat(ino)
    }

    /// Where the symbolic link at a path leads.
    pub fn read_link(&self, at: At<'_>) -> Result<&[u8], Errno> {
        let ino = self.find(at, false)?;
        self.target(ino).ok_or(Errno::Invalid)
    }

    /// Gives a file another name. A symbolic link at the end of `from` is followed if `follow`.
    pub fn link(&mut self, from: At<'_>, follow: bool, to: At<'_>) -> Result<(), Errno> {
        let ino = self.find(from, follow)?;
        let place = self.walk(to, Tail::Name)?;
        let name = self.vacant(&place)?;
        if place.slash {
            return Err(Errno::NoEntry);
        }
        if self.kind(ino) == Some(Kind::Directory) {
            return Err(Errno::NotPermitted);
        }
        self.link_inode(ino, place.directory, name)
    }

    /// Gives an open file that may have lost its names a name.
    pub(crate) fn link_inode(
        &mut self,
        ino: Ino,
        directory: Ino,
        name: Box<[u8]>,
    ) -> Result<(), Errno> {
        let (inode, ledger) = self.change(ino)?;
        if inode.names >= LINKS_MAX {
            return Err(Errno::TooManyLinks);
        }
        ledger.take_inode()?;
        inode.counted_links += 1;
        self.add(directory, name, ino)
    }

    /// Removes the name of a file or symbolic link. Who has it open goes on reading it.
    pub fn unlink(&mut self, at: At<'_>) -> Result<(), Errno> {
        let place = self.walk(at, Tail::Name)?;
        let name = place.name(Errno::IsDirectory)?.to_owned();
        let ino = place.ino.ok_or(Errno::NoEntry)?;
        if self.kind(ino) == Some(Kind::Directory) {
            return Err(Errno::IsDirectory);
        }
        if place.slash {
            return Err(Errno::NotDirectory);
        }
        self.remove(place.directory, &name, ino)
    }

    /// Removes an empty directory.
    pub fn remove_directory(&mut self, at: At<'_>) -> Result<(), Errno> {
        let place = self.walk(at, Tail::Name)?;
        let name = match place.last {
            crate::path::Last::Name(name) => name,
            crate::path::Last::Dot => return Err(Errno::Invalid),
            crate::path::Last::DotDot => return Err(Errno::NotEmpty),
            crate::path::Last::Root => return Err(Errno::Busy),
        };
        let ino = place.ino.ok_or(Errno::NoEntry)?;
        if self.kind(ino) != Some(Kind::Directory) {
            return Err(Errno::NotDirectory);
        }
        if !self.is_empty(ino) {
            return Err(Errno::NotEmpty);
        }
        self.remove(place.directory, &name, ino)
    }

    /// Moves a file, link or directory, in one step.
    pub fn rename(&mut self, from: At<'_>, to: At<'_>, replace: Replace) -> Result<(), Errno> {
        let old = self.walk(from, Tail::Name)?;
        let new = self.walk(to, Tail::Name)?;
        let old_name = old.name(Errno::Busy)?.to_owned();
        let new_name = match replace {
            Replace::Yes => new.name(Errno::Busy)?.to_owned(),
            Replace::No => new.name(Errno::Exists)?.to_owned(),
        };
        let ino = old.ino.ok_or(Errno::NoEntry)?;
        let is_directory = self.kind(ino) == Some(Kind::Directory);
        if replace == Replace::No && new.ino.is_some() {
            return Err(Errno::Exists);
        }
        if !is_directory && (old.slash || new.slash) {
            return Err(Errno::NotDirectory);
        }
        if is_directory && self.is_within(new.directory, ino) {
            return Err(Errno::Invalid);
        }
        if new
            .ino
            .is_some_and(|target| self.is_within(old.directory, target))
        {
            return Err(Errno::NotEmpty);
        }
        if new.ino == Some(ino) {
            return Ok(());
        }
        if let Some(target) = new.ino {
            self.may_replace(is_directory, target)?;
        }
        self.in_tree(new.directory)?;
        // Nothing fails from here on.
        self.change(ino)?;
        match new.ino {
            Some(target) => self.replace(new.directory, &new_name, ino, target)?,
            None => self.enter(new.directory, new_name.into(), ino)?,
        }
        self.leave(old.directory, &old_name, is_directory)?;
        if is_directory {
            self.change_directory(ino)?.parent = new.directory;
        }
        self.changed(ino);
        Ok(())
    }

    fn may_replace(&self, by_directory: bool, target: Ino) -> Result<(), Errno> {
        let directory = self.kind(target) == Some(Kind::Directory);
        match (by_directory, directory) {
            (true, false) => Err(Errno::NotDirectory),
            (false, true) => Err(Errno::IsDirectory),
            (true, true) if !self.is_empty(target) => Err(Errno::NotEmpty),
            _ => Ok(()),
        }
    }

    /// Whether a directory is `above` or lies in it.
    fn is_within(&self, directory: Ino, above: Ino) -> bool {
        let mut at = directory;
        loop {
            if at == above {
                return true;
            }
            match self.parent(at) {
                Some(parent) if parent != at => at = parent,
                _ => return false,
            }
        }
    }

    fn is_empty(&self, directory: Ino) -> bool {
        self.name_at_or_after(directory, 0).is_none()
    }

    /// The name of a place where something can be made.
    pub(crate) fn vacant(&self, place: &Place) -> Result<Box<[u8]>, Errno> {
        let name = place.name(Errno::Exists)?;
        if place.ino.is_some() {
            return Err(Errno::Exists);
        }
        self.in_tree(place.directory)?;
        Ok(name.into())
    }

    /// Refuses to make anything in a directory that was removed.
    fn in_tree(&self, directory: Ino) -> Result<(), Errno> {
        match self.view(directory) {
            Some(View::Own(inode)) if inode.names == 0 => Err(Errno::NoEntry),
            _ => self.ledger.writable(),
        }
    }

    /// Gives an inode a name that is free.
    pub(crate) fn add(&mut self, directory: Ino, name: Box<[u8]>, ino: Ino) -> Result<(), Errno> {
        self.enter(directory, name, ino)?;
        let (inode, _) = self.change(ino)?;
        inode.names += 1;
        self.changed(ino);
        Ok(())
    }

    fn enter(&mut self, directory: Ino, name: Box<[u8]>, ino: Ino) -> Result<(), Errno> {
        let is_directory = self.kind(ino) == Some(Kind::Directory);
        let names = self.change_directory(directory)?;
        names.add(name.into(), ino);
        names.subdirectories += u32::from(is_directory);
        self.modified(directory);
        Ok(())
    }

    fn leave(&mut self, directory: Ino, name: &[u8], is_directory: bool) -> Result<(), Errno> {
        let names = self.change_directory(directory)?;
        names.remove(name);
        names.subdirectories -= u32::from(is_directory);
        self.modified(directory);
        Ok(())
    }

    /// Makes a name that `target` has mean `ino`, of the same kind as far as directories go.
    fn replace(&mut self, directory: Ino, name: &[u8], ino: Ino, target: Ino) -> Result<(), Errno> {
        self.change_directory(directory)?.point(name, ino);
        self.modified(directory);
        self.drop_name(target)
    }

    fn remove(&mut self, directory: Ino, name: &[u8], ino: Ino) -> Result<(), Errno> {
        let is_directory = self.kind(ino) == Some(Kind::Directory);
        self.leave(directory, name, is_directory)?;
        self.drop_name(ino)
    }

    /// Takes note that an inode has a name less.
    fn drop_name(&mut self, ino: Ino) -> Result<(), Errno> {
        let (inode, ledger) = self.change(ino)?;
        inode.names = inode.names.saturating_sub(1);
        if inode.counted_links > 0 {
            inode.counted_links -= 1;
            ledger.give_inode();
        }
        self.changed(ino);
        self.forget(ino);
        Ok(())
    }
}
