//! Calls about signals.

use super::super::errno::Errno;
use super::super::frame;
use super::super::process::{Answer, Call, Halt};
use super::super::signal::{
    Action, Info, LAST, OtherStack, SI_TKILL, SI_USER, SIGKILL, SIGSTOP, SS_DISABLE, SS_ONSTACK,
};
use super::super::thread::{FIRST, Tid, Wait};

const SIG_BLOCK: i32 = 0;
const SIG_UNBLOCK: i32 = 1;
const SIG_SETMASK: i32 = 2;
/// Bytes of a set of signals.
const SET_BYTES: u64 = 8;

fn signal(number: u64) -> Result<u8, Errno> {
    match number {
        1..=64 => Ok(number as u8),
        _ => Err(Errno::EINVAL),
    }
}

/// `rt_sigaction`.
pub fn rt_sigaction(call: &mut Call<'_>) -> Answer {
    let number = signal(call.arg(0))?;
    if call.arg(3) != SET_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let new = match call.arg(1) {
        0 => None,
        at => {
            let [handler, flags, restorer, mask] = call.read_words(at)?;
            Some(Action {
                handler,
                flags,
                restorer,
                mask,
            })
        }
    };
    if new.is_some() && (number == SIGKILL || number == SIGSTOP) {
        return Err(Errno::EINVAL.into());
    }
    let old = call.process.signals.action(number);
    if call.arg(2) != 0 {
        let words = [old.handler, old.flags, old.restorer, old.mask];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        call.write(call.arg(2), &bytes)?;
    }
    if let Some(new) = new {
        call.process.signals.set_action(number, new);
    }
    Ok(0)
}

/// `rt_sigprocmask`.
pub fn rt_sigprocmask(call: &mut Call<'_>) -> Answer {
    if call.arg(3) != SET_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let new = match call.arg(1) {
        0 => None,
        at => Some(call.read_u64(at)?),
    };
    let old = call.thread()?.signals.mask;
    let masked = new.map(|set| match call.int(0) {
        SIG_BLOCK => Ok(old | set),
        SIG_UNBLOCK => Ok(old & !set),
        SIG_SETMASK => Ok(set),
        _ => Err(Errno::EINVAL),
    });
    if let Some(mask) = masked.transpose()? {
        call.thread()?.signals.block(mask);
    }
    if call.arg(2) != 0 {
        call.write_u64(call.arg(2), old)?;
    }
    Ok(0)
}

/// `rt_sigpending`.
pub fn rt_sigpending(call: &mut Call<'_>) -> Answer {
    let mask = call.thread()?.signals.mask;
    let pending = call.process.pending_signals(call.tid) & mask;
    call.write_u64(call.arg(0), pending)?;
    Ok(0)
}

/// `rt_sigreturn`.
pub fn rt_sigreturn(call: &mut Call<'_>) -> Answer {
    frame::pop(call)?;
    Ok(0)
}

/// `rt_sigsuspend`.
pub fn rt_sigsuspend(call: &mut Call<'_>) -> Answer {
    if call.arg(1) != SET_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let mask = call.read_u64(call.arg(0))?;
    call.thread()?.signals.block_for_call(mask);
    pause(call)
}

/// `pause`.
pub fn pause(_: &mut Call<'_>) -> Answer {
    Err(Halt::Wait(Wait::Signal(0), None))
}

/// `rt_sigtimedwait`.
pub fn rt_sigtimedwait(call: &mut Call<'_>) -> Answer {
    if call.arg(3) != SET_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let set = call.read_u64(call.arg(0))?;
    if let Some(info) = call.process.take_signal(call.tid, set) {
        if call.arg(1) != 0 {
            call.write(call.arg(1), &info.bytes())?;
        }
        return Ok(info.signal.into());
    }
    let time = match call.arg(2) {
        0 => None,
        at => Some(call.timespec(at)?),
    };
    let until = call.until(time);
    match until {
        Some(until) if until <= call.process.now.monotonic_ns => Err(Errno::EAGAIN.into()),
        _ => Err(Halt::Wait(Wait::Signal(set), until)),
    }
}

/// `sigaltstack`.
pub fn sigaltstack(call: &mut Call<'_>) -> Answer {
    const LEAST: u64 = 2048;
    let thread = call.thread()?;
    let (old, rsp) = (thread.signals.other_stack, thread.regs.rsp);
    let in_use = old.holds(rsp);
    if call.arg(0) != 0 {
        let [start, flags, bytes] = call.read_words(call.arg(0))?;
        let flags = flags as u32;
        if in_use {
            return Err(Errno::EPERM.into());
        }
        if flags & !(SS_DISABLE | SS_ONSTACK) != 0 {
            return Err(Errno::EINVAL.into());
        }
        if flags & SS_DISABLE == 0 && bytes < LEAST {
            return Err(Errno::ENOMEM.into());
        }
        call.thread()?.signals.other_stack = OtherStack {
            start,
            bytes,
            flags: flags & SS_DISABLE,
        };
    }
    if call.arg(1) != 0 {
        let on = if in_use { SS_ONSTACK } else { 0 };
        let words = [old.start, u64::from(old.flags | on), old.bytes];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        call.write(call.arg(1), &bytes)?;
    }
    Ok(0)
}

fn send(call: &mut Call<'_>, to: Option<Tid>, number: u64, code: i32) -> Answer {
    if number == 0 {
        return Ok(0);
    }
    let number = signal(number)?;
    debug_assert!(number <= LAST);
    call.process.send_signal(to, Info::sent(number, code));
    Ok(0)
}

/// `kill`: of the process itself.
pub fn kill(call: &mut Call<'_>) -> Answer {
    let itself = [FIRST.0 as i32, 0, -1, -(FIRST.0 as i32)];
    if !itself.contains(&call.int(0)) {
        return Err(Errno::ESRCH.into());
    }
    send(call, None, call.arg(1), SI_USER)
}

fn thread(call: &Call<'_>, index: usize) -> Result<Tid, Errno> {
    let tid = Tid(call.uint(index));
    let found = call.process.threads.find(tid);
    found.map(|_| tid).ok_or(Errno::ESRCH)
}

/// `tkill`.
pub fn tkill(call: &mut Call<'_>) -> Answer {
    let tid = thread(call, 0)?;
    send(call, Some(tid), call.arg(1), SI_TKILL)
}

/// `tgkill`.
pub fn tgkill(call: &mut Call<'_>) -> Answer {
    if call.uint(0) != FIRST.0 {
        return Err(Errno::ESRCH.into());
    }
    let tid = thread(call, 1)?;
    send(call, Some(tid), call.arg(2), SI_TKILL)
}
