//! Calls about descriptors themselves.

use super::super::descriptor::{DESCRIPTORS_MAX, O_APPEND, O_CLOEXEC, O_NONBLOCK, Object};
use super::super::errno::Errno;
use super::super::pipe::PIPE_BYTES;
use super::super::process::{Answer, Call, Halt, Process};
use super::super::thread::Wait;

/// `close`.
pub fn close(call: &mut Call<'_>) -> Answer {
    call.process.close_descriptor(call.int(0))?;
    Ok(0)
}

/// `close_range`.
pub fn close_range(call: &mut Call<'_>) -> Answer {
    const CLOSE_ON_EXEC: u32 = 4;
    let (first, last, flags) = (call.uint(0), call.uint(1), call.uint(2));
    if first > last || flags & !6 != 0 {
        return Err(Errno::EINVAL.into());
    }
    for descriptor in call.process.descriptors.all() {
        if !(first..=last).contains(&(descriptor as u32)) {
            continue;
        }
        if flags & CLOSE_ON_EXEC != 0 {
            call.process
                .descriptors
                .set_close_on_exec(descriptor, true)?;
        } else {
            call.process.close_descriptor(descriptor)?;
        }
    }
    Ok(0)
}

/// `dup`.
pub fn dup(call: &mut Call<'_>) -> Answer {
    let old = call.int(0);
    Ok(call.process.descriptors.duplicate(old, 0, false)?.into())
}

/// `dup2`.
pub fn dup2(call: &mut Call<'_>) -> Answer {
    let (old, new) = (call.int(0), call.int(1));
    if old == new {
        call.process.descriptors.id(old)?;
        return Ok(new as u64);
    }
    call.process.replace_descriptor(old, new, false)?;
    Ok(new as u64)
}

/// `dup3`.
pub fn dup3(call: &mut Call<'_>) -> Answer {
    let (old, new, flags) = (call.int(0), call.int(1), call.uint(2));
    if old == new || flags & !O_CLOEXEC != 0 {
        return Err(Errno::EINVAL.into());
    }
    call.process
        .replace_descriptor(old, new, flags & O_CLOEXEC != 0)?;
    Ok(new as u64)
}

/// `fcntl`.
pub fn fcntl(call: &mut Call<'_>) -> Answer {
    const F_DUPFD: i32 = 0;
    const F_GETFD: i32 = 1;
    const F_SETFD: i32 = 2;
    const F_GETFL: i32 = 3;
    const F_SETFL: i32 = 4;
    const F_GETLK: i32 = 5;
    const F_SETLK: i32 = 6;
    const F_SETLKW: i32 = 7;
    const F_OFD_GETLK: i32 = 36;
    const F_OFD_SETLK: i32 = 37;
    const F_OFD_SETLKW: i32 = 38;
    const F_DUPFD_CLOEXEC: i32 = 1030;
    const F_SETPIPE_SZ: i32 = 1031;
    const F_GETPIPE_SZ: i32 = 1032;
    const SETTABLE: u32 = O_APPEND | O_NONBLOCK;
    let (descriptor, command, arg) = (call.int(0), call.int(1), call.arg(2));
    let descriptors = &mut call.process.descriptors;
    match command {
        F_DUPFD | F_DUPFD_CLOEXEC => {
            let least = u32::try_from(arg)
                .ok()
                .filter(|least| *least < DESCRIPTORS_MAX);
            let least = least.ok_or(Errno::EINVAL)?;
            let close = command == F_DUPFD_CLOEXEC;
            Ok(descriptors.duplicate(descriptor, least, close)?.into())
        }
        F_GETFD => Ok(u64::from(descriptors.close_on_exec(descriptor)?)),
        F_SETFD => {
            descriptors.set_close_on_exec(descriptor, arg & 1 != 0)?;
            Ok(0)
        }
        F_GETFL => Ok(u64::from(descriptors.find(descriptor)?.flags)),
        F_SETFL => {
            let open = descriptors.find_mut(descriptor)?;
            open.flags = open.flags & !SETTABLE | arg as u32 & SETTABLE;
            if let Object::File(file) = &mut open.object {
                file.append = arg as u32 & O_APPEND != 0;
            }
            Ok(0)
        }
        // There is no other process that a lock could be held against.
        F_SETLK | F_SETLKW | F_OFD_SETLK | F_OFD_SETLKW => {
            descriptors.id(descriptor)?;
            Ok(0)
        }
        F_GETLK | F_OFD_GETLK => {
            const F_UNLCK: u16 = 2;
            descriptors.id(descriptor)?;
            call.write(arg, &F_UNLCK.to_le_bytes())?;
            Ok(0)
        }
        F_GETPIPE_SZ | F_SETPIPE_SZ => match descriptors.find(descriptor)?.object {
            Object::PipeReader(_) | Object::PipeWriter(_) => Ok(PIPE_BYTES as u64),
            _ => Err(Errno::EBADF.into()),
        },
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `ioctl`.
pub fn ioctl(call: &mut Call<'_>) -> Answer {
    const FIONREAD: u32 = 0x541b;
    const FIONBIO: u32 = 0x5421;
    const FIONCLEX: u32 = 0x5450;
    const FIOCLEX: u32 = 0x5451;
    let (descriptor, command, arg) = (call.int(0), call.uint(1), call.arg(2));
    call.process.descriptors.id(descriptor)?;
    match command {
        FIONREAD => {
            let count = readable(call.process, descriptor)?;
            call.write_u32(arg, count)?;
            Ok(0)
        }
        FIONBIO => {
            let on = call.read_u32(arg)? != 0;
            let open = call.process.descriptors.find_mut(descriptor)?;
            open.flags = if on {
                open.flags | O_NONBLOCK
            } else {
                open.flags & !O_NONBLOCK
            };
            Ok(0)
        }
        FIOCLEX | FIONCLEX => {
            let close = command == FIOCLEX;
            call.process
                .descriptors
                .set_close_on_exec(descriptor, close)?;
            Ok(0)
        }
        _ => Err(Errno::ENOTTY.into()),
    }
}

/// Bytes that can be read now.
fn readable(process: &Process, descriptor: i32) -> Result<u32, Halt> {
    let count = match &process.descriptors.find(descriptor)?.object {
        Object::Input => {
            let left = process.input.left();
            left.ok_or(Halt::Wait(Wait::Input, None))?
        }
        Object::PipeReader(pipe) => process.pipes.find(*pipe).map_or(0, |pipe| pipe.len()),
        Object::Socket(socket) => process.receivable(*socket),
        Object::File(file) => {
            let stat = process.files.stat(file.ino())?;
            stat.bytes.saturating_sub(file.offset) as usize
        }
        _ => return Err(Errno::ENOTTY.into()),
    };
    Ok(u32::try_from(count).unwrap_or(i32::MAX as u32))
}

/// What /proc/self/fd says that a descriptor is.
pub fn name(process: &Process, descriptor: i32) -> Result<Vec<u8>, Errno> {
    let open = process
        .descriptors
        .find(descriptor)
        .map_err(|_| Errno::ENOENT)?;
    let text = match &open.object {
        Object::File(file) => {
            let path = process.files.path_of(file.ino());
            return Ok(path.unwrap_or_else(|| b"/ (deleted)".to_vec()));
        }
        Object::Null => "/dev/null",
        Object::Zero => "/dev/zero",
        Object::Full => "/dev/full",
        Object::Random => "/dev/urandom",
        Object::Text(..) => "/proc/self",
        Object::Input => "pipe:[0]",
        Object::Reply => "pipe:[1]",
        Object::Log => "pipe:[2]",
        Object::PipeReader(_) | Object::PipeWriter(_) => "pipe:[3]",
        Object::Socket(_) => "socket:[4]",
        Object::Event(_) => "anon_inode:[eventfd]",
        Object::Timer(_) => "anon_inode:[timerfd]",
        Object::Epoll(_) => "anon_inode:[eventpoll]",
    };
    Ok(text.as_bytes().to_vec())
}

/// `fsync`, `fdatasync`, `flock`, `fadvise64`, `readahead`, `syncfs`: nothing to do for a
/// descriptor that is open.
pub fn accept_as_done(call: &mut Call<'_>) -> Answer {
    call.process.descriptors.id(call.int(0))?;
    Ok(0)
}

/// `sync`.
pub fn sync(_: &mut Call<'_>) -> Answer {
    Ok(0)
}

/// `fchmod`.
pub fn fchmod(call: &mut Call<'_>) -> Answer {
    if let Object::File(file) = &call.process.descriptors.find(call.int(0))?.object {
        call.process
            .files
            .set_mode(file.ino(), call.request.args[1] as u16)?;
    }
    Ok(0)
}

/// `ftruncate`.
pub fn ftruncate(call: &mut Call<'_>) -> Answer {
    let bytes = super::paths::length(call.arg(1))?;
    match &call.process.descriptors.find(call.int(0))?.object {
        Object::File(file) => call.process.files.truncate(file, bytes)?,
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// `fallocate`: of space only; a mode makes nothing else of it.
pub fn fallocate(call: &mut Call<'_>) -> Answer {
    if call.int(1) != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let (offset, bytes) = (
        super::paths::length(call.arg(2))?,
        super::paths::length(call.arg(3))?,
    );
    match &call.process.descriptors.find(call.int(0))?.object {
        Object::File(file) => call.process.files.allocate(file, offset, bytes)?,
        _ => return Err(Errno::ENODEV.into()),
    }
    Ok(0)
}
