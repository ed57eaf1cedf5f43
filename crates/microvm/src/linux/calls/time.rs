//! Calls about time.

use super::super::errno::Errno;
use super::super::process::{Answer, Call, Halt};
use super::super::thread::Wait;

const CLOCK_REALTIME: i32 = 0;
const CLOCK_MONOTONIC: i32 = 1;
const CLOCK_PROCESS_CPUTIME: i32 = 2;
const CLOCK_THREAD_CPUTIME: i32 = 3;
const CLOCK_MONOTONIC_RAW: i32 = 4;
const CLOCK_REALTIME_COARSE: i32 = 5;
const CLOCK_MONOTONIC_COARSE: i32 = 6;
const CLOCK_BOOTTIME: i32 = 7;
const CLOCK_TAI: i32 = 11;
const TIMER_ABSTIME: u64 = 1;
const SECOND_NS: u64 = 1_000_000_000;

/// What a clock shows, in nanoseconds.
pub fn clock(call: &mut Call<'_>, clock: i32) -> Result<u64, Errno> {
    let now = call.process.now;
    match clock {
        CLOCK_REALTIME | CLOCK_REALTIME_COARSE | CLOCK_TAI => {
            call.process.asked.time = true;
            Ok(now.realtime_ns)
        }
        CLOCK_MONOTONIC | CLOCK_MONOTONIC_RAW | CLOCK_MONOTONIC_COARSE | CLOCK_BOOTTIME => {
            Ok(now.monotonic_ns)
        }
        CLOCK_PROCESS_CPUTIME | CLOCK_THREAD_CPUTIME => Ok(now.cpu_ns),
        _ => Err(Errno::EINVAL),
    }
}

/// `clock_gettime`.
pub fn clock_gettime(call: &mut Call<'_>) -> Answer {
    let ns = clock(call, call.int(0))?;
    call.write_timespec(call.arg(1), ns)?;
    Ok(0)
}

/// `clock_getres`.
pub fn clock_getres(call: &mut Call<'_>) -> Answer {
    clock(call, call.int(0))?;
    if call.arg(1) != 0 {
        call.write_timespec(call.arg(1), 1)?;
    }
    Ok(0)
}

/// `gettimeofday`.
pub fn gettimeofday(call: &mut Call<'_>) -> Answer {
    let ns = clock(call, CLOCK_REALTIME)?;
    if call.arg(0) != 0 {
        call.write_u64(call.arg(0), ns / SECOND_NS)?;
        call.write_u64(call.arg(0).wrapping_add(8), ns % SECOND_NS / 1000)?;
    }
    if call.arg(1) != 0 {
        // UTC, without daylight saving.
        call.write_u64(call.arg(1), 0)?;
    }
    Ok(0)
}

/// `time`.
pub fn time(call: &mut Call<'_>) -> Answer {
    let seconds = clock(call, CLOCK_REALTIME)? / SECOND_NS;
    if call.arg(0) != 0 {
        call.write_u64(call.arg(0), seconds)?;
    }
    Ok(seconds)
}

/// `times`: in ticks, a hundred in a second.
pub fn times(call: &mut Call<'_>) -> Answer {
    const TICK_NS: u64 = SECOND_NS / 100;
    let now = call.process.now;
    if call.arg(0) != 0 {
        let words = [now.cpu_ns / TICK_NS, 0, 0, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        call.write(call.arg(0), &bytes)?;
    }
    Ok(now.monotonic_ns / TICK_NS)
}

/// `getrusage`.
pub fn getrusage(call: &mut Call<'_>) -> Answer {
    let mut usage = [0_u8; 144];
    let now = call.process.now;
    let microseconds = now.cpu_ns / 1000;
    usage[..8].copy_from_slice(&(microseconds / 1_000_000).to_le_bytes());
    usage[8..16].copy_from_slice(&(microseconds % 1_000_000).to_le_bytes());
    let kilobytes = call.guest.bytes() >> 10;
    usage[32..40].copy_from_slice(&kilobytes.to_le_bytes());
    call.write(call.arg(1), &usage)?;
    Ok(0)
}

/// `nanosleep`.
pub fn nanosleep(call: &mut Call<'_>) -> Answer {
    let ns = call.timespec(call.arg(0))?;
    sleep(call, ns, call.arg(1))
}

/// `clock_nanosleep`.
pub fn clock_nanosleep(call: &mut Call<'_>) -> Answer {
    let time = call.timespec(call.arg(2))?;
    if call.arg(1) & TIMER_ABSTIME == 0 {
        clock(call, call.int(0))?;
        return sleep(call, time, call.arg(3));
    }
    let now = clock(call, call.int(0))?;
    sleep(call, time.saturating_sub(now), 0)
}

fn sleep(call: &mut Call<'_>, ns: u64, rest: u64) -> Answer {
    if ns == 0 {
        return Ok(0);
    }
    if rest != 0 {
        // Who is woken by a signal reads it; how much was left is not kept.
        call.write_timespec(rest, 0)?;
    }
    let until = call.process.now.monotonic_ns.saturating_add(ns);
    Err(Halt::Wait(Wait::Sleep, Some(until)))
}

/// `getitimer`: of the real-time one, which sends SIGALRM.
pub fn getitimer(call: &mut Call<'_>) -> Answer {
    if call.int(0) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let alarm = call.process.signals.alarm();
    write_alarm(call, call.arg(1), alarm)?;
    Ok(0)
}

/// `setitimer`.
pub fn setitimer(call: &mut Call<'_>) -> Answer {
    if call.int(0) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let [every_s, every_us, first_s, first_us] = call.read_words(call.arg(1))?;
    let ns = |seconds: u64, us: u64| {
        seconds
            .saturating_mul(SECOND_NS)
            .saturating_add(us.saturating_mul(1000))
    };
    let (every, first) = (ns(every_s, every_us), ns(first_s, first_us));
    let next = call.process.now.monotonic_ns.saturating_add(first);
    let alarm = (first > 0).then_some((next, every));
    let old = call.process.signals.set_alarm(alarm);
    if call.arg(2) != 0 {
        write_alarm(call, call.arg(2), old)?;
    }
    Ok(0)
}

fn write_alarm(call: &mut Call<'_>, at: u64, alarm: Option<(u64, u64)>) -> Result<(), Errno> {
    let now = call.process.now.monotonic_ns;
    let (left, every) = alarm.map_or((0, 0), |(next, every)| (next.saturating_sub(now), every));
    let parts = |ns: u64| [ns / SECOND_NS, ns % SECOND_NS / 1000];
    let words = [parts(every), parts(left)].concat();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    call.write(at, &bytes)
}

/// `alarm`.
pub fn alarm(call: &mut Call<'_>) -> Answer {
    let now = call.process.now.monotonic_ns;
    let seconds = u64::from(call.uint(0));
    let alarm = (seconds > 0).then(|| (now.saturating_add(seconds * SECOND_NS), 0));
    let old = call.process.signals.set_alarm(alarm);
    let left = old.map_or(0, |(next, _)| next.saturating_sub(now));
    Ok(left.div_ceil(SECOND_NS))
}
