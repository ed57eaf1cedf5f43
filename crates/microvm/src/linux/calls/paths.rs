//! Calls that name files by paths.

use files::{At, Ino, Kind, OpenFlags, Replace};

use super::super::descriptor::{
    O_ACCMODE, O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH, O_RDWR, O_TMPFILE,
    O_TRUNC, O_WRONLY, Object,
};
use super::super::errno::Errno;
use super::super::process::{Answer, Call};
use super::super::pseudo::{self, Device, Pseudo};

const AT_FDCWD: i32 = -100;
pub const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
const AT_REMOVEDIR: u32 = 0x200;
const AT_SYMLINK_FOLLOW: u32 = 0x400;
pub const AT_EMPTY_PATH: u32 = 0x1000;
const RENAME_NOREPLACE: u32 = 1;

/// A path, and the directory that it begins at.
pub struct Path {
    directory: Ino,
    text: Vec<u8>,
}

impl Path {
    /// As the files understand it.
    pub fn at(&self) -> At<'_> {
        At::rooted(self.directory, &self.text)
    }

    /// What the system makes up there.
    pub fn pseudo(&self) -> Option<Pseudo> {
        self.text
            .starts_with(b"/")
            .then(|| pseudo::find(&self.text))
            .flatten()
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Fails where the system makes something up: nothing can be changed there.
    fn check_real(&self) -> Result<(), Errno> {
        match self.pseudo() {
            Some(_) => Err(Errno::EACCES),
            None => Ok(()),
        }
    }
}

/// The path at `address`, from the directory that `descriptor` is.
pub fn path(call: &mut Call<'_>, descriptor: i32, address: u64) -> Result<Path, Errno> {
    let text = call.text(address)?;
    let directory = match descriptor {
        AT_FDCWD => call.process.directory,
        _ if text.starts_with(b"/") => Ino::ROOT,
        _ => match &call.process.descriptors.find(descriptor)?.object {
            Object::File(file) if file.kind() == Kind::Directory || text.is_empty() => file.ino(),
            _ if text.is_empty() => Ino::ROOT,
            _ => return Err(Errno::ENOTDIR),
        },
    };
    Ok(Path { directory, text })
}

fn here(call: &mut Call<'_>, index: usize) -> Result<Path, Errno> {
    let address = call.arg(index);
    path(call, AT_FDCWD, address)
}

fn there(call: &mut Call<'_>, descriptor: usize, index: usize) -> Result<Path, Errno> {
    let (descriptor, address) = (call.int(descriptor), call.arg(index));
    path(call, descriptor, address)
}

/// `open`.
pub fn open(call: &mut Call<'_>) -> Answer {
    let path = here(call, 0)?;
    open_path(call, &path, call.uint(1), call.uint(2))
}

/// `creat`.
pub fn creat(call: &mut Call<'_>) -> Answer {
    let path = here(call, 0)?;
    open_path(call, &path, O_CREAT | O_WRONLY | O_TRUNC, call.uint(1))
}

/// `openat`.
pub fn openat(call: &mut Call<'_>) -> Answer {
    let path = there(call, 0, 1)?;
    open_path(call, &path, call.uint(2), call.uint(3))
}

fn open_path(call: &mut Call<'_>, path: &Path, flags: u32, mode: u32) -> Answer {
    call.process.descriptors.check_room()?;
    if let Some(pseudo) = path.pseudo() {
        return open_pseudo(call, pseudo, flags);
    }
    if flags & O_TMPFILE == O_TMPFILE {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let access = flags & O_ACCMODE;
    let only_path = flags & O_PATH != 0;
    let wanted = OpenFlags {
        read: !only_path && access != O_WRONLY,
        write: !only_path && (access == O_WRONLY || access == O_RDWR),
        append: flags & O_APPEND != 0,
        create: !only_path && flags & O_CREAT != 0,
        exclusive: flags & O_EXCL != 0,
        truncate: !only_path && flags & O_TRUNC != 0,
        directory: flags & O_DIRECTORY != 0,
        no_follow: flags & O_NOFOLLOW != 0,
    };
    let mode = mode as u16 & 0o7777 & !call.process.umask;
    let file = call.process.files.open(path.at(), wanted, mode)?;
    let kept = flags & !(O_CREAT | O_EXCL | O_TRUNC);
    Ok(call.process.add_descriptor(Object::File(file), kept)?)
}

fn open_pseudo(call: &mut Call<'_>, pseudo: Pseudo, flags: u32) -> Answer {
    if flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL {
        return Err(Errno::EEXIST.into());
    }
    let writes = flags & O_ACCMODE != 0;
    let object = match pseudo {
        Pseudo::Device(Device::Descriptor(descriptor)) => {
            let close = flags & super::super::descriptor::O_CLOEXEC != 0;
            let opened = call.process.descriptors.duplicate(descriptor, 0, close);
            return Ok(opened.map_err(|_| Errno::ENOENT)?.into());
        }
        Pseudo::Device(device) => {
            call.process.asked.random |= device == Device::Random;
            pseudo::object(device).ok_or(Errno::ENOENT)?
        }
        Pseudo::Text(_) if writes => return Err(Errno::EACCES.into()),
        Pseudo::Text(number) => Object::Text(pseudo::text(call.process, number), 0),
        Pseudo::Link(_) => return Err(Errno::ENOENT.into()),
        Pseudo::Directory => return Err(Errno::EACCES.into()),
    };
    Ok(call.process.add_descriptor(object, flags & !O_CREAT)?)
}

/// `access`.
pub fn access(call: &mut Call<'_>) -> Answer {
    let path = here(call, 0)?;
    access_path(call, &path, call.uint(1), true)
}

/// `faccessat`, `faccessat2`.
pub fn faccessat(call: &mut Call<'_>) -> Answer {
    let path = there(call, 0, 1)?;
    // Only the later call has flags, and the earlier one leaves anything there.
    let flags = if call.request.number == 439 {
        call.uint(3)
    } else {
        0
    };
    access_path(call, &path, call.uint(2), flags & AT_SYMLINK_NOFOLLOW == 0)
}

fn access_path(call: &mut Call<'_>, path: &Path, wanted: u32, follow: bool) -> Answer {
    let bits = match path.pseudo() {
        Some(Pseudo::Device(_)) => 0o6,
        Some(Pseudo::Directory | Pseudo::Link(_)) => 0o5,
        Some(Pseudo::Text(_)) => 0o4,
        None => {
            let mode = call.process.files.stat_at(path.at(), follow)?.mode;
            u32::from(mode >> 6 | mode >> 3 | mode) & 0o7
        }
    };
    if wanted & !bits & 0o7 == 0 {
        Ok(0)
    } else {
        Err(Errno::EACCES.into())
    }
}

/// `getcwd`.
pub fn getcwd(call: &mut Call<'_>) -> Answer {
    let mut path = call
        .process
        .files
        .path_of(call.process.directory)
        .ok_or(Errno::ENOENT)?;
    path.push(0);
    if path.len() as u64 > call.arg(1) {
        return Err(Errno::ERANGE.into());
    }
    call.write(call.arg(0), &path)?;
    Ok(path.len() as u64)
}

/// `chdir`.
pub fn chdir(call: &mut Call<'_>) -> Answer {
    let path = here(call, 0)?;
    let stat = call.process.files.stat_at(path.at(), true)?;
    if stat.kind != Kind::Directory {
        return Err(Errno::ENOTDIR.into());
    }
    call.process.directory = stat.ino;
    Ok(0)
}

/// `fchdir`.
pub fn fchdir(call: &mut Call<'_>) -> Answer {
    match &call.process.descriptors.find(call.int(0))?.object {
        Object::File(file) if file.kind() == Kind::Directory => {
            call.process.directory = file.ino();
            Ok(0)
        }
        _ => Err(Errno::ENOTDIR.into()),
    }
}

/// `mkdir`.
pub fn mkdir(call: &mut Call<'_>) -> Answer {
    let path = here(call, 0)?;
    make_directory(call, &path, call.uint(1))
}

/// `mkdirat`.
pub fn mkdirat(call: &mut Call<'_>) -> Answer {
    let path = there(call, 0, 1)?;
    make_directory(call, &path, call.uint(2))
}

fn make_directory(call: &mut Call<'_>, path: &Path, mode: u32) -> Answer {
    let mode = mode as u16 & 0o1777 & !call.process.umask;
    call.process.files.make_directory(path.at(), mode)?;
    Ok(0)
}

/// `rmdir`.
pub fn rmdir(call: &mut Call<'_>) -> Answer {
    let path = here(call, 0)?;
    call.process.files.remove_directory(path.at())?;
    Ok(0)
}

/// `unlink`.
pub fn unlink(call: &mut Call<'_>) -> Answer {
    let path = here(call, 0)?;
    path.check_real()?;
    call.process.files.unlink(path.at())?;
    Ok(0)
}

/// `unlinkat`.
pub fn unlinkat(call: &mut Call<'_>) -> Answer {
    let path = there(call, 0, 1)?;
    path.check_real()?;
    match call.uint(2) {
        0 => call.process.files.unlink(path.at())?,
        AT_REMOVEDIR => call.process.files.remove_directory(path.at())?,
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// `rename`.
pub fn rename(call: &mut Call<'_>) -> Answer {
    let (from, to) = (here(call, 0)?, here(call, 1)?);
    rename_paths(call, &from, &to, 0)
}

/// `renameat`, `renameat2`.
pub fn renameat(call: &mut Call<'_>) -> Answer {
    let (from, to) = (there(call, 0, 1)?, there(call, 2, 3)?);
    let flags = if call.request.number == 316 {
        call.uint(4)
    } else {
        0
    };
    rename_paths(call, &from, &to, flags)
}

fn rename_paths(call: &mut Call<'_>, from: &Path, to: &Path, flags: u32) -> Answer {
    from.check_real()?;
    to.check_real()?;
    let replace = match flags {
        0 => Replace::Yes,
        RENAME_NOREPLACE => Replace::No,
        _ => return Err(Errno::EINVAL.into()),
    };
    call.process.files.rename(from.at(), to.at(), replace)?;
    Ok(0)
}

/// `link`.
pub fn link(call: &mut Call<'_>) -> Answer {
    let (from, to) = (here(call, 0)?, here(call, 1)?);
    call.process.files.link(from.at(), false, to.at())?;
    Ok(0)
}

/// `linkat`.
pub fn linkat(call: &mut Call<'_>) -> Answer {
    let (from, to) = (there(call, 0, 1)?, there(call, 2, 3)?);
    let follow = call.uint(4) & AT_SYMLINK_FOLLOW != 0;
    call.process.files.link(from.at(), follow, to.at())?;
    Ok(0)
}

/// `symlink`.
pub fn symlink(call: &mut Call<'_>) -> Answer {
    let target = call.text(call.arg(0))?;
    let path = here(call, 1)?;
    call.process.files.make_symlink(&target, path.at())?;
    Ok(0)
}

/// `symlinkat`.
pub fn symlinkat(call: &mut Call<'_>) -> Answer {
    let target = call.text(call.arg(0))?;
    let path = there(call, 1, 2)?;
    call.process.files.make_symlink(&target, path.at())?;
    Ok(0)
}

/// `readlink`.
pub fn readlink(call: &mut Call<'_>) -> Answer {
    let path = here(call, 0)?;
    read_link(call, &path, call.arg(1), call.arg(2))
}

/// `readlinkat`.
pub fn readlinkat(call: &mut Call<'_>) -> Answer {
    let path = there(call, 0, 1)?;
    read_link(call, &path, call.arg(2), call.arg(3))
}

fn read_link(call: &mut Call<'_>, path: &Path, to: u64, bytes: u64) -> Answer {
    if bytes == 0 || bytes > i32::MAX as u64 {
        return Err(Errno::EINVAL.into());
    }
    let mut target = match path.pseudo() {
        Some(Pseudo::Link(link)) => pseudo::target(call.process, link),
        Some(Pseudo::Device(Device::Descriptor(descriptor))) => {
            super::describe::name(call.process, descriptor)?
        }
        Some(_) => return Err(Errno::EINVAL.into()),
        None => call.process.files.read_link(path.at())?.to_vec(),
    };
    target.truncate(bytes as usize);
    call.write(to, &target)?;
    Ok(target.len() as u64)
}

/// `truncate`.
pub fn truncate(call: &mut Call<'_>) -> Answer {
    let path = here(call, 0)?;
    let bytes = length(call.arg(1))?;
    call.process.files.truncate_at(path.at(), bytes)?;
    Ok(0)
}

/// A length, which is never negative.
pub fn length(word: u64) -> Result<u64, Errno> {
    if word > i64::MAX as u64 {
        Err(Errno::EINVAL)
    } else {
        Ok(word)
    }
}

/// `chmod`.
pub fn chmod(call: &mut Call<'_>) -> Answer {
    let path = here(call, 0)?;
    set_mode(call, &path, call.uint(1))
}

/// `fchmodat`.
pub fn fchmodat(call: &mut Call<'_>) -> Answer {
    let path = there(call, 0, 1)?;
    set_mode(call, &path, call.uint(2))
}

fn set_mode(call: &mut Call<'_>, path: &Path, mode: u32) -> Answer {
    path.check_real()?;
    let ino = call.process.files.find(path.at(), true)?;
    call.process.files.set_mode(ino, mode as u16)?;
    Ok(0)
}

/// `chown` and its like: everything has one owner already.
pub fn chown(call: &mut Call<'_>) -> Answer {
    let path = here(call, 0)?;
    if path.pseudo().is_none() {
        call.process
            .files
            .find(path.at(), call.request.number == 92)?;
    }
    Ok(0)
}

/// `fchownat`.
pub fn fchownat(call: &mut Call<'_>) -> Answer {
    let path = there(call, 0, 1)?;
    if path.pseudo().is_none() && !path.is_empty() {
        call.process.files.find(path.at(), false)?;
    }
    Ok(0)
}

/// `umask`.
pub fn umask(call: &mut Call<'_>) -> Answer {
    let new = call.uint(0) as u16 & 0o777;
    let old = std::mem::replace(&mut call.process.umask, new);
    Ok(old.into())
}

/// `utimensat`; without a path it is `futimens`.
pub fn utimensat(call: &mut Call<'_>) -> Answer {
    const UTIME_NOW: u64 = 0x3fff_ffff;
    const UTIME_OMIT: u64 = 0x3fff_fffe;
    let ino = match call.arg(1) {
        0 => match &call.process.descriptors.find(call.int(0))?.object {
            Object::File(file) => file.ino(),
            _ => return Ok(0),
        },
        _ => {
            let path = there(call, 0, 1)?;
            let follow = call.uint(3) & AT_SYMLINK_NOFOLLOW == 0;
            call.process.files.find(path.at(), follow)?
        }
    };
    let now = call.process.now.realtime_ns;
    let mut times = [Some(now); 2];
    if call.arg(2) != 0 {
        let words: [u64; 4] = call.read_words(call.arg(2))?;
        for (index, time) in times.iter_mut().enumerate() {
            let (seconds, ns) = (words[index * 2], words[index * 2 + 1]);
            *time = match ns {
                UTIME_NOW => Some(now),
                UTIME_OMIT => None,
                0..1_000_000_000 => Some(seconds.saturating_mul(1_000_000_000).saturating_add(ns)),
                _ => return Err(Errno::EINVAL.into()),
            };
        }
    }
    call.process.files.set_times(ino, times[0], times[1])?;
    Ok(0)
}
