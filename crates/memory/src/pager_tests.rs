//! Who touches what is not there waits for it, and for nothing else.

use std::io::{Read as _, Write as _};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use model::Digest;

use super::*;
use crate::{Difference, Image, PageRun, Pages, Piece, Slab, SlabConfig};

const CHUNKS: usize = 4;
const BYTES: usize = CHUNKS * CHUNK_BYTES;

/// What page `number` is filled with.
fn fill_of(number: usize) -> u8 {
    u8::try_from(number % 251).expect("it is below 251") + 1
}

fn contents() -> Vec<u8> {
    (0..BYTES / PAGE_BYTES)
        .flat_map(|number| [fill_of(number); PAGE_BYTES])
        .collect()
}

/// A file of which nothing is there, what it wants, and an image of it over the first pages of a
/// memory that is a page longer.
fn nothing_there() -> (Arc<Arriving>, Receiver<usize>, Arc<Image>) {
    let (wants, wanted) = channel();
    let arriving = Arriving::new(BYTES, move |chunk| {
        let _ = wants.send(chunk);
    });
    let arriving = arriving.expect("pages can be waited for");
    let run = PageRun {
        page: 0,
        pages: BYTES / PAGE_BYTES,
    };
    let file = Arc::new(Pages::Arriving(arriving.clone()));
    let pieces = Difference::pieces(&[run], &file);
    let image = Image::of_pieces(BYTES + PAGE_BYTES, pieces, &[], Digest::of(b"arriving"));
    (arriving, wanted, Arc::new(image.expect("an image")))
}

fn slab() -> Slab {
    Slab::new(SlabConfig {
        ranges_max: 8,
        reservation_bytes: 1 << 20,
        guard_bytes: PAGE_BYTES,
        idle_max: 8,
    })
}

fn filled(arriving: &Arriving, chunk: usize) {
    let bytes = &contents()[arriving.span(chunk)];
    arriving.fill(chunk, bytes).expect("room");
}

#[test]
fn who_touches_a_page_waits_until_it_comes() {
    let (arriving, wanted, image) = nothing_there();
    let slab = slab();
    let readers: Vec<_> = [0, CHUNK_BYTES + 5, CHUNK_BYTES + 6, 3 * CHUNK_BYTES]
        .into_iter()
        .map(|at| {
            let range = slab.take(&image).expect("a range");
            thread::spawn(move || {
                // SAFETY: the byte is in the range's memory.
                (at, unsafe { range.base().add(at).read_volatile() })
            })
        })
        .collect();
    let mut asked: Vec<usize> = (0..3).map(|_| wanted.recv().expect("a want")).collect();
    asked.sort_unstable();
    assert_eq!(asked, [0, 1, 3]);
    for chunk in asked {
        filled(&arriving, chunk);
    }
    for reader in readers {
        let (at, byte) = reader.join().expect("it goes on");
        assert_eq!(byte, fill_of(at / PAGE_BYTES));
    }
    assert_eq!(arriving.presence(), Presence::Arriving);
}

#[test]
fn a_write_to_a_page_that_is_not_there_keeps_the_rest_of_it() {
    let (arriving, wanted, image) = nothing_there();
    let range = slab().take(&image).expect("a range");
    let at = 2 * CHUNK_BYTES + 7;
    let range = thread::spawn(move || {
        // SAFETY: the byte is in the range's memory, which nobody else uses.
        unsafe { range.base().add(at).write_volatile(255) };
        range
    });
    assert_eq!(wanted.recv().expect("a want"), 2);
    filled(&arriving, 2);
    let range = range.join().expect("it goes on");
    for chunk in 0..CHUNKS {
        filled(&arriving, chunk);
    }
    let mut expected = contents();
    expected[at] = 255;
    assert_eq!(range.contents()[..BYTES], expected);
    range.reset().expect("a reset");
    assert_eq!(range.contents()[..BYTES], contents());
    assert_eq!(image.contents()[..BYTES], contents());
}

#[test]
fn the_kernel_waits_too_when_it_reads_for_the_host() {
    let (arriving, wanted, image) = nothing_there();
    let range = slab().take(&image).expect("a range");
    let written = thread::spawn(move || {
        let mut read = [0; 1];
        let (mut end, mut other) = std::io::pipe().expect("a pipe");
        // SAFETY: the byte is in the range's memory.
        let byte = unsafe { std::slice::from_raw_parts(range.base(), 1) };
        other.write_all(byte).expect("the kernel reads it");
        end.read_exact(&mut read).expect("a byte");
        read
    });
    assert_eq!(wanted.recv().expect("a want"), 0);
    filled(&arriving, 0);
    assert_eq!(written.join().expect("it goes on"), [fill_of(0)]);
}

#[test]
fn a_file_that_is_whole_is_as_any_other() {
    let (arriving, wanted, image) = nothing_there();
    let slab = slab();
    let early = slab.take(&image).expect("a range");
    for chunk in (0..CHUNKS).rev() {
        assert_eq!(arriving.presence(), Presence::Arriving);
        filled(&arriving, chunk);
    }
    assert_eq!(arriving.presence(), Presence::Whole);
    assert_eq!(image.presence(), Presence::Whole);
    let late = slab.take(&image).expect("a range");
    for range in [early, late] {
        assert_eq!(range.contents()[..BYTES], contents());
    }
    let mut read = vec![0; BYTES];
    arriving.read(0, &mut read).expect("all of it");
    assert_eq!(read, contents());
    assert!(wanted.try_recv().is_err(), "nobody waited");
    // What came once stays.
    filled(&arriving, 0);
}

#[test]
fn a_file_that_is_lost_lets_everybody_go_on_and_is_known_to_be() {
    let (arriving, wanted, image) = nothing_there();
    let slab = slab();
    filled(&arriving, 1);
    let range = slab.take(&image).expect("a range");
    let reader = thread::spawn(move || {
        // SAFETY: the byte is in the range's memory.
        let byte = unsafe { range.base().read_volatile() };
        (byte, range.image().presence())
    });
    assert_eq!(wanted.recv().expect("a want"), 0);
    arriving.lose();
    assert_eq!(reader.join().expect("it goes on"), (0, Presence::Lost));
    let there = CHUNK_BYTES..2 * CHUNK_BYTES;
    assert_eq!(image.contents()[there.clone()], contents()[there]);
    assert_eq!(image.presence(), Presence::Lost);
}

#[test]
fn a_range_of_a_file_that_is_not_whole_is_not_kept_mapped() {
    let (arriving, _wanted, image) = nothing_there();
    let slab = slab();
    drop(slab.take(&image).expect("a range"));
    drop((arriving, image));
    let (other, _still_wanted, again) = nothing_there();
    for chunk in 0..CHUNKS {
        filled(&other, chunk);
    }
    let range = slab.take(&again).expect("a range");
    assert_eq!(range.contents()[..BYTES], contents());
}

#[test]
fn what_does_not_fit_a_chunk_is_refused() {
    let (arriving, _wanted, _image) = nothing_there();
    for (chunk, bytes) in [(0, 1), (0, CHUNK_BYTES + 1), (CHUNKS, 0), (CHUNKS, 8)] {
        let refused = arriving.fill(chunk, &vec![0; bytes]);
        assert!(matches!(refused, Err(MemoryError::Outside { .. })));
    }
}

#[test]
fn of_files_that_lie_over_one_another_each_is_waited_for() {
    let (below, wanted_below, _) = nothing_there();
    let (above, wanted_above, _) = nothing_there();
    let piece = |file: &Arc<Arriving>, page, pages| Piece {
        file: Arc::new(Pages::Arriving(file.clone())),
        page,
        pages,
        file_page: 0,
    };
    let pages = BYTES / PAGE_BYTES;
    let chunk = CHUNK_BYTES / PAGE_BYTES;
    // The middle of the lower one is hidden by the beginning of the upper one.
    let pieces = vec![piece(&below, 0, pages), piece(&above, chunk, chunk)];
    let image = Image::of_pieces(BYTES, pieces, &[], Digest::of(b"both")).expect("an image");
    let image = Arc::new(image);
    let slab = slab();
    let read = |at: usize| {
        let range = slab.take(&image).expect("a range");
        // SAFETY: the byte is in the range's memory.
        thread::spawn(move || unsafe { range.base().add(at).read_volatile() })
    };
    let readers = [0, CHUNK_BYTES, 3 * CHUNK_BYTES].map(read);
    let mut asked = [0; 2].map(|_| wanted_below.recv().expect("a want"));
    asked.sort_unstable();
    assert_eq!((asked, wanted_above.recv()), ([0, 3], Ok(0)));
    filled(&below, 0);
    filled(&above, 0);
    filled(&below, 3);
    let read = readers.map(|reader| reader.join().expect("it goes on"));
    assert_eq!(read, [fill_of(0), fill_of(0), fill_of(3 * chunk)]);
}
