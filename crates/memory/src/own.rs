//! Which pages of a range are private copies, as its last reset found them: an owner that says when
//! there may be more of them spares its resets the search.
//!
//! ```text
//!              a search found all                a page is written for the first time
//!   unknown ───────────────────────▶ known ──────────────────────────────────────────▶ unknown
//! ```

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::PAGE_BYTES;

/// The pages of one range.
#[derive(Default)]
pub(crate) struct Own {
    known: Mutex<Known>,
    /// Whether these are all.
    all: AtomicBool,
}

/// Numbers of pages, and the same as bits.
#[derive(Default)]
struct Known {
    pages: Vec<usize>,
    bits: Vec<u64>,
}

impl Own {
    /// There may be others.
    pub fn forget(&self) {
        self.all.store(false, Ordering::Release);
    }

    /// The pages, if all are known.
    pub fn all(&self) -> Option<Vec<usize>> {
        let known = self.known.lock();
        self.all
            .load(Ordering::Acquire)
            .then(|| known.pages.clone())
    }

    /// These are all.
    pub fn are(&self, pages: Vec<usize>) {
        let mut known = self.known.lock();
        let end = pages.iter().max().map_or(0, |last| last + 1);
        let mut bits = vec![0; end.div_ceil(64)];
        for page in &pages {
            bits[page / 64] |= 1 << (page % 64);
        }
        *known = Known { pages, bits };
        self.all.store(true, Ordering::Release);
    }

    /// The host writes `length` bytes from `at` on.
    pub fn host_writes(&self, at: usize, length: usize) {
        if length == 0 || !self.all.load(Ordering::Acquire) {
            return;
        }
        let known = self.known.lock();
        let has = |page: usize| {
            let word = known.bits.get(page / 64).copied().unwrap_or_default();
            word >> (page % 64) & 1 != 0
        };
        let last = (at + length - 1) / PAGE_BYTES;
        if !(at / PAGE_BYTES..=last).all(has) {
            self.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_known_until_another_is_written() {
        let own = Own::default();
        assert_eq!(own.all(), None);
        own.are(vec![3, 64, 65]);
        for (at, length) in [
            (3 * PAGE_BYTES, PAGE_BYTES),
            (64 * PAGE_BYTES, 2 * PAGE_BYTES),
            (65 * PAGE_BYTES + 17, 1),
            (0, 0),
        ] {
            own.host_writes(at, length);
            assert_eq!(own.all().as_deref(), Some(&[3, 64, 65][..]), "{at:#x}");
        }
        for (at, length) in [
            (0, 1),
            (2 * PAGE_BYTES, PAGE_BYTES + 1),
            (65 * PAGE_BYTES, PAGE_BYTES + 1),
            (1 << 40, 1),
        ] {
            own.are(vec![3, 64, 65]);
            own.host_writes(at, length);
            assert_eq!(own.all(), None, "{at:#x}");
        }
        own.are(Vec::new());
        assert_eq!(own.all(), Some(Vec::new()));
        own.forget();
        assert_eq!(own.all(), None);
    }
}
