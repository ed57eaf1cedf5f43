//! What the system-call stub answers by itself, what it leaves to the host, and what it notes.

use memory::{ImageBuilder, Slab, SlabConfig};

use super::*;
use crate::layout::{FRAMES, PAGE};
use crate::system::GUEST_PORT;

fn range() -> Range {
    let slab = Slab::new(SlabConfig {
        ranges_max: 1,
        reservation_bytes: 1 << 30,
        guard_bytes: 0,
        idle_max: 0,
    });
    let empty = ImageBuilder::new(0).freeze().unwrap();
    let range = slab.take(&std::sync::Arc::new(empty)).unwrap();
    range.grow_to(FRAMES as usize).unwrap();
    range
}

fn put(range: &Range, at: u64, words: &[u64]) {
    for (index, word) in words.iter().enumerate() {
        let at = (STUB_DATA + at) as usize + index * 8;
        range.write(at, &word.to_le_bytes()).unwrap();
    }
}

#[test]
fn the_code_fits_its_page_and_leaves_by_the_one_port() {
    assert!(code().len() as u64 <= PLAIN_STUB);
    let (leaves, left) = (places().leaves as usize, places().left as usize);
    assert_eq!(code()[leaves..left], [0xe7, GUEST_PORT as u8]);
    assert_eq!(code()[left..left + 3], [0x48, 0x0f, 0x07]);
}

#[test]
fn whoever_is_stopped_in_the_code_has_yet_to_call_or_has_called() {
    let range = range();
    put(&range, FLAGS, &[1, 2, 3, 4, 5]);
    put(&range, PARTS, &[6]);
    let of = |at: u32| {
        let mut regs = kvm_regs {
            rip: SYSCALL_STUB + u64::from(at),
            rax: 10,
            rcx: 11,
            rdx: 16,
            rsi: 12,
            rdi: 13,
            rsp: 14,
            r11: 15,
            ..Default::default()
        };
        let halted = Halted::at(&range, &mut regs).unwrap();
        (halted, regs)
    };
    let places = places();
    for at in 0..places.end {
        let (halted, regs) = of(at);
        let intact = at < places.kept || (places.leaves..=places.left).contains(&at);
        assert_eq!(regs.r11, if intact { 15 } else { 1 }, "{at:#x}");
        let copies = (places.copies..places.copied).contains(&at);
        let gathers = (places.gathers..places.gathered).contains(&at);
        let expected = match copies || gathers {
            true => (2, 3, 1),
            false => (11, 12, 13),
        };
        assert_eq!((regs.rcx, regs.rsi, regs.rdi), expected, "{at:#x}");
        let on_flags = (places.on_flags..places.off_flags).contains(&at);
        assert_eq!(regs.rsp, if on_flags { 5 } else { 14 }, "{at:#x}");
        let noted = halted == Halted::Returning && at != places.left;
        let number = if gathers { WRITEV } else { 10 };
        assert_eq!(regs.rax, if noted { 4 } else { number }, "{at:#x}");
        assert_eq!(regs.rdx, if gathers { 6 } else { 16 }, "{at:#x}");
    }
    for at in [
        0,
        places.kept,
        places.leaves,
        places.copies,
        places.copied,
        places.gathers,
    ] {
        assert_eq!(of(at).0, Halted::Calling, "{at:#x}");
    }
    for at in [
        places.left,
        places.wrote,
        places.gathered,
        places.told,
        places.ended,
        places.disabled,
        places.went,
        PLAIN_STUB_LEFT as u32,
    ] {
        assert_eq!(of(at).0, Halted::Returning, "{at:#x}");
    }
    for at in [places.end, places.load, PAGE as u32] {
        assert_eq!(of(at).0, Halted::Outside, "{at:#x}");
    }
}

#[test]
fn notes_are_taken_once_and_never_more_than_there_is_room_for() {
    let range = range();
    assert_eq!(Noted::take(&range).unwrap(), None);
    put(&range, DONE, &[3 << 32 | 1]);
    put(&range, REPLY, &[0x63_6261]);
    let noted = Noted {
        reply: b"abc".to_vec(),
        stack: true,
        unmapped: false,
    };
    assert_eq!(Noted::take(&range).unwrap(), Some(noted));
    assert_eq!(Noted::take(&range).unwrap(), None);
    put(&range, DONE, &[u64::MAX]);
    let noted = Noted::take(&range).unwrap().unwrap();
    assert_eq!(noted.reply.len() as u64, REPLY_BYTES);
    assert!(noted.stack && noted.unmapped);
}

#[test]
fn what_is_to_be_loaded_is_told_and_taken_back() {
    let range = range();
    let given = kvm_regs {
        rip: 1,
        rax: 2,
        rdx: 3,
        rsp: 4,
        ..Default::default()
    };
    let mut regs = given;
    load(&range, &[5; XSAVE_WORDS], 6 << 32 | 7, &mut regs).unwrap();
    assert_eq!((regs.rax, regs.rdx, regs.rsp), (7, 6, 4));
    assert!(unload(&range, &mut regs).unwrap());
    assert_eq!(regs, given);
    assert!(!unload(&range, &mut regs).unwrap());
    let loaded = || {
        let mut word = [0; 4];
        range.read(VECTORS_DATA as usize + 4092, &mut word).unwrap();
        u32::from_le_bytes(word)
    };
    assert_eq!(loaded(), 5);
    hold(&range, &[6; XSAVE_WORDS]).unwrap();
    load(&range, &[7; XSAVE_WORDS], 0, &mut regs).unwrap();
    assert_eq!(loaded(), 6, "an image's are there already");
}
