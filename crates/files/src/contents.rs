//! The bytes of a file in a layer: never changed, and shared by all who read them.

use std::path::Path;
use std::sync::Arc;

use memory::{MappedFile, MemoryError};

/// Files up to this size are kept on the heap: a mapping of their own would cost more.
const HEAP_BYTES_MAX: u64 = 16 << 10;

/// Immutable bytes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Contents(Arc<Held>);

#[derive(Debug)]
enum Held {
    Heap(Box<[u8]>),
    Mapped(MappedFile),
}

impl Contents {
    /// Bytes of the process's own.
    pub fn of(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(Arc::new(Held::Heap(bytes.into())))
    }

    /// The bytes of a file that nobody shortens or changes: mapped, if it is not small.
    pub fn open(path: &Path) -> Result<Self, MemoryError> {
        let mapped = MappedFile::open(path)?;
        if mapped.bytes() as u64 > HEAP_BYTES_MAX {
            return Ok(Self(Arc::new(Held::Mapped(mapped))));
        }
        let mut bytes = vec![0; mapped.bytes()];
        mapped.read(0, &mut bytes);
        Ok(Self::of(bytes))
    }

    /// How many there are.
    pub fn bytes(&self) -> u64 {
        match &*self.0 {
            Held::Heap(bytes) => bytes.len() as u64,
            Held::Mapped(mapped) => mapped.bytes() as u64,
        }
    }

    /// Copies what is at `offset` into `into`; how many bytes there were.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        match &*self.0 {
            Held::Heap(bytes) => {
                let rest = bytes.get(offset..).unwrap_or_default();
                let count = rest.len().min(into.len());
                into[..count].copy_from_slice(&rest[..count]);
                count
            }
            Held::Mapped(mapped) => mapped.read(offset, into),
        }
    }

    /// Whether both are the same bytes in memory, not merely equal ones.
    pub fn is_same(&self, other: &Contents) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn downgrade(&self) -> WeakContents {
        WeakContents(Arc::downgrade(&self.0))
    }
}

/// Contents that may be gone.
#[derive(Debug)]
pub(crate) struct WeakContents(std::sync::Weak<Held>);

impl WeakContents {
    pub fn upgrade(&self) -> Option<Contents> {
        self.0.upgrade().map(Contents)
    }

    pub fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}
