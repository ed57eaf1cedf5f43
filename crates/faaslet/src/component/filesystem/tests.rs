//! What descriptors of both versions say of themselves, and refuse.

use files::{Errno, Layer};
use model::Limits;
use wasmtime_wasi::p2::bindings::filesystem::types as p2;
use wasmtime_wasi::p3::bindings::filesystem::types as p3;

use super::convert::{p2_modes, p2_open, p3_modes, p3_open};
use super::{GuestFiles, Opened, Opening};

fn root() -> Opened {
    GuestFiles::new(&Layer::empty(), &Limits::default()).root()
}

fn asked(open: p3::OpenFlags, flags: p3::DescriptorFlags) -> Opening {
    p3_open(p3::PathFlags::empty(), open, flags)
}

fn told(opened: &Opened) -> p3::DescriptorFlags {
    p3_modes(opened.modes().expect("it is open"))
}

#[test]
fn a_descriptor_tells_what_it_was_opened_for() {
    use p3::{DescriptorFlags as D, OpenFlags as O};
    let root = root();
    assert_eq!(told(&root), D::READ | D::MUTATE_DIRECTORY);
    let make = O::CREATE | O::EXCLUSIVE;
    let cases = [
        // Who names nothing reads, and who makes or empties a file writes it.
        ("new", make, D::empty(), D::READ | D::WRITE),
        ("newer", make, D::READ, D::READ | D::WRITE),
        ("newest", make, D::WRITE, D::WRITE),
        ("new", O::empty(), D::empty(), D::READ),
        ("new", O::EXCLUSIVE, D::empty(), D::READ),
        ("new", O::empty(), D::WRITE, D::WRITE),
        ("new", O::TRUNCATE, D::empty(), D::READ | D::WRITE),
        // Of a directory only who asks to change it is told so.
        (".", O::empty(), D::empty(), D::READ),
        (
            ".",
            O::DIRECTORY,
            D::MUTATE_DIRECTORY,
            D::READ | D::MUTATE_DIRECTORY,
        ),
        ("new", O::empty(), D::MUTATE_DIRECTORY, D::READ),
    ];
    for (path, open, flags, expected) in cases {
        let opened = root.open_at(path, &asked(open, flags)).expect(path);
        assert_eq!(told(&opened), expected, "{path} {open:?} {flags:?}");
        let again = opened.again().expect("it opens once more");
        assert_eq!(told(&again), expected, "{path} {open:?} {flags:?}");
    }
    let written = root.open_at(".", &asked(O::empty(), D::WRITE));
    assert_eq!(written.err(), Some(Errno::IsDirectory));
}

#[test]
fn both_versions_tell_the_same() {
    let root = root();
    let (open, flags) = (p2::OpenFlags::CREATE, p2::DescriptorFlags::empty());
    let made = p2_open(p2::PathFlags::empty(), open, flags);
    let made = root.open_at("new", &made).expect("it is made");
    let expected = p2::DescriptorFlags::READ | p2::DescriptorFlags::WRITE;
    assert_eq!(p2_modes(made.modes().expect("it is open")), expected);
}

#[test]
fn a_directory_that_was_not_opened_to_be_changed_can_be_changed_all_the_same() {
    let opened = root()
        .open_at(
            ".",
            &asked(p3::OpenFlags::DIRECTORY, p3::DescriptorFlags::READ),
        )
        .expect("the root opens");
    opened.make_directory_at("d").expect("a directory is made");
}

#[test]
fn no_file_reaches_past_the_largest_offset() {
    let (open, flags) = (p3::OpenFlags::CREATE, p3::DescriptorFlags::READ);
    let file = root()
        .open_at("new", &asked(open, flags))
        .expect("it is made");
    for offset in [1 << 63, u64::MAX] {
        assert_eq!(file.read(offset, &mut [0]), Err(Errno::Invalid));
        assert_eq!(file.write(offset, &[0]), Err(Errno::Invalid));
    }
    assert_eq!(file.read(i64::MAX as u64, &mut [0]), Ok(0));
}
