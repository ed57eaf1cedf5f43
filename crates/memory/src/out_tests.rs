//! A guest's buffer is filled in parts by whoever has them, and never by two.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use proptest::prelude::*;

use crate::{ImageBuilder, Out, PAGE_BYTES, Part, Slab, SlabConfig};

const BYTES: usize = 64;

#[test]
fn parts_land_in_the_guests_memory() {
    let slab = Slab::new(SlabConfig::default());
    let image = Arc::new(ImageBuilder::new(2 * PAGE_BYTES).freeze().unwrap());
    let range = Arc::new(slab.take(&image).unwrap());
    // SAFETY: accessible memory of the range, which only this test touches.
    let all = unsafe { std::slice::from_raw_parts_mut(range.base(), range.bytes()) };
    // SAFETY: it is dropped below.
    let mut out = unsafe { Out::of_range(&mut all[8..8 + BYTES], &range) };
    let (mut first, mut last) = (out.lend(0..4).unwrap(), out.lend(60..64).unwrap());
    std::thread::spawn(move || first.as_mut().copy_from_slice(b"abcd"))
        .join()
        .unwrap();
    out.write(4, b"efgh");
    last.as_mut().fill(b'z');
    assert_eq!(last.as_ref(), b"zzzz");
    drop(last);
    assert_eq!(out.bytes()[..9], *b"abcdefgh\0");
    drop(out);
    assert_eq!(range.contents()[8..16], *b"abcdefgh");
    // What lies elsewhere is not the range's to keep.
    let mut elsewhere = [0; 8];
    // SAFETY: it is dropped at once.
    let mut out = unsafe { Out::of_range(&mut elsewhere, &range) };
    assert!(out.lend(0..4).is_none());
}

#[test]
fn nobody_touches_what_is_lent() {
    let mut out = Out::of_zeros(BYTES);
    let part = out.lend(8..16).unwrap();
    let refused = |what: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(what)).is_err();
    assert!(refused(&mut || {
        out.bytes();
    }));
    assert!(refused(&mut || out.write(15, b"ab")));
    out.write(16, b"ab");
    drop(part);
    out.write(15, b"ab");
    assert_eq!(out.bytes()[14..18], *b"\0abb");
    // A buffer that goes while a part of it is lent is told of at once, and the part stays whole.
    let mut kept = None;
    assert!(refused(&mut || {
        let mut out = Out::of_zeros(BYTES);
        kept = out.lend(0..BYTES);
    }));
    let mut part: Part = kept.unwrap();
    part.as_mut().fill(1);
    assert_eq!(part.as_ref(), [1; BYTES]);
}

proptest! {
    #[test]
    fn a_buffer_that_is_filled_by_parts_is_what_they_were(
        steps in prop::collection::vec((0..BYTES, 0..BYTES, any::<bool>()), 1..40),
    ) {
        let mut out = Out::of_zeros(BYTES);
        let (mut model, mut lent) = (vec![0; BYTES], Vec::new());
        for (number, (from, to, gives_back)) in steps.into_iter().enumerate() {
            let span = from.min(to)..from.max(to);
            let free = |lent: &[(std::ops::Range<usize>, Part)]| {
                lent.iter().all(|(other, _)| other.end <= span.start || span.end <= other.start)
            };
            let may = !span.is_empty() && free(&lent);
            let part = out.lend(span.clone());
            prop_assert_eq!(part.is_some(), may);
            if let Some(mut part) = part {
                part.as_mut().fill(number as u8 + 1);
                model[span.clone()].fill(number as u8 + 1);
                lent.push((span, part));
            }
            if gives_back {
                lent.pop();
            }
        }
        drop(lent);
        prop_assert!(out.into_vec() == model);
    }
}
