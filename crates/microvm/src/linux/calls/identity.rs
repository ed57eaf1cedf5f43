//! Calls about who the process is, what it may use, and what it runs on.

use super::super::descriptor::DESCRIPTORS_MAX;
use super::super::errno::Errno;
use super::super::maps::STACK_BYTES;
use super::super::process::{Answer, Call, USER};
use super::super::thread::{FIRST, THREADS_MAX, Tid};

/// The version of Linux that programs are told.
pub const RELEASE: &str = "6.1.0-dunlin";

/// `getpid`, `getpgrp`, `getsid`, `getpgid`.
pub fn getpid(_: &mut Call<'_>) -> Answer {
    Ok(FIRST.0.into())
}

/// `getppid`.
pub fn getppid(_: &mut Call<'_>) -> Answer {
    Ok(1)
}

/// `gettid`.
pub fn gettid(call: &mut Call<'_>) -> Answer {
    Ok(call.tid.0.into())
}

/// `getuid` and its like.
pub fn getuid(_: &mut Call<'_>) -> Answer {
    Ok(USER.into())
}

/// `getresuid`, `getresgid`.
pub fn getresuid(call: &mut Call<'_>) -> Answer {
    for index in 0..3 {
        call.write_u32(call.arg(index), USER)?;
    }
    Ok(0)
}

/// `getgroups`: none besides the first.
pub fn getgroups(_: &mut Call<'_>) -> Answer {
    Ok(0)
}

/// `setuid` and its like: to who one is already.
pub fn setuid(call: &mut Call<'_>) -> Answer {
    let keeps = |id: u32| id == USER || id == u32::MAX;
    if keeps(call.uint(0)) {
        Ok(0)
    } else {
        Err(Errno::EPERM.into())
    }
}

/// `uname`.
pub fn uname(call: &mut Call<'_>) -> Answer {
    const FIELD: usize = 65;
    let fields = [
        "Linux",
        "function",
        RELEASE,
        "#1 dunlin",
        "x86_64",
        "(none)",
    ];
    let mut bytes = vec![0; FIELD * fields.len()];
    for (index, field) in fields.iter().enumerate() {
        bytes[index * FIELD..][..field.len()].copy_from_slice(field.as_bytes());
    }
    call.write(call.arg(0), &bytes)?;
    Ok(0)
}

/// `sysinfo`.
pub fn sysinfo(call: &mut Call<'_>) -> Answer {
    let mut info = [0_u8; 112];
    let (total, used) = (call.guest.bytes_max(), call.guest.bytes());
    let uptime = call.process.now.monotonic_ns / 1_000_000_000;
    info[..8].copy_from_slice(&uptime.to_le_bytes());
    info[32..40].copy_from_slice(&total.to_le_bytes());
    info[40..48].copy_from_slice(&total.saturating_sub(used).to_le_bytes());
    info[80..82].copy_from_slice(&1_u16.to_le_bytes());
    info[104..108].copy_from_slice(&1_u32.to_le_bytes());
    call.write(call.arg(0), &info)?;
    Ok(0)
}

/// A limit: what holds, and the most that it could be set to.
fn limit(call: &Call<'_>, resource: u32) -> Result<u64, Errno> {
    const UNLIMITED: u64 = u64::MAX;
    match resource {
        3 => Ok(STACK_BYTES),
        // A core is never written.
        4 => Ok(0),
        6 => Ok(THREADS_MAX as u64),
        7 => Ok(DESCRIPTORS_MAX.into()),
        8 => Ok(call.guest.bytes_max()),
        0..=15 => Ok(UNLIMITED),
        _ => Err(Errno::EINVAL),
    }
}

/// `prlimit64`: limits are told, and setting them changes nothing as long as it raises none.
pub fn prlimit64(call: &mut Call<'_>) -> Answer {
    own(call, 0)?;
    let limit = limit(call, call.uint(1))?;
    if call.arg(2) != 0 {
        let [soft, hard] = call.read_words(call.arg(2))?;
        check_limit(soft, hard, limit)?;
    }
    if call.arg(3) != 0 {
        call.write_u64(call.arg(3), limit)?;
        call.write_u64(call.arg(3).wrapping_add(8), limit)?;
    }
    Ok(0)
}

fn check_limit(soft: u64, hard: u64, limit: u64) -> Result<(), Errno> {
    match (soft, hard) {
        (soft, hard) if soft > hard => Err(Errno::EINVAL),
        (_, hard) if hard > limit => Err(Errno::EPERM),
        _ => Ok(()),
    }
}

/// `getrlimit`.
pub fn getrlimit(call: &mut Call<'_>) -> Answer {
    let limit = limit(call, call.uint(0))?;
    call.write_u64(call.arg(1), limit)?;
    call.write_u64(call.arg(1).wrapping_add(8), limit)?;
    Ok(0)
}

/// `setrlimit`.
pub fn setrlimit(call: &mut Call<'_>) -> Answer {
    let limit = limit(call, call.uint(0))?;
    let [soft, hard] = call.read_words(call.arg(1))?;
    check_limit(soft, hard, limit)?;
    Ok(0)
}

/// Fails unless an argument names the process or one of its threads.
fn own(call: &Call<'_>, index: usize) -> Result<(), Errno> {
    let tid = Tid(call.uint(index));
    let known = tid.0 == 0 || call.process.threads.find(tid).is_some();
    if known { Ok(()) } else { Err(Errno::ESRCH) }
}

/// The processors, as a set.
fn processors(call: &Call<'_>) -> u64 {
    (1 << call.process.processors) - 1
}

/// `sched_getaffinity`: all processors.
pub fn sched_getaffinity(call: &mut Call<'_>) -> Answer {
    own(call, 0)?;
    let bytes = call.arg(1);
    if bytes < 8 || !bytes.is_multiple_of(8) {
        return Err(Errno::EINVAL.into());
    }
    let all = processors(call);
    call.write_u64(call.arg(2), all)?;
    Ok(8)
}

/// `sched_setaffinity`: to a set that has one of the processors, and without effect.
pub fn sched_setaffinity(call: &mut Call<'_>) -> Answer {
    own(call, 0)?;
    let mut first = [0];
    if call.arg(1) > 0 {
        call.read(call.arg(2), &mut first)?;
    }
    if u64::from(first[0]) & processors(call) != 0 {
        Ok(0)
    } else {
        Err(Errno::EINVAL.into())
    }
}

/// `getcpu`.
pub fn getcpu(call: &mut Call<'_>) -> Answer {
    for index in [0, 1] {
        if call.arg(index) != 0 {
            call.write_u32(call.arg(index), 0)?;
        }
    }
    Ok(0)
}

/// `sched_getscheduler`, `sched_getparam`, `getpriority` and the setters of what cannot differ.
pub fn sched_default(call: &mut Call<'_>) -> Answer {
    own(call, 0)?;
    Ok(0)
}

/// `sched_getparam`.
pub fn sched_getparam(call: &mut Call<'_>) -> Answer {
    own(call, 0)?;
    call.write_u32(call.arg(1), 0)?;
    Ok(0)
}

/// `getpriority`: 20 stands for the usual one.
pub fn getpriority(_: &mut Call<'_>) -> Answer {
    Ok(20)
}

/// `prctl`.
pub fn prctl(call: &mut Call<'_>) -> Answer {
    const PR_SET_PDEATHSIG: i32 = 1;
    const PR_GET_DUMPABLE: i32 = 3;
    const PR_SET_DUMPABLE: i32 = 4;
    const PR_SET_NAME: i32 = 15;
    const PR_GET_NAME: i32 = 16;
    const PR_SET_NO_NEW_PRIVS: i32 = 38;
    const PR_GET_NO_NEW_PRIVS: i32 = 39;
    match call.int(0) {
        PR_SET_PDEATHSIG | PR_GET_DUMPABLE | PR_SET_DUMPABLE | PR_SET_NO_NEW_PRIVS => Ok(0),
        PR_GET_NO_NEW_PRIVS => Ok(1),
        PR_SET_NAME => {
            let mut name = call.text(call.arg(1))?;
            name.truncate(15);
            let thread = call.thread()?;
            thread.name = [0; 16];
            thread.name[..name.len()].copy_from_slice(&name);
            Ok(0)
        }
        PR_GET_NAME => {
            let name = call.thread()?.name;
            call.write(call.arg(1), &name)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `getrandom`.
pub fn getrandom(call: &mut Call<'_>) -> Answer {
    const GRND_NONBLOCK: u32 = 1;
    const GRND_INSECURE: u32 = 4;
    let (to, bytes, flags) = (call.arg(0), call.arg(1), call.uint(2));
    if flags & !7 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let bytes = bytes.min(super::super::process::IO_BYTES_MAX as u64);
    // Who asks for little and will not wait seeds a table or an allocator, and makes no key of it.
    let seed = flags & (GRND_NONBLOCK | GRND_INSECURE) != 0 && bytes <= 16;
    call.process.asked.random |= !seed;
    let mut random = vec![0; bytes as usize];
    call.process.world.random(&mut random);
    call.write(to, &random)?;
    Ok(bytes)
}
