//! Whether the kernel has made pages of this thread's: only then can a guest that ran on it have
//! written to a page for the first time.

use std::cell::Cell;

thread_local! {
    /// Faults of this thread when it was asked last.
    static SEEN: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Whether there were any since this thread asked last; true where that is not known.
pub(crate) fn any_since_last() -> bool {
    let faults = faults();
    faults.is_none() || SEEN.replace(faults) != faults
}

/// Faults of this thread, those for a guest's memory with them.
fn faults() -> Option<i64> {
    // SAFETY: all zeros are a value of this structure of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one such structure.
    let told = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    (told == 0).then(|| usage.ru_minflt.wrapping_add(usage.ru_majflt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_touched_first_is_a_fault() {
        any_since_last();
        let pages = vec![0u8; 64 << 20];
        // Large enough for the allocator to ask for new ones.
        let untouched = std::hint::black_box(&pages)[32 << 20];
        assert_eq!(untouched, 0);
        assert!(any_since_last());
        // This thread does nothing here that could fault.
        let again = (0..10).any(|_| !any_since_last());
        assert!(again);
    }
}
