//! Open files and directories: reading, writing, listing.

use serde::{Deserialize, Serialize};

use crate::Errno;
use crate::Files;
use crate::data::{Data, FILE_BYTES_MAX};
use crate::directory::{FIRST_COOKIE, Name};
use crate::inode::{Body, Ino, Kind, Stat};
use crate::layer::LayerBody;
use crate::path::{At, Last, Place, Tail};
use crate::tree::View;

/// How a file is opened. Without `read` and `write` it can be looked at only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// To read it.
    pub read: bool,
    /// To write it.
    pub write: bool,
    /// Each write goes to its end.
    pub append: bool,
    /// Make it if it is missing.
    pub create: bool,
    /// With `create`: fail if it is there.
    pub exclusive: bool,
    /// Make it empty.
    pub truncate: bool,
    /// Fail if it is no directory.
    pub directory: bool,
    /// Fail if the path ends in a symbolic link.
    pub no_follow: bool,
}

/// What an offset of a seek is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// The beginning.
    Start,
    /// Where the file stands.
    Current,
    /// The end.
    End,
}

/// An open file or directory: who opened it gives it back to [`Files::close`]. A copy belongs to a
/// copy of the files that it was opened in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenFile {
    ino: Ino,
    kind: Kind,
    /// Whether it may be read.
    pub read: bool,
    /// Whether it may be written.
    pub write: bool,
    /// Whether each write goes to the end.
    pub append: bool,
    /// Where the next read or write happens; of a directory, where listing goes on.
    pub offset: u64,
}

impl OpenFile {
    /// What is open.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

/// A name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name.
    pub name: Name,
    /// What it stands for.
    pub ino: Ino,
    /// What that is.
    pub kind: Kind,
    /// Where listing goes on after it.
    pub next_cookie: u64,
}

impl Files {
    /// Opens what is at a path, or makes a file there with the permission bits `mode`.
    pub fn open(&mut self, at: At<'_>, flags: OpenFlags, mode: u16) -> Result<OpenFile, Errno> {
        if flags.create && flags.directory {
            return Err(Errno::Invalid);
        }
        let tail = match () {
            () if flags.create && (flags.exclusive || flags.no_follow) => Tail::Name,
            () if flags.no_follow => Tail::Stay,
            () if flags.create => Tail::Create,
            () => Tail::Follow,
        };
        let place = self.walk(at, tail)?;
        if flags.create && place.slash && matches!(place.last, Last::Name(_)) {
            return Err(Errno::IsDirectory);
        }
        match place.ino {
            Some(_) if flags.create && flags.exclusive => Err(Errno::Exists),
            Some(ino) => self.open_found(ino, flags),
            None if flags.create => self.open_made(&place, flags, mode),
            None => Err(Errno::NoEntry),
        }
    }

    fn open_found(&mut self, ino: Ino, flags: OpenFlags) -> Result<OpenFile, Errno> {
        let stat = self.stat(ino)?;
        match stat.kind {
            Kind::Symlink if flags.directory => return Err(Errno::NotDirectory),
            Kind::Symlink => return Err(Errno::Loop),
            Kind::File if flags.directory => return Err(Errno::NotDirectory),
            Kind::Directory if flags.create || flags.write || flags.truncate => {
                return Err(Errno::IsDirectory);
            }
            Kind::File | Kind::Directory => {}
        }
        let refused = |asked: bool, bits: u16| asked && stat.mode & bits == 0;
        if refused(flags.read, 0o444) || refused(flags.write, 0o222) {
            return Err(Errno::Access);
        }
        if flags.write || flags.truncate {
            self.ledger.writable()?;
        }
        if flags.truncate {
            self.truncate_inode(ino, 0)?;
        }
        Ok(self.open_inode(ino, stat.kind, flags))
    }

    fn open_made(&mut self, place: &Place, flags: OpenFlags, mode: u16) -> Result<OpenFile, Errno> {
        if !matches!(place.last, Last::Name(_)) {
            return Err(Errno::IsDirectory);
        }
        let name = self.vacant(place)?;
        let ino = self.make(mode, Body::File(Data::default()))?;
        self.add(place.directory, name, ino)?;
        Ok(self.open_inode(ino, Kind::File, flags))
    }

    fn open_inode(&mut self, ino: Ino, kind: Kind, flags: OpenFlags) -> OpenFile {
        self.opened(ino);
        OpenFile {
            ino,
            kind,
            read: flags.read,
            write: flags.write,
            append: flags.append,
            offset: 0,
        }
    }

    /// Opens the root directory.
    pub fn open_root(&mut self) -> OpenFile {
        let flags = OpenFlags {
            read: true,
            ..OpenFlags::default()
        };
        self.open_inode(Ino::ROOT, Kind::Directory, flags)
    }

    /// Opens once more what is open: a descriptor that shares nothing with `file`.
    pub fn reopen(&mut self, file: &OpenFile) -> OpenFile {
        let flags = OpenFlags {
            read: file.read,
            write: file.write,
            append: file.append,
            ..OpenFlags::default()
        };
        self.open_inode(file.ino, file.kind, flags)
    }

    /// Ends the use of an open file; one without a name is gone then.
    pub fn close(&mut self, file: OpenFile) {
        self.closed(file.ino);
    }

    /// Reads from where the file stands; 0 at its end.
    pub fn read(&mut self, file: &mut OpenFile, into: &mut [u8]) -> Result<usize, Errno> {
        let count = self.read_at(file, file.offset, into)?;
        file.offset += count as u64;
        Ok(count)
    }

    /// Reads at an offset; 0 past the end.
    pub fn read_at(
        &mut self,
        file: &OpenFile,
        offset: u64,
        into: &mut [u8],
    ) -> Result<usize, Errno> {
        within(offset, 0)?;
        if file.kind != Kind::Directory && !file.read {
            return Err(Errno::BadFile);
        }
        within(offset, into.len())?;
        if file.kind == Kind::Directory {
            return Err(Errno::IsDirectory);
        }
        let count = match self.view(file.ino).ok_or(Errno::Io)? {
            View::Own(inode) => match &inode.body {
                Body::File(data) => data.read(offset, into),
                _ => return Err(Errno::Invalid),
            },
            View::Layer(node) => match &node.body {
                LayerBody::File(contents) => contents.read(offset, into),
                _ => return Err(Errno::Invalid),
            },
        };
        self.accessed(file.ino);
        Ok(count)
    }

    /// Writes where the file stands, or at its end if it was opened to append. What the quota does
    /// not hold is left out; if that is everything, it fails.
    pub fn write(&mut self, file: &mut OpenFile, data: &[u8]) -> Result<usize, Errno> {
        let offset = match file.append {
            true => self.stat(file.ino)?.bytes,
            false => file.offset,
        };
        let count = self.write_at(file, offset, data)?;
        // A write of nothing leaves it where it stands, also one that would go to the end.
        if count > 0 {
            file.offset = offset + count as u64;
        }
        Ok(count)
    }

    /// Writes at an offset, as [`Files::write`] does.
    pub fn write_at(&mut self, file: &OpenFile, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        within(offset, 0)?;
        if !file.write {
            return Err(Errno::BadFile);
        }
        within(offset, data.len())?;
        if data.is_empty() {
            return Ok(0);
        }
        let (inode, ledger) = self.change(file.ino)?;
        let Body::File(contents) = &mut inode.body else {
            return Err(Errno::Invalid);
        };
        let count = contents.write(offset, data, ledger)?;
        self.modified(file.ino);
        Ok(count)
    }

    /// Moves where the file stands. A directory goes back to its beginning, or to a cookie.
    pub fn seek(&self, file: &mut OpenFile, delta: i64, whence: Whence) -> Result<u64, Errno> {
        let from = match whence {
            Whence::Start => 0,
            Whence::Current => file.offset,
            Whence::End => self.stat(file.ino)?.bytes,
        };
        let to = from.checked_add_signed(delta).ok_or(Errno::Invalid)?;
        if to > FILE_BYTES_MAX {
            return Err(Errno::Invalid);
        }
        file.offset = to;
        Ok(to)
    }

    /// Makes an open file `bytes` long.
    pub fn truncate(&mut self, file: &OpenFile, bytes: u64) -> Result<(), Errno> {
        if file.kind != Kind::File || !file.write {
            return Err(Errno::Invalid);
        }
        self.truncate_inode(file.ino, bytes)
    }

    /// Makes the file at a path `bytes` long.
    pub fn truncate_at(&mut self, at: At<'_>, bytes: u64) -> Result<(), Errno> {
        let ino = self.find(at, true)?;
        match self.stat(ino)? {
            Stat {
                kind: Kind::Directory,
                ..
            } => Err(Errno::IsDirectory),
            Stat { mode, .. } if mode & 0o222 == 0 => Err(Errno::Access),
            _ => self.truncate_inode(ino, bytes),
        }
    }

    fn truncate_inode(&mut self, ino: Ino, bytes: u64) -> Result<(), Errno> {
        let (inode, ledger) = self.change(ino)?;
        let Body::File(contents) = &mut inode.body else {
            return Err(Errno::Invalid);
        };
        contents.truncate(bytes, ledger)?;
        self.modified(ino);
        Ok(())
    }

    /// Makes sure that writes to `length` bytes at `offset` will find room, and that the file
    /// reaches to their end.
    pub fn allocate(&mut self, file: &OpenFile, offset: u64, length: u64) -> Result<(), Errno> {
        if length == 0 {
            return Err(Errno::Invalid);
        }
        if !file.write {
            return Err(Errno::BadFile);
        }
        let (inode, ledger) = self.change(file.ino)?;
        let Body::File(contents) = &mut inode.body else {
            return Err(Errno::Invalid);
        };
        contents.allocate(offset, length, ledger)?;
        self.changed(file.ino);
        Ok(())
    }

    /// Sets the times of an inode; `None` leaves one as it is.
    pub fn set_times(
        &mut self,
        ino: Ino,
        accessed_ns: Option<u64>,
        modified_ns: Option<u64>,
    ) -> Result<(), Errno> {
        let (inode, _) = self.change(ino)?;
        let times = &mut inode.times;
        times.accessed_ns = accessed_ns.unwrap_or(times.accessed_ns);
        times.modified_ns = modified_ns.unwrap_or(times.modified_ns);
        self.changed(ino);
        Ok(())
    }

    /// Sets the permission bits of an inode.
    pub fn set_mode(&mut self, ino: Ino, mode: u16) -> Result<(), Errno> {
        let (inode, _) = self.change(ino)?;
        inode.mode = mode & 0o7777;
        self.changed(ino);
        Ok(())
    }

    /// The entry of an open directory at `cookie` or after it; `None` at the end. Listing begins
    /// with cookie 0, and goes on with the entry's own: what was there all the while is listed
    /// once, whatever is made or removed meanwhile.
    pub fn entry(&self, directory: &OpenFile, cookie: u64) -> Result<Option<DirEntry>, Errno> {
        if directory.kind != Kind::Directory {
            return Err(Errno::NotDirectory);
        }
        let ino = directory.ino;
        if self.stat(ino)?.links == 0 {
            return Ok(None);
        }
        let dots: [(&[u8], Ino); FIRST_COOKIE as usize] =
            [(b".", ino), (b"..", self.parent(ino).unwrap_or(ino))];
        if let Some((name, ino)) = usize::try_from(cookie).ok().and_then(|at| dots.get(at)) {
            return Ok(Some(DirEntry {
                name: Name::from(*name),
                ino: *ino,
                kind: Kind::Directory,
                next_cookie: cookie + 1,
            }));
        }
        let Some((name, child, at)) = self.name_at_or_after(ino, cookie) else {
            return Ok(None);
        };
        Ok(Some(DirEntry {
            name,
            ino: child,
            kind: self.kind(child).ok_or(Errno::Io)?,
            next_cookie: at + 1,
        }))
    }
}

/// Refuses bytes that no file has: Linux takes their offset, or that of their end, for negative.
fn within(offset: u64, length: usize) -> Result<(), Errno> {
    match offset.checked_add(length as u64) {
        Some(end) if end <= FILE_BYTES_MAX => Ok(()),
        _ => Err(Errno::Invalid),
    }
}
