//! Stacks for guests that may wait: guarded, and pooled so that no call maps one.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

use crate::MemoryError;

/// Unmapped bytes below each stack; larger than any frame that compiled code skips over unprobed.
const GUARD_BYTES: usize = 64 << 10;
/// Idle stacks that are kept.
const IDLE_MAX: usize = 64;
/// Bytes at the top of an idle stack that stay resident, since every call touches them.
const RESIDENT_BYTES: usize = 16 << 10;

/// A pool of stacks of one size. Cheap to clone.
#[derive(Clone)]
pub struct Stacks {
    bytes: usize,
    idle: Arc<Mutex<Vec<usize>>>,
}

/// One stack, which goes back to its pool when dropped.
pub struct Stack {
    /// Address of the guard.
    start: usize,
    pool: Stacks,
}

impl Stacks {
    /// A pool of stacks of `bytes`, a multiple of the page size.
    pub fn new(bytes: usize) -> Self {
        Self {
            bytes,
            idle: Arc::default(),
        }
    }

    /// A stack; pages that a guest used before may hold what it left, which no guest can read.
    pub fn take(&self) -> Result<Stack, MemoryError> {
        let start = match self.idle.lock().pop() {
            Some(start) => start,
            None => self.map()?,
        };
        Ok(Stack {
            start,
            pool: self.clone(),
        })
    }

    fn map(&self) -> Result<usize, MemoryError> {
        let refused = "map a guest stack";
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let span = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                GUARD_BYTES + self.bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(MemoryError::kernel(refused))?;
        // SAFETY: the guard is the start of the span that was just mapped and nobody has seen.
        unsafe { rustix::mm::mprotect(span, GUARD_BYTES, MprotectFlags::empty()) }
            .map_err(MemoryError::kernel(refused))?;
        Ok(span as usize)
    }
}

impl Stack {
    /// The usable addresses; the stack grows down from the end.
    pub fn range(&self) -> Range<usize> {
        let bottom = self.start + GUARD_BYTES;
        bottom..bottom + self.pool.bytes
    }

    /// The addresses below that trap.
    pub fn guard(&self) -> Range<usize> {
        self.start..self.start + GUARD_BYTES
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let range = self.range();
        let unused = range.len().saturating_sub(RESIDENT_BYTES);
        // SAFETY: nothing runs on a stack that is dropped, and its contents mean nothing any more.
        let dropped =
            unsafe { rustix::mm::madvise(range.start as *mut _, unused, Advice::LinuxDontNeed) };
        let mut idle = self.pool.idle.lock();
        if dropped.is_ok() && idle.len() < IDLE_MAX {
            idle.push(self.start);
            return;
        }
        drop(idle);
        // SAFETY: the span is exactly what `map` mapped, and nothing runs on it any more.
        let _ = unsafe { rustix::mm::munmap(self.start as *mut _, GUARD_BYTES + self.pool.bytes) };
    }
}
