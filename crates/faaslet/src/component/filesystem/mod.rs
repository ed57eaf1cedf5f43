//! `wasi:filesystem` 0.2 and 0.3 over the files of the `files` crate.
//!
//! A call's files are made when it first asks for its root, which is all that a call without files
//! pays. What is open keeps them, and closes itself when it is dropped.

mod convert;
mod p2;
mod p3;
mod streams;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use files::{At, Errno, Files, Ino, Kind, Layer, OpenFile, OpenFlags, Quota, Replace, Stat};
use model::Limits;
use parking_lot::Mutex;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use super::engine::Flavour;
use super::guest::Guest;

/// Most that a guest has open at once, streams included.
const OPEN_MAX: usize = 4096;
const FILE_MODE: u16 = 0o644;
const DIRECTORY_MODE: u16 = 0o755;

/// The files of one call, until it asks for them.
pub(super) struct GuestFiles {
    layer: Arc<Layer>,
    quota: Quota,
    shared: Option<Arc<Mutex<Files>>>,
}

impl Default for GuestFiles {
    fn default() -> Self {
        Self {
            layer: Layer::empty(),
            quota: Quota::NONE,
            shared: None,
        }
    }
}

impl GuestFiles {
    pub fn new(layer: &Arc<Layer>, limits: &Limits) -> Self {
        Self {
            layer: layer.clone(),
            quota: Quota {
                bytes_max: limits.files_bytes_max,
                inodes_max: limits.files_max.into(),
            },
            shared: None,
        }
    }

    fn root(&mut self) -> Opened {
        let Self { layer, quota, .. } = self;
        let make = || Arc::new(Mutex::new(Files::new(layer.clone(), *quota)));
        let files = self.shared.get_or_insert_with(make).clone();
        let file = files.lock().open_root();
        Opened {
            files,
            file: Some(file),
            mutate: true,
        }
    }
}

/// The interfaces' host: what a call has of files, and where its resources are.
pub(super) struct FilesHost;

impl HasData for FilesHost {
    type Data<'a> = FilesView<'a>;
}

/// See [`FilesHost`].
pub(super) struct FilesView<'a> {
    pub files: &'a mut GuestFiles,
    pub table: &'a mut ResourceTable,
}

/// The handle that the interfaces' types have; what it stands for in the table is [`Opened`].
type Handle = Resource<wasmtime_wasi::filesystem::Descriptor>;

fn opened<'a>(table: &'a ResourceTable, handle: &Handle) -> wasmtime::Result<&'a Opened> {
    Ok(table.get(&Resource::<Opened>::new_borrow(handle.rep()))?)
}

impl FilesView<'_> {
    fn opened(&self, handle: &Handle) -> wasmtime::Result<&Opened> {
        opened(self.table, handle)
    }

    fn keep(&mut self, opened: Opened) -> wasmtime::Result<Handle> {
        let kept = self.table.push(opened)?;
        Ok(Resource::new_own(kept.rep()))
    }

    fn close(&mut self, handle: &Handle) -> wasmtime::Result<()> {
        self.table
            .delete(Resource::<Opened>::new_own(handle.rep()))?;
        Ok(())
    }

    /// The one directory that a guest is given, and its name.
    fn directories(&mut self) -> wasmtime::Result<Vec<(Handle, String)>> {
        let root = self.files.root();
        Ok(vec![(self.keep(root)?, "/".to_owned())])
    }
}

/// Takes the place of the file interfaces that a linker has already.
pub(super) fn add_files(linker: &mut Linker<Guest>, flavour: Flavour) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    p2::add_to_linker(linker)?;
    if flavour == Flavour::Concurrent {
        p3::add_to_linker(linker)?;
    }
    linker.allow_shadowing(false);
    Ok(())
}

/// How a guest asks for a path to be opened.
pub(super) struct Opening {
    flags: OpenFlags,
    /// Whether it asks to change what is in a directory.
    mutate: bool,
}

/// What a descriptor says that it was opened for.
pub(super) struct Modes {
    read: bool,
    write: bool,
    mutate: bool,
}

/// Something that is open.
pub(super) struct Opened {
    files: Arc<Mutex<Files>>,
    /// Only taken to be closed.
    file: Option<OpenFile>,
    /// Whether it was asked for to change what is in it. It is told, and nothing is refused for it:
    /// programs of preview 1, through their adapter, never ask.
    mutate: bool,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            self.files.lock().close(file);
        }
    }
}

impl Opened {
    fn with<T>(
        &self,
        act: impl FnOnce(&mut Files, &OpenFile) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let file = self.file.as_ref().ok_or(Errno::BadFile)?;
        act(&mut self.files.lock(), file)
    }

    /// The same file, open once more.
    fn again(&self) -> Result<Self, Errno> {
        self.room()?;
        let file = self.with(|files, file| Ok(files.reopen(file)))?;
        Ok(Self {
            files: self.files.clone(),
            file: Some(file),
            mutate: self.mutate,
        })
    }

    fn room(&self) -> Result<(), Errno> {
        match Arc::strong_count(&self.files) > OPEN_MAX {
            true => Err(Errno::NoSpace),
            false => Ok(()),
        }
    }

    fn ino(&self) -> Result<Ino, Errno> {
        self.with(|_, file| Ok(file.ino()))
    }

    fn kind(&self) -> Result<Kind, Errno> {
        self.with(|_, file| Ok(file.kind()))
    }

    fn modes(&self) -> Result<Modes, Errno> {
        self.with(|_, file| {
            Ok(Modes {
                read: file.read,
                write: file.write,
                mutate: self.mutate && file.kind() == Kind::Directory,
            })
        })
    }

    /// Refuses what is no regular file.
    fn as_file(&self) -> Result<&Self, Errno> {
        match self.kind()? {
            Kind::File => Ok(self),
            _ => Err(Errno::BadFile),
        }
    }

    fn at<T>(
        &self,
        path: &str,
        act: impl FnOnce(&mut Files, At<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.with(|files, file| match file.kind() {
            Kind::Directory => act(files, At::beneath(file.ino(), path.as_bytes())),
            _ => Err(Errno::NotDirectory),
        })
    }

    fn stat(&self) -> Result<Stat, Errno> {
        self.with(|files, file| files.stat(file.ino()))
    }

    fn stat_at(&self, path: &str, follow: bool) -> Result<Stat, Errno> {
        self.at(path, |files, at| files.stat_at(at, follow))
    }

    fn set_times(&self, times: (Option<u64>, Option<u64>)) -> Result<(), Errno> {
        self.with(|files, file| files.set_times(file.ino(), times.0, times.1))
    }

    fn set_times_at(
        &self,
        path: &str,
        follow: bool,
        times: (Option<u64>, Option<u64>),
    ) -> Result<(), Errno> {
        self.at(path, |files, at| {
            let ino = files.find(at, follow)?;
            files.set_times(ino, times.0, times.1)
        })
    }

    fn set_size(&self, bytes: u64) -> Result<(), Errno> {
        self.as_file()?
            .with(|files, file| files.truncate(file, bytes))
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<usize, Errno> {
        // What would end past the largest offset ends there, as at the end of a file.
        let room = (i64::MAX as u64).saturating_sub(offset);
        let fits = into.len().min(room.try_into().unwrap_or(usize::MAX));
        self.with(|files, file| files.read_at(file, offset, &mut into[..fits]))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        self.with(|files, file| files.write_at(file, offset, data))
    }

    fn append(&self, data: &[u8]) -> Result<usize, Errno> {
        self.with(|files, file| {
            let end = files.stat(file.ino())?.bytes;
            files.write_at(file, end, data)
        })
    }

    /// The names of a directory but `.` and `..`.
    fn names(&self) -> Result<Vec<(String, Kind)>, Errno> {
        self.with(|files, file| {
            let (mut cookie, mut names) = (0, Vec::new());
            while let Some(entry) = files.entry(file, cookie)? {
                cookie = entry.next_cookie;
                if !matches!(&*entry.name, b"." | b"..") {
                    let name = String::from_utf8_lossy(&entry.name).into_owned();
                    names.push((name, entry.kind));
                }
            }
            Ok(names)
        })
    }

    fn open_at(&self, path: &str, opening: &Opening) -> Result<Self, Errno> {
        let flags = opening.flags;
        if flags.directory && (flags.create || flags.exclusive || flags.truncate) {
            return Err(Errno::Invalid);
        }
        self.room()?;
        let mut file = self.at(path, |files, at| files.open(at, flags, FILE_MODE))?;
        // As with other hosts, who may make or empty a file may write it.
        file.write |= flags.create || flags.truncate;
        Ok(Self {
            files: self.files.clone(),
            file: Some(file),
            mutate: opening.mutate,
        })
    }

    fn make_directory_at(&self, path: &str) -> Result<(), Errno> {
        self.at(path, |files, at| {
            files.make_directory(at, DIRECTORY_MODE).map(|_| ())
        })
    }

    fn read_link_at(&self, path: &str) -> Result<String, Errno> {
        self.at(path, |files, at| {
            let target = files.read_link(at)?;
            Ok(String::from_utf8_lossy(target).into_owned())
        })
    }

    fn remove_directory_at(&self, path: &str) -> Result<(), Errno> {
        self.at(path, |files, at| files.remove_directory(at))
    }

    fn unlink_at(&self, path: &str) -> Result<(), Errno> {
        self.at(path, |files, at| files.unlink(at))
    }

    /// A link to an absolute path would lead out of the directory, which nothing does.
    fn make_symlink_at(&self, target: &str, path: &str) -> Result<(), Errno> {
        if target.starts_with('/') {
            return Err(Errno::NotPermitted);
        }
        self.at(path, |files, at| {
            files.make_symlink(target.as_bytes(), at).map(|_| ())
        })
    }

    fn link_at(&self, path: &str, follow: bool, to: &Opened, to_path: &str) -> Result<(), Errno> {
        let to = to.directory()?;
        self.at(path, |files, at| {
            files.link(at, follow, At::beneath(to, to_path.as_bytes()))
        })
    }

    fn rename_at(&self, path: &str, to: &Opened, to_path: &str) -> Result<(), Errno> {
        let to = to.directory()?;
        self.at(path, |files, at| {
            files.rename(at, At::beneath(to, to_path.as_bytes()), Replace::Yes)
        })
    }

    fn directory(&self) -> Result<Ino, Errno> {
        match self.kind()? {
            Kind::Directory => self.ino(),
            _ => Err(Errno::NotDirectory),
        }
    }
}

/// A number for what a file is now, that changes when it does.
fn hash(stat: &Stat) -> (u64, u64) {
    let words = [
        stat.ino.number(),
        stat.bytes,
        stat.times.modified_ns,
        stat.times.changed_ns,
    ];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let digest = model::Digest::of(&bytes);
    let half = |at: usize| {
        let bytes = digest.as_bytes()[at..at + 8].iter();
        bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    (half(0), half(8))
}
