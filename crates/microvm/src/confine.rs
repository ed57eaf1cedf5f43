//! What a thread that runs guests may no longer ask of the kernel.
//!
//! A guest that broke out of its wall would run as the thread that ran it. A filter of the kernel's
//! (seccomp) then denies it to start programs, to look into other processes, and to change the
//! machine. It is a list of what is denied, for a node's threads also store, listen and log; what
//! they do not need and what leads out of the process is on it.
//!
//! ```text
//!  not of x86-64, x32 ──▶ EPERM        clone without CLONE_THREAD ──▶ EPERM
//!  denied by number   ──▶ EPERM        clone3 ──▶ ENOSYS: what it asks cannot be seen, and C
//!  the probe          ──▶ CONFINED                libraries fall back to clone
//! ```

use std::io;

use libc::{c_long, c_ulong, sock_filter, sock_fprog};

/// Numbers that are denied whatever they ask.
#[rustfmt::skip]
const DENIED: [c_long; 62] = [
    // Programs and processes.
    libc::SYS_execve, libc::SYS_execveat, libc::SYS_fork, libc::SYS_vfork, libc::SYS_personality,
    // Other processes.
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev,
    libc::SYS_process_madvise, libc::SYS_kcmp, libc::SYS_pidfd_getfd,
    // What is mounted where, and files past their path.
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_move_mount, libc::SYS_open_tree,
    libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    libc::SYS_mount_setattr, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_open_by_handle_at,
    libc::SYS_mknod, libc::SYS_mknodat, libc::SYS_fanotify_init, libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    // Namespaces, users and rights.
    libc::SYS_setns, libc::SYS_unshare, libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid,
    libc::SYS_setregid, libc::SYS_setresuid, libc::SYS_setresgid, libc::SYS_setfsuid,
    libc::SYS_setfsgid, libc::SYS_setgroups, libc::SYS_capset, libc::SYS_add_key,
    libc::SYS_request_key, libc::SYS_keyctl,
    // The kernel, and ways past this filter.
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load,
    libc::SYS_kexec_file_load, libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_syslog,
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    // The machine.
    libc::SYS_reboot, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_iopl, libc::SYS_ioperm,
    libc::SYS_modify_ldt, libc::SYS_clock_settime, libc::SYS_settimeofday,
];

/// `AUDIT_ARCH_X86_64`: calls by other ways, as `int 0x80` is, have other numbers.
const ARCH: u32 = 0xc000_003e;
/// The bit of calls for programs with short pointers, which have numbers of their own.
const X32: u32 = 0x4000_0000;
/// No system call; the filter answers it, so that a thread that inherited it is known.
const PROBE: u32 = 0x3d0d_0d0d;
/// What it answers: an error that no call has.
const CONFINED: i32 = 3333;

/// Where `struct seccomp_data` has what is looked at.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;
const FIRST_ARGUMENT_AT: u32 = 16;

/// Confines this thread, and those that it begins from now on. A thread that is confined stays as
/// it is.
pub fn this_thread() -> io::Result<()> {
    if is_confined() {
        return Ok(());
    }
    let mut filter = filter();
    let program = sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    let none: c_ulong = 0;
    // SAFETY: it takes numbers. Without it the kernel takes no filter from a user without rights.
    let settled = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as c_ulong, none, none, none) };
    if settled != 0 {
        return Err(io::Error::last_os_error());
    }
    let mode = libc::SECCOMP_SET_MODE_FILTER as c_ulong;
    // Mitigations of processors stay as they were: the filter is no reason for other ones.
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as c_ulong;
    // SAFETY: the kernel reads the program, which lives until the call returns, and copies it.
    match unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether this thread is confined.
pub fn is_confined() -> bool {
    // SAFETY: there is no such call, so it does nothing.
    let answer = unsafe { libc::syscall(PROBE.into()) };
    answer == -1 && io::Error::last_os_error().raw_os_error() == Some(CONFINED)
}

fn filter() -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCH_AT),
        jump(libc::BPF_JEQ, ARCH, 1, 0),
        errno(libc::EPERM),
        load(NUMBER_AT),
        jump(libc::BPF_JEQ, PROBE, 0, 1),
        errno(CONFINED),
        jump(libc::BPF_JGE, X32, 0, 1),
        errno(libc::EPERM),
        jump(libc::BPF_JEQ, libc::SYS_clone3 as u32, 0, 1),
        errno(libc::ENOSYS),
        jump(libc::BPF_JEQ, libc::SYS_clone as u32, 0, 4),
        load(FIRST_ARGUMENT_AT),
        jump(libc::BPF_JSET, libc::CLONE_THREAD as u32, 1, 0),
        errno(libc::EPERM),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    for (at, number) in DENIED.iter().enumerate() {
        // Over the rest of them, and over the answer of what is on no list.
        let to_denied = (DENIED.len() - at) as u8;
        program.push(jump(libc::BPF_JEQ, *number as u32, to_denied, 0));
    }
    program.extend([answer(libc::SECCOMP_RET_ALLOW), errno(libc::EPERM)]);
    program
}

fn load(at: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0)
}

/// Compares, and skips so many instructions if it is so, or if it is not.
fn jump(how: u32, with: u32, if_so: u8, else_skip: u8) -> sock_filter {
    instruction(libc::BPF_JMP | how | libc::BPF_K, with, if_so, else_skip)
}

fn answer(with: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, with, 0, 0)
}

fn errno(errno: i32) -> sock_filter {
    answer(libc::SECCOMP_RET_ERRNO | errno as u32)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
#[path = "confine_tests.rs"]
mod tests;
