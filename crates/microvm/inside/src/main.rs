//! The runtime that WebAssembly has inside of a micro-VM: wasmtime without a compiler, without the
//! standard library and without an operating system.
//!
//! ```text
//!  host: runtime + code compiled outside ──▶ load, instantiate, initialise ──▶ vm_next: the image
//!                                                                                  │
//!        a call: handle() ◀── vm_next gives the call's page ◀──────────────────────┘
//! ```
//!
//! Everything of an instance lies in the machine's memory, so its image and its reset are those of
//! every freestanding guest. A fault of compiled code comes back from the host at [`trap::caught`]
//! and becomes a trap; host calls leave by the numbers that all freestanding guests use.
#![no_std]
#![no_main]

extern crate alloc;

mod abi;
mod calls;
mod engine;
mod heap;
mod linear;
#[path = "../../../../sdk/rust-vm/src/memory.rs"]
mod memory;
mod platform;
mod processor;
mod start;
mod trap;

use core::arch::global_asm;
use core::panic::PanicInfo;

use abi::TrapKind;

// The host passes the address of what it gives in rdi.
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {begin}",
    "ud2",
    begin = sym begin,
);

/// Runs the module that the host gives; never returns.
extern "C" fn begin(given: *const abi::Given) -> ! {
    // SAFETY: the host maps what it gives before the first instruction, and never changes it.
    let given = unsafe { &*given };
    match start::run(given) {
        Ok(never) => match never {},
        Err(error) => trap::end(&error),
    }
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    abi::trap(
        TrapKind::Other,
        &alloc::format!("the runtime inside failed: {info}"),
    )
}

/// The compiled parts of Rust's own library name both, for programs that unwind. This one aborts.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// See above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    abi::trap(TrapKind::Other, "the runtime inside would unwind")
}
