//! The runtime's own heap: blocks of a few sizes, each freed to the list of its size.
//!
//! A call allocates next to nothing, and its reset undoes that. What lives longer is made once,
//! when the module is loaded. So this need not be clever, and must only give memory back to who
//! asks for the same size again.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;

use crate::abi;

/// The smallest block, as a power of two.
const SMALLEST: u32 = 4;
/// Sizes of blocks: powers of two.
const SIZES: usize = 40;
/// Bytes that the heap grows by at least.
const STEP: usize = 256 << 10;

struct Heap(UnsafeCell<State>);

struct State {
    at: usize,
    end: usize,
    /// For each size the last freed block; each holds the address of the one before.
    free: [usize; SIZES],
}

// SAFETY: there is one processor, and nothing interrupts it.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(State {
    at: 0,
    end: 0,
    free: [0; SIZES],
}));

/// The power of two that holds `layout`: blocks are aligned to their size, up to a page.
fn size_of(layout: Layout) -> u32 {
    let bytes = layout.size().max(layout.align()).max(1 << SMALLEST);
    usize::BITS - (bytes - 1).leading_zeros()
}

// SAFETY: a block is in one list or in one hand, is as large as its power of two, and is aligned to
// that or to what was asked for.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = size_of(layout);
        // SAFETY: see `Sync`: nobody else is here.
        let state = unsafe { &mut *self.0.get() };
        let Some(first) = state.free.get_mut(size as usize) else {
            return ptr::null_mut();
        };
        if *first != 0 {
            let block = *first as *mut usize;
            // SAFETY: a block in a list holds the address of the next.
            *first = unsafe { *block };
            return block.cast();
        }
        state.take(1 << size, layout.align())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: see `Sync`.
        let state = unsafe { &mut *self.0.get() };
        let first = &mut state.free[size_of(layout) as usize];
        // SAFETY: the block is at least 16 bytes, aligned to them, and nobody's any more.
        unsafe { *block.cast::<usize>() = *first };
        *first = block as usize;
    }
}

impl State {
    /// Cuts `bytes` off what was never used.
    fn take(&mut self, bytes: usize, align: usize) -> *mut u8 {
        let align = align.max(1 << SMALLEST);
        let start = self.at.next_multiple_of(align);
        if self.at == 0 || self.end - self.at < start - self.at + bytes {
            let step = (bytes + align).max(STEP);
            let Some(end) = abi::grow(step) else {
                return ptr::null_mut();
            };
            if self.at == 0 {
                self.at = end - step.next_multiple_of(4096);
            }
            self.end = end;
            return self.take(bytes, align);
        }
        self.at = start + bytes;
        start as *mut u8
    }
}
