//! Calls on what is open.

use std::time::{SystemTime, UNIX_EPOCH};

use files::{Stat, Whence};

use super::Preview1;
use super::abi::{Code, fdflags, filetype, fstflags};
use super::descriptors::{Body, Stream};
use super::guest::{Fail, Guest, Span};

const DIRENT_BYTES: usize = 24;
/// The device of all files; streams have none.
const FILES_DEVICE: u64 = 1;
/// The largest advice.
const ADVICE_MAX: u32 = 5;

/// The buffers that a guest reads into or writes from.
#[derive(Clone, Copy)]
pub(super) struct Buffers {
    pub array: u32,
    pub count: u32,
    /// Where the number of bytes goes.
    pub done: u32,
}

impl Preview1 {
    pub(super) fn fd_close(&mut self, fd: u32) -> Result<(), Fail> {
        self.descriptors.close(fd, &mut self.files)
    }

    pub(super) fn fd_renumber(&mut self, from: u32, to: u32) -> Result<(), Fail> {
        self.descriptors.renumber(from, to, &mut self.files)
    }

    /// Advice changes nothing where everything is in memory; it is checked all the same.
    pub(super) fn fd_advise(&mut self, fd: u32, advice: u32) -> Result<(), Fail> {
        self.descriptors.file(fd)?;
        match advice {
            0..=ADVICE_MAX => Ok(()),
            _ => Err(Code::INVAL.into()),
        }
    }

    pub(super) fn fd_allocate(&mut self, fd: u32, offset: u64, length: u64) -> Result<(), Fail> {
        let file = self.descriptors.file(fd)?;
        Ok(self.files.allocate(file, offset, length)?)
    }

    /// Nothing outlives the invocation, so what was written is as safe as it can be.
    pub(super) fn fd_sync(&mut self, fd: u32) -> Result<(), Fail> {
        match self.descriptors.find(fd)?.body {
            Body::Open(_) => Ok(()),
            // A stream cannot be synchronised.
            Body::Stream(_) => Err(Code::INVAL.into()),
        }
    }

    pub(super) fn fd_fdstat_get(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        out: u32,
    ) -> Result<(), Fail> {
        let descriptor = self.descriptors.find(fd)?;
        let (base, inheriting) = descriptor.rights();
        let mut stat = [0; 24];
        stat[0] = filetype(descriptor.kind());
        stat[2..4].copy_from_slice(&(descriptor.flags as u16).to_le_bytes());
        stat[8..16].copy_from_slice(&base.to_le_bytes());
        stat[16..].copy_from_slice(&inheriting.to_le_bytes());
        guest.write(out, &stat)
    }

    pub(super) fn fd_fdstat_set_flags(&mut self, fd: u32, flags: u32) -> Result<(), Fail> {
        if flags & !fdflags::ALL != 0 {
            return Err(Code::INVAL.into());
        }
        let descriptor = self.descriptors.find_mut(fd)?;
        descriptor.flags = flags;
        if let Body::Open(file) = &mut descriptor.body {
            file.append = flags & fdflags::APPEND != 0;
        }
        Ok(())
    }

    /// Rights cannot be given up one by one.
    pub(super) fn fd_fdstat_set_rights(&mut self, fd: u32) -> Result<(), Fail> {
        self.descriptors.find(fd)?;
        Err(Code::NOTSUP.into())
    }

    pub(super) fn fd_filestat_get(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        out: u32,
    ) -> Result<(), Fail> {
        match &self.descriptors.find(fd)?.body {
            Body::Stream(_) => guest.write(out, &[0; 64]),
            Body::Open(file) => {
                let stat = self.files.stat(file.ino())?;
                put_filestat(guest, out, &stat)
            }
        }
    }

    pub(super) fn fd_filestat_set_size(&mut self, fd: u32, bytes: u64) -> Result<(), Fail> {
        let file = self.descriptors.file(fd)?;
        Ok(self.files.truncate(file, bytes)?)
    }

    pub(super) fn fd_filestat_set_times(
        &mut self,
        fd: u32,
        accessed: u64,
        modified: u64,
        flags: u32,
    ) -> Result<(), Fail> {
        let (accessed, modified) = times(accessed, modified, flags)?;
        let ino = self.descriptors.open(fd)?.ino();
        Ok(self.files.set_times(ino, accessed, modified)?)
    }

    pub(super) fn fd_read(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        buffers: Buffers,
    ) -> Result<(), Fail> {
        let Self {
            descriptors,
            files,
            stdin,
            ..
        } = self;
        match &mut descriptors.find_mut(fd)?.body {
            Body::Stream(Stream::Output(_)) => Err(Code::BADF.into()),
            Body::Stream(Stream::Input) => each_slot(guest, buffers, |slot| {
                let count = stdin.len().min(slot.len());
                slot[..count].copy_from_slice(&stdin.split_to(count));
                Ok(count)
            }),
            Body::Open(file) => each_slot(guest, buffers, |slot| Ok(files.read(file, slot)?)),
        }
    }

    pub(super) fn fd_pread(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        buffers: Buffers,
        mut offset: u64,
    ) -> Result<(), Fail> {
        let Self {
            descriptors, files, ..
        } = self;
        match &descriptors.find(fd)?.body {
            Body::Stream(_) => Err(Code::SPIPE.into()),
            Body::Open(file) => each_slot(guest, buffers, |slot| {
                let count = files.read_at(file, offset, slot)?;
                offset = offset.saturating_add(count as u64);
                Ok(count)
            }),
        }
    }

    pub(super) fn fd_write(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        buffers: Buffers,
    ) -> Result<(), Fail> {
        let Self {
            descriptors, files, ..
        } = self;
        match &mut descriptors.find_mut(fd)?.body {
            Body::Stream(Stream::Input) => Err(Code::BADF.into()),
            Body::Stream(Stream::Output(stdio)) => each_data(guest, buffers, |data| {
                let taken = stdio.take(data);
                taken.map_err(|full| Fail::End(full.into()))?;
                Ok(data.len())
            }),
            Body::Open(file) => each_data(guest, buffers, |data| Ok(files.write(file, data)?)),
        }
    }

    pub(super) fn fd_pwrite(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        buffers: Buffers,
        mut offset: u64,
    ) -> Result<(), Fail> {
        let Self {
            descriptors, files, ..
        } = self;
        match &descriptors.find(fd)?.body {
            Body::Stream(_) => Err(Code::SPIPE.into()),
            Body::Open(file) => each_data(guest, buffers, |data| {
                // As on Linux, what was opened to append is appended to, wherever one points.
                if file.append {
                    offset = files.stat(file.ino())?.bytes;
                }
                let count = files.write_at(file, offset, data)?;
                offset = offset.saturating_add(count as u64);
                Ok(count)
            }),
        }
    }

    pub(super) fn fd_prestat_get(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        out: u32,
    ) -> Result<(), Fail> {
        let name = self.descriptors.find(fd)?.preopen.ok_or(Code::BADF)?;
        // The tag of a directory is 0.
        guest.put_u32(out, 0)?;
        guest.put_u32(out.saturating_add(4), name.len() as u32)
    }

    pub(super) fn fd_prestat_dir_name(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        path: Span,
    ) -> Result<(), Fail> {
        let name = self.descriptors.find(fd)?.preopen.ok_or(Code::NOTDIR)?;
        if name.len() as u32 > path.bytes {
            return Err(Code::NAMETOOLONG.into());
        }
        guest.write(path.at, name.as_bytes())
    }

    pub(super) fn fd_seek(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        delta: i64,
        whence: u32,
        out: u32,
    ) -> Result<(), Fail> {
        let whence = match whence {
            0 => Whence::Start,
            1 => Whence::Current,
            2 => Whence::End,
            _ => return Err(Code::INVAL.into()),
        };
        let file = self.descriptors.seekable(fd)?;
        let offset = self.files.seek(file, delta, whence)?;
        guest.put_u64(out, offset)
    }

    pub(super) fn fd_tell(&mut self, guest: &mut Guest, fd: u32, out: u32) -> Result<(), Fail> {
        let offset = self.descriptors.seekable(fd)?.offset;
        guest.put_u64(out, offset)
    }

    /// Fills the buffer with entries; the last may be cut off, which says that there are more.
    pub(super) fn fd_readdir(
        &mut self,
        guest: &mut Guest,
        fd: u32,
        into: Span,
        mut cookie: u64,
        out: u32,
    ) -> Result<(), Fail> {
        let directory = self.descriptors.open(fd)?;
        let slot = guest.slot(into.at, into.bytes)?;
        let mut used = 0;
        while used < slot.len() {
            let Some(entry) = self.files.entry(directory, cookie)? else {
                break;
            };
            cookie = entry.next_cookie;
            let mut head = [0; DIRENT_BYTES];
            head[..8].copy_from_slice(&entry.next_cookie.to_le_bytes());
            head[8..16].copy_from_slice(&entry.ino.number().to_le_bytes());
            head[16..20].copy_from_slice(&(entry.name.len() as u32).to_le_bytes());
            head[20] = filetype(Some(entry.kind));
            for part in [&head[..], &entry.name] {
                let count = part.len().min(slot.len() - used);
                slot[used..used + count].copy_from_slice(&part[..count]);
                used += count;
            }
        }
        guest.put_u32(out, used as u32)
    }
}

/// Gives each buffer to `read` until one is not filled, and tells the guest how much it got.
fn each_slot(
    guest: &mut Guest,
    buffers: Buffers,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Fail>,
) -> Result<(), Fail> {
    let mut done: u32 = 0;
    for index in 0..buffers.count {
        let span = guest.buffer(buffers.array, index)?;
        let Some(sum) = done.checked_add(span.bytes) else {
            return Err(Code::INVAL.into());
        };
        let count = match read(guest.slot(span.at, span.bytes)?) {
            Ok(count) => count,
            Err(Fail::Code(_)) if done > 0 => break,
            Err(fail) => return Err(fail),
        };
        if count < span.bytes as usize {
            done += count as u32;
            break;
        }
        done = sum;
    }
    // An array of no buffers still finds out whether the descriptor can be read.
    if buffers.count == 0 {
        read(&mut [])?;
    }
    guest.put_u32(buffers.done, done)
}

/// Gives the bytes of each buffer to `write` until one is not taken whole, and tells the guest.
fn each_data(
    guest: &mut Guest,
    buffers: Buffers,
    mut write: impl FnMut(&[u8]) -> Result<usize, Fail>,
) -> Result<(), Fail> {
    let mut done: u32 = 0;
    for index in 0..buffers.count {
        let span = guest.buffer(buffers.array, index)?;
        let Some(sum) = done.checked_add(span.bytes) else {
            return Err(Code::INVAL.into());
        };
        let count = match write(guest.read(span.at, span.bytes)?) {
            Ok(count) => count,
            Err(Fail::Code(_)) if done > 0 => break,
            Err(fail) => return Err(fail),
        };
        if count < span.bytes as usize {
            done += count as u32;
            break;
        }
        done = sum;
    }
    if buffers.count == 0 {
        write(&[])?;
    }
    guest.put_u32(buffers.done, done)
}

pub(super) fn put_filestat(guest: &mut Guest, out: u32, stat: &Stat) -> Result<(), Fail> {
    let mut bytes = [0; 64];
    let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, FILES_DEVICE);
    put(8, stat.ino.number());
    put(24, stat.links.into());
    put(32, stat.bytes);
    put(40, stat.times.accessed_ns);
    put(48, stat.times.modified_ns);
    put(56, stat.times.changed_ns);
    bytes[16] = filetype(Some(stat.kind));
    guest.write(out, &bytes)
}

/// The times to set.
pub(super) fn times(
    accessed: u64,
    modified: u64,
    flags: u32,
) -> Result<(Option<u64>, Option<u64>), Fail> {
    let both = |one: u32, other: u32| flags & one != 0 && flags & other != 0;
    if flags & !fstflags::ALL != 0
        || both(fstflags::ATIM, fstflags::ATIM_NOW)
        || both(fstflags::MTIM, fstflags::MTIM_NOW)
    {
        return Err(Code::INVAL.into());
    }
    let pick = |given: u32, now: u32, value: u64| match () {
        () if flags & given != 0 => Some(value),
        () if flags & now != 0 => Some(realtime_ns()),
        () => None,
    };
    Ok((
        pick(fstflags::ATIM, fstflags::ATIM_NOW, accessed),
        pick(fstflags::MTIM, fstflags::MTIM_NOW, modified),
    ))
}

pub(super) fn realtime_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ns = since.map_or(0, |since| since.as_nanos());
    u64::try_from(ns).unwrap_or(u64::MAX)
}
