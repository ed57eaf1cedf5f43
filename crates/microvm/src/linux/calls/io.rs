//! Calls that read and write.

use files::Whence;
use smallvec::{SmallVec, smallvec};

use super::super::descriptor::{Object, OpenId};
use super::super::errno::Errno;
use super::super::process::{Answer, Call, Exit, Halt, IO_BYTES_MAX, Process};
use super::super::signal::{Info, SI_USER, SIGPIPE};
use super::super::thread::Wait;
use crate::space::Protection;

/// Most parts that a call reads into or writes from.
const PARTS_MAX: u64 = 1024;

/// Addresses and lengths; most calls have one.
pub type Parts = SmallVec<[(u64, u64); 2]>;

fn one(call: &Call<'_>) -> Parts {
    smallvec![(call.arg(1), call.arg(2).min(i32::MAX as u64))]
}

/// The `struct iovec`s at `at`.
pub fn parts(call: &mut Call<'_>, at: u64, count: u64) -> Result<Parts, Errno> {
    if count > PARTS_MAX {
        return Err(Errno::EINVAL);
    }
    let mut parts = Parts::with_capacity(count as usize);
    let mut total: u64 = 0;
    for index in 0..count {
        let [start, bytes] = call.read_words(at.wrapping_add(index * 16))?;
        if bytes > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        let bytes = bytes.min(i32::MAX as u64 - total);
        total += bytes;
        parts.push((start, bytes));
    }
    Ok(parts)
}

fn total(parts: &Parts) -> u64 {
    parts.iter().map(|(_, bytes)| bytes).sum()
}

/// The parts of `parts` that `count` bytes from `done` on go to.
fn within(parts: &Parts, done: u64, count: u64) -> Parts {
    let (mut skip, mut left) = (done, count);
    let mut found = Parts::new();
    for (start, bytes) in parts {
        let skipped = skip.min(*bytes);
        skip -= skipped;
        let used = (bytes - skipped).min(left);
        left -= used;
        if used > 0 {
            found.push((start.wrapping_add(skipped), used));
        }
    }
    found
}

/// Copies bytes from the parts.
pub fn gather(call: &mut Call<'_>, parts: &Parts, done: u64, count: u64) -> Result<Vec<u8>, Errno> {
    let mut data = Vec::with_capacity(count as usize);
    for (start, bytes) in within(parts, done, count) {
        data.extend(call.copy(start, bytes)?);
    }
    Ok(data)
}

/// Copies bytes to the parts.
pub fn scatter(call: &mut Call<'_>, parts: &Parts, done: u64, data: &[u8]) -> Result<(), Errno> {
    let mut rest = data;
    for (start, bytes) in within(parts, done, data.len() as u64) {
        let (now, later) = rest.split_at(bytes as usize);
        call.write(start, now)?;
        rest = later;
    }
    Ok(())
}

/// Whether reading goes on at once after a piece: nothing is waited for.
fn flows(object: &Object) -> bool {
    matches!(
        object,
        Object::File(_)
            | Object::Input
            | Object::Zero
            | Object::Random
            | Object::Text(..)
            | Object::Null
            | Object::Reply
            | Object::Log
    )
}

/// Reads into the parts, from the offset or where the descriptor stands.
pub fn read_parts(
    call: &mut Call<'_>,
    descriptor: i32,
    parts: &Parts,
    offset: Option<u64>,
) -> Answer {
    let id = call.process.descriptors.id(descriptor)?;
    let open = call.process.descriptors.open(id)?;
    let flows = flows(&open.object);
    if !open.reads() {
        return Err(Errno::EBADF.into());
    }
    let (total, mut done) = (total(parts), 0);
    loop {
        let most = (total - done).min(IO_BYTES_MAX as u64);
        // What cannot be put anywhere is not taken.
        for (start, bytes) in within(parts, done, most) {
            call.process
                .touch(call.guest, start, bytes, Protection::READ_WRITE)?;
        }
        let at = offset.map(|offset| offset.saturating_add(done));
        let data = match take(call, id, most as usize, at) {
            Ok(data) => data,
            Err(_) if done > 0 => break,
            Err(halt) => return Err(halt),
        };
        scatter(call, parts, done, &data)?;
        done += data.len() as u64;
        if !flows || (data.len() as u64) < most || done == total {
            break;
        }
    }
    Ok(done)
}

/// Takes up to `most` bytes from what is open; none at its end.
pub fn take(
    call: &mut Call<'_>,
    id: OpenId,
    most: usize,
    offset: Option<u64>,
) -> Result<Vec<u8>, Halt> {
    if matches!(call.process.descriptors.open(id)?.object, Object::Input) {
        return take_input(call, most);
    }
    let now = call.process.now.monotonic_ns;
    let Process {
        descriptors,
        files,
        pipes,
        world,
        asked,
        ..
    } = &mut *call.process;
    let open = descriptors.open_mut(id)?;
    let nonblocking = open.nonblocking();
    let word = |word: u64| Ok(word.to_le_bytes().to_vec());
    let taken = match &mut open.object {
        Object::File(file) => {
            let mut data = vec![0; most];
            let count = match offset {
                Some(offset) => files.read_at(file, offset, &mut data)?,
                None => files.read(file, &mut data)?,
            };
            data.truncate(count);
            Ok(data)
        }
        Object::Text(text, at) => Ok(take_text(text, at, most, offset)),
        Object::Null => Ok(Vec::new()),
        Object::Zero | Object::Full => Ok(vec![0; most]),
        Object::Random => {
            asked.random = true;
            let mut data = vec![0; most];
            world.random(&mut data);
            Ok(data)
        }
        Object::Event(_) | Object::Timer(_) if most < 8 => Err(Errno::EINVAL),
        Object::Event(event) if event.count == 0 => Err(Errno::EAGAIN),
        Object::Event(event) => {
            let taken = if event.semaphore { 1 } else { event.count };
            event.count -= taken;
            event.changes += 1;
            word(taken)
        }
        Object::Timer(timer) => match timer.take(now) {
            0 => Err(Errno::EAGAIN),
            count => word(count),
        },
        _ if offset.is_some() => Err(Errno::ESPIPE),
        Object::PipeReader(pipe) => pipes.find_mut(*pipe)?.read(most, false),
        Object::Socket(socket) => {
            let socket = *socket;
            call.process.receive(socket, most, false)
        }
        Object::Input | Object::Reply | Object::Log | Object::PipeWriter(_) => Err(Errno::EBADF),
        Object::Epoll(_) => Err(Errno::EINVAL),
    };
    finish(call, nonblocking, taken)
}

/// Takes up to `most` bytes of the input.
fn take_input(call: &mut Call<'_>, most: usize) -> Result<Vec<u8>, Halt> {
    let Some(data) = call.process.input.take(most) else {
        return Err(Halt::Wait(Wait::Input, None));
    };
    call.process.stir();
    Ok(data)
}

/// The bytes of a text at an offset, or where it stands.
fn take_text(text: &[u8], at: &mut u64, most: usize, offset: Option<u64>) -> Vec<u8> {
    let from = offset.unwrap_or(*at).min(text.len() as u64) as usize;
    let data = text[from..text.len().min(from.saturating_add(most))].to_vec();
    if offset.is_none() {
        *at = (from + data.len()) as u64;
    }
    data
}

/// What a try comes to: a result, or to wait for a change.
pub fn finish<T>(
    call: &mut Call<'_>,
    nonblocking: bool,
    tried: Result<T, Errno>,
) -> Result<T, Halt> {
    match tried {
        Err(Errno::EAGAIN) if !nonblocking => Err(call.wait(None, Errno::EAGAIN.into())),
        Ok(done) => {
            call.process.stir();
            Ok(done)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Writes from the parts, to the offset or where the descriptor stands.
pub fn write_parts(
    call: &mut Call<'_>,
    descriptor: i32,
    parts: &Parts,
    offset: Option<u64>,
) -> Answer {
    let id = call.process.descriptors.id(descriptor)?;
    let open = call.process.descriptors.open(id)?;
    let flows = flows(&open.object);
    if !open.writes() {
        return Err(Errno::EBADF.into());
    }
    let (total, mut done) = (total(parts), 0);
    loop {
        let most = (total - done).min(IO_BYTES_MAX as u64);
        let data = gather(call, parts, done, most)?;
        let at = offset.map(|offset| offset.saturating_add(done));
        let count = match put(call, id, &data, at) {
            Ok(count) => count as u64,
            Err(Halt::Over) => return Err(Halt::Over),
            Err(_) if done > 0 => break,
            Err(halt) => return Err(halt),
        };
        done += count;
        if !flows || count < most || done == total {
            break;
        }
    }
    Ok(done)
}

/// Takes a reply or log before there is a call; false if it is neither, or there is one.
fn is_early(process: &mut Process, id: OpenId, data: &[u8]) -> Result<bool, Errno> {
    if process.stage.is_call() {
        return Ok(false);
    }
    match process.descriptors.open(id)?.object {
        Object::Reply => process.asked.replied |= !data.is_empty(),
        Object::Log => process.said.extend_from_slice(data),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Gives bytes to what is open; how many it took.
pub fn put(
    call: &mut Call<'_>,
    id: OpenId,
    data: &[u8],
    offset: Option<u64>,
) -> Result<usize, Halt> {
    if is_early(call.process, id, data)? {
        return Ok(data.len());
    }
    let Process {
        descriptors,
        files,
        pipes,
        world,
        ..
    } = &mut *call.process;
    let open = descriptors.open_mut(id)?;
    let nonblocking = open.nonblocking();
    let taken = match &mut open.object {
        Object::Reply => {
            if !world.reply(data) {
                call.process.exit.get_or_insert(Exit::ReplyTooLong);
                return Err(Halt::Over);
            }
            Ok(data.len())
        }
        Object::Log => {
            if !world.log(data) {
                call.process.exit.get_or_insert(Exit::LogTooLong);
                return Err(Halt::Over);
            }
            Ok(data.len())
        }
        Object::File(file) => Ok(match offset {
            Some(offset) => files.write_at(file, offset, data)?,
            None => files.write(file, data)?,
        }),
        Object::Null | Object::Zero | Object::Random => Ok(data.len()),
        Object::Full => Err(Errno::ENOSPC),
        Object::Event(event) => {
            let word = data.first_chunk().copied().map(u64::from_le_bytes);
            let sum = word.ok_or(Errno::EINVAL)?;
            match event.count.checked_add(sum) {
                _ if sum == u64::MAX => Err(Errno::EINVAL),
                Some(sum) if sum < u64::MAX => {
                    event.count = sum;
                    event.changes += 1;
                    Ok(8)
                }
                _ => Err(Errno::EAGAIN),
            }
        }
        _ if offset.is_some() => Err(Errno::ESPIPE),
        Object::PipeWriter(pipe) => pipes.find_mut(*pipe)?.write(data),
        Object::Socket(socket) => {
            let socket = *socket;
            call.process.send(socket, data)
        }
        Object::Input | Object::PipeReader(_) | Object::Text(..) => Err(Errno::EBADF),
        Object::Timer(_) | Object::Epoll(_) => Err(Errno::EINVAL),
    };
    if taken == Err(Errno::EPIPE) {
        call.process
            .send_signal(Some(call.tid), Info::sent(SIGPIPE, SI_USER));
    }
    finish(call, nonblocking, taken)
}

/// `read`.
pub fn read(call: &mut Call<'_>) -> Answer {
    let parts = one(call);
    read_parts(call, call.int(0), &parts, None)
}

/// `write`.
pub fn write(call: &mut Call<'_>) -> Answer {
    let parts = one(call);
    write_parts(call, call.int(0), &parts, None)
}

/// `readv`.
pub fn readv(call: &mut Call<'_>) -> Answer {
    let parts = parts(call, call.arg(1), call.arg(2))?;
    read_parts(call, call.int(0), &parts, None)
}

/// `writev`.
pub fn writev(call: &mut Call<'_>) -> Answer {
    let parts = parts(call, call.arg(1), call.arg(2))?;
    write_parts(call, call.int(0), &parts, None)
}

fn offset(call: &Call<'_>) -> Result<Option<u64>, Errno> {
    super::paths::length(call.arg(3)).map(Some)
}

/// `pread64`.
pub fn pread64(call: &mut Call<'_>) -> Answer {
    let (parts, offset) = (one(call), offset(call)?);
    read_parts(call, call.int(0), &parts, offset)
}

/// `pwrite64`.
pub fn pwrite64(call: &mut Call<'_>) -> Answer {
    let (parts, offset) = (one(call), offset(call)?);
    write_parts(call, call.int(0), &parts, offset)
}

/// `preadv`, `preadv2`; -1 stands for where the descriptor stands in the latter.
pub fn preadv(call: &mut Call<'_>) -> Answer {
    let offset = versioned_offset(call)?;
    let parts = parts(call, call.arg(1), call.arg(2))?;
    read_parts(call, call.int(0), &parts, offset)
}

/// `pwritev`, `pwritev2`.
pub fn pwritev(call: &mut Call<'_>) -> Answer {
    let offset = versioned_offset(call)?;
    let parts = parts(call, call.arg(1), call.arg(2))?;
    write_parts(call, call.int(0), &parts, offset)
}

fn versioned_offset(call: &Call<'_>) -> Result<Option<u64>, Errno> {
    const PREADV2: u64 = 327;
    const PWRITEV2: u64 = 328;
    let second = matches!(call.request.number, PREADV2 | PWRITEV2);
    if second && call.uint(5) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if second && call.arg(3) == u64::MAX {
        return Ok(None);
    }
    offset(call)
}

/// `lseek`.
pub fn lseek(call: &mut Call<'_>) -> Answer {
    let delta = call.arg(1) as i64;
    let whence = match call.int(2) {
        0 => Whence::Start,
        1 => Whence::Current,
        2 => Whence::End,
        _ => return Err(Errno::EINVAL.into()),
    };
    let Process {
        descriptors, files, ..
    } = &mut *call.process;
    match &mut descriptors.find_mut(call.request.args[0] as i32)?.object {
        Object::File(file) => Ok(files.seek(file, delta, whence)?),
        Object::Text(text, at) => {
            let from = match whence {
                Whence::Start => 0,
                Whence::Current => *at,
                Whence::End => text.len() as u64,
            };
            *at = from.checked_add_signed(delta).ok_or(Errno::EINVAL)?;
            Ok(*at)
        }
        Object::Null | Object::Zero | Object::Full | Object::Random => Ok(0),
        _ => Err(Errno::ESPIPE.into()),
    }
}

/// `sendfile`: to the first descriptor, from the second.
pub fn sendfile(call: &mut Call<'_>) -> Answer {
    carry(call, (1, 2), (0, 5), 3)
}

/// `copy_file_range`.
pub fn copy_file_range(call: &mut Call<'_>) -> Answer {
    carry(call, (0, 1), (2, 3), 4)
}

/// Carries bytes from one descriptor to another, a piece at the most. Arguments are told by their
/// places: a descriptor, and the address of an offset; 5 for none.
fn carry(
    call: &mut Call<'_>,
    (from, from_offset): (usize, usize),
    (to, to_offset): (usize, usize),
    count: usize,
) -> Answer {
    const NONE: usize = 5;
    let (from, to) = (call.int(from), call.int(to));
    let (source, target) = (
        call.process.descriptors.id(from)?,
        call.process.descriptors.id(to)?,
    );
    if !call.process.descriptors.open(source)?.reads()
        || !call.process.descriptors.open(target)?.writes()
    {
        return Err(Errno::EBADF.into());
    }
    let place = |call: &mut Call<'_>, index: usize| match call.request.args[index] {
        at if index == NONE || at == 0 => Ok(None),
        at => call.read_u64(at).map(|offset| Some((at, offset))),
    };
    let (read_at, write_at) = (place(call, from_offset)?, place(call, to_offset)?);
    let most = call.arg(count).min(IO_BYTES_MAX as u64) as usize;
    let data = take(call, source, most, read_at.map(|(_, offset)| offset))?;
    if data.is_empty() {
        return Ok(0);
    }
    let written = put(call, target, &data, write_at.map(|(_, offset)| offset))?;
    // What was read and not taken goes back, where it came from a file.
    if read_at.is_none()
        && let Object::File(file) = &mut call.process.descriptors.open_mut(source)?.object
    {
        file.offset -= (data.len() - written) as u64;
    }
    for (at, offset) in [read_at, write_at].into_iter().flatten() {
        call.write_u64(at, offset.saturating_add(written as u64))?;
    }
    Ok(written as u64)
}
