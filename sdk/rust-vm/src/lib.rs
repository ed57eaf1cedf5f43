//! A function behind a hardware wall, in Rust: a program in a micro-VM, without the standard
//! library and without an operating system.
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//!
//! dunlin_vm::reactor!(handle = shout);
//!
//! fn shout() -> Result<(), i32> {
//!     dunlin_vm::output(&dunlin_vm::input().to_ascii_uppercase()).map_err(|_| 1)
//! }
//! ```
//!
//! [`reactor!`] writes the program's entry. `init`, if given, runs once, at deploy: its work is in
//! the image that every invocation starts from. Programs that bring their own `_start` call
//! [`ready`] where that image is to be taken.
//!
//! It is built for the standard library's own target, so that no other has to be there, as a static
//! executable without a C library; `.cargo/config.toml` of the program says so:
//!
//! ```toml
//! [build]
//! target = "x86_64-unknown-linux-gnu"
//! [target.x86_64-unknown-linux-gnu]
//! rustflags = ["-Crelocation-model=static", "-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib",
//!   "-Clink-arg=-static", "-Clink-arg=-no-pie"]
//! ```
//!
//! with `panic = "abort"` in its profiles. The crate brings an allocator, the functions of memory
//! that compilers call, and a panic handler that ends the call as a trap and tells its words.
//! [`state`] shares bytes with the other functions of the app; [`calls`] has every host call.
#![no_std]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("a micro-VM guest is an x86-64 ELF executable");

extern crate alloc;

#[rustfmt::skip]
pub mod calls;
mod heap;
mod machine;
mod memory;
/// Bytes under keys: the same source as in functions of WebAssembly.
#[path = "../../rust/src/state.rs"]
pub mod state;

use alloc::vec::Vec;
use core::fmt;
use core::panic::PanicInfo;

pub use calls::Error;
pub use machine::{TrapKind, exit, now_ns, random, ready, trap};

/// How much a line of the log matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Level {
    /// The invocation failed.
    Error = 0,
    /// Something is not as it should be.
    Warn = 1,
    /// Something worth knowing happened.
    Info = 2,
    /// Of interest only to who wrote the function.
    Debug = 3,
}

/// The reply would have passed the function's output limit; nothing of this write was taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OutputFull;

impl fmt::Display for OutputFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reply is over the output limit")
    }
}

impl core::error::Error for OutputFull {}

/// The whole body of the request; empty before the first call.
#[must_use]
pub fn input() -> Vec<u8> {
    let mut body = alloc::vec![0; machine::input_size()];
    let count = machine::input_read(0, &mut body);
    body.truncate(count);
    body
}

/// Appends to the reply.
///
/// # Errors
/// [`OutputFull`] when the reply would pass the output limit.
pub fn output(bytes: &[u8]) -> Result<(), OutputFull> {
    if machine::output_write(bytes) {
        Ok(())
    } else {
        Err(OutputFull)
    }
}

/// Writes one line to the function's log.
pub fn log(level: Level, line: &str) {
    machine::log_write(level as u32, line.as_bytes());
}

/// Writes the program's entry: `init`, if given, once, and then `handle` for each invocation. Both
/// are functions of `() -> Result<(), i32>`; an error is the function's own code.
#[macro_export]
macro_rules! reactor {
    (handle = $handle:path $(, init = $init:path)? $(,)?) => {
        ::core::arch::global_asm!(
            ".globl _start",
            ".type _start, @function",
            "_start:",
            "xor ebp, ebp",
            "and rsp, -16",
            "call {begin}",
            "ud2",
            ".size _start, . - _start",
            begin = sym __dunlin_begin,
        );

        extern "C" fn __dunlin_begin() -> ! {
            let begun: ::core::result::Result<(), i32> = Ok(());
            $(let begun: ::core::result::Result<(), i32> = begun.and_then(|()| $init());)?
            $crate::serve(begun, $handle)
        }
    };
}

/// What the entry that [`reactor!`] writes goes on with: never returns.
#[doc(hidden)]
pub fn serve(begun: Result<(), i32>, handle: fn() -> Result<(), i32>) -> ! {
    if let Err(code) = begun {
        exit(code);
    }
    let mut code = 0;
    loop {
        machine::next(code);
        code = handle().err().unwrap_or(0);
    }
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    trap(TrapKind::Other, &alloc::format!("{info}"))
}

/// The compiled parts of Rust's own library name both, for programs that unwind. This one aborts.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// See above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    trap(TrapKind::Other, "a program that aborts would unwind")
}
