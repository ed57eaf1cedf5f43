//! Regions: what the host reads and writes, alone and beside others, and where they may be mapped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use crate::{Access, ImageBuilder, MemoryError, PAGE_BYTES, REGION_UNIT_BYTES, Region, Slab};
use crate::{Range, SlabConfig};

fn region(bytes: usize) -> Arc<Region> {
    let region = Region::new(1 << 20).unwrap();
    region.grow_to(bytes).unwrap();
    Arc::new(region)
}

fn contents(region: &Region) -> Vec<u8> {
    let mut bytes = vec![0; region.bytes()];
    region.read(0, &mut bytes).unwrap();
    bytes
}

/// A range with an image of one page, grown by `pages`.
fn grown(pages: usize) -> Range {
    let slab = Slab::new(SlabConfig {
        ranges_max: 1,
        ..SlabConfig::default()
    });
    let image = ImageBuilder::new(PAGE_BYTES).freeze().unwrap();
    let range = slab.take(&Arc::new(image)).unwrap();
    range.grow_to((1 + pages) * PAGE_BYTES).unwrap();
    range
}

fn peek(range: &Range, at: usize) -> u8 {
    // SAFETY: accessible bytes of a range that only the test touches.
    unsafe { range.base().add(at).read_volatile() }
}

fn poke(range: &Range, at: usize, byte: u8) {
    // SAFETY: as above.
    unsafe { range.base().add(at).write_volatile(byte) }
}

#[derive(Clone, Debug)]
enum Act {
    Write(prop::sample::Index, Vec<u8>),
    Zero(prop::sample::Index, usize),
    Read(prop::sample::Index, usize),
    Grow(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let at = any::<prop::sample::Index>;
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(any::<u8>(), 0..20_000),
    ];
    prop_oneof![
        4 => (at(), data).prop_map(|(at, data)| Act::Write(at, data)),
        2 => (at(), 0..30_000usize).prop_map(|(at, length)| Act::Zero(at, length)),
        2 => (at(), 0..300usize).prop_map(|(at, length)| Act::Read(at, length)),
        1 => (0..4 * REGION_UNIT_BYTES).prop_map(Act::Grow),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_region_holds_what_was_written(acts in prop::collection::vec(act(), 1..40)) {
        let region = region(REGION_UNIT_BYTES);
        let mut model = vec![0; REGION_UNIT_BYTES];
        for act in acts {
            let bytes = model.len();
            match act {
                Act::Write(at, data) => {
                    let at = at.index(bytes - data.len());
                    model[at..at + data.len()].copy_from_slice(&data);
                    region.write(at, &data).unwrap();
                }
                Act::Zero(at, length) => {
                    let at = at.index(bytes - length);
                    model[at..at + length].fill(0);
                    region.zero(at, length).unwrap();
                }
                Act::Read(at, length) => {
                    let at = at.index(bytes - length);
                    let mut read = vec![1; length];
                    region.read(at, &mut read).unwrap();
                    prop_assert_eq!(&read, &model[at..at + length]);
                    let copy = region.copy(at, length).unwrap();
                    prop_assert_eq!(&copy, &model[at..at + length]);
                }
                Act::Grow(to) => {
                    region.grow_to(to).unwrap();
                    model.resize(bytes.max(to.next_multiple_of(REGION_UNIT_BYTES)), 0);
                }
            }
        }
        prop_assert!(contents(&region) == model);
    }
}

#[test]
fn what_many_add_to_a_word_at_once_is_all_in_it() {
    let region = region(REGION_UNIT_BYTES);
    region.write(16, &(-3_i64).to_le_bytes()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).try_for_each(|_| region.add_to_word(2, 2).map(drop)));
        }
    });
    assert_eq!(region.add_to_word(2, 1_u64.wrapping_neg()).unwrap(), 7996);
    let mut word = [0; 8];
    region.read(16, &mut word).unwrap();
    assert_eq!(i64::from_le_bytes(word), 7996);
}

#[test]
fn what_lies_outside_is_refused() {
    let region = region(REGION_UNIT_BYTES);
    for (offset, length) in [
        (REGION_UNIT_BYTES, 1),
        (usize::MAX, 2),
        (1, REGION_UNIT_BYTES),
    ] {
        let mut out = vec![0; length];
        assert!(region.read(offset, &mut out).is_err(), "{offset}");
        assert!(region.write(offset, &out).is_err(), "{offset}");
        assert!(region.zero(offset, length).is_err(), "{offset}");
    }
    for number in [REGION_UNIT_BYTES / 8, usize::MAX / 8, usize::MAX] {
        assert!(region.add_to_word(number, 1).is_err(), "{number}");
    }
    assert!(region.read(REGION_UNIT_BYTES, &mut []).is_ok());
    let refused = region.grow_to((1 << 20) + 1);
    assert!(matches!(refused, Err(MemoryError::TooLarge { .. })));
    assert!(Region::new(usize::MAX).is_err());
}

#[test]
fn zeroed_pages_give_their_memory_back() {
    let region = region(4 * REGION_UNIT_BYTES);
    assert_eq!(region.resident_bytes().unwrap(), 0);
    region.write(0, &vec![1; 4 * REGION_UNIT_BYTES]).unwrap();
    assert_eq!(region.resident_bytes().unwrap(), 4 * REGION_UNIT_BYTES);
    region.zero(100, 2 * REGION_UNIT_BYTES).unwrap();
    let kept = 2 * REGION_UNIT_BYTES + PAGE_BYTES;
    assert_eq!(region.resident_bytes().unwrap(), kept);
}

#[test]
fn a_region_cannot_shrink() {
    let region = region(REGION_UNIT_BYTES);
    assert!(rustix::fs::ftruncate(region.memfd(), 0).is_err());
}

#[test]
fn writers_of_neighbouring_bytes_lose_nothing() {
    let region = region(REGION_UNIT_BYTES);
    std::thread::scope(|scope| {
        for byte in 0..5 {
            let region = &region;
            scope.spawn(move || {
                for round in 0..=2000u32 {
                    region.write(byte, &[(round % 251) as u8]).unwrap();
                }
            });
        }
    });
    assert_eq!(contents(&region)[..5], [(2000 % 251) as u8; 5]);
}

#[test]
fn a_reader_beside_a_writer_sees_whole_words() {
    let region = region(REGION_UNIT_BYTES);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..2000u32 {
                region.write(0, &[round as u8; 800]).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let mut seen = [0; 800];
            region.read(0, &mut seen).unwrap();
            for word in seen.chunks(8) {
                assert!(word.iter().all(|byte| *byte == word[0]), "{word:?}");
            }
        }
    });
}

#[test]
fn sharers_see_each_others_writes_and_readers_keep_theirs() {
    let shared = region(REGION_UNIT_BYTES);
    let (writer, reader) = (grown(32), grown(32));
    let bytes = REGION_UNIT_BYTES;
    writer
        .map(PAGE_BYTES, &shared, 0, bytes, Access::Write)
        .unwrap();
    reader
        .map(2 * PAGE_BYTES, &shared, 0, bytes, Access::Read)
        .unwrap();
    poke(&writer, PAGE_BYTES + 5, 7);
    assert_eq!(peek(&reader, 2 * PAGE_BYTES + 5), 7);
    assert_eq!(contents(&shared)[5], 7);
    assert!(!reader.wrote_read_only().unwrap());
    poke(&reader, 2 * PAGE_BYTES + 6, 9);
    assert!(reader.wrote_read_only().unwrap() && !writer.wrote_read_only().unwrap());
    assert_eq!(contents(&shared)[6], 0);
    assert_eq!(peek(&writer, PAGE_BYTES + 6), 0);
    drop(reader);
    drop(writer);
    assert_eq!(Arc::strong_count(&shared), 1);
    assert_eq!(contents(&shared)[5], 7);
}

#[test]
fn a_mapping_lies_in_grown_memory_and_over_no_other() {
    let shared = region(REGION_UNIT_BYTES);
    let range = grown(32);
    let check = |at: usize, offset: usize, pages: usize, fits: bool| {
        let bytes = pages * PAGE_BYTES;
        let done = range.map(at, &shared, offset, bytes, Access::Write);
        assert_eq!(done.is_ok(), fits, "{at} {offset} {pages}");
    };
    check(0, 0, 1, false);
    check(33 * PAGE_BYTES, 0, 1, false);
    check(32 * PAGE_BYTES, 0, 2, false);
    check(usize::MAX & !(PAGE_BYTES - 1), 0, 1, false);
    check(PAGE_BYTES + 1, 0, 1, false);
    check(PAGE_BYTES, 1, 1, false);
    check(PAGE_BYTES, 0, 0, false);
    check(PAGE_BYTES, PAGE_BYTES, 16, false);
    check(4 * PAGE_BYTES, PAGE_BYTES, 4, true);
    check(7 * PAGE_BYTES, 0, 1, false);
    check(3 * PAGE_BYTES, 0, 2, false);
    check(8 * PAGE_BYTES, 0, 1, true);
    range.reset().unwrap();
    check(PAGE_BYTES, 0, 1, false);
    range.grow_to(2 * PAGE_BYTES).unwrap();
    assert_eq!(peek(&range, PAGE_BYTES), 0);
    check(PAGE_BYTES, 0, 1, true);
}
