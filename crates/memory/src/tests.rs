//! Whatever a guest did to its range, a reset undoes.

use std::sync::Arc;

use proptest::prelude::*;

use crate::{Image, ImageBuilder, PAGE_BYTES, Range, Slab, SlabConfig};

const PAGES: usize = 40;

fn image(pages: usize, stored: &[(usize, u8)]) -> Arc<Image> {
    let mut builder = ImageBuilder::new(pages * PAGE_BYTES);
    for (page, byte) in stored {
        assert!(builder.write(page * PAGE_BYTES, &[*byte; PAGE_BYTES]));
    }
    Arc::new(builder.freeze().unwrap())
}

fn slab(ranges_max: usize) -> Slab {
    Slab::new(SlabConfig {
        ranges_max,
        ..SlabConfig::default()
    })
}

fn contents(range: &Range) -> &[u8] {
    // SAFETY: the accessible part of the range, which only this test touches.
    unsafe { std::slice::from_raw_parts(range.base(), range.bytes()) }
}

fn poke(range: &Range, offset: usize, data: &[u8]) {
    assert!(offset + data.len() <= range.bytes());
    // SAFETY: as above, and within its length.
    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), range.base().add(offset), data.len()) };
}

/// The mappings of this process that overlap the addresses, as `(start, end, permissions)`.
fn mappings(start: usize, end: usize) -> Vec<(usize, usize, String)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let parse = |line: &str| {
        let (span, rest) = line.split_once(' ').unwrap();
        let (from, to) = span.split_once('-').unwrap();
        let hex = |text| usize::from_str_radix(text, 16).unwrap();
        (hex(from), hex(to), rest[..4].to_owned())
    };
    maps.lines()
        .map(parse)
        .filter(|(from, to, _)| *from < end && *to > start)
        .collect()
}

fn accessible_bytes(range: &Range) -> usize {
    let (start, end) = (
        range.base() as usize,
        range.base() as usize + range.bytes_max(),
    );
    let open = mappings(start, end)
        .into_iter()
        .filter(|(_, _, access)| access != "---p");
    open.map(|(from, to, _)| to.min(end) - from.max(start))
        .sum()
}

#[derive(Clone, Debug)]
enum Act {
    Write {
        at: prop::sample::Index,
        data: Vec<u8>,
    },
    Grow {
        pages: usize,
    },
    Reset,
}

fn act() -> impl Strategy<Value = Act> {
    let data = prop::collection::vec(any::<u8>(), 1..3 * PAGE_BYTES);
    prop_oneof![
        6 => (any::<prop::sample::Index>(), data).prop_map(|(at, data)| Act::Write { at, data }),
        1 => (1..30usize).prop_map(|pages| Act::Grow { pages }),
        2 => Just(Act::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_reset_range_equals_its_image_and_holds_nothing_else(
        stored in prop::collection::vec((0..PAGES, 1u8..), 0..10),
        acts in prop::collection::vec(act(), 1..30),
    ) {
        let image = image(PAGES, &stored);
        let range = slab(4).take(&image).unwrap();
        for act in acts {
            match act {
                Act::Write { at, data } => {
                    let data = &data[..data.len().min(range.bytes())];
                    poke(&range, at.index(range.bytes() - data.len() + 1), data);
                }
                Act::Grow { pages } => {
                    let old = range.bytes();
                    range.grow_to(old + pages * PAGE_BYTES).unwrap();
                    prop_assert!(contents(&range)[old..].iter().all(|byte| *byte == 0));
                }
                Act::Reset => {
                    range.reset().unwrap();
                    prop_assert_eq!(range.bytes(), image.bytes());
                    prop_assert!(contents(&range) == image.contents());
                    prop_assert_eq!(accessible_bytes(&range), image.bytes());
                }
            }
        }
    }

    #[test]
    fn an_image_file_reads_back_and_never_panics(
        stored in prop::collection::vec((0..PAGES, any::<u8>()), 0..10),
        cut in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let image = image(PAGES, &stored);
        let mut file = Vec::new();
        image.write(&mut file).unwrap();
        let read = ImageBuilder::decode(&file).unwrap().freeze().unwrap();
        prop_assert!(read.contents() == image.contents());
        prop_assert_eq!(read.digest(), image.digest());
        prop_assert!(ImageBuilder::decode(&file[..cut.index(file.len())]).is_err());
        let _ = ImageBuilder::decode(&noise);
    }
}

#[test]
fn more_pages_than_are_copied_are_dropped_and_equal_the_image_again() {
    let image = image(4096, &[(0, 1), (700, 2), (4095, 3)]);
    let range = slab(1).take(&image).unwrap();
    for page in 0..4096 {
        poke(&range, page * PAGE_BYTES, &[9]);
    }
    range.reset().unwrap();
    assert!(contents(&range) == image.contents());
}

#[test]
fn a_range_given_back_dirty_is_clean_for_the_next_image() {
    let slab = slab(1);
    let first = slab.take(&image(2, &[(0, 1)])).unwrap();
    poke(&first, 0, &[7; 2 * PAGE_BYTES]);
    first.grow_to(8 * PAGE_BYTES).unwrap();
    poke(&first, 7 * PAGE_BYTES, &[7; PAGE_BYTES]);
    drop(first);
    let other = image(3, &[(1, 5)]);
    let second = slab.take(&other).unwrap();
    assert!(contents(&second) == other.contents());
    second.grow_to(8 * PAGE_BYTES).unwrap();
    assert!(
        contents(&second)[3 * PAGE_BYTES..]
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[test]
fn the_cap_of_live_ranges_holds() {
    let slab = slab(2);
    let image = image(1, &[]);
    let kept = (slab.take(&image).unwrap(), slab.take(&image).unwrap());
    assert!(matches!(
        slab.take(&image),
        Err(crate::MemoryError::Full { live: 2, max: 2 })
    ));
    drop(kept);
    assert_eq!(slab.live(), 0);
    assert!(slab.take(&image).is_ok());
}

#[test]
fn a_memory_of_no_bytes_is_a_memory() {
    let image = image(0, &[]);
    let range = slab(1).take(&image).unwrap();
    assert_eq!(range.bytes(), 0);
    range.grow_to(PAGE_BYTES).unwrap();
    poke(&range, 0, &[1]);
    assert!(range.reset().unwrap());
    assert_eq!(range.bytes(), 0);
}

#[test]
fn growth_past_the_reservation_is_refused() {
    let range = slab(1).take(&image(1, &[])).unwrap();
    assert!(range.grow_to(range.bytes_max() + 1).is_err());
    assert_eq!(range.bytes(), PAGE_BYTES);
}
