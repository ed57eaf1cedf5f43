//! Calls that change what is mapped.

use super::super::descriptor::Object;
use super::super::errno::Errno;
use super::super::process::{Answer, Call, IO_BYTES_MAX};
use crate::layout::PAGE;
use crate::space::Protection;

const MAP_SHARED: u32 = 1;
const MAP_SHARED_VALIDATE: u32 = 3;
const MAP_TYPE: u32 = 0xf;
const MAP_FIXED: u32 = 0x10;
const MAP_ANONYMOUS: u32 = 0x20;
const MAP_NORESERVE: u32 = 0x4000;
const MAP_FIXED_NOREPLACE: u32 = 0x10_0000;
const MREMAP_MAYMOVE: u64 = 1;
const MADV_DONTNEED: i32 = 4;
/// The last advice that there is.
const MADV_LAST: i32 = 25;

fn protection(bits: u32) -> Result<Protection, Errno> {
    // Flags that let a mapping grow by itself are for no one.
    if bits & !7 != 0 {
        return Err(Errno::EINVAL);
    }
    let (read, write, execute) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
    // The processor knows no page that can be written or executed and not read.
    let read = read || write || execute;
    Ok(Protection {
        read,
        write,
        execute,
    })
}

/// `brk`.
pub fn brk(call: &mut Call<'_>) -> Answer {
    let end = call.arg(0);
    let set = call.process.maps.set_heap_end(call.guest, end);
    // Who only asks where it ends names an address below it.
    call.process.refused_memory |= end > set;
    Ok(set)
}

/// Notes that memory was refused.
fn noted<T>(call: &mut Call<'_>, asked: Result<T, Errno>) -> Result<T, Errno> {
    call.process.refused_memory |= matches!(asked, Err(Errno::ENOMEM));
    asked
}

/// `mmap`.
pub fn mmap(call: &mut Call<'_>) -> Answer {
    let (at, bytes, flags) = (call.arg(0), call.arg(1), call.uint(3));
    let wanted = protection(call.uint(2))?;
    let shared = matches!(flags & MAP_TYPE, MAP_SHARED | MAP_SHARED_VALIDATE);
    if flags & MAP_TYPE == 0 || bytes == 0 {
        return Err(Errno::EINVAL.into());
    }
    if flags & MAP_ANONYMOUS == 0 {
        check_file(call, shared && wanted.write)?;
    }
    // A file's bytes are copied in first, whatever may be done with them after.
    let file = flags & MAP_ANONYMOUS == 0;
    let first = if file { Protection::READ_WRITE } else { wanted };
    let placed = if flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0 {
        let replace = flags & MAP_FIXED_NOREPLACE == 0;
        let placed = call
            .process
            .maps
            .map_at(call.guest, at, bytes, first, replace);
        noted(call, placed)?
    } else {
        let reserve = flags & MAP_NORESERVE != 0;
        let placed = call.process.maps.map(call.guest, at, bytes, first, reserve);
        noted(call, placed)?
    };
    if file && let Err(errno) = fill(call, placed, bytes, wanted) {
        call.process.maps.unmap(call.guest, placed, bytes)?;
        return Err(errno.into());
    }
    Ok(placed)
}

/// Whether the file may be mapped. One that is shared cannot be written: what is mapped is a copy.
fn check_file(call: &mut Call<'_>, shared_writable: bool) -> Result<(), Errno> {
    if !call.arg(5).is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let open = call.process.descriptors.find(call.int(4))?;
    match &open.object {
        Object::File(file) if !file.read => Err(Errno::EACCES),
        Object::File(_) if shared_writable => Err(Errno::ENODEV),
        Object::File(_) | Object::Zero => Ok(()),
        _ => Err(Errno::ENODEV),
    }
}

fn fill(call: &mut Call<'_>, at: u64, bytes: u64, wanted: Protection) -> Result<(), Errno> {
    let descriptor = call.int(4);
    let mut done = 0;
    let mut piece = vec![0; IO_BYTES_MAX];
    while done < bytes {
        let most = (bytes - done).min(IO_BYTES_MAX as u64) as usize;
        let offset = call.arg(5).checked_add(done).ok_or(Errno::EINVAL)?;
        let open = call.process.descriptors.find(descriptor)?;
        let Object::File(file) = &open.object else {
            break;
        };
        let count = call
            .process
            .files
            .read_at(file, offset, &mut piece[..most])?;
        if count == 0 {
            break;
        }
        call.write(at + done, &piece[..count])?;
        done += count as u64;
    }
    call.process.maps.protect(call.guest, at, bytes, wanted)
}

/// `munmap`.
pub fn munmap(call: &mut Call<'_>) -> Answer {
    let (at, bytes) = (call.arg(0), call.arg(1));
    if !at.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL.into());
    }
    call.process.maps.unmap(call.guest, at, bytes)?;
    Ok(0)
}

/// `mprotect`.
pub fn mprotect(call: &mut Call<'_>) -> Answer {
    let wanted = protection(call.uint(2))?;
    let (at, bytes) = (call.arg(0), call.arg(1));
    call.process.maps.protect(call.guest, at, bytes, wanted)?;
    Ok(0)
}

/// `mremap`.
pub fn mremap(call: &mut Call<'_>) -> Answer {
    let [at, old, new, flags, ..] = call.request.args;
    if !at.is_multiple_of(PAGE) || flags & !MREMAP_MAYMOVE != 0 {
        return Err(Errno::EINVAL.into());
    }
    let may_move = flags & MREMAP_MAYMOVE != 0;
    // What is copied shall not change meanwhile.
    call.guest.alone();
    let moved = call.process.maps.resize(call.guest, at, old, new, may_move);
    Ok(noted(call, moved)?)
}

/// `madvise`.
pub fn madvise(call: &mut Call<'_>) -> Answer {
    let (at, bytes, advice) = (call.arg(0), call.arg(1), call.int(2));
    if !at.is_multiple_of(PAGE) || !(0..=MADV_LAST).contains(&advice) {
        return Err(Errno::EINVAL.into());
    }
    if advice == MADV_DONTNEED && bytes > 0 {
        call.process.maps.forget(call.guest, at, bytes)?;
    }
    Ok(0)
}

/// `msync`, `mlock`, `munlock`, `mlockall`, `munlockall`: nothing is ever swapped or shared.
pub fn keep(_: &mut Call<'_>) -> Answer {
    Ok(0)
}

/// `mincore`: what is mapped counts as there.
pub fn mincore(call: &mut Call<'_>) -> Answer {
    let pages = call.arg(1).div_ceil(PAGE).min(IO_BYTES_MAX as u64);
    let (at, to) = (call.arg(0), call.arg(2));
    if !at.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL.into());
    }
    if !call.process.maps.is_mapped(at, call.arg(1)) {
        return Err(Errno::ENOMEM.into());
    }
    call.write(to, &vec![1; pages as usize])?;
    Ok(0)
}
