//! Futexes: threads that wait for a word of memory, and who wakes them.
//!
//! Calls of a process are made one after another, so comparing a word and going to sleep is one
//! step for whoever changes the word and wakes others by a call. Where the host changes a word
//! itself, nobody runs meanwhile.

use super::errno::Errno;
use super::process::{Answer, Call, Guest, Halt, Process};
use super::thread::{State, Thread, Tid, Wait};

const FUTEX_WAIT: u32 = 0;
const FUTEX_WAKE: u32 = 1;
const FUTEX_REQUEUE: u32 = 3;
const FUTEX_CMP_REQUEUE: u32 = 4;
const FUTEX_WAKE_OP: u32 = 5;
const FUTEX_WAIT_BITSET: u32 = 9;
const FUTEX_WAKE_BITSET: u32 = 10;
/// Private to the process, as all are here; and: times are of the real-time clock.
const FLAGS: u32 = 128 | 256;
const CLOCK_REALTIME: u32 = 256;
const ANY: u32 = u32::MAX;

/// A lock whose owner has died, and one that others wait for.
const OWNER_DIED: u32 = 0x4000_0000;
const WAITERS: u32 = 0x8000_0000;
const OWNER: u32 = 0x3fff_ffff;
/// Most locks that a thread's list is followed for.
const ROBUST_MAX: usize = 2048;

/// `futex`.
pub fn futex(call: &mut Call<'_>) -> Answer {
    let operation = call.uint(1);
    match operation & !FLAGS {
        FUTEX_WAIT => wait(call, operation, ANY),
        FUTEX_WAIT_BITSET => wait(call, operation, call.uint(5)),
        FUTEX_WAKE => wake(call, ANY),
        FUTEX_WAKE_BITSET => wake(call, call.uint(5)),
        FUTEX_REQUEUE => requeue(call, false),
        FUTEX_CMP_REQUEUE => requeue(call, true),
        FUTEX_WAKE_OP => wake_operation(call),
        _ => Err(Errno::ENOSYS.into()),
    }
}

fn word_at(address: u64) -> Result<u64, Errno> {
    match address.is_multiple_of(4) {
        true => Ok(address),
        false => Err(Errno::EINVAL),
    }
}

fn wait(call: &mut Call<'_>, operation: u32, bits: u32) -> Answer {
    let address = word_at(call.arg(0))?;
    if bits == 0 {
        return Err(Errno::EINVAL.into());
    }
    let now = call.process.now;
    let until = match call.arg(3) {
        0 => None,
        at => {
            let time = call.timespec(at)?;
            // A plain wait lasts so long; one with bits ends then.
            Some(match operation & !FLAGS {
                FUTEX_WAIT => now.monotonic_ns.saturating_add(time),
                _ if operation & CLOCK_REALTIME != 0 => {
                    let left = time.saturating_sub(now.realtime_ns);
                    now.monotonic_ns.saturating_add(left)
                }
                _ => time,
            })
        }
    };
    if call.read_u32(address)? != call.uint(2) {
        return Err(Errno::EAGAIN.into());
    }
    if until.is_some_and(|until| until <= now.monotonic_ns) {
        return Err(Errno::ETIMEDOUT.into());
    }
    Err(Halt::Wait(Wait::Futex { address, bits }, until))
}

fn wake(call: &mut Call<'_>, bits: u32) -> Answer {
    let address = word_at(call.arg(0))?;
    if bits == 0 {
        return Err(Errno::EINVAL.into());
    }
    let count = call.int(2).max(1) as usize;
    Ok(wake_at(call.process, address, count, bits) as u64)
}

/// Those that wait for the word at `address`.
fn waiters(process: &Process, address: u64, bits: u32) -> Vec<Tid> {
    let here = |wait| matches!(wait, Wait::Futex { address: at, bits: of } if at == address && of & bits != 0);
    let waiting = process.threads.waiting();
    waiting
        .filter(|(_, wait, _)| here(*wait))
        .map(|(tid, ..)| tid)
        .collect()
}

/// Wakes up to `count` threads; how many.
pub fn wake_at(process: &mut Process, address: u64, count: usize, bits: u32) -> usize {
    let mut woken = 0;
    for tid in waiters(process, address, bits).into_iter().take(count) {
        process.threads.wake(tid, 0);
        woken += 1;
    }
    woken
}

fn requeue(call: &mut Call<'_>, compare: bool) -> Answer {
    let (from, to) = (word_at(call.arg(0))?, word_at(call.arg(4))?);
    let (Ok(count), Ok(moved_max)) = (usize::try_from(call.int(2)), usize::try_from(call.int(3)))
    else {
        return Err(Errno::EINVAL.into());
    };
    if compare && call.read_u32(from)? != call.uint(5) {
        return Err(Errno::EAGAIN.into());
    }
    let woken = wake_at(call.process, from, count, ANY);
    let mut moved = 0;
    for tid in waiters(call.process, from, ANY).into_iter().take(moved_max) {
        if let Some(thread) = call.process.threads.find_mut(tid)
            && let State::Waiting(Wait::Futex { address, .. }) = &mut thread.state
        {
            *address = to;
            moved += 1;
        }
    }
    Ok((woken + moved) as u64)
}

fn wake_operation(call: &mut Call<'_>) -> Answer {
    let (first, second) = (word_at(call.arg(0))?, word_at(call.arg(4))?);
    let encoded = call.uint(5);
    let sign_extended = |value: u32| (value << 20) as i32 >> 20;
    let mut operand = sign_extended(encoded >> 12 & 0xfff);
    let compared = sign_extended(encoded & 0xfff);
    if encoded >> 31 != 0 {
        operand = 1 << (operand & 31);
    }
    call.guest.alone();
    let old = call.read_u32(second)? as i32;
    let new = match encoded >> 28 & 7 {
        0 => operand,
        1 => old.wrapping_add(operand),
        2 => old | operand,
        3 => old & !operand,
        4 => old ^ operand,
        _ => return Err(Errno::ENOSYS.into()),
    };
    let holds = match encoded >> 24 & 0xf {
        0 => old == compared,
        1 => old != compared,
        2 => old < compared,
        3 => old <= compared,
        4 => old > compared,
        5 => old >= compared,
        _ => return Err(Errno::ENOSYS.into()),
    };
    call.write_u32(second, new as u32)?;
    let count = |value: i32| value.max(1) as usize;
    let (first_count, second_count) = (count(call.int(2)), count(call.arg(3) as i32));
    let mut woken = wake_at(call.process, first, first_count, ANY);
    if holds {
        woken += wake_at(call.process, second, second_count, ANY);
    }
    Ok(woken as u64)
}

/// What a thread leaves behind: locks that it held are marked, and who joins it is woken.
pub fn leave(process: &mut Process, guest: &mut dyn Guest, tid: Tid, thread: &Thread) {
    if thread.robust_list != 0 {
        guest.alone();
        // A list that is not as it should be is the guest's own loss.
        let _ = release_locks(process, guest, tid, thread.robust_list);
    }
    if thread.clear_tid != 0 {
        let cleared = process.write(guest, thread.clear_tid, &0_u32.to_le_bytes());
        if cleared.is_ok() {
            wake_at(process, thread.clear_tid, 1, ANY);
        }
    }
}

/// Follows `struct robust_list_head`: the first entry, where a lock lies from its entry, and one
/// that is being taken or released.
fn release_locks(
    process: &mut Process,
    guest: &mut dyn Guest,
    tid: Tid,
    head: u64,
) -> Result<(), Errno> {
    let mut entry = process.read_u64(guest, head)?;
    let offset = process.read_u64(guest, head.wrapping_add(8))?;
    let pending = process.read_u64(guest, head.wrapping_add(16))?;
    for _ in 0..ROBUST_MAX {
        if entry == head || entry == 0 {
            break;
        }
        let next = process.read_u64(guest, entry)?;
        if entry != pending {
            release(process, guest, tid, entry.wrapping_add(offset))?;
        }
        entry = next;
    }
    if pending != 0 {
        release(process, guest, tid, pending.wrapping_add(offset))?;
    }
    Ok(())
}

fn release(
    process: &mut Process,
    guest: &mut dyn Guest,
    tid: Tid,
    address: u64,
) -> Result<(), Errno> {
    let value = process.read_u32(guest, address)?;
    if value & OWNER == tid.0 {
        let died = value & WAITERS | OWNER_DIED;
        process.write(guest, address, &died.to_le_bytes())?;
        if value & WAITERS != 0 {
            wake_at(process, address, 1, ANY);
        }
    }
    Ok(())
}
