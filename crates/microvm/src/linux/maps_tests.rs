//! Maps over memory that is not a guest's.

use std::collections::BTreeMap;

use super::super::memory::fake::FakeMemory;
use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const BASE: u64 = 0x40_0000;

fn maps() -> (Maps, FakeMemory) {
    (Maps::new(&[]), FakeMemory::new(64 * MIB))
}

#[test]
fn what_is_reserved_costs_nothing_until_it_is_touched() {
    let (mut maps, mut memory) = maps();
    let rw = Protection::READ_WRITE;
    let at = maps
        .map(&memory, 0, 2 << 30, Protection::NONE, false)
        .unwrap();
    assert_eq!(memory.bytes(), 0);
    assert_eq!(
        maps.touch(&mut memory, at, 1, Protection::READ),
        Touch::Denied
    );
    maps.protect(&mut memory, at, MIB, rw).unwrap();
    assert_eq!(maps.touch(&mut memory, at + 5, 3, rw), Touch::Fine);
    assert_eq!(memory.bytes(), TOUCHED_LEAST);
    memory.write(at + 5, b"abc").unwrap();
    maps.forget(&mut memory, at, MIB).unwrap();
    assert_eq!(memory.bytes(), 0);
}

#[test]
fn memory_past_the_limit_is_refused_when_it_is_asked_for_or_touched() {
    let (mut maps, mut memory) = maps();
    let rw = Protection::READ_WRITE;
    assert_eq!(
        maps.map(&memory, 0, 65 * MIB, rw, false),
        Err(Errno::ENOMEM)
    );
    let at = maps.map(&memory, 0, 65 * MIB, rw, true).unwrap();
    assert_eq!(maps.touch(&mut memory, at, 64 * MIB, rw), Touch::Fine);
    assert_eq!(maps.touch(&mut memory, at, 65 * MIB, rw), Touch::NoMemory);
    assert_eq!(maps.map(&memory, 0, PAGE, rw, false), Err(Errno::ENOMEM));
    maps.unmap(&mut memory, at, MIB).unwrap();
    assert!(maps.map(&memory, 0, PAGE, rw, false).is_ok());
}

#[test]
fn the_heap_grows_and_shrinks_and_stays_where_it_is_otherwise() {
    let (mut maps, mut memory) = maps();
    let start = maps.set_heap_end(&mut memory, 0);
    assert_eq!(maps.set_heap_end(&mut memory, start + 10), start + 10);
    let rw = Protection::READ_WRITE;
    assert_eq!(maps.touch(&mut memory, start, PAGE, rw), Touch::Fine);
    for refused in [start - 1, u64::MAX, start + 100 * MIB] {
        assert_eq!(maps.set_heap_end(&mut memory, refused), start + 10);
    }
    assert_eq!(maps.set_heap_end(&mut memory, start), start);
    assert_eq!(memory.bytes(), 0);
}

#[test]
fn a_mapping_that_moves_takes_its_bytes_along() {
    let (mut maps, mut memory) = maps();
    let rw = Protection::READ_WRITE;
    let low = maps.map(&memory, 0, 2 * PAGE, rw, false).unwrap();
    maps.touch(&mut memory, low, 2 * PAGE, rw);
    memory.write(low + PAGE, b"kept").unwrap();
    // What lies above is taken, so it cannot grow in place.
    assert_eq!(
        maps.resize(&mut memory, low, 2 * PAGE, MIB, false),
        Err(Errno::ENOMEM)
    );
    let moved = maps.resize(&mut memory, low, 2 * PAGE, MIB, true).unwrap();
    let mut kept = [0; 4];
    memory.read(moved + PAGE, &mut kept).unwrap();
    assert_eq!((&kept, moved == low), (b"kept", false));
    assert_eq!(maps.touch(&mut memory, low, 1, rw), Touch::Nothing);
    assert_eq!(maps.resize(&mut memory, moved, MIB, PAGE, false), Ok(moved));
    assert_eq!(maps.touch(&mut memory, moved + PAGE, 1, rw), Touch::Nothing);
}

#[test]
fn addresses_that_no_guest_may_have_are_refused() {
    let (mut maps, mut memory) = maps();
    let rw = Protection::READ_WRITE;
    for (at, bytes) in [
        (0, PAGE),
        (BASE + 1, PAGE),
        (USER_END, PAGE),
        (BASE, u64::MAX),
        (u64::MAX - PAGE + 1, PAGE),
        (BASE, 0),
    ] {
        assert!(
            maps.map_at(&mut memory, at, bytes, rw, true).is_err(),
            "{at:#x} {bytes:#x}"
        );
        assert!(maps.unmap(&mut memory, at, bytes).is_err());
    }
    for bytes in [0, u64::MAX, USER_END + 1] {
        assert!(maps.map(&memory, 0, bytes, rw, true).is_err());
    }
    assert_eq!(maps.touch(&mut memory, u64::MAX, 2, rw), Touch::Nothing);
}

/// What a test does to pages 0 to 63 from [`BASE`] on.
#[derive(Clone, Debug)]
enum Step {
    Map(u64, u64, Protection),
    Unmap(u64, u64),
    Protect(u64, u64, Protection),
    Touch(u64, u64, Protection),
    Forget(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let protection = prop::sample::select(vec![
        Protection::NONE,
        Protection::READ,
        Protection::READ_WRITE,
        Protection::READ_EXECUTE,
    ]);
    (0..5, 0u64..60, 1u64..8, protection).prop_map(|(which, at, pages, protection)| match which {
        0 => Step::Map(at, pages, protection),
        1 => Step::Unmap(at, pages),
        2 => Step::Protect(at, pages, protection),
        3 => Step::Touch(at, pages, protection),
        _ => Step::Forget(at, pages),
    })
}

proptest! {
    #[test]
    fn pages_are_as_a_map_of_pages_says(steps in prop::collection::vec(step(), 1..80)) {
        let (mut maps, mut memory) = maps();
        let mut model: BTreeMap<u64, Protection> = BTreeMap::new();
        let page = |at: u64| BASE + at * PAGE;
        for step in steps {
            match step {
                Step::Map(at, pages, protection) => {
                    maps.map_at(&mut memory, page(at), pages * PAGE, protection, true).unwrap();
                    model.extend((at..at + pages).map(|at| (at, protection)));
                }
                Step::Unmap(at, pages) => {
                    maps.unmap(&mut memory, page(at), pages * PAGE).unwrap();
                    model.retain(|there, _| !(at..at + pages).contains(there));
                }
                Step::Protect(at, pages, protection) => {
                    let all = (at..at + pages).all(|at| model.contains_key(&at));
                    let done = maps.protect(&mut memory, page(at), pages * PAGE, protection);
                    prop_assert_eq!(done.is_ok(), all);
                    if all {
                        model.extend((at..at + pages).map(|at| (at, protection)));
                    }
                }
                Step::Touch(at, pages, protection) => {
                    let expected = (at..at + pages).find_map(|at| match model.get(&at) {
                        None => Some(Touch::Nothing),
                        Some(there) if *there == Protection::NONE
                            || !there.allows(protection) => Some(Touch::Denied),
                        Some(_) => None,
                    });
                    let touched = maps.touch(&mut memory, page(at), pages * PAGE, protection);
                    prop_assert_eq!(touched, expected.unwrap_or(Touch::Fine));
                }
                Step::Forget(at, pages) => {
                    let all = (at..at + pages).all(|at| model.contains_key(&at));
                    let done = maps.forget(&mut memory, page(at), pages * PAGE);
                    prop_assert_eq!(done.is_ok(), all);
                }
            }
            // Each page that is there may be used as its area says, and no other is there.
            for at in 0..70 {
                if let Some(there) = memory.page(page(at)) {
                    prop_assert_eq!(Some(&there), model.get(&at));
                }
            }
        }
    }
}
