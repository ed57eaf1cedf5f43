//! Gives wasmtime memories that begin as an image of ours.
//!
//! Wasmtime passes a creator a memory's type and nothing else, so the call that instantiates says
//! through a thread-local which range its one memory is. It says so at each poll, since a guest may
//! be instantiated over several, on different threads.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use memory::{Image, Range, Slab};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use crate::core_module::{ENGINE_RESERVATION_BYTES, GuestMemory};

thread_local! {
    static NEXT: RefCell<Option<Arc<Range>>> = const { RefCell::new(None) };
}

/// Runs `future`, whose first memory is `range`.
pub(super) async fn over<F: Future>(range: Arc<Range>, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut next = Some(range);
    poll_fn(|cx| {
        // A guest may call another, on top of this one, whose memory is announced likewise.
        let outer = NEXT.replace(next.take());
        let polled = future.as_mut().poll(cx);
        next = NEXT.replace(outer);
        polled
    })
    .await
}

/// Makes the memories. The engine's own get ranges over `empty`.
pub(super) struct Memories {
    pub(super) slab: Slab,
    pub(super) empty: Arc<Image>,
    pub(super) reservation_bytes: usize,
}

// SAFETY: a guest memory spans the reservation and guard that its range's slab was configured with,
// which `new_memory` compares with what the compiled code counts on; it never moves, and what is
// past its size is without access. The annex at the end of the reservation is the one exception: it
// is private to the range, and readable only while the guest is instantiated, so that a read past
// the memory's end may find it, which a guest of skeletons does and no other guest is run over.
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
        if reserved > self.reservation_bytes {
            return Err("the reservation is larger than the slab's".into());
        }
        let range = if reserved == ENGINE_RESERVATION_BYTES {
            let range = self.slab.take(&self.empty);
            Arc::new(range.map_err(|error| error.to_string())?)
        } else {
            NEXT.take()
                .ok_or("a memory is made that nobody announced")?
        };
        range.grow_to(minimum).map_err(|error| error.to_string())?;
        Ok(Box::new(GuestMemory(range)))
    }
}
