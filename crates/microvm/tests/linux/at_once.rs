//! Threads of a process that run at once, on processors of their own.

use std::time::Duration;

use microvm::linux::{End, Exit};

use crate::support::{Ran, Run, build, run};

/// Runs `at_once.c` with `processors`; none without KVM.
fn at_once(compiler: &str, mode: &str, processors: u32, time: Duration) -> Option<Ran> {
    let program = build("at_once.c", compiler, &["-pthread", "-w"]);
    let args = ["program", mode];
    let asked = Run {
        args: &args,
        processors,
        time,
        ..Run::default()
    };
    run(&program, &asked)
}

const LONG: Duration = Duration::from_secs(120);

/// Whether the machine can run two threads at once.
fn has_two() -> bool {
    std::thread::available_parallelism().is_ok_and(|count| count.get() > 1)
}

#[test]
fn two_threads_hand_a_turn_to_and_fro_without_a_system_call() {
    if !has_two() {
        eprintln!("left out, since this machine has one processor");
        return;
    }
    for compiler in ["musl-gcc", "gcc"] {
        let Some(ran) = at_once(compiler, "hand", 2, LONG) else {
            return;
        };
        assert_eq!(ran.code(), 0, "{}", ran.text());
    }
    // One processor switches between them every few milliseconds, 200,000 times.
    let Some(ran) = at_once("musl-gcc", "hand", 1, Duration::from_secs(2)) else {
        return;
    };
    assert!(matches!(ran.end, End::Deadline), "{:?}", ran.end);
}

#[test]
fn ten_thousand_threads_are_refused_past_the_most_that_there_are() {
    for processors in [1, 4] {
        let Some(ran) = at_once("musl-gcc", "many", processors, LONG) else {
            return;
        };
        assert_eq!(ran.reply(), "511 9489 1\n");
    }
}

#[test]
fn threads_that_wait_for_each_other_are_woken() {
    for (compiler, processors) in [("musl-gcc", 2), ("gcc", 2), ("gcc", 4), ("gcc", 8)] {
        let Some(ran) = at_once(compiler, "locks", processors, LONG) else {
            return;
        };
        assert_eq!(ran.reply(), "80000 800\n", "{compiler} {processors}");
    }
}

#[test]
fn what_one_thread_maps_anew_no_other_sees_as_it_was() {
    for processors in [2, 3] {
        let Some(ran) = at_once("gcc", "maps", processors, LONG) else {
            return;
        };
        assert_eq!(ran.reply(), "0\n");
    }
}

#[test]
fn pages_that_threads_touch_first_at_the_same_time_are_there_once() {
    for processors in [2, 3] {
        let Some(ran) = at_once("musl-gcc", "pages", processors, LONG) else {
            return;
        };
        assert_eq!(ran.reply(), "0\n");
    }
}

#[test]
fn a_signal_reaches_a_thread_that_makes_no_system_call() {
    for compiler in ["musl-gcc", "gcc"] {
        let Some(ran) = at_once(compiler, "signals", 2, LONG) else {
            return;
        };
        assert_eq!(ran.reply(), "1\n", "{compiler}");
    }
}

#[test]
fn a_fault_an_exit_or_the_deadline_ends_all_threads() {
    for processors in [2, 4] {
        let Some(ran) = at_once("musl-gcc", "fault", processors, LONG) else {
            return;
        };
        let End::Fault(fault) = ran.end else {
            panic!("{:?}", ran.end)
        };
        assert_eq!((fault.address, fault.is_write()), (0, true));
        let exits = at_once("musl-gcc", "exit", processors, LONG).unwrap();
        assert!(
            matches!(exits.end, End::Exit(Exit::Code(3))),
            "{:?}",
            exits.end
        );
        let time = Duration::from_millis(300);
        let spins = at_once("musl-gcc", "spin", processors, time).unwrap();
        assert!(matches!(spins.end, End::Deadline), "{:?}", spins.end);
    }
}

#[test]
fn a_program_is_told_how_many_processors_it_has() {
    for (compiler, processors) in [("musl-gcc", 1), ("musl-gcc", 3), ("gcc", 1), ("gcc", 8)] {
        let Some(ran) = at_once(compiler, "count", processors, LONG) else {
            return;
        };
        assert_eq!(
            ran.reply(),
            format!("{processors} {processors}\n"),
            "{compiler}"
        );
    }
}
