//! An allocator that gives back only what was taken last: an invocation ends before that matters,
//! and its reset gives back the rest.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;

use crate::machine;

/// Bytes that the heap grows by at least, so that few allocations leave the machine.
const STEP: usize = 256 << 10;
/// The first of the heap is part of the program, so that a small call never leaves it for memory.
const FIRST: usize = 256 << 10;
const PAGE: usize = 4096;

#[repr(align(4096))]
struct First(UnsafeCell<[u8; FIRST]>);

struct Heap {
    first: First,
    state: UnsafeCell<State>,
}

/// What was never given away: from `at` to `end`. Both are 0 before the first allocation.
struct State {
    at: usize,
    end: usize,
}

// SAFETY: a guest has one processor and one thread, and nothing interrupts it.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap {
    first: First(UnsafeCell::new([0; FIRST])),
    state: UnsafeCell::new(State { at: 0, end: 0 }),
};

impl Heap {
    /// The state. No two of these live at once: see `Sync`, and nothing here calls another.
    #[expect(clippy::mut_from_ref, reason = "there is one thread")]
    fn state(&self) -> &mut State {
        // SAFETY: see above.
        let state = unsafe { &mut *self.state.get() };
        if state.at == 0 {
            state.at = self.first.0.get() as usize;
            state.end = state.at + FIRST;
        }
        state
    }
}

impl State {
    /// Cuts off a block; null when there is no memory.
    fn take(&mut self, layout: Layout) -> *mut u8 {
        loop {
            let start = self.at.next_multiple_of(layout.align());
            let end = start.saturating_add(layout.size());
            if end <= self.end {
                self.at = end;
                return start as *mut u8;
            }
            let step = layout.size().saturating_add(layout.align()).max(STEP);
            let Some(step) = step.checked_next_multiple_of(PAGE) else {
                return ptr::null_mut();
            };
            let Some(grown) = machine::grow(step) else {
                return ptr::null_mut();
            };
            // What the heap grew by does not always lie behind what it had.
            if grown - step != self.end {
                self.at = grown - step;
            }
            self.end = grown;
        }
    }

    fn is_last(&self, block: *mut u8, layout: Layout) -> bool {
        block as usize + layout.size() == self.at
    }
}

// SAFETY: a block is cut off what was never given away, or was given back, and is aligned.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.state().take(layout)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let state = self.state();
        if state.is_last(block, layout) {
            state.at = block as usize;
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let state = self.state();
        if size <= layout.size() && !state.is_last(block, layout) {
            return block;
        }
        if state.is_last(block, layout) && size <= state.end - block as usize {
            state.at = block as usize + size;
            return block;
        }
        // SAFETY: the caller vouches for the size and for the alignment, which is as it was.
        let next = state.take(unsafe { Layout::from_size_align_unchecked(size, layout.align()) });
        if !next.is_null() {
            // SAFETY: both are as long, and the new block is nobody else's.
            unsafe { ptr::copy_nonoverlapping(block, next, layout.size().min(size)) };
        }
        next
    }
}
