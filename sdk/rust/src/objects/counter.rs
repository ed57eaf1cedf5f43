//! A counter.

use crate::calls::Error;
use crate::state::{self, ViewMut};

#[cfg(target_arch = "wasm32")]
unsafe extern "C" {
    fn dunlin_atomic_add(at: *mut u64, count: u64) -> u64;
    fn dunlin_atomic_load(at: *mut u64) -> u64;
}

/// One `u64`, added to by one instruction that is atomic across sandboxes.
#[derive(Debug)]
pub struct Counter {
    value: ViewMut<u64>,
}

impl Counter {
    /// Opens a counter, which begins at 0.
    ///
    /// # Errors
    /// Those of [`state::map_mut`].
    pub fn open(key: &str) -> Result<Self, Error> {
        let value = state::map_mut(key, 0, 1)?;
        Ok(Self { value })
    }

    /// Adds, wrapping around; gives what it was before.
    pub fn add(&self, count: u64) -> u64 {
        // SAFETY: the view is one aligned `u64`, mapped until the sandbox ends.
        #[cfg(target_arch = "wasm32")]
        return unsafe { dunlin_atomic_add(self.value.as_mut_ptr(), count) };
        // SAFETY: the same; away from a node nothing can be mapped, so this is never reached.
        #[cfg(not(target_arch = "wasm32"))]
        return unsafe { atomic(self.value.as_mut_ptr()) }
            .fetch_add(count, std::sync::atomic::Ordering::SeqCst);
    }

    /// What it is.
    #[must_use]
    pub fn value(&self) -> u64 {
        // SAFETY: the view is one aligned `u64`, mapped until the sandbox ends.
        #[cfg(target_arch = "wasm32")]
        return unsafe { dunlin_atomic_load(self.value.as_mut_ptr()) };
        // SAFETY: the same; away from a node nothing can be mapped, so this is never reached.
        #[cfg(not(target_arch = "wasm32"))]
        return unsafe { atomic(self.value.as_mut_ptr()) }
            .load(std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(not(target_arch = "wasm32"))]
unsafe fn atomic<'a>(at: *mut u64) -> &'a std::sync::atomic::AtomicU64 {
    // SAFETY: the caller has an aligned `u64` that outlives the reference.
    unsafe { std::sync::atomic::AtomicU64::from_ptr(at) }
}
