//! What wasmtime asks of an operating system: pages that may be executed, one word of a thread's
//! own, and faults.

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use wasmtime::{CustomCodeMemory, Result, bail};

use crate::{abi, trap};

const PAGE_BYTES: usize = 4096;

type Handler = extern "C" fn(usize, usize, bool, usize);

/// Makes code executable, and has its faults caught.
pub struct Code;

impl CustomCodeMemory for Code {
    fn required_alignment(&self) -> usize {
        PAGE_BYTES
    }

    fn publish_executable(&self, at: *const u8, bytes: usize) -> Result<()> {
        let bytes = bytes.next_multiple_of(PAGE_BYTES);
        if abi::map(at as usize, bytes, abi::READ_EXECUTE) && trap::catch_in(at as usize, bytes) {
            return Ok(());
        }
        bail!("its code cannot be made executable");
    }

    fn unpublish_executable(&self, at: *const u8, bytes: usize) -> Result<()> {
        let bytes = bytes.next_multiple_of(PAGE_BYTES);
        if abi::map(at as usize, bytes, abi::READ_WRITE) {
            return Ok(());
        }
        bail!("its code cannot be given back");
    }
}

/// Wasmtime's word.
static WORD: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

// The slot is that of wasmtime's runtime: the other is a feature's that is left out.

#[unsafe(no_mangle)]
extern "C" fn wasmtime_tls_get(_: usize) -> *mut u8 {
    WORD.load(Ordering::Relaxed)
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_tls_set(_: usize, word: *mut u8) {
    WORD.store(word, Ordering::Relaxed);
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_init_traps(handler: Handler) -> i32 {
    trap::install(handler);
    0
}
