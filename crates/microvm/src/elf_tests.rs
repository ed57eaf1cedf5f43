//! Files that are right, and every kind that is not.

use proptest::prelude::*;

use super::*;

/// A file of one program header for code and one for data, as `change` leaves it.
pub fn file(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut file = vec![0; 0x3000];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    put::<2>(&mut file, 16, 2);
    put::<2>(&mut file, 18, 62);
    put::<8>(&mut file, 24, 0x40_1000);
    put::<8>(&mut file, 32, 64);
    put::<2>(&mut file, 54, PHENT as u64);
    put::<2>(&mut file, 56, 2);
    header(&mut file, 0, [1, 5, 0x1000, 0x40_1000, 0x10, 0x10]);
    header(&mut file, 1, [1, 6, 0x2000, 0x40_2000, 0x10, 0x2000]);
    change(&mut file);
    file
}

fn put<const N: usize>(file: &mut [u8], at: usize, value: u64) {
    file[at..at + N].copy_from_slice(&value.to_le_bytes()[..N]);
}

/// Kind, flags, offset, address, bytes in the file, bytes in memory.
fn header(file: &mut [u8], index: usize, fields: [u64; 6]) {
    let at = 64 + index * PHENT;
    put::<4>(file, at, fields[0]);
    put::<4>(file, at + 4, fields[1]);
    for (field, place) in fields[2..].iter().zip([8, 16, 32, 40]) {
        put::<8>(file, at + place, *field);
    }
}

fn check(change: impl FnOnce(&mut Vec<u8>), expected: &str) {
    let error = Elf::parse(&file(change)).expect_err(expected).to_string();
    assert!(
        error.contains(expected),
        "{error:?} does not say {expected:?}"
    );
}

#[test]
fn a_static_executable_is_read() {
    let elf = Elf::parse(&file(|_| {})).unwrap();
    assert_eq!((elf.entry, elf.movable), (0x40_1000, false));
    assert_eq!(elf.span(), 0x40_1000..0x40_4000);
    let protections: Vec<_> = elf.segments.iter().map(|s| s.protection).collect();
    let expected = [Protection::READ_EXECUTE, Protection::READ_WRITE];
    assert_eq!(protections, expected);
}

#[test]
fn a_static_pie_may_be_moved() {
    let elf = Elf::parse(&file(|f| put::<2>(f, 16, 3))).unwrap();
    assert!(elf.movable);
}

#[test]
fn what_is_no_executable_of_this_machine_is_told_what_it_is() {
    assert_eq!(Elf::parse(b"#!/bin/sh").err(), Some(ElfError::NotElf));
    assert_eq!(Elf::parse(b"").err(), Some(ElfError::NotElf));
    check(|f| f[4] = 1, "64-bit");
    check(|f| f[5] = 2, "little-endian");
    check(|f| put::<2>(f, 18, 183), "x86-64");
    check(|f| put::<2>(f, 16, 1), "object file");
    check(|f| put::<2>(f, 16, 4), "no program");
    check(|f| header(f, 1, [3, 4, 0x2000, 0, 0x10, 0x10]), "-static");
}

#[test]
fn what_contradicts_itself_is_malformed() {
    check(|f| f.truncate(20), "outside");
    check(|f| f.truncate(70), "outside");
    check(|f| f.truncate(0x2008), "outside");
    check(|f| put::<2>(f, 54, 32), "usual size");
    check(|f| put::<2>(f, 56, 0), "usual size");
    check(|f| put::<2>(f, 56, 65535), "outside");
    check(|f| put::<8>(f, 32, u64::MAX - 8), "outside");
    check(|f| put::<8>(f, 24, 0x40_2000), "entry");
    check(|f| put::<8>(f, 24, 0x40_1010), "entry");
    let more_in_file = [1, 6, 0x2000, 0x40_2000, 0x20, 0x10];
    check(|f| header(f, 1, more_in_file), "more bytes in the file");
    let past_file = [1, 6, u64::MAX - 4, 0x40_2000, 0x10, 0x10];
    check(|f| header(f, 1, past_file), "outside");
    let none = [0; 6];
    let nothing = |f: &mut Vec<u8>| {
        header(f, 0, none);
        header(f, 1, none);
    };
    check(nothing, "0 segments");
}

#[test]
fn what_guests_do_not_get_is_refused() {
    check(
        |f| header(f, 1, [1, 7, 0x2000, 0x40_2000, 0x10, 0x10]),
        "writable and executable",
    );
    check(
        |f| header(f, 1, [1, 6, 0x2000, 0x40_1800, 0x10, 0x10]),
        "share a page",
    );
    check(
        |f| header(f, 1, [1, 6, 0x2000, 0x1000, 0x10, 0x10]),
        "nothing below",
    );
    check(
        |f| header(f, 1, [1, 6, 0x2000, u64::MAX - 0xfff, 0x10, 0x2000]),
        "ends past",
    );
    check(
        |f| header(f, 1, [1, 6, 0x2000, 0x40_2000, 0x10, 1 << 40]),
        "ends past",
    );
}

#[test]
fn this_very_program_is_refused_with_the_reason_or_read() {
    let own = std::fs::read("/proc/self/exe").unwrap();
    let symbols = Symbols::read(&own);
    match Elf::parse(&own) {
        Ok(elf) => assert!(!elf.segments.is_empty()),
        Err(error) => assert!(error.to_string().contains("-static"), "{error}"),
    }
    let (start, _, name) = symbols.functions[symbols.functions.len() / 2].clone();
    assert!(symbols.function(start).is_some(), "{name}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_file_makes_the_reader_panic(
        changes in prop::collection::vec((0usize..0x3000, any::<u8>()), 0..40),
        headers in prop::collection::vec((0usize..176, prop::sample::select(vec![0u8, 1, 3, 6, 0x7f, 0x80, 0xff])), 0..12),
        cut in prop::option::of(0usize..0x3000),
    ) {
        let bytes = file(|f| {
            for (at, byte) in changes.into_iter().chain(headers) {
                f[at] = byte;
            }
            if let Some(cut) = cut {
                f.truncate(cut);
            }
        });
        Symbols::read(&bytes);
        if let Ok(elf) = Elf::parse(&bytes) {
            for segment in &elf.segments {
                prop_assert!(segment.file.end <= bytes.len());
                prop_assert!(segment.pages().end <= USER_END);
                prop_assert!(!(segment.protection.write && segment.protection.execute));
            }
        }
    }
}
