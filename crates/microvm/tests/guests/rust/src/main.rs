//! A guest on `sdk/rust-vm` that does what the first word of its body says.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use dunlin_vm::{Level, state};

static PREPARED: AtomicU32 = AtomicU32::new(0);
static CALLED: AtomicU32 = AtomicU32::new(0);

dunlin_vm::reactor!(handle = handle, init = prepare);

fn prepare() -> Result<(), i32> {
    assert!(dunlin_vm::input().is_empty());
    assert_eq!(dunlin_vm::now_ns(), None);
    PREPARED.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn handle() -> Result<(), i32> {
    let called = CALLED.fetch_add(1, Ordering::Relaxed) + 1;
    let body = dunlin_vm::input();
    let word = body.split(|byte| *byte == b' ').next().unwrap_or_default();
    match word {
        b"echo" => reply(&body),
        b"count" => {
            let prepared = PREPARED.load(Ordering::Relaxed);
            reply(format!("prepared {prepared} called {called}").as_bytes())
        }
        b"log" => {
            dunlin_vm::log(Level::Info, "one line");
            dunlin_vm::log(
                Level::Error,
                core::str::from_utf8(&body).unwrap_or_default(),
            );
            Ok(())
        }
        b"grow" => reply(format!("{}", sum()).as_bytes()),
        b"random" => {
            let now = dunlin_vm::now_ns().ok_or(3)?;
            let random = dunlin_vm::random().ok_or(3)?;
            reply(format!("{} {random:?}", now > 1 << 60).as_bytes())
        }
        b"state" => reply(format!("{:?}", state::get("app/key")).as_bytes()),
        b"panic" => panic!("as it was asked"),
        b"null" => {
            // SAFETY: none: the test looks at how this ends.
            unsafe { core::ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
            Ok(())
        }
        _ => Err(7),
    }
}

fn reply(bytes: &[u8]) -> Result<(), i32> {
    dunlin_vm::output(bytes).map_err(|_| 1)
}

/// Of numbers in memory that grows while other memory is taken.
fn sum() -> u64 {
    let (mut numbers, mut others) = (Vec::new(), Vec::new());
    for number in 0..200_000_u64 {
        numbers.push(number);
        if number % 1_000 == 0 {
            others.push(format!("{number}"));
        }
    }
    numbers.iter().sum::<u64>() + others.len() as u64
}
