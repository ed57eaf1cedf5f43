//! `wasi:filesystem` 0.3. No call waits, so each is done under one access to the store.

use files::{Errno, Kind};
use wasmtime::component::{Access, Accessor, FutureReader, Linker, StreamReader};
use wasmtime_wasi::p3::bindings::filesystem::{preopens, types};
use wasmtime_wasi::p3::filesystem::{FilesystemError, FilesystemResult};

use super::convert::{p3_code, p3_kind, p3_modes, p3_open, p3_stat, p3_time};
use super::streams::{Consumed, Ending, Into, Produced, Reader, Writer};
use super::{FilesHost, FilesView, Handle, Opened, hash, opened};
use crate::component::guest::Guest;

type Ended = FutureReader<Result<(), types::ErrorCode>>;

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, FilesHost>(linker, Guest::files)?;
    preopens::add_to_linker::<_, FilesHost>(linker, Guest::files)
}

fn told(errno: Errno) -> FilesystemError {
    p3_code(errno).into()
}

fn follows(flags: types::PathFlags) -> bool {
    flags.contains(types::PathFlags::SYMLINK_FOLLOW)
}

/// Does what `act` says with what is open as `fd`.
fn with<U, T>(
    store: &Accessor<U, FilesHost>,
    fd: &Handle,
    act: impl FnOnce(&Opened) -> Result<T, Errno>,
) -> FilesystemResult<T> {
    store.with(|mut store| {
        let view = store.get();
        let opened = view.opened(fd).map_err(FilesystemError::trap)?;
        act(opened).map_err(told)
    })
}

/// Does what `act` says with two things that are open.
fn with_both<U, T>(
    store: &Accessor<U, FilesHost>,
    (fd, other): (&Handle, &Handle),
    act: impl FnOnce(&Opened, &Opened) -> Result<T, Errno>,
) -> FilesystemResult<T> {
    store.with(|mut store| {
        let view = store.get();
        let one = view.opened(fd).map_err(FilesystemError::trap)?;
        let other = view.opened(other).map_err(FilesystemError::trap)?;
        act(one, other).map_err(told)
    })
}

impl preopens::Host for FilesView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Handle, String)>> {
        self.directories()
    }
}

impl types::Host for FilesView<'_> {
    fn convert_error_code(&mut self, error: FilesystemError) -> wasmtime::Result<types::ErrorCode> {
        error.downcast()
    }
}

impl types::HostDescriptor for FilesView<'_> {
    fn drop(&mut self, fd: Handle) -> wasmtime::Result<()> {
        self.close(&fd)
    }
}

/// Pipes what comes from a guest into a file.
fn write<U>(
    mut store: Access<'_, U, FilesHost>,
    fd: &Handle,
    mut data: StreamReader<u8>,
    into: Into,
) -> wasmtime::Result<Ended> {
    let (mut ending, ended) = Ending::new();
    let writable = |opened: &Opened| match opened.as_file()?.modes()?.write {
        true => opened.again(),
        false => Err(Errno::BadFile),
    };
    match writable(opened(store.get().table, fd)?) {
        Ok(opened) => {
            let writer = Writer { opened, into };
            data.pipe(&mut store, Consumed { writer, ending })?;
        }
        Err(errno) => {
            data.close(&mut store)?;
            ending.tell(Err(errno));
        }
    }
    FutureReader::new(&mut store, ended)
}

impl<U> types::HostDescriptorWithStore<U> for FilesHost {
    fn read_via_stream(
        mut store: Access<'_, U, Self>,
        fd: Handle,
        offset: u64,
    ) -> wasmtime::Result<(StreamReader<u8>, Ended)> {
        let (mut ending, ended) = Ending::new();
        let readable = |opened: &Opened| match opened.kind()? {
            Kind::Directory => Err(Errno::IsDirectory),
            _ if !opened.modes()?.read => Err(Errno::BadFile),
            _ => opened.again(),
        };
        let stream = match readable(opened(store.get().table, &fd)?) {
            Ok(opened) => {
                let reader = Reader { opened, offset };
                StreamReader::new(&mut store, Produced { reader, ending })?
            }
            Err(errno) => {
                ending.tell(Err(errno));
                StreamReader::new(&mut store, std::iter::empty())?
            }
        };
        Ok((stream, FutureReader::new(&mut store, ended)?))
    }

    fn write_via_stream(
        store: Access<'_, U, Self>,
        fd: Handle,
        data: StreamReader<u8>,
        offset: u64,
    ) -> wasmtime::Result<Ended> {
        write(store, &fd, data, Into::Offset(offset))
    }

    fn append_via_stream(
        store: Access<'_, U, Self>,
        fd: Handle,
        data: StreamReader<u8>,
    ) -> wasmtime::Result<Ended> {
        write(store, &fd, data, Into::End)
    }

    async fn advise(
        store: &Accessor<U, Self>,
        fd: Handle,
        _offset: u64,
        _length: u64,
        _advice: types::Advice,
    ) -> FilesystemResult<()> {
        // Everything is in memory already.
        with(store, &fd, |opened| opened.as_file().map(|_| ()))
    }

    async fn sync_data(store: &Accessor<U, Self>, fd: Handle) -> FilesystemResult<()> {
        with(store, &fd, |_| Ok(()))
    }

    async fn sync(store: &Accessor<U, Self>, fd: Handle) -> FilesystemResult<()> {
        with(store, &fd, |_| Ok(()))
    }

    async fn get_flags(
        store: &Accessor<U, Self>,
        fd: Handle,
    ) -> FilesystemResult<types::DescriptorFlags> {
        with(store, &fd, |opened| opened.modes().map(p3_modes))
    }

    async fn get_type(
        store: &Accessor<U, Self>,
        fd: Handle,
    ) -> FilesystemResult<types::DescriptorType> {
        with(store, &fd, |opened| opened.kind().map(p3_kind))
    }

    async fn set_size(store: &Accessor<U, Self>, fd: Handle, size: u64) -> FilesystemResult<()> {
        with(store, &fd, |opened| opened.set_size(size))
    }

    async fn set_times(
        store: &Accessor<U, Self>,
        fd: Handle,
        accessed: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FilesystemResult<()> {
        with(store, &fd, |opened| {
            opened.set_times((p3_time(accessed)?, p3_time(modified)?))
        })
    }

    fn read_directory(
        mut store: Access<'_, U, Self>,
        fd: Handle,
    ) -> wasmtime::Result<(StreamReader<types::DirectoryEntry>, Ended)> {
        let (mut ending, ended) = Ending::new();
        let names = opened(store.get().table, &fd)?.names();
        let (names, result) = match names {
            Ok(names) => (names, Ok(())),
            Err(errno) => (Vec::new(), Err(errno)),
        };
        ending.tell(result);
        let entries: Vec<_> = names
            .into_iter()
            .map(|(name, kind)| types::DirectoryEntry {
                type_: p3_kind(kind),
                name,
            })
            .collect();
        let stream = StreamReader::new(&mut store, entries)?;
        Ok((stream, FutureReader::new(&mut store, ended)?))
    }

    async fn create_directory_at(
        store: &Accessor<U, Self>,
        fd: Handle,
        path: String,
    ) -> FilesystemResult<()> {
        with(store, &fd, |opened| opened.make_directory_at(&path))
    }

    async fn stat(
        store: &Accessor<U, Self>,
        fd: Handle,
    ) -> FilesystemResult<types::DescriptorStat> {
        with(store, &fd, |opened| {
            opened.stat().map(|stat| p3_stat(&stat))
        })
    }

    async fn stat_at(
        store: &Accessor<U, Self>,
        fd: Handle,
        flags: types::PathFlags,
        path: String,
    ) -> FilesystemResult<types::DescriptorStat> {
        with(store, &fd, |opened| {
            let stat = opened.stat_at(&path, follows(flags))?;
            Ok(p3_stat(&stat))
        })
    }

    async fn set_times_at(
        store: &Accessor<U, Self>,
        fd: Handle,
        flags: types::PathFlags,
        path: String,
        accessed: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FilesystemResult<()> {
        with(store, &fd, |opened| {
            let times = (p3_time(accessed)?, p3_time(modified)?);
            opened.set_times_at(&path, follows(flags), times)
        })
    }

    async fn link_at(
        store: &Accessor<U, Self>,
        fd: Handle,
        flags: types::PathFlags,
        path: String,
        new_fd: Handle,
        new_path: String,
    ) -> FilesystemResult<()> {
        with_both(store, (&fd, &new_fd), |opened, to| {
            opened.link_at(&path, follows(flags), to, &new_path)
        })
    }

    async fn open_at(
        store: &Accessor<U, Self>,
        fd: Handle,
        path_flags: types::PathFlags,
        path: String,
        open_flags: types::OpenFlags,
        flags: types::DescriptorFlags,
    ) -> FilesystemResult<Handle> {
        let opening = p3_open(path_flags, open_flags, flags);
        let opened = with(store, &fd, |opened| opened.open_at(&path, &opening))?;
        let kept = store.with(|mut store| store.get().keep(opened));
        kept.map_err(FilesystemError::trap)
    }

    async fn readlink_at(
        store: &Accessor<U, Self>,
        fd: Handle,
        path: String,
    ) -> FilesystemResult<String> {
        with(store, &fd, |opened| opened.read_link_at(&path))
    }

    async fn remove_directory_at(
        store: &Accessor<U, Self>,
        fd: Handle,
        path: String,
    ) -> FilesystemResult<()> {
        with(store, &fd, |opened| opened.remove_directory_at(&path))
    }

    async fn rename_at(
        store: &Accessor<U, Self>,
        fd: Handle,
        path: String,
        new_fd: Handle,
        new_path: String,
    ) -> FilesystemResult<()> {
        with_both(store, (&fd, &new_fd), |opened, to| {
            opened.rename_at(&path, to, &new_path)
        })
    }

    async fn symlink_at(
        store: &Accessor<U, Self>,
        fd: Handle,
        target: String,
        path: String,
    ) -> FilesystemResult<()> {
        with(store, &fd, |opened| opened.make_symlink_at(&target, &path))
    }

    async fn unlink_file_at(
        store: &Accessor<U, Self>,
        fd: Handle,
        path: String,
    ) -> FilesystemResult<()> {
        with(store, &fd, |opened| opened.unlink_at(&path))
    }

    async fn is_same_object(
        store: &Accessor<U, Self>,
        fd: Handle,
        other: Handle,
    ) -> wasmtime::Result<bool> {
        store.with(|mut store| {
            let view = store.get();
            let (one, other) = (view.opened(&fd)?.ino(), view.opened(&other)?.ino());
            Ok(one.is_ok() && one == other)
        })
    }

    async fn metadata_hash(
        store: &Accessor<U, Self>,
        fd: Handle,
    ) -> FilesystemResult<types::MetadataHashValue> {
        with(store, &fd, |opened| {
            let (lower, upper) = hash(&opened.stat()?);
            Ok(types::MetadataHashValue { lower, upper })
        })
    }

    async fn metadata_hash_at(
        store: &Accessor<U, Self>,
        fd: Handle,
        flags: types::PathFlags,
        path: String,
    ) -> FilesystemResult<types::MetadataHashValue> {
        with(store, &fd, |opened| {
            let (lower, upper) = hash(&opened.stat_at(&path, follows(flags))?);
            Ok(types::MetadataHashValue { lower, upper })
        })
    }
}
