//! Whatever a guest did to its range, a reset undoes.

use std::sync::Arc;

use proptest::prelude::*;

use crate::SlabConfig;
use crate::{Access, Image, ImageBuilder, PAGE_BYTES, REGION_UNIT_BYTES, Range, Region, Slab};

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
    Map {
        at: prop::sample::Index,
        access: Access,
    },
    Reset,
}

fn act() -> impl Strategy<Value = Act> {
    let data = prop::collection::vec(any::<u8>(), 1..3 * PAGE_BYTES);
    prop_oneof![
        6 => (any::<prop::sample::Index>(), data).prop_map(|(at, data)| Act::Write { at, data }),
        3 => (1..60usize).prop_map(|pages| Act::Grow { pages }),
        2 => (any::<prop::sample::Index>(), access()).prop_map(|(at, access)| Act::Map { at, access }),
        2 => Just(Act::Reset),
    ]
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![Just(Access::Read), Just(Access::Write)]
}

/// A region of one unit, what it must hold, and where a range maps it: `(at, access)`.
struct Shared {
    region: Arc<Region>,
    model: Vec<u8>,
    mapped: Vec<(usize, Access)>,
}

impl Shared {
    fn new() -> Self {
        let region = Region::new(REGION_UNIT_BYTES).unwrap();
        region.grow_to(REGION_UNIT_BYTES).unwrap();
        region.write(0, &[0xaa; REGION_UNIT_BYTES]).unwrap();
        Self {
            region: Arc::new(region),
            model: vec![0xaa; REGION_UNIT_BYTES],
            mapped: Vec::new(),
        }
    }

    /// Maps it at a free unit of the grown part, if there is one.
    fn map(&mut self, range: &Range, at: prop::sample::Index, access: Access) {
        let first = range.image().bytes().div_ceil(REGION_UNIT_BYTES);
        let units = range.bytes() / REGION_UNIT_BYTES;
        if units <= first {
            return;
        }
        let at = (first + at.index(units - first)) * REGION_UNIT_BYTES;
        let taken = self.mapped.iter().any(|(other, _)| *other == at);
        let mapped = range.map(at, &self.region, 0, REGION_UNIT_BYTES, access);
        assert_eq!(mapped.is_ok(), !taken);
        if !taken {
            self.mapped.push((at, access));
        }
    }

    /// What a write to the range does to the region.
    fn written(&mut self, start: usize, data: &[u8]) {
        for (at, _) in self
            .mapped
            .iter()
            .filter(|(_, access)| *access == Access::Write)
        {
            let from = start.max(*at);
            let to = (start + data.len()).min(at + REGION_UNIT_BYTES);
            if from < to {
                self.model[from - at..to - at].copy_from_slice(&data[from - start..to - start]);
            }
        }
    }

    fn holds_its_bytes(&self) -> bool {
        let mut bytes = vec![0; REGION_UNIT_BYTES];
        self.region.read(0, &mut bytes).unwrap();
        bytes == self.model
    }
}

/// Whether a region is mapped anywhere in the range's reservation.
fn maps_a_region(range: &Range) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let (start, end) = (
        range.base() as usize,
        range.base() as usize + range.bytes_max(),
    );
    maps.lines().any(|line| {
        let (span, rest) = line.split_once(' ').unwrap();
        let at = usize::from_str_radix(span.split_once('-').unwrap().0, 16).unwrap();
        (start..end).contains(&at) && rest.contains("dunlin-region")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_reset_range_equals_its_image_and_holds_nothing_else(
        stored in prop::collection::vec((0..PAGES, 1u8..), 0..10),
        acts in prop::collection::vec(act(), 1..30),
    ) {
        let image = image(PAGES, &stored);
        let slab = slab(4);
        let range = slab.take(&image).unwrap();
        let mut shared = Shared::new();
        for act in acts {
            match act {
                Act::Write { at, data } => {
                    let data = &data[..data.len().min(range.bytes())];
                    let at = at.index(range.bytes() - data.len() + 1);
                    poke(&range, at, data);
                    shared.written(at, data);
                }
                Act::Map { at, access } => shared.map(&range, at, access),
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
                    prop_assert!(!maps_a_region(&range));
                    shared.mapped.clear();
                    prop_assert_eq!(Arc::strong_count(&shared.region), 1);
                }
            }
            prop_assert!(shared.holds_its_bytes());
        }
        drop(range);
        let next = slab.take(&image).unwrap();
        prop_assert!(!maps_a_region(&next) && contents(&next) == image.contents());
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

proptest! {
    #[test]
    fn a_reset_that_is_told_of_writes_undoes_all_of_them(
        steps in prop::collection::vec((0u8..8, 0..PAGES, 1u8..), 1..60),
    ) {
        const IMAGE_PAGES: usize = 10;
        let image = image(IMAGE_PAGES, &[(0, 1), (3, 2), (9, 3)]);
        let range = slab(1).take(&image).unwrap();
        range.keep(PAGES * PAGE_BYTES).unwrap();
        let mut expected = image.contents().to_vec();
        expected.resize(PAGES * PAGE_BYTES, 0);
        // Pages that are private by what was done, also before a reset.
        let mut private = std::collections::BTreeSet::new();
        for (step, page, fill) in steps {
            let at = page * PAGE_BYTES;
            match step {
                0 => {
                    // Over the end of the page, where there is another.
                    let length = PAGE_BYTES.min(PAGES * PAGE_BYTES - at - 8);
                    range.write(at + 8, &vec![fill; length]).unwrap();
                    private.insert(page);
                    if page + 1 < PAGES {
                        private.insert(page + 1);
                    }
                }
                1 => {
                    poke(&range, at + 17, &[fill]);
                    range.may_own_more();
                    private.insert(page);
                }
                2 if private.contains(&page) => poke(&range, at + 4095, &[fill]),
                3 => {
                    range.zero(at, PAGE_BYTES).unwrap();
                    private.insert(page);
                }
                4 => {
                    range.populate(at, PAGE_BYTES).unwrap();
                    private.insert(page);
                }
                5 if page >= IMAGE_PAGES => {
                    range.drop_pages(at, PAGE_BYTES).unwrap();
                    private.remove(&page);
                }
                6 => {
                    range.reset().unwrap();
                    prop_assert!(contents(&range) == expected);
                }
                _ => {
                    range.reset_told().unwrap();
                    prop_assert!(contents(&range) == expected, "page {page}");
                }
            }
        }
        range.reset_told().unwrap();
        prop_assert!(contents(&range) == expected);
    }
}

#[test]
fn words_are_written_where_all_of_them_fit() {
    let range = slab(1).take(&image(2, &[])).unwrap();
    let end = 2 * PAGE_BYTES;
    range.write_words(end - 16, &[1, u64::MAX]).unwrap();
    let expected = [1, u64::MAX].map(u64::to_le_bytes);
    assert_eq!(&contents(&range)[end - 16..], expected.as_flattened());
    for (at, words) in [(end - 8, 2), (end, 1), (4, 1), (usize::MAX - 7, 2)] {
        assert!(range.write_words(at, &vec![7; words]).is_err(), "{at:#x}");
    }
    assert_eq!(&contents(&range)[end - 16..], expected.as_flattened());
    range.write_words(end, &[]).unwrap();
}
