//! Calls that make pipes, counters and timers, and those that wait for many things at once.

use super::super::descriptor::{
    DESCRIPTORS_MAX, Event, O_CLOEXEC, O_NONBLOCK, O_WRONLY, Object, OpenId, Timer,
};
use super::super::epoll::{Change, Epoll};
use super::super::errno::Errno;
use super::super::poll::{ERR, HUP, IN, NVAL, OUT};
use super::super::process::{Answer, Call, Halt};
use super::super::thread::Wait;

const SECOND_NS: u64 = 1_000_000_000;
/// Flags that open things take here.
const FLAGS: u32 = O_NONBLOCK | O_CLOEXEC;

/// `pipe`.
pub fn pipe(call: &mut Call<'_>) -> Answer {
    make_pipe(call, 0)
}

/// `pipe2`.
pub fn pipe2(call: &mut Call<'_>) -> Answer {
    const O_DIRECT: u32 = 0o40000;
    let flags = call.uint(1);
    if flags & !(FLAGS | O_DIRECT) != 0 {
        return Err(Errno::EINVAL.into());
    }
    make_pipe(call, flags)
}

fn make_pipe(call: &mut Call<'_>, flags: u32) -> Answer {
    let pipe = call.process.pipes.make(false)?;
    let reader = call.process.add_descriptor(Object::PipeReader(pipe), flags);
    let reader = match reader {
        Ok(reader) => reader,
        Err(errno) => {
            call.process.pipes.close_writer(pipe);
            return Err(errno.into());
        }
    };
    let writer = call
        .process
        .add_descriptor(Object::PipeWriter(pipe), flags | O_WRONLY);
    pair(call, call.arg(0), reader, writer)
}

/// Writes two descriptors, or closes them again.
pub fn pair(call: &mut Call<'_>, at: u64, first: u64, second: Result<u64, Errno>) -> Answer {
    let written = second.and_then(|second| call.write_u64(at, first | second << 32));
    if let Err(errno) = written {
        call.process.close_descriptor(first as i32)?;
        if let Ok(second) = second {
            call.process.close_descriptor(second as i32)?;
        }
        return Err(errno.into());
    }
    Ok(0)
}

/// `eventfd`, `eventfd2`.
pub fn eventfd(call: &mut Call<'_>) -> Answer {
    const EFD_SEMAPHORE: u32 = 1;
    const EVENTFD2: u64 = 290;
    let flags = if call.request.number == EVENTFD2 {
        call.uint(1)
    } else {
        0
    };
    if flags & !(FLAGS | EFD_SEMAPHORE) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let event = Event {
        count: call.uint(0).into(),
        semaphore: flags & EFD_SEMAPHORE != 0,
        changes: 0,
    };
    let flags = flags & FLAGS | super::super::descriptor::O_RDWR;
    Ok(call.process.add_descriptor(Object::Event(event), flags)?)
}

/// `timerfd_create`.
pub fn timerfd_create(call: &mut Call<'_>) -> Answer {
    if call.uint(1) & !FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    let realtime = match call.int(0) {
        0 => true,
        1 | 7 => false,
        _ => return Err(Errno::EINVAL.into()),
    };
    let timer = Timer {
        realtime,
        next: None,
        interval: 0,
        changes: 0,
    };
    Ok(call
        .process
        .add_descriptor(Object::Timer(timer), call.uint(1))?)
}

/// `timerfd_settime`.
pub fn timerfd_settime(call: &mut Call<'_>) -> Answer {
    const ABSOLUTE: u32 = 1;
    let at = call.arg(2);
    let (interval, value) = (call.timespec(at)?, call.timespec(at.wrapping_add(16))?);
    let (now, absolute) = (call.process.now, call.uint(1) & ABSOLUTE != 0);
    let old = *timer(call)?;
    // A time of day that comes sooner or later than it seems, in a process that was frozen.
    call.process.asked.time |= absolute && old.realtime && value != 0;
    let next = match (absolute, old.realtime) {
        _ if value == 0 => None,
        (false, _) => Some(now.monotonic_ns.saturating_add(value)),
        (true, false) => Some(value),
        (true, true) => Some(
            now.monotonic_ns
                .saturating_add(value.saturating_sub(now.realtime_ns)),
        ),
    };
    if call.arg(3) != 0 {
        write_timer(call, call.arg(3), &old)?;
    }
    let timer = timer(call)?;
    (timer.next, timer.interval) = (next, interval);
    timer.changes += 1;
    call.process.stir();
    Ok(0)
}

/// `timerfd_gettime`.
pub fn timerfd_gettime(call: &mut Call<'_>) -> Answer {
    let timer = *timer(call)?;
    write_timer(call, call.arg(1), &timer)?;
    Ok(0)
}

fn timer<'a>(call: &'a mut Call<'_>) -> Result<&'a mut Timer, Errno> {
    match &mut call
        .process
        .descriptors
        .find_mut(call.request.args[0] as i32)?
        .object
    {
        Object::Timer(timer) => Ok(timer),
        _ => Err(Errno::EINVAL),
    }
}

fn write_timer(call: &mut Call<'_>, at: u64, timer: &Timer) -> Result<(), Errno> {
    let now = call.process.now.monotonic_ns;
    let left = timer.next.map_or(0, |next| next.saturating_sub(now).max(1));
    call.write_timespec(at, timer.interval)?;
    call.write_timespec(at.wrapping_add(16), left)
}

/// `epoll_create`, `epoll_create1`.
pub fn epoll_create(call: &mut Call<'_>) -> Answer {
    const CREATE1: u64 = 291;
    let first = call.request.number == CREATE1;
    if (first && call.uint(0) & !O_CLOEXEC != 0) || (!first && call.int(0) <= 0) {
        return Err(Errno::EINVAL.into());
    }
    let flags = if first { call.uint(0) } else { 0 };
    Ok(call
        .process
        .add_descriptor(Object::Epoll(Epoll::default()), flags)?)
}

/// `epoll_ctl`.
pub fn epoll_ctl(call: &mut Call<'_>) -> Answer {
    let change = match call.int(1) {
        1 => Change::Add,
        2 => Change::Remove,
        3 => Change::Modify,
        _ => return Err(Errno::EINVAL.into()),
    };
    let (mut events, mut data) = (0, 0);
    if change != Change::Remove {
        events = call.read_u32(call.arg(3))?;
        data = call.read_u64(call.arg(3).wrapping_add(4))?;
    }
    let epoll = call.process.descriptors.id(call.int(0))?;
    let watched = call.process.descriptors.id(call.int(2))?;
    if epoll == watched {
        return Err(Errno::EINVAL.into());
    }
    // Files are always ready, which nobody needs to wait for.
    if let Object::File(_) | Object::Text(..) = call.process.descriptors.open(watched)?.object {
        return Err(Errno::EPERM.into());
    }
    let key = (call.int(2), watched);
    call.process
        .epoll(epoll)?
        .change(change, key, events, data)?;
    call.process.stir();
    Ok(0)
}

/// `epoll_wait`, `epoll_pwait`, `epoll_pwait2`.
pub fn epoll_wait(call: &mut Call<'_>) -> Answer {
    const PWAIT: u64 = 281;
    const PWAIT2: u64 = 441;
    /// Most that are told at a time.
    const TOLD_MAX: usize = 1024;
    let most = usize::try_from(call.int(2)).map_err(|_| Errno::EINVAL)?;
    if most == 0 {
        return Err(Errno::EINVAL.into());
    }
    let time = match call.request.number {
        PWAIT2 => match call.arg(3) {
            0 => None,
            at => Some(call.timespec(at)?),
        },
        _ => milliseconds(call.int(3)),
    };
    if matches!(call.request.number, PWAIT | PWAIT2) {
        mask_for_call(call, call.arg(4), call.arg(5))?;
    }
    let epoll = call.process.descriptors.id(call.int(0))?;
    let (told, awaits) = call.process.epoll_told(epoll, most.min(TOLD_MAX))?;
    if told.is_empty() {
        return or_zero(call, time, awaits);
    }
    let mut bytes = Vec::with_capacity(told.len() * 12);
    for (events, data) in &told {
        bytes.extend_from_slice(&events.to_le_bytes());
        bytes.extend_from_slice(&data.to_le_bytes());
    }
    call.write(call.arg(1), &bytes)?;
    Ok(told.len() as u64)
}

/// A time to wait: none for ever.
fn milliseconds(ms: i32) -> Option<u64> {
    u64::try_from(ms).ok().map(|ms| ms * 1_000_000)
}

/// Waits for a change; 0 when the time is over. Who would see the input that a call brings waits
/// for the call, however short: that there is none yet is never told.
fn or_zero(call: &mut Call<'_>, time: Option<u64>, awaits: bool) -> Answer {
    if awaits {
        return Err(Halt::Wait(Wait::Input, None));
    }
    let until = call.until(time);
    match call.wait(until, Halt::Over) {
        Halt::Over => Ok(0),
        halt => Err(halt),
    }
}

fn mask_for_call(call: &mut Call<'_>, at: u64, bytes: u64) -> Result<(), Errno> {
    if at == 0 {
        return Ok(());
    }
    if bytes != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = call.read_u64(at)?;
    call.thread()?.signals.block_for_call(mask);
    Ok(())
}

/// `poll`.
pub fn poll(call: &mut Call<'_>) -> Answer {
    let time = milliseconds(call.int(2));
    poll_for(call, time)
}

/// `ppoll`.
pub fn ppoll(call: &mut Call<'_>) -> Answer {
    let time = match call.arg(2) {
        0 => None,
        at => Some(call.timespec(at)?),
    };
    mask_for_call(call, call.arg(3), call.arg(4))?;
    poll_for(call, time)
}

fn poll_for(call: &mut Call<'_>, time: Option<u64>) -> Answer {
    const BYTES: usize = 8;
    let count = call.arg(1);
    if count > DESCRIPTORS_MAX.into() {
        return Err(Errno::EINVAL.into());
    }
    let mut asked = call.copy(call.arg(0), count * BYTES as u64)?;
    let (mut ready, mut awaits) = (0, false);
    for one in asked.chunks_exact_mut(BYTES) {
        let descriptor = i32::from_le_bytes([one[0], one[1], one[2], one[3]]);
        let wanted = u32::from(u16::from_le_bytes([one[4], one[5]]));
        let events = match call.process.descriptors.id(descriptor) {
            _ if descriptor < 0 => 0,
            Err(_) => NVAL,
            Ok(id) => {
                let found = call.process.ready(id)?;
                awaits |= found.awaits && wanted & IN != 0;
                found.events & (wanted | ERR | HUP)
            }
        };
        one[6..8].copy_from_slice(&(events as u16).to_le_bytes());
        ready += u64::from(events != 0);
    }
    if ready == 0 {
        let waited = or_zero(call, time, awaits);
        waited?;
    }
    call.write(call.arg(0), &asked)?;
    Ok(ready)
}

/// `select`.
pub fn select(call: &mut Call<'_>) -> Answer {
    let time = match call.arg(4) {
        0 => None,
        at => {
            let [seconds, us] = call.read_words(at)?;
            let ns = seconds.saturating_mul(SECOND_NS);
            Some(ns.saturating_add(us.saturating_mul(1000)))
        }
    };
    select_for(call, time)
}

/// `pselect6`.
pub fn pselect6(call: &mut Call<'_>) -> Answer {
    let time = match call.arg(4) {
        0 => None,
        at => Some(call.timespec(at)?),
    };
    if call.arg(5) != 0 {
        let [mask, bytes] = call.read_words(call.arg(5))?;
        mask_for_call(call, mask, bytes)?;
    }
    select_for(call, time)
}

fn select_for(call: &mut Call<'_>, time: Option<u64>) -> Answer {
    let count = u32::try_from(call.int(0)).map_err(|_| Errno::EINVAL)?;
    let count = count.min(DESCRIPTORS_MAX);
    let bytes = u64::from(count).div_ceil(64) * 8;
    // Reading, writing, exceptions, of which there are none.
    let wanted = [IN | HUP | ERR, OUT | ERR, 0];
    let mut sets: Vec<Option<Vec<u8>>> = Vec::new();
    let (mut ready, mut awaits) = (0, false);
    for (index, wanted) in wanted.iter().enumerate() {
        let at = call.arg(1 + index);
        if at == 0 {
            sets.push(None);
            continue;
        }
        let asked = call.copy(at, bytes)?;
        let mut found = vec![0; asked.len()];
        for descriptor in 0..count as usize {
            if asked[descriptor / 8] >> (descriptor % 8) & 1 == 0 {
                continue;
            }
            let id: OpenId = call.process.descriptors.id(descriptor as i32)?;
            let state = call.process.ready(id)?;
            awaits |= state.awaits && wanted & IN != 0;
            if state.events & wanted != 0 {
                found[descriptor / 8] |= 1 << (descriptor % 8);
                ready += 1;
            }
        }
        sets.push(Some(found));
    }
    if ready == 0 {
        or_zero(call, time, awaits)?;
    }
    for (index, set) in sets.into_iter().enumerate() {
        if let Some(set) = set {
            call.write(call.arg(1 + index), &set)?;
        }
    }
    Ok(ready)
}
