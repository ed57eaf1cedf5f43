//! Calls that begin and end threads, and those that would begin processes.

use super::super::errno::Errno;
use super::super::process::{Answer, Call, Exit, Halt};
use super::super::thread::Thread;

const CLONE_VM: u64 = 0x100;
const CLONE_SIGHAND: u64 = 0x800;
const CLONE_THREAD: u64 = 0x1_0000;
const CLONE_SETTLS: u64 = 0x8_0000;
const CLONE_PARENT_SETTID: u64 = 0x10_0000;
const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
const CLONE_CHILD_SETTID: u64 = 0x100_0000;
/// What makes a thread of this process.
const THREAD: u64 = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;

const ARCH_SET_GS: i32 = 0x1001;
const ARCH_SET_FS: i32 = 0x1002;
const ARCH_GET_FS: i32 = 0x1003;
const ARCH_GET_GS: i32 = 0x1004;

struct New {
    flags: u64,
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    base: u64,
}

/// `clone`.
pub fn clone(call: &mut Call<'_>) -> Answer {
    let [flags, stack, parent_tid, child_tid, base, _] = call.request.args;
    begin(
        call,
        New {
            flags,
            stack,
            parent_tid,
            child_tid,
            base,
        },
    )
}

/// `clone3`.
pub fn clone3(call: &mut Call<'_>) -> Answer {
    const BYTES: u64 = 64;
    let (at, bytes) = (call.arg(0), call.arg(1));
    if bytes < BYTES {
        return Err(Errno::EINVAL.into());
    }
    let [flags, _, child_tid, parent_tid, _, stack, stack_bytes, base] = call.read_words(at)?;
    begin(
        call,
        New {
            flags,
            stack: stack.wrapping_add(stack_bytes),
            parent_tid,
            child_tid,
            base,
        },
    )
}

fn begin(call: &mut Call<'_>, new: New) -> Answer {
    if new.flags & THREAD != THREAD {
        return no_process(call);
    }
    let vectors = call.guest.vectors().map_err(|_| Errno::EAGAIN)?;
    let base = call.guest.base().map_err(|_| Errno::EAGAIN)?;
    let parent = call.thread()?;
    let (mut regs, mask, name) = (parent.regs, parent.signals.mask, parent.name);
    regs.rax = 0;
    if new.stack != 0 {
        regs.rsp = new.stack;
    }
    let own_base = new.flags & CLONE_SETTLS != 0;
    let mut thread = Thread::new(regs, if own_base { new.base } else { base });
    thread.vectors = Some(vectors);
    thread.signals.mask = mask;
    thread.name = name;
    if new.flags & CLONE_CHILD_CLEARTID != 0 {
        thread.clear_tid = new.child_tid;
    }
    let tid = call.process.threads.add(thread).ok_or(Errno::EAGAIN)?;
    for (flag, at) in [
        (CLONE_PARENT_SETTID, new.parent_tid),
        (CLONE_CHILD_SETTID, new.child_tid),
    ] {
        // As on Linux, an address that cannot be written is the caller's own loss.
        if new.flags & flag != 0 {
            let _ = call.write_u32(at, tid.0);
        }
    }
    Ok(tid.0.into())
}

/// `fork`, `vfork`, `execve` and their like: there is one process, and one program.
pub fn no_process(call: &mut Call<'_>) -> Answer {
    let count = call.process.unknown.entry(call.request.number).or_default();
    *count = count.saturating_add(1);
    Err(Errno::ENOSYS.into())
}

/// `wait4`, `waitid`: no children.
pub fn no_children(_: &mut Call<'_>) -> Answer {
    Err(Errno::ECHILD.into())
}

/// `exit`.
pub fn exit(call: &mut Call<'_>) -> Answer {
    let (tid, code) = (call.tid, call.arg(0) as u8);
    call.process.end_thread(call.guest, tid, code);
    Err(Halt::Over)
}

/// `exit_group`.
pub fn exit_group(call: &mut Call<'_>) -> Answer {
    let code = call.arg(0) as u8;
    call.process.exit.get_or_insert(Exit::Code(code));
    Err(Halt::Over)
}

/// `sched_yield`.
pub fn sched_yield(call: &mut Call<'_>) -> Answer {
    call.process.threads.rotate();
    Ok(0)
}

/// `set_tid_address`.
pub fn set_tid_address(call: &mut Call<'_>) -> Answer {
    let at = call.arg(0);
    call.thread()?.clear_tid = at;
    Ok(call.tid.0.into())
}

/// `set_robust_list`.
pub fn set_robust_list(call: &mut Call<'_>) -> Answer {
    const BYTES: u64 = 24;
    if call.arg(1) != BYTES {
        return Err(Errno::EINVAL.into());
    }
    let at = call.arg(0);
    call.thread()?.robust_list = at;
    Ok(0)
}

/// `arch_prctl`: the base of the thread's own data.
pub fn arch_prctl(call: &mut Call<'_>) -> Answer {
    let base = call.arg(1);
    match call.int(0) {
        ARCH_SET_FS if base >= crate::layout::WINDOW_END => Err(Errno::EPERM.into()),
        ARCH_SET_FS => {
            call.guest.set_base(base).map_err(|_| Errno::EPERM)?;
            Ok(0)
        }
        ARCH_GET_FS => {
            let base = call.guest.base().map_err(|_| Errno::EPERM)?;
            call.write_u64(call.arg(1), base)?;
            Ok(0)
        }
        ARCH_SET_GS | ARCH_GET_GS => Err(Errno::EINVAL.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `membarrier`: offers no command, which programs take for a kernel without it.
pub fn membarrier(call: &mut Call<'_>) -> Answer {
    const QUERY: i32 = 0;
    if call.int(0) == QUERY {
        Ok(0)
    } else {
        Err(Errno::EINVAL.into())
    }
}

/// `rseq`: C libraries ask for it and do without. It is no news to anyone, so it is not counted.
pub fn rseq(_: &mut Call<'_>) -> Answer {
    Err(Errno::ENOSYS.into())
}
