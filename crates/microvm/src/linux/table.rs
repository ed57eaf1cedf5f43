//! The system calls that are offered: one row each, which the documentation is made of as well.

use super::process::{Answer, Call};
use super::{calls, futex, numbers};

/// What answers a call.
pub type Handler = fn(&mut Call<'_>) -> Answer;

/// A call that is offered.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its number.
    pub number: u64,
    /// What it is about.
    pub group: &'static str,
    /// What answers it.
    pub handler: Handler,
    /// Whether it is made again after a signal whose handler asks for that.
    pub restarts: bool,
    /// How it differs from what Linux does; empty if it does not.
    pub note: &'static str,
}

impl Row {
    /// Its name.
    pub fn name(&self) -> &'static str {
        numbers::name(self.number).unwrap_or_default()
    }
}

const fn row(
    number: u64,
    group: &'static str,
    handler: Handler,
    restarts: bool,
    note: &'static str,
) -> Row {
    Row {
        number,
        group,
        handler,
        restarts,
        note,
    }
}

/// Past the last number.
const NUMBERS: usize = 512;

/// The row of each number, if there is one.
static BY_NUMBER: [u16; NUMBERS] = by_number();

const fn by_number() -> [u16; NUMBERS] {
    let mut places = [0; NUMBERS];
    let mut at = 0;
    while at < TABLE.len() {
        places[TABLE[at].number as usize] = at as u16 + 1;
        at += 1;
    }
    places
}

/// The row of a call.
pub fn find(number: u64) -> Option<&'static Row> {
    let place = BY_NUMBER.get(usize::try_from(number).ok()?)?;
    TABLE.get(usize::from(*place).checked_sub(1)?)
}

/// Whether a call is made again after a signal.
pub fn restarts(number: u64) -> bool {
    find(number).is_some_and(|row| row.restarts)
}

/// All rows, by what they are about.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    // Memory
    row(12, "Memory", calls::memory::brk, false, ""),
    row(9, "Memory", calls::memory::mmap, false,
        "private, or shared without a file; a file is copied in, and cannot be mapped shared and \
         writable (`ENODEV`)"),
    row(11, "Memory", calls::memory::munmap, false, ""),
    row(10, "Memory", calls::memory::mprotect, false,
        "what may be written or executed may be read, too"),
    row(25, "Memory", calls::memory::mremap, false, "`MREMAP_MAYMOVE`; no `MREMAP_FIXED`"),
    row(28, "Memory", calls::memory::madvise, false,
        "`MADV_DONTNEED` makes zero; other advice changes nothing"),
    row(27, "Memory", calls::memory::mincore, false, "all that is mapped is there"),
    row(26, "Memory", calls::memory::keep, false, "nothing to do"),
    row(149, "Memory", calls::memory::keep, false, "nothing to do"),
    row(150, "Memory", calls::memory::keep, false, "nothing to do"),
    row(151, "Memory", calls::memory::keep, false, "nothing to do"),
    row(152, "Memory", calls::memory::keep, false, "nothing to do"),
    row(325, "Memory", calls::memory::keep, false, "nothing to do"),
    // Reading and writing
    row(0, "Reading and writing", calls::io::read, true, ""),
    row(1, "Reading and writing", calls::io::write, true,
        "a blocking write to a pipe or socket may be partial"),
    row(17, "Reading and writing", calls::io::pread64, false, ""),
    row(18, "Reading and writing", calls::io::pwrite64, false, ""),
    row(19, "Reading and writing", calls::io::readv, true, ""),
    row(20, "Reading and writing", calls::io::writev, true, ""),
    row(295, "Reading and writing", calls::io::preadv, false, ""),
    row(296, "Reading and writing", calls::io::pwritev, false, ""),
    row(327, "Reading and writing", calls::io::preadv, false, "no flags"),
    row(328, "Reading and writing", calls::io::pwritev, false, "no flags"),
    row(8, "Reading and writing", calls::io::lseek, false, "no `SEEK_DATA`, `SEEK_HOLE`"),
    row(40, "Reading and writing", calls::io::sendfile, false, "up to 1 MiB a call"),
    row(326, "Reading and writing", calls::io::copy_file_range, false, "up to 1 MiB a call"),
    // Descriptors
    row(3, "Descriptors", calls::describe::close, false, ""),
    row(436, "Descriptors", calls::describe::close_range, false, ""),
    row(32, "Descriptors", calls::describe::dup, false, ""),
    row(33, "Descriptors", calls::describe::dup2, false, ""),
    row(292, "Descriptors", calls::describe::dup3, false, ""),
    row(72, "Descriptors", calls::describe::fcntl, false,
        "locks are always had: there is no other process"),
    row(16, "Descriptors", calls::describe::ioctl, false,
        "`FIONREAD`, `FIONBIO`, `FIOCLEX`, `FIONCLEX`; else `ENOTTY`"),
    row(74, "Descriptors", calls::describe::accept_as_done, false, "nothing to do"),
    row(75, "Descriptors", calls::describe::accept_as_done, false, "nothing to do"),
    row(306, "Descriptors", calls::describe::accept_as_done, false, "nothing to do"),
    row(73, "Descriptors", calls::describe::accept_as_done, false, "always had"),
    row(221, "Descriptors", calls::describe::accept_as_done, false, "nothing to do"),
    row(187, "Descriptors", calls::describe::accept_as_done, false, "nothing to do"),
    row(162, "Descriptors", calls::describe::sync, false, "nothing to do"),
    row(77, "Descriptors", calls::describe::ftruncate, false, ""),
    row(285, "Descriptors", calls::describe::fallocate, false, "mode 0"),
    row(91, "Descriptors", calls::describe::fchmod, false, ""),
    row(93, "Descriptors", calls::describe::accept_as_done, false, "everything has one owner"),
    // Files by path
    row(2, "Files by path", calls::paths::open, false, "no `O_TMPFILE`"),
    row(257, "Files by path", calls::paths::openat, false, "no `O_TMPFILE`"),
    row(85, "Files by path", calls::paths::creat, false, ""),
    row(21, "Files by path", calls::paths::access, false, ""),
    row(269, "Files by path", calls::paths::faccessat, false, ""),
    row(439, "Files by path", calls::paths::faccessat, false, ""),
    row(79, "Files by path", calls::paths::getcwd, false, ""),
    row(80, "Files by path", calls::paths::chdir, false, ""),
    row(81, "Files by path", calls::paths::fchdir, false, ""),
    row(83, "Files by path", calls::paths::mkdir, false, ""),
    row(258, "Files by path", calls::paths::mkdirat, false, ""),
    row(84, "Files by path", calls::paths::rmdir, false, ""),
    row(87, "Files by path", calls::paths::unlink, false, ""),
    row(263, "Files by path", calls::paths::unlinkat, false, ""),
    row(82, "Files by path", calls::paths::rename, false, ""),
    row(264, "Files by path", calls::paths::renameat, false, ""),
    row(316, "Files by path", calls::paths::renameat, false, "`RENAME_NOREPLACE`"),
    row(86, "Files by path", calls::paths::link, false, ""),
    row(265, "Files by path", calls::paths::linkat, false, ""),
    row(88, "Files by path", calls::paths::symlink, false, ""),
    row(266, "Files by path", calls::paths::symlinkat, false, ""),
    row(89, "Files by path", calls::paths::readlink, false, ""),
    row(267, "Files by path", calls::paths::readlinkat, false, ""),
    row(76, "Files by path", calls::paths::truncate, false, ""),
    row(90, "Files by path", calls::paths::chmod, false, ""),
    row(268, "Files by path", calls::paths::fchmodat, false, ""),
    row(92, "Files by path", calls::paths::chown, false, "everything has one owner"),
    row(94, "Files by path", calls::paths::chown, false, "everything has one owner"),
    row(260, "Files by path", calls::paths::fchownat, false, "everything has one owner"),
    row(95, "Files by path", calls::paths::umask, false, ""),
    row(280, "Files by path", calls::paths::utimensat, false, ""),
    row(4, "Files by path", calls::stat::stat, false, ""),
    row(6, "Files by path", calls::stat::lstat, false, ""),
    row(5, "Files by path", calls::stat::fstat, false, ""),
    row(262, "Files by path", calls::stat::newfstatat, false, ""),
    row(332, "Files by path", calls::stat::statx, false, ""),
    row(137, "Files by path", calls::stat::statfs, false, "the private layer's quota"),
    row(138, "Files by path", calls::stat::statfs, false, "the private layer's quota"),
    row(217, "Files by path", calls::stat::getdents64, false, ""),
    // Waiting for many
    row(22, "Waiting for many", calls::events::pipe, false, ""),
    row(293, "Waiting for many", calls::events::pipe2, false, ""),
    row(284, "Waiting for many", calls::events::eventfd, false, ""),
    row(290, "Waiting for many", calls::events::eventfd, false, ""),
    row(283, "Waiting for many", calls::events::timerfd_create, false, ""),
    row(286, "Waiting for many", calls::events::timerfd_settime, false, ""),
    row(287, "Waiting for many", calls::events::timerfd_gettime, false, ""),
    row(213, "Waiting for many", calls::events::epoll_create, false, ""),
    row(291, "Waiting for many", calls::events::epoll_create, false, ""),
    row(233, "Waiting for many", calls::events::epoll_ctl, false,
        "level and edge triggered, one-shot"),
    row(232, "Waiting for many", calls::events::epoll_wait, false, ""),
    row(281, "Waiting for many", calls::events::epoll_wait, false, ""),
    row(441, "Waiting for many", calls::events::epoll_wait, false, ""),
    row(7, "Waiting for many", calls::events::poll, false, ""),
    row(271, "Waiting for many", calls::events::ppoll, false, ""),
    row(23, "Waiting for many", calls::events::select, false, ""),
    row(270, "Waiting for many", calls::events::pselect6, false, ""),
    // Sockets
    row(41, "Sockets", calls::network::socket, false,
        "`AF_UNIX`, `AF_INET`, `AF_INET6`; streams, datagrams"),
    row(53, "Sockets", calls::network::socketpair, false, ""),
    row(49, "Sockets", calls::network::bind, false, "loopback and any address, within the process"),
    row(50, "Sockets", calls::network::listen, false, "within the process"),
    row(43, "Sockets", calls::network::accept, true, ""),
    row(288, "Sockets", calls::network::accept, true, ""),
    row(42, "Sockets", calls::network::connect, true,
        "to what listens in the process, else as the function's egress grants say: `EACCES` \
         without one"),
    row(51, "Sockets", calls::network::getsockname, false, ""),
    row(52, "Sockets", calls::network::getpeername, false, ""),
    row(48, "Sockets", calls::network::shutdown, false, ""),
    row(54, "Sockets", calls::network::setsockopt, false, "taken, and without effect"),
    row(55, "Sockets", calls::network::getsockopt, false,
        "`SO_TYPE`, `SO_ERROR`, `SO_DOMAIN`, `SO_ACCEPTCONN`, buffer sizes; else 0"),
    row(44, "Sockets", calls::network::sendto, true, ""),
    row(46, "Sockets", calls::network::sendmsg, true, "no control messages"),
    row(307, "Sockets", calls::network::sendmmsg, true, "no control messages"),
    row(45, "Sockets", calls::network::recvfrom, true, ""),
    row(47, "Sockets", calls::network::recvmsg, true, "no control messages"),
    // Threads
    row(56, "Threads", calls::threads::clone, false,
        "threads only; a new process is refused (`ENOSYS`)"),
    row(435, "Threads", calls::threads::clone3, false, "threads only"),
    row(60, "Threads", calls::threads::exit, false, ""),
    row(231, "Threads", calls::threads::exit_group, false, ""),
    row(202, "Threads", futex::futex, true,
        "wait, wake, their bitset forms, requeue, wake-op; no priority inheritance"),
    row(218, "Threads", calls::threads::set_tid_address, false, ""),
    row(273, "Threads", calls::threads::set_robust_list, false, ""),
    row(158, "Threads", calls::threads::arch_prctl, false, "`ARCH_SET_FS`, `ARCH_GET_FS`"),
    row(24, "Threads", calls::threads::sched_yield, false, ""),
    row(324, "Threads", calls::threads::membarrier, false,
        "offers no command"),
    row(57, "Threads", calls::threads::no_process, false, "`ENOSYS`"),
    row(58, "Threads", calls::threads::no_process, false, "`ENOSYS`"),
    row(59, "Threads", calls::threads::no_process, false, "`ENOSYS`"),
    row(322, "Threads", calls::threads::no_process, false, "`ENOSYS`"),
    row(61, "Threads", calls::threads::no_children, false, "`ECHILD`"),
    row(247, "Threads", calls::threads::no_children, false, "`ECHILD`"),
    // Signals
    row(13, "Signals", calls::signals::rt_sigaction, false, ""),
    row(14, "Signals", calls::signals::rt_sigprocmask, false, ""),
    row(127, "Signals", calls::signals::rt_sigpending, false, ""),
    row(15, "Signals", calls::signals::rt_sigreturn, false, ""),
    row(130, "Signals", calls::signals::rt_sigsuspend, false, ""),
    row(128, "Signals", calls::signals::rt_sigtimedwait, false, ""),
    row(34, "Signals", calls::signals::pause, false, ""),
    row(131, "Signals", calls::signals::sigaltstack, false, ""),
    row(62, "Signals", calls::signals::kill, false, "to itself"),
    row(200, "Signals", calls::signals::tkill, false, ""),
    row(234, "Signals", calls::signals::tgkill, false, ""),
    // Time
    row(228, "Time", calls::time::clock_gettime, false, "the thread's CPU time is the process's"),
    row(229, "Time", calls::time::clock_getres, false, ""),
    row(96, "Time", calls::time::gettimeofday, false, ""),
    row(201, "Time", calls::time::time, false, ""),
    row(100, "Time", calls::time::times, false, ""),
    row(98, "Time", calls::time::getrusage, false, ""),
    row(35, "Time", calls::time::nanosleep, false, ""),
    row(230, "Time", calls::time::clock_nanosleep, false, ""),
    row(37, "Time", calls::time::alarm, false, ""),
    row(38, "Time", calls::time::setitimer, false, "`ITIMER_REAL`"),
    row(36, "Time", calls::time::getitimer, false, "`ITIMER_REAL`"),
    // Who and where
    row(39, "Who and where", calls::identity::getpid, false, "2"),
    row(110, "Who and where", calls::identity::getppid, false, "1"),
    row(186, "Who and where", calls::identity::gettid, false, ""),
    row(111, "Who and where", calls::identity::getpid, false, ""),
    row(121, "Who and where", calls::identity::getpid, false, ""),
    row(124, "Who and where", calls::identity::getpid, false, ""),
    row(102, "Who and where", calls::identity::getuid, false, "1000"),
    row(107, "Who and where", calls::identity::getuid, false, "1000"),
    row(104, "Who and where", calls::identity::getuid, false, "1000"),
    row(108, "Who and where", calls::identity::getuid, false, "1000"),
    row(118, "Who and where", calls::identity::getresuid, false, ""),
    row(120, "Who and where", calls::identity::getresuid, false, ""),
    row(115, "Who and where", calls::identity::getgroups, false, "none"),
    row(105, "Who and where", calls::identity::setuid, false, "to 1000"),
    row(106, "Who and where", calls::identity::setuid, false, "to 1000"),
    row(63, "Who and where", calls::identity::uname, false, ""),
    row(99, "Who and where", calls::identity::sysinfo, false, ""),
    row(302, "Who and where", calls::identity::prlimit64, false,
        "limits are told; none can be raised"),
    row(97, "Who and where", calls::identity::getrlimit, false, ""),
    row(160, "Who and where", calls::identity::setrlimit, false,
        "accepted if it raises nothing, and without effect"),
    row(204, "Who and where", calls::identity::sched_getaffinity, false, "as many as `processors_max`"),
    row(203, "Who and where", calls::identity::sched_setaffinity, false, ""),
    row(143, "Who and where", calls::identity::sched_getparam, false, ""),
    row(145, "Who and where", calls::identity::sched_default, false, ""),
    row(144, "Who and where", calls::identity::sched_default, false, "without effect"),
    row(140, "Who and where", calls::identity::getpriority, false, ""),
    row(141, "Who and where", calls::identity::sched_default, false, "without effect"),
    row(309, "Who and where", calls::identity::getcpu, false, ""),
    row(334, "Threads", calls::threads::rseq, false, "`ENOSYS`, which C libraries take for none"),
    row(157, "Who and where", calls::identity::prctl, false,
        "names of threads, and what changes nothing here"),
    row(318, "Who and where", calls::identity::getrandom, false, ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_number_and_has_a_name() {
        for row in TABLE {
            let found = find(row.number).unwrap();
            assert_eq!((found.number, found.note), (row.number, row.note));
            assert!(!row.name().is_empty(), "{}", row.number);
        }
        for number in [511, 512, u64::MAX, 169] {
            assert!(find(number).is_none());
        }
    }
}
