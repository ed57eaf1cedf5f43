//! An image put over a range of another by copying the pages in which they differ: where those are
//! few, that costs less than mapping it, and what a virtual machine knows of its memory stays true.

use std::sync::Arc;

use crate::{Image, MemoryError, PAGE_BYTES, Range};

/// The pages in which an image differs from the one that a range is mapped to.
#[derive(Debug)]
pub struct Overlay {
    base: Arc<Image>,
    image: Arc<Image>,
    /// Their numbers, ascending.
    pages: Vec<usize>,
}

impl Overlay {
    /// What makes a range over `base` equal `image`. None if that is more than `pages_max` pages,
    /// if the image is the shorter one, or if one of them has an annex.
    pub fn of(base: &Arc<Image>, image: &Arc<Image>, pages_max: usize) -> Option<Self> {
        if image.bytes() < base.bytes() || base.annex().or(image.annex()).is_some() {
            return None;
        }
        let all = 0..image.bytes() / PAGE_BYTES;
        let differs = |number: &usize| image.page(*number) != base.page(*number);
        let pages: Vec<_> = all.filter(differs).take(pages_max + 1).collect();
        (pages.len() <= pages_max).then(|| Self {
            base: base.clone(),
            image: image.clone(),
            pages,
        })
    }

    /// Its pages within `span`, which is of numbers.
    fn within(&self, span: std::ops::Range<usize>) -> impl Iterator<Item = usize> + '_ {
        let first = self.pages.partition_point(|page| *page < span.start);
        let rest = self.pages[first..].iter().copied();
        rest.take_while(move |page| *page < span.end)
    }
}

impl Range {
    /// Makes it a range over the image of `overlay`, in the place of the image that it equals, past
    /// which it has to keep zeros for all of the new one. No guest runs, and nobody holds a
    /// reference into it.
    pub fn lay_over(&self, overlay: &Arc<Overlay>) -> Result<(), MemoryError> {
        let is_base = Arc::ptr_eq(&self.image(), &overlay.base);
        if !is_base || self.kept_bytes() < overlay.image.bytes() {
            return Err(MemoryError::BadMapping {
                reason: "the range is not what the overlay is for",
            });
        }
        self.own.forget();
        *self.image.lock() = overlay.image.clone();
        *self.overlay.lock() = Some(overlay.clone());
        self.lay(0..overlay.image.bytes() / PAGE_BYTES);
        Ok(())
    }

    /// Copies the pages of its overlay, if it has one, whose numbers are in `span`: where private
    /// pages were dropped, the image beneath shows.
    pub(crate) fn lay(&self, span: std::ops::Range<usize>) {
        let Some(overlay) = self.overlay.lock().clone() else {
            return;
        };
        for number in overlay.within(span) {
            // SAFETY: a page of the image lies in the part that is kept, to which the callers say
            // that nobody refers.
            unsafe { self.set_page(&overlay.image, number) };
        }
    }

    /// Makes page `number` what it is in `image`.
    ///
    /// # Safety
    /// It lies in the accessible part, and nobody refers to it.
    pub(crate) unsafe fn set_page(&self, image: &Image, number: usize) {
        let at = (self.slot.base + number * PAGE_BYTES) as *mut u8;
        // SAFETY: the caller vouches for the page; an image never overlaps a range.
        unsafe {
            match image.page(number) {
                Some(page) => std::ptr::copy_nonoverlapping(page.as_ptr(), at, PAGE_BYTES),
                None => std::ptr::write_bytes(at, 0, PAGE_BYTES),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImageBuilder, Slab, SlabConfig};

    const KEPT_PAGES: usize = 2048;

    fn image(pages: usize, stored: &[(usize, u8)]) -> Arc<Image> {
        let mut builder = ImageBuilder::new(pages * PAGE_BYTES);
        for (page, fill) in stored {
            builder.write(page * PAGE_BYTES, &[*fill; PAGE_BYTES]);
        }
        Arc::new(builder.freeze().unwrap())
    }

    fn range(base: &Arc<Image>) -> Range {
        let slab = Slab::new(SlabConfig {
            ranges_max: 4,
            reservation_bytes: 16 << 20,
            guard_bytes: 0,
            idle_max: 4,
        });
        let range = slab.take(base).unwrap();
        range.keep(KEPT_PAGES * PAGE_BYTES).unwrap();
        range
    }

    fn holds(range: &Range, image: &Image) -> bool {
        let contents = range.contents();
        let (head, rest) = contents.split_at(image.bytes());
        head == image.contents() && rest.iter().all(|byte| *byte == 0)
    }

    /// A base, and an image that has more, less and other than it.
    fn both() -> (Arc<Image>, Arc<Image>) {
        let base = image(8, &[(1, 1), (2, 2), (3, 3)]);
        (base, image(1024, &[(1, 1), (3, 9), (5, 5), (1000, 7)]))
    }

    #[test]
    fn a_range_equals_what_is_laid_over_it_and_again_after_every_reset() {
        let (base, image) = both();
        let overlay = Arc::new(Overlay::of(&base, &image, 4).unwrap());
        assert_eq!(overlay.pages, [2, 3, 5, 1000]);
        let range = range(&base);
        range.lay_over(&overlay).unwrap();
        assert!(holds(&range, &image));
        assert_eq!(range.image().digest(), image.digest());
        // A page of each kind; then more pages than a reset copies, so that some are dropped.
        for pages in [
            vec![1, 2, 3, 4, 1000, 1500],
            (0..KEPT_PAGES).collect(),
            vec![],
        ] {
            for page in pages {
                range.write(page * PAGE_BYTES, &[0xee; 9]).unwrap();
            }
            range.grow_to((KEPT_PAGES + 3) * PAGE_BYTES).unwrap();
            range.reset().unwrap();
            assert!(holds(&range, &image));
        }
    }

    #[test]
    fn a_range_with_an_overlay_becomes_other_images_and_is_mapped_anew_when_it_is_dropped() {
        let (base, image) = both();
        let overlay = Arc::new(Overlay::of(&base, &image, 4).unwrap());
        for other in [&base, &image] {
            let range = range(&base);
            range.lay_over(&overlay).unwrap();
            range.write(1500 * PAGE_BYTES, &[1]).unwrap();
            range.reimage(other).unwrap();
            assert!(range.contents() == other.contents());
            range.keep(KEPT_PAGES * PAGE_BYTES).unwrap();
            assert!(holds(&range, other));
            range.write(0, &[1]).unwrap();
            range.reset().unwrap();
            assert!(holds(&range, other));
        }
        let slab = Slab::new(SlabConfig {
            ranges_max: 1,
            reservation_bytes: 16 << 20,
            guard_bytes: 0,
            idle_max: 4,
        });
        for wanted in [&base, &image, &base] {
            let range = slab.take(wanted).unwrap();
            assert!(range.contents() == wanted.contents());
            range.keep(KEPT_PAGES * PAGE_BYTES).unwrap();
            if Arc::ptr_eq(wanted, &base) {
                range.lay_over(&overlay).unwrap();
            }
        }
    }

    #[test]
    fn a_range_that_keeps_its_length_becomes_an_image() {
        let (base, image) = both();
        for (from, to) in [(&base, &image), (&image, &base)] {
            let range = range(from);
            for page in [0, 5, 1500] {
                range.write(page * PAGE_BYTES, &[1]).unwrap();
            }
            range.reimage_within(to).unwrap();
            assert_eq!(range.bytes(), KEPT_PAGES * PAGE_BYTES);
            assert!(holds(&range, to));
            range.write(5 * PAGE_BYTES, &[1]).unwrap();
            range.reset().unwrap();
            assert!(holds(&range, to));
        }
    }

    #[test]
    fn what_does_not_fit_has_no_overlay_or_is_refused() {
        let (base, image) = both();
        assert!(Overlay::of(&base, &image, 3).is_none());
        assert!(Overlay::of(&image, &base, 100).is_none());
        let overlay = Arc::new(Overlay::of(&base, &image, 4).unwrap());
        let other = range(&image);
        assert!(other.lay_over(&overlay).is_err());
        let short = Slab::new(SlabConfig::default()).take(&base).unwrap();
        assert!(short.lay_over(&overlay).is_err());
        assert!(short.contents() == base.contents());
    }
}
