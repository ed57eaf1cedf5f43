//! Calls on paths.

use files::{OpenFlags, Replace};

use super::Preview1;
use super::abi::{Code, fdflags, oflags, rights};
use super::descriptors::{Body, Descriptor};
use super::fd::{put_filestat, times};
use super::guest::{Fail, Guest, Span};

const DIRECTORY_MODE: u16 = 0o755;
const FILE_MODE: u16 = 0o644;
/// The bit that says to follow a symbolic link at the end of a path.
const SYMLINK_FOLLOW: u32 = 1;

/// How a guest asks for a path to be opened.
pub(super) struct Opening {
    pub lookup: u32,
    pub how: u32,
    pub rights: u64,
    pub flags: u32,
    /// Where the descriptor's number goes.
    pub out: u32,
}

fn follows(lookup: u32) -> Result<bool, Fail> {
    match lookup & !SYMLINK_FOLLOW {
        0 => Ok(lookup & SYMLINK_FOLLOW != 0),
        _ => Err(Code::INVAL.into()),
    }
}

impl Preview1 {
    pub(super) fn path_create_directory(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        path: Span,
    ) -> Result<(), Fail> {
        let at = self.descriptors.at(fd, guest.path(path)?)?;
        self.files.make_directory(at, DIRECTORY_MODE)?;
        Ok(())
    }

    pub(super) fn path_filestat_get(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        lookup: u32,
        path: Span,
        out: u32,
    ) -> Result<(), Fail> {
        let follow = follows(lookup)?;
        let at = self.descriptors.at(fd, guest.path(path)?)?;
        let stat = self.files.stat_at(at, follow)?;
        put_filestat(guest, out, &stat)
    }

    pub(super) fn path_filestat_set_times(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        lookup: u32,
        path: Span,
        (accessed, modified, flags): (u64, u64, u32),
    ) -> Result<(), Fail> {
        let (accessed, modified) = times(accessed, modified, flags)?;
        let follow = follows(lookup)?;
        let at = self.descriptors.at(fd, guest.path(path)?)?;
        let ino = self.files.find(at, follow)?;
        Ok(self.files.set_times(ino, accessed, modified)?)
    }

    pub(super) fn path_link(
        &mut self,
        guest: &mut Guest,
        (old_fd, lookup, old): (u32, u32, Span),
        (new_fd, new): (u32, Span),
    ) -> Result<(), Fail> {
        let follow = follows(lookup)?;
        let from = self.descriptors.at(old_fd, guest.path(old)?)?;
        let to = self.descriptors.at(new_fd, guest.path(new)?)?;
        Ok(self.files.link(from, follow, to)?)
    }

    pub(super) fn path_open(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        path: Span,
        opening: &Opening,
    ) -> Result<(), Fail> {
        if opening.how & !oflags::ALL != 0 || opening.flags & !fdflags::ALL != 0 {
            return Err(Code::INVAL.into());
        }
        let has = |bit: u32| opening.how & bit != 0;
        let write = opening.rights & rights::FD_WRITE != 0;
        let flags = OpenFlags {
            // What is opened for neither can be read: a descriptor of POSIX can always do one.
            read: opening.rights & rights::FD_READ != 0 || !write,
            write,
            append: opening.flags & fdflags::APPEND != 0,
            create: has(oflags::CREAT),
            exclusive: has(oflags::EXCL),
            truncate: has(oflags::TRUNC),
            directory: has(oflags::DIRECTORY),
            no_follow: !follows(opening.lookup)?,
        };
        let at = self.descriptors.at(fd, guest.path(path)?)?;
        let file = self.files.open(at, flags, FILE_MODE)?;
        let added = self
            .descriptors
            .add(Descriptor::of(Body::Open(file), opening.flags));
        match added {
            Ok(fd) => guest.put_u32(opening.out, fd),
            Err(refused) => {
                if let Body::Open(file) = refused.body {
                    self.files.close(file);
                }
                Err(Code::MFILE.into())
            }
        }
    }

    pub(super) fn path_readlink(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        path: Span,
        into: Span,
        out: u32,
    ) -> Result<(), Fail> {
        let at = self.descriptors.at(fd, guest.path(path)?)?;
        let target = self.files.read_link(at)?;
        let count = target.len().min(into.bytes as usize);
        guest.write(into.at, &target[..count])?;
        guest.put_u32(out, count as u32)
    }

    pub(super) fn path_remove_directory(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        path: Span,
    ) -> Result<(), Fail> {
        let at = self.descriptors.at(fd, guest.path(path)?)?;
        Ok(self.files.remove_directory(at)?)
    }

    pub(super) fn path_rename(
        &mut self,
        guest: &mut Guest,
        (old_fd, old): (u32, Span),
        (new_fd, new): (u32, Span),
    ) -> Result<(), Fail> {
        let from = self.descriptors.at(old_fd, guest.path(old)?)?;
        let to = self.descriptors.at(new_fd, guest.path(new)?)?;
        Ok(self.files.rename(from, to, Replace::Yes)?)
    }

    /// A link to an absolute path would lead out of the directory, which nothing does.
    pub(super) fn path_symlink(
        &mut self,
        guest: &mut Guest,
        target: Span,
        fd: u32,
        path: Span,
    ) -> Result<(), Fail> {
        let target = guest.path(target)?;
        if target.first() == Some(&b'/') {
            return Err(Code::PERM.into());
        }
        let at = self.descriptors.at(fd, guest.path(path)?)?;
        self.files.make_symlink(target, at)?;
        Ok(())
    }

    pub(super) fn path_unlink_file(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        path: Span,
    ) -> Result<(), Fail> {
        let at = self.descriptors.at(fd, guest.path(path)?)?;
        Ok(self.files.unlink(at)?)
    }
}
