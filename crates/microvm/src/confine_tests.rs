//! What a confined thread cannot, and that it can all else.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use super::*;

const ZERO: c_long = 0;

/// The error of a call without arguments.
fn refused(number: c_long) -> Option<i32> {
    // SAFETY: every argument is zero: what is not denied fails on that, or changes nothing that
    // outlives the thread.
    let answer = unsafe { libc::syscall(number, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO) };
    (answer == -1).then(|| io::Error::last_os_error().raw_os_error().unwrap())
}

fn confined<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(move || {
        assert!(!is_confined());
        this_thread().unwrap();
        work()
    });
    thread.join().unwrap()
}

#[test]
fn every_denied_call_is_denied() {
    confined(|| {
        let calls = DENIED.iter().copied();
        // A process that came to be all the same would go on with the tests.
        for number in calls.filter(|number| ![libc::SYS_fork, libc::SYS_vfork].contains(number)) {
            assert_eq!(refused(number), Some(libc::EPERM), "call {number}");
        }
        for number in [libc::SYS_fork, libc::SYS_clone] {
            let signal = c_long::from(libc::SIGCHLD);
            // SAFETY: should there be a child, it ends at once.
            let answer = unsafe { libc::syscall(number, signal, ZERO, ZERO, ZERO, ZERO) };
            if answer == 0 {
                // SAFETY: it does not return.
                unsafe { libc::_exit(1) };
            }
            let error = io::Error::last_os_error();
            assert_eq!((answer, error.raw_os_error()), (-1, Some(libc::EPERM)));
        }
        assert_eq!(refused(libc::SYS_clone3), Some(libc::ENOSYS));
        assert_eq!(refused(c_long::from(X32) | 39), Some(libc::EPERM));
    });
    assert_eq!(
        refused(libc::SYS_unshare),
        None,
        "a thread beside it is free"
    );
}

#[test]
fn a_confined_thread_starts_no_program_and_neither_do_its_own() {
    let start = || Command::new("/bin/true").status().unwrap_err().kind();
    confined(move || {
        assert_eq!(start(), ErrorKind::PermissionDenied);
        let child = thread::spawn(move || (is_confined(), start()));
        assert_eq!(child.join().unwrap(), (true, ErrorKind::PermissionDenied));
    });
}

#[test]
fn a_confined_thread_goes_on_with_all_else() {
    confined(|| {
        this_thread().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"written").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let client = thread::spawn(move || TcpStream::connect(to).unwrap().write_all(b"sent"));
        let mut text = String::new();
        listener
            .accept()
            .unwrap()
            .0
            .read_to_string(&mut text)
            .unwrap();
        client.join().unwrap().unwrap();
        assert_eq!(text, "sent");
        let range = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::EXEC;
        // SAFETY: a new mapping aliases nothing, and nobody uses it.
        let mapped = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                4096,
                range,
                rustix::mm::MapFlags::PRIVATE,
            )
        };
        assert!(mapped.is_ok());
    });
}
