//! A guest's buffer that the host fills: at once, or in parts that are lent to whoever has the
//! bytes, so that these need no copy of their own.
//!
//! ```text
//!  Out ──lend──▶ Part ──┐  Parts never overlap. While one is lent, the host touches the others, or
//!      ◀────dropped─────┘  lends them; all of the buffer is the host's again when none is lent.
//! ```

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Range as Span;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use crate::Range;

/// A guest's buffer.
pub struct Out<'a> {
    start: NonNull<u8>,
    bytes: usize,
    /// What keeps the memory of parts that are lent; none if none can be.
    keeper: Option<Keeper>,
    lent: Vec<(Span<usize>, Weak<()>)>,
    _buffer: PhantomData<&'a mut [u8]>,
}

// SAFETY: it is used as the unique reference to bytes that it was made of, which may be sent.
unsafe impl Send for Out<'_> {}
// SAFETY: shared, it tells its length and nothing else.
unsafe impl Sync for Out<'_> {}

/// A part of a guest's buffer, to be filled. It keeps the memory that it lies in.
pub struct Part {
    start: NonNull<u8>,
    bytes: usize,
    _keeper: Keeper,
    _lent: Arc<()>,
}

#[derive(Clone)]
enum Keeper {
    Range { _kept: Arc<Range> },
    Heap(Arc<Heap>),
}

/// Bytes on the heap, to which nobody refers but by an `Out` and its parts.
struct Heap {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it only frees its bytes, which any thread may.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

// SAFETY: it is the only one that refers to its bytes; see `Out`.
unsafe impl Send for Part {}
// SAFETY: shared, its bytes can only be read.
unsafe impl Sync for Part {}

impl<'a> From<&'a mut [u8]> for Out<'a> {
    /// A buffer no part of which is lent.
    fn from(buffer: &'a mut [u8]) -> Self {
        Self {
            start: NonNull::from(&mut *buffer).cast(),
            bytes: buffer.len(),
            keeper: None,
            lent: Vec::new(),
            _buffer: PhantomData,
        }
    }
}

impl Out<'static> {
    /// A buffer of its own, of zeros, whose parts can be lent.
    pub fn of_zeros(bytes: usize) -> Self {
        let all: Box<[u8]> = vec![0; bytes].into();
        let start = NonNull::from(Box::leak(all)).cast();
        let keeper = Keeper::Heap(Arc::new(Heap { start, bytes }));
        Self {
            start,
            bytes,
            keeper: Some(keeper),
            lent: Vec::new(),
            _buffer: PhantomData,
        }
    }
}

impl<'a> Out<'a> {
    /// A buffer whose parts can be lent, if it lies in the range.
    ///
    /// # Safety
    ///
    /// It must be dropped, and not forgotten, before the buffer is used again.
    pub unsafe fn of_range(buffer: &'a mut [u8], range: &Arc<Range>) -> Self {
        let inside = range.base() as usize..range.base() as usize + range.bytes();
        let bytes = buffer.as_ptr_range();
        let lies_in = inside.start <= bytes.start as usize && bytes.end as usize <= inside.end;
        let mut out = Self::from(buffer);
        if lies_in {
            let at = bytes.start as usize - inside.start;
            // Without it, its pages are small.
            let _advised = range.will_fill(at, out.bytes);
        }
        out.keeper = lies_in.then(|| Keeper::Range {
            _kept: range.clone(),
        });
        out
    }

    /// What is in it now.
    ///
    /// # Panics
    ///
    /// While a part is lent.
    pub fn into_vec(mut self) -> Vec<u8> {
        assert!(!self.is_lent(0..self.bytes), "a part of a buffer is lent");
        let Some(Keeper::Heap(heap)) = self.keeper.take() else {
            return self.bytes().to_vec();
        };
        self.bytes = 0;
        match Arc::try_unwrap(heap) {
            Ok(heap) => heap.into_box().into_vec(),
            Err(_) => unreachable!("parts keep it, and none is lent"),
        }
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// All of it.
    ///
    /// # Panics
    ///
    /// While a part is lent.
    pub fn bytes(&mut self) -> &mut [u8] {
        assert!(!self.is_lent(0..self.bytes), "a part of a buffer is lent");
        // SAFETY: these are the bytes of the unique reference that it was made of, and no part of
        // them is lent.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }

    /// Copies bytes to `at`; what does not fit is left out.
    ///
    /// # Panics
    ///
    /// While that part is lent.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        let at = at.min(self.bytes);
        let count = bytes.len().min(self.bytes - at);
        assert!(
            !self.is_lent(at..at + count),
            "this part of a buffer is lent"
        );
        // SAFETY: the bytes are within the unique reference that it was made of, so `bytes` lies
        // elsewhere, and nobody is lent them.
        unsafe {
            let to = self.start.add(at).as_ptr();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count);
        }
    }

    /// Lends a part; none if it cannot be, as when it is lent already.
    pub fn lend(&mut self, part: Span<usize>) -> Option<Part> {
        let keeper = self.keeper.clone()?;
        if part.is_empty() || part.end > self.bytes || self.is_lent(part.clone()) {
            return None;
        }
        let lent = Arc::new(());
        self.lent.retain(|(_, lent)| lent.strong_count() > 0);
        self.lent.push((part.clone(), Arc::downgrade(&lent)));
        // SAFETY: the part lies within the buffer.
        let start = unsafe { self.start.add(part.start) };
        Some(Part {
            start,
            bytes: part.len(),
            _keeper: keeper,
            _lent: lent,
        })
    }

    fn is_lent(&self, part: Span<usize>) -> bool {
        self.lent.iter().any(|(lent, by)| {
            lent.start < part.end && part.start < lent.end && by.strong_count() > 0
        })
    }
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        // Whoever fills a part for a call gives it back before the call ends. The memory is kept
        // either way, and a panic keeps the guest from it.
        let is_back = !self.is_lent(0..self.bytes);
        assert!(
            is_back || std::thread::panicking(),
            "a part of a buffer is still lent"
        );
    }
}

impl Heap {
    fn into_box(self) -> Box<[u8]> {
        let heap = ManuallyDrop::new(self);
        // SAFETY: it is not dropped.
        unsafe { heap.take() }
    }

    /// # Safety
    ///
    /// Only once, and nobody refers to the bytes.
    unsafe fn take(&self) -> Box<[u8]> {
        let all = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.bytes);
        // SAFETY: the bytes came from a box of this length, and the caller vouches for the rest.
        unsafe { Box::from_raw(all) }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: whoever refers to the bytes keeps this, which is gone now.
        drop(unsafe { self.take() });
    }
}

impl AsMut<[u8]> for Part {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory is kept, so that the bytes are there; they are lent to nobody else,
        // and the lender does not touch them meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl fmt::Debug for Out<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
