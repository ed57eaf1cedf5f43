//! `wasi:filesystem` 0.2.

use files::{Errno, Kind};
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::convert::{p2_code, p2_kind, p2_modes, p2_open, p2_stat, p2_time};
use super::streams::{Into, Reader, Writer};
use super::{FilesHost, FilesView, Handle, Opened, hash};
use crate::component::guest::Guest;

/// Bytes that one read gives at most.
const READ_BYTES_MAX: u64 = 1 << 20;

/// The names of a directory that were not read yet, the next one last.
pub(super) struct Names(Vec<(String, Kind)>);

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, FilesHost>(linker, Guest::files)?;
    preopens::add_to_linker::<_, FilesHost>(linker, Guest::files)
}

fn told(errno: Errno) -> FsError {
    p2_code(errno).into()
}

fn broken(error: wasmtime::Error) -> FsError {
    FsError::trap(error)
}

impl preopens::Host for FilesView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Handle, String)>> {
        self.directories()
    }
}

impl types::Host for FilesView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<types::ErrorCode> {
        error.downcast()
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<types::ErrorCode>> {
        let error = self.table.get(&error)?;
        Ok(error.downcast_ref::<Errno>().copied().map(p2_code))
    }
}

/// Does what `$act` says with what is open as `$handle`.
macro_rules! with {
    ($self:ident, $handle:ident, $act:expr) => {{
        let opened = $self.opened(&$handle).map_err(broken)?;
        $act(opened).map_err(told)
    }};
}

fn follows(flags: types::PathFlags) -> bool {
    flags.contains(types::PathFlags::SYMLINK_FOLLOW)
}

impl types::HostDescriptor for FilesView<'_> {
    async fn advise(
        &mut self,
        fd: Handle,
        _offset: u64,
        _length: u64,
        _advice: types::Advice,
    ) -> FsResult<()> {
        // Everything is in memory already.
        with!(self, fd, |opened: &Opened| opened.as_file().map(|_| ()))
    }

    async fn sync_data(&mut self, fd: Handle) -> FsResult<()> {
        self.opened(&fd).map_err(broken)?;
        Ok(())
    }

    async fn sync(&mut self, fd: Handle) -> FsResult<()> {
        self.opened(&fd).map_err(broken)?;
        Ok(())
    }

    async fn get_flags(&mut self, fd: Handle) -> FsResult<types::DescriptorFlags> {
        with!(self, fd, |opened: &Opened| opened.modes().map(p2_modes))
    }

    async fn get_type(&mut self, fd: Handle) -> FsResult<types::DescriptorType> {
        with!(self, fd, |opened: &Opened| opened.kind().map(p2_kind))
    }

    async fn set_size(&mut self, fd: Handle, size: u64) -> FsResult<()> {
        with!(self, fd, |opened: &Opened| opened.set_size(size))
    }

    async fn set_times(
        &mut self,
        fd: Handle,
        accessed: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FsResult<()> {
        with!(self, fd, |opened: &Opened| {
            opened.set_times((p2_time(accessed)?, p2_time(modified)?))
        })
    }

    async fn read(&mut self, fd: Handle, length: u64, offset: u64) -> FsResult<(Vec<u8>, bool)> {
        with!(self, fd, |opened: &Opened| {
            let mut bytes = vec![0; length.min(READ_BYTES_MAX) as usize];
            let count = opened.read(offset, &mut bytes)?;
            bytes.truncate(count);
            Ok((bytes, count == 0 && length > 0))
        })
    }

    async fn write(&mut self, fd: Handle, data: Vec<u8>, offset: u64) -> FsResult<u64> {
        with!(self, fd, |opened: &Opened| opened
            .write(offset, &data)
            .map(|count| count as u64))
    }

    async fn read_directory(
        &mut self,
        fd: Handle,
    ) -> FsResult<Resource<types::DirectoryEntryStream>> {
        let mut names = with!(self, fd, Opened::names)?;
        names.reverse();
        let kept = self.table.push(Names(names))?;
        Ok(Resource::new_own(kept.rep()))
    }

    async fn create_directory_at(&mut self, fd: Handle, path: String) -> FsResult<()> {
        with!(self, fd, |opened: &Opened| opened.make_directory_at(&path))
    }

    async fn stat(&mut self, fd: Handle) -> FsResult<types::DescriptorStat> {
        with!(self, fd, |opened: &Opened| opened
            .stat()
            .map(|stat| p2_stat(&stat)))
    }

    async fn stat_at(
        &mut self,
        fd: Handle,
        flags: types::PathFlags,
        path: String,
    ) -> FsResult<types::DescriptorStat> {
        with!(self, fd, |opened: &Opened| opened
            .stat_at(&path, follows(flags))
            .map(|stat| p2_stat(&stat)))
    }

    async fn set_times_at(
        &mut self,
        fd: Handle,
        flags: types::PathFlags,
        path: String,
        accessed: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FsResult<()> {
        with!(self, fd, |opened: &Opened| {
            let times = (p2_time(accessed)?, p2_time(modified)?);
            opened.set_times_at(&path, follows(flags), times)
        })
    }

    async fn link_at(
        &mut self,
        fd: Handle,
        flags: types::PathFlags,
        path: String,
        new_fd: Handle,
        new_path: String,
    ) -> FsResult<()> {
        let to = self.opened(&new_fd).map_err(broken)?;
        with!(self, fd, |opened: &Opened| {
            opened.link_at(&path, follows(flags), to, &new_path)
        })
    }

    async fn open_at(
        &mut self,
        fd: Handle,
        path_flags: types::PathFlags,
        path: String,
        open_flags: types::OpenFlags,
        flags: types::DescriptorFlags,
    ) -> FsResult<Handle> {
        let opening = p2_open(path_flags, open_flags, flags);
        let opened = with!(self, fd, |opened: &Opened| opened.open_at(&path, &opening))?;
        self.keep(opened).map_err(broken)
    }

    fn drop(&mut self, fd: Handle) -> wasmtime::Result<()> {
        self.close(&fd)
    }

    async fn readlink_at(&mut self, fd: Handle, path: String) -> FsResult<String> {
        with!(self, fd, |opened: &Opened| opened.read_link_at(&path))
    }

    async fn remove_directory_at(&mut self, fd: Handle, path: String) -> FsResult<()> {
        with!(self, fd, |opened: &Opened| opened
            .remove_directory_at(&path))
    }

    async fn rename_at(
        &mut self,
        fd: Handle,
        path: String,
        new_fd: Handle,
        new_path: String,
    ) -> FsResult<()> {
        let to = self.opened(&new_fd).map_err(broken)?;
        with!(self, fd, |opened: &Opened| opened
            .rename_at(&path, to, &new_path))
    }

    async fn symlink_at(&mut self, fd: Handle, target: String, path: String) -> FsResult<()> {
        with!(self, fd, |opened: &Opened| opened
            .make_symlink_at(&target, &path))
    }

    async fn unlink_file_at(&mut self, fd: Handle, path: String) -> FsResult<()> {
        with!(self, fd, |opened: &Opened| opened.unlink_at(&path))
    }

    fn read_via_stream(&mut self, fd: Handle, offset: u64) -> FsResult<Resource<DynInputStream>> {
        let opened = with!(self, fd, |opened: &Opened| {
            match opened.kind()? {
                Kind::Directory => Err(Errno::IsDirectory),
                _ if !opened.modes()?.read => Err(Errno::BadFile),
                _ => opened.again(),
            }
        })?;
        let reader: DynInputStream = Box::new(Reader { opened, offset });
        Ok(self.table.push(reader)?)
    }

    fn write_via_stream(&mut self, fd: Handle, offset: u64) -> FsResult<Resource<DynOutputStream>> {
        self.writer(&fd, Into::Offset(offset))
    }

    fn append_via_stream(&mut self, fd: Handle) -> FsResult<Resource<DynOutputStream>> {
        self.writer(&fd, Into::End)
    }

    async fn is_same_object(&mut self, fd: Handle, other: Handle) -> wasmtime::Result<bool> {
        let (one, other) = (self.opened(&fd)?.ino(), self.opened(&other)?.ino());
        Ok(one.is_ok() && one == other)
    }

    async fn metadata_hash(&mut self, fd: Handle) -> FsResult<types::MetadataHashValue> {
        with!(self, fd, |opened: &Opened| {
            let (lower, upper) = hash(&opened.stat()?);
            Ok(types::MetadataHashValue { lower, upper })
        })
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Handle,
        flags: types::PathFlags,
        path: String,
    ) -> FsResult<types::MetadataHashValue> {
        with!(self, fd, |opened: &Opened| {
            let (lower, upper) = hash(&opened.stat_at(&path, follows(flags))?);
            Ok(types::MetadataHashValue { lower, upper })
        })
    }
}

impl FilesView<'_> {
    fn writer(&mut self, fd: &Handle, into: Into) -> FsResult<Resource<DynOutputStream>> {
        let opened = self.opened(fd).map_err(broken)?;
        let writable = opened.as_file().and_then(Opened::modes);
        if !writable.map_err(told)?.write {
            return Err(told(Errno::BadFile));
        }
        let opened = opened.again().map_err(told)?;
        let writer: DynOutputStream = Box::new(Writer { opened, into });
        Ok(self.table.push(writer)?)
    }
}

impl types::HostDirectoryEntryStream for FilesView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<types::DirectoryEntryStream>,
    ) -> FsResult<Option<types::DirectoryEntry>> {
        let names = Resource::<Names>::new_borrow(stream.rep());
        let next = self.table.get_mut(&names)?.0.pop();
        Ok(next.map(|(name, kind)| types::DirectoryEntry {
            type_: p2_kind(kind),
            name,
        }))
    }

    fn drop(&mut self, stream: Resource<types::DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.table
            .delete(Resource::<Names>::new_own(stream.rep()))?;
        Ok(())
    }
}
