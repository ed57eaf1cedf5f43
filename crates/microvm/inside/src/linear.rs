//! Linear memory, where the host counts on it: one after the other, each at an address of its own.

use core::sync::atomic::{AtomicUsize, Ordering};

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType, bail};

use crate::abi::{self, Given};

/// The end of what the host has mapped as part of the linear memory, before it has grown so far.
static MAPPED_TO: AtomicUsize = AtomicUsize::new(0);

/// Notes that the host has mapped up to `end`.
pub fn mapped_to(end: usize) {
    MAPPED_TO.store(end, Ordering::Relaxed);
}

/// Makes the module's memory, and the one that exceptions live in.
pub struct Memories {
    guest: (usize, usize),
    engine: (usize, usize),
    /// Memories of the module's that were made.
    made: AtomicUsize,
}

impl Memories {
    pub fn new(given: &Given) -> Self {
        Self {
            guest: (given.memory_at as usize, given.memory_bytes as usize),
            engine: (given.engine_at as usize, given.engine_bytes as usize),
            made: AtomicUsize::new(0),
        }
    }
}

// SAFETY: each memory has its addresses to itself, which are empty past its size up to the end of
// the reservation and the guard that the engine is configured with; it never moves.
unsafe impl MemoryCreator for Memories {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        _: Option<usize>,
        reserved: Option<usize>,
        _: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let (at, most) = match reserved {
            Some(bytes) if bytes == self.engine.1 => self.engine,
            Some(bytes) if bytes == self.guest.1 => {
                if self.made.fetch_add(1, Ordering::Relaxed) > 0 {
                    return Err("it has more than one memory".into());
                }
                self.guest
            }
            _ => return Err("a memory is not reserved as it should be".into()),
        };
        let mut memory = Linear { at, bytes: 0, most };
        let grown = memory.grow_to(minimum);
        grown.map_err(|error| error.to_string())?;
        Ok(Box::new(memory))
    }
}

struct Linear {
    at: usize,
    bytes: usize,
    most: usize,
}

// SAFETY: see `Memories`; the host maps zeros.
unsafe impl LinearMemory for Linear {
    fn byte_size(&self) -> usize {
        self.bytes
    }

    fn byte_capacity(&self) -> usize {
        self.most
    }

    fn grow_to(&mut self, bytes: usize) -> wasmtime::Result<()> {
        let (from, to) = (self.at + self.bytes, self.at + bytes);
        let is_there = to <= MAPPED_TO.load(Ordering::Relaxed);
        if to > from && !is_there && !abi::map(from, to - from, abi::READ_WRITE) {
            bail!("there is no memory for it");
        }
        self.bytes = bytes;
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.at as *mut u8
    }
}
