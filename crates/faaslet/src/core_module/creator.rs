//! Gives wasmtime memories and stacks of ours.
//!
//! Wasmtime passes a creator a memory's type and nothing else, so the sandbox that instantiates
//! says through a thread-local which range the next memories belong to. The guest's memory comes
//! first, if it has one, and the poll page's memory last: the order of the rewritten module.

use std::cell::RefCell;
use std::ops::Range as Addresses;
use std::sync::Arc;

use memory::{Image, Range, Slab, Stack, Stacks};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType, StackCreator, StackMemory};

thread_local! {
    static NEXT: RefCell<Option<Next>> = const { RefCell::new(None) };
}

struct Next {
    range: Arc<Range>,
    guest_memory: bool,
}

/// Runs `instantiate` with `range` behind the memories that it makes.
pub(super) fn over<T>(
    range: &Arc<Range>,
    guest_memory: bool,
    instantiate: impl FnOnce() -> T,
) -> T {
    NEXT.set(Some(Next {
        range: range.clone(),
        guest_memory,
    }));
    let made = instantiate();
    NEXT.set(None);
    made
}

/// The range that the sandbox in the making announced, and whether its guest memory is next.
fn announced() -> Result<(Arc<Range>, bool), String> {
    NEXT.with_borrow_mut(|next| {
        let next = next
            .as_mut()
            .ok_or("a memory is made outside of a sandbox")?;
        Ok((next.range.clone(), std::mem::take(&mut next.guest_memory)))
    })
}

/// Reservation of the engine's own memories (the heap of exception objects), by which they are told
/// from guests': the engine is configured with it.
pub(crate) const ENGINE_RESERVATION_BYTES: usize = 1 << 30;

/// Makes the memories. The engine's own get ranges over `empty`.
pub(super) struct Memories {
    pub slab: Slab,
    pub empty: Arc<Image>,
}

// SAFETY: a guest memory spans the reservation and guard that its range's slab was configured with,
// which `new_memory` compares with what the compiled code counts on; it never moves, and what is
// past its size is without access. The poll memory is one page at a fixed address: only the
// rewrite's own loads from its first byte can name it, since it has the last index and was added
// after validation.
unsafe impl MemoryCreator for Memories {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        _: Option<usize>,
        reserved_size_in_bytes: Option<usize>,
        _: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let reserved = reserved_size_in_bytes.ok_or("a memory has no reservation")?;
        let range = if reserved == ENGINE_RESERVATION_BYTES {
            Arc::new(
                self.slab
                    .take(&self.empty)
                    .map_err(|error| error.to_string())?,
            )
        } else {
            let (range, is_guest_memory) = announced()?;
            if !is_guest_memory {
                return Ok(Box::new(PollMemory(range)));
            }
            range
        };
        if reserved > range.bytes_max() {
            return Err("the reservation is larger than the slab's".into());
        }
        range.grow_to(minimum).map_err(|error| error.to_string())?;
        Ok(Box::new(GuestMemory(range)))
    }
}

/// A guest memory that is a range.
pub(crate) struct GuestMemory(pub(crate) Arc<Range>);

// SAFETY: see `Memories`; `grow_to` makes exactly the added bytes accessible, zeroed.
unsafe impl LinearMemory for GuestMemory {
    fn byte_size(&self) -> usize {
        self.0.bytes()
    }

    fn byte_capacity(&self) -> usize {
        self.0.bytes_max()
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        Ok(self.0.grow_to(new_size)?)
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.base()
    }
}

struct PollMemory(Arc<Range>);

/// The page size of WebAssembly, which is the size that the poll memory's type promises.
pub(super) const WASM_PAGE_BYTES: usize = 64 << 10;

// SAFETY: see `Memories`: nothing but the rewrite's loads of byte 0 reaches it, and it cannot grow.
unsafe impl LinearMemory for PollMemory {
    fn byte_size(&self) -> usize {
        WASM_PAGE_BYTES
    }

    fn byte_capacity(&self) -> usize {
        WASM_PAGE_BYTES
    }

    fn grow_to(&mut self, _: usize) -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg("the poll memory does not grow"))
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.poll_page()
    }
}

/// Stacks of a pool, for guests that may wait.
pub(crate) struct GuestStacks(pub(crate) Stacks);

struct GuestStack(Stack);

// SAFETY: the pool's stacks are page-aligned, guarded below, and owned by one taker at a time.
unsafe impl StackCreator for GuestStacks {
    fn new_stack(&self, size: usize, _: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        let stack = self.0.take()?;
        if stack.range().len() < size {
            return Err(wasmtime::Error::msg("the pool's stacks are too small"));
        }
        Ok(Box::new(GuestStack(stack)))
    }
}

// SAFETY: as above.
unsafe impl StackMemory for GuestStack {
    fn top(&self) -> *mut u8 {
        self.0.range().end as *mut u8
    }

    fn range(&self) -> Addresses<usize> {
        self.0.range()
    }

    fn guard_range(&self) -> Addresses<*mut u8> {
        let guard = self.0.guard();
        guard.start as *mut u8..guard.end as *mut u8
    }
}
