//! Programs that are answered without leaving their machines find what they would find anyway.

use std::fmt::Write;
use std::time::Duration;

use microvm::linux::{End, Exit};

use crate::support::{Ran, Run, build, run};

fn of(program: &[u8], args: &[&str]) -> Option<Ran> {
    let args = [&["program"], args].concat();
    let asked = Run {
        args: &args,
        input: b"12345",
        time: Duration::from_secs(30),
        ..Run::default()
    };
    run(program, &asked)
}

fn program() -> Vec<u8> {
    build("ahead.c", "gcc", &["-pthread", "-w"])
}

#[test]
fn what_is_written_goes_where_the_descriptor_leads_at_that_time() {
    let Some(ran) = of(&program(), &["order"]) else {
        return;
    };
    assert_eq!(ran.reply(), "one two filedpiped end", "{}", ran.text());
    assert_eq!(ran.log, b"log ");
}

#[test]
fn the_end_of_the_input_is_one_only_where_it_is() {
    let Some(ran) = of(&program(), &["ends"]) else {
        return;
    };
    assert_eq!(ran.reply(), "5 7 0 4\n");
}

#[test]
fn writes_of_every_size_arrive_whole_and_bad_ones_fail() {
    let Some(ran) = of(&program(), &["sizes"]) else {
        return;
    };
    let mut expected = Vec::new();
    for size in (0..20_000).step_by(97) {
        expected.extend((0..size).map(|at| b'a' + ((size + at) % 26) as u8));
    }
    expected.resize(expected.len() + 4096, 0);
    assert_eq!(ran.code(), 0, "{:?}", ran.end);
    assert!(ran.reply == expected, "{} bytes", ran.reply.len());
    assert_eq!(ran.log, expected.len().to_string().as_bytes());
}

#[test]
fn a_signal_stack_that_was_given_up_is_gone() {
    let Some(ran) = of(&program(), &["stacks"]) else {
        return;
    };
    let expected = "within 1 outside 1 flags 2\nfaulted 1 again 1 value 0\nfree 1\n";
    assert_eq!(ran.reply(), expected);
}

#[test]
fn calls_keep_registers_and_flags() {
    let Some(ran) = of(&program(), &["keeps"]) else {
        return;
    };
    assert_eq!(ran.reply(), "x\n".repeat(128));
}

#[test]
fn parts_arrive_in_their_order_and_all_or_none() {
    let Some(ran) = of(&program(), &["parts"]) else {
        return;
    };
    let mut expected = String::new();
    for count in 0..=12 {
        for part in 0..count {
            expected.push_str(&"abcdefghijklmnop"[part..part + part % 4]);
        }
        expected.push('|');
    }
    expected.push_str(&".".repeat(36_000));
    assert_eq!(ran.code(), 0, "{:?}", ran.end);
    assert!(ran.reply() == expected, "{}", ran.text());
}

#[test]
fn threads_that_are_stopped_anywhere_lose_and_repeat_nothing() {
    let Some(ran) = of(&program(), &["threads"]) else {
        return;
    };
    let reply = ran.reply();
    for name in ["a", "b", "c"] {
        let found = reply.lines().filter(|line| line.starts_with(name));
        let expected = (0..20_000).map(|number| format!("{name}{number:06}"));
        assert!(found.eq(expected), "of {name}");
    }
}

#[test]
fn whoever_dies_has_said_what_it_said() {
    let program = program();
    for how in ["null", "abort", "trap", "port", "_exit", "thread", "loop"] {
        let args = ["program", "dies", how];
        let time = match how {
            "loop" => Duration::from_millis(200),
            _ => Duration::from_secs(30),
        };
        let asked = Run {
            args: &args,
            time,
            ..Run::default()
        };
        let Some(ran) = run(&program, &asked) else {
            return;
        };
        assert_eq!(ran.reply, b"said before", "{how}: {:?}", ran.end);
        let as_expected = match how {
            "null" | "trap" => matches!(ran.end, End::Fault(_)),
            "abort" => matches!(ran.end, End::Exit(Exit::Signal(6))),
            "port" => matches!(ran.end, End::Exit(Exit::Signal(11))),
            "loop" => matches!(ran.end, End::Deadline),
            _ => matches!(ran.end, End::Exit(Exit::Code(0))),
        };
        assert!(as_expected, "{how}: {:?}", ran.end);
    }
}

#[test]
fn who_lies_to_its_host_harms_itself_only() {
    let program = program();
    for with in [0, 1, 2, 3, 4, 7, 0x0f, 0x80, 0xff] {
        let with = with.to_string();
        if of(&program, &["lies", &with]).is_none() {
            return;
        }
    }
    let Some(ran) = of(&program, &["order"]) else {
        return;
    };
    assert_eq!(ran.reply(), "one two filedpiped end");
}

#[test]
fn who_enters_the_code_where_it_should_not_harms_itself_only() {
    let program = program();
    let mut ends = String::new();
    for at in 0..960 {
        let args = ["program", "enters", &at.to_string()];
        let asked = Run {
            args: &args,
            time: Duration::from_millis(100),
            ..Run::default()
        };
        let Some(ran) = run(&program, &asked) else {
            return;
        };
        let _ = writeln!(ends, "{at:#x}: {:?}", ran.end);
    }
    let Some(ran) = of(&program, &["order"]) else {
        return;
    };
    assert_eq!(ran.reply(), "one two filedpiped end", "{ends}");
}
