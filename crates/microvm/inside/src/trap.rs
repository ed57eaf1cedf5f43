//! Faults of compiled code become traps, and errors end the call.

use core::arch::global_asm;
use core::sync::atomic::{AtomicUsize, Ordering};

use alloc::format;
use wasmtime::{Error, Trap};

use crate::abi::{self, TrapKind};

/// What wasmtime wants called: instruction, frame, whether an address was touched, and which.
static HANDLER: AtomicUsize = AtomicUsize::new(0);

type Handler = extern "C" fn(usize, usize, bool, usize);

/// Keeps wasmtime's handler.
pub fn install(handler: Handler) {
    HANDLER.store(handler as usize, Ordering::Relaxed);
}

/// Has faults of the code at `at` come to [`caught`].
pub fn catch_in(at: usize, bytes: usize) -> bool {
    abi::catch(fault_entry as *const () as usize, at, at + bytes)
}

unsafe extern "C" {
    fn fault_entry();
}

// The host goes on here in place of the instruction that faulted, on the same stack, with the
// instruction in rdi, whether a page was touched in rsi, and its address in rdx.
global_asm!(
    ".globl fault_entry",
    "fault_entry:",
    "mov rcx, rbp",
    "sub rsp, 256",
    "and rsp, -16",
    "call {caught}",
    "ud2",
    caught = sym caught,
);

/// Tells wasmtime of a fault. Where it is a trap, wasmtime leaves for where the code was entered.
extern "C" fn caught(instruction: usize, is_page: usize, address: usize, frame: usize) -> ! {
    let handler = HANDLER.load(Ordering::Relaxed);
    // SAFETY: the host tells of faults only in code that was registered, which wasmtime did after
    // it had installed its handler; nothing else is ever stored.
    let handler: Handler = unsafe { core::mem::transmute(handler) };
    handler(instruction, frame, is_page != 0, address);
    abi::trap(
        TrapKind::Other,
        &format!("its code failed at {instruction:#x} without being a trap"),
    )
}

/// Ends the call as `error` has it.
pub fn end(error: &Error) -> ! {
    let kind = error.downcast_ref::<Trap>().map_or(TrapKind::Other, kind);
    abi::trap(kind, &format!("{}", error.root_cause()))
}

fn kind(trap: &Trap) -> TrapKind {
    match trap {
        Trap::UnreachableCodeReached => TrapKind::Unreachable,
        Trap::MemoryOutOfBounds | Trap::TableOutOfBounds | Trap::HeapMisaligned => {
            TrapKind::OutOfBounds
        }
        Trap::StackOverflow => TrapKind::StackOverflow,
        Trap::IntegerOverflow | Trap::IntegerDivisionByZero | Trap::BadConversionToInteger => {
            TrapKind::Arithmetic
        }
        Trap::IndirectCallToNull | Trap::BadSignature => TrapKind::BadCall,
        _ => TrapKind::Other,
    }
}
