//! The machine as a guest sees it: one port that leads to the host, and a page for each call.
//! `sdk/c/dunlin_vm.h` has the same.

use core::arch::asm;
use core::sync::atomic::{AtomicPtr, Ordering};
use core::{ptr, slice};

use crate::calls::number;

/// The page that a call begins with; the host writes it anew for each.
#[repr(C)]
struct CallPage {
    version: u64,
    input_size: u64,
    /// How many bytes of the request lie at `input_at`.
    input_here: u64,
    input_at: u64,
    /// A buffer for the reply, emptied when the call ends.
    output_at: u64,
    output_max: u64,
    output_used: u64,
    /// A buffer for log lines: level and length, 4 bytes each, the line.
    log_at: u64,
    log_max: u64,
    log_used: u64,
    /// Since 1970, when the call began.
    now_ns: u64,
    reserved: u64,
    random: [u8; 32],
}

/// The page of the call that runs; null before the first.
static PAGE: AtomicPtr<CallPage> = AtomicPtr::new(ptr::null_mut());

/// Kinds of traps, as the host numbers them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u64)]
pub enum TrapKind {
    /// Code that was not to be reached.
    Unreachable = 0,
    /// A place outside of what there is.
    OutOfBounds = 1,
    /// No stack is left.
    StackOverflow = 2,
    /// A number that has no value.
    Arithmetic = 3,
    /// A call of what is no function, or another one.
    BadCall = 4,
    /// Any other.
    Other = 5,
}

/// Leaves the machine for its host.
///
/// # Safety
/// The host reads and writes the memory that the arguments name, as the call of this number says.
pub(crate) unsafe fn ask(number: u32, args: [u64; 6]) -> i64 {
    let mut result = u64::from(number);
    // SAFETY: the host returns to the next instruction with its result in rax, and writes only
    // where the caller allowed it.
    unsafe {
        asm!(
            "out 0xd0, eax",
            inout("rax") result,
            inout("rdx") args[2] => _,
            in("rdi") args[0],
            in("rsi") args[1],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result as i64
}

/// The page of the call that runs.
fn page() -> Option<&'static mut CallPage> {
    // SAFETY: the host maps it and writes to it between calls only; there is one processor, and no
    // reference outlives the functions below, none of which calls another.
    unsafe { PAGE.load(Ordering::Relaxed).as_mut() }
}

/// Ends the call with `code`, and waits for the next. The first time, the image is taken here.
pub(crate) fn next(code: i32) {
    // SAFETY: the host writes to the page that it answers with.
    let at = unsafe { ask(number::VM_NEXT, [i64::from(code) as u64, 0, 0, 0, 0, 0]) };
    PAGE.store(at as *mut CallPage, Ordering::Relaxed);
}

/// Marks the snapshot point: what was done up to here is not done again. For programs with an entry
/// of their own; it returns once for each invocation.
pub fn ready() {
    next(0);
}

/// Ends the call at once.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: it names no memory.
        unsafe { ask(number::VM_EXIT, [i64::from(code) as u64, 0, 0, 0, 0, 0]) };
    }
}

/// Ends the call as a trap, with words for whoever called.
pub fn trap(kind: TrapKind, words: &str) -> ! {
    let args = [
        kind as u64,
        words.as_ptr() as u64,
        words.len() as u64,
        0,
        0,
        0,
    ];
    loop {
        // SAFETY: the host only reads, and only the string's own bytes.
        unsafe { ask(number::VM_TRAP, args) };
    }
}

/// Adds whole pages to the heap; where it ends then, or none when there is no memory.
pub(crate) fn grow(bytes: usize) -> Option<usize> {
    // SAFETY: it names no memory; what is added is nobody's yet.
    let end = unsafe { ask(number::VM_GROW, [bytes as u64, 0, 0, 0, 0, 0]) };
    usize::try_from(end).ok()
}

pub(crate) fn input_size() -> usize {
    page().map_or(0, |page| page.input_size as usize)
}

/// Copies what of the request's body is at `offset`; how many bytes.
pub(crate) fn input_read(offset: usize, out: &mut [u8]) -> usize {
    let Some(page) = page() else {
        return 0;
    };
    let rest = (page.input_size as usize).saturating_sub(offset);
    let length = out.len().min(rest);
    if offset + length > page.input_here as usize {
        let args = [
            offset as u64,
            out.as_mut_ptr() as u64,
            length as u64,
            0,
            0,
            0,
        ];
        // SAFETY: the host writes to so many bytes of the slice.
        return unsafe { ask(number::INPUT_READ, args) } as usize;
    }
    let from = (page.input_at as usize + offset) as *const u8;
    // SAFETY: the host says that so many bytes lie there, which no slice of the guest has.
    let here = unsafe { slice::from_raw_parts(from, length) };
    out[..length].copy_from_slice(here);
    length
}

/// Adds to the reply; whether there was room.
pub(crate) fn output_write(bytes: &[u8]) -> bool {
    let length = bytes.len() as u64;
    if let Some(page) = page()
        && length <= page.output_max - page.output_used
    {
        let to = (page.output_at + page.output_used) as *mut u8;
        // SAFETY: the buffer has that much room, and no slice of the guest's lies in it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        page.output_used += length;
        return true;
    }
    let args = [bytes.as_ptr() as u64, length, 0, 0, 0, 0];
    // SAFETY: the host only reads, and only the slice's own bytes.
    unsafe { ask(number::OUTPUT_WRITE, args) == 0 }
}

pub(crate) fn log_write(level: u32, line: &[u8]) {
    const HEAD_BYTES: u64 = 8;
    let length = line.len() as u64;
    if let Some(page) = page()
        && length + HEAD_BYTES <= page.log_max - page.log_used
    {
        let to = (page.log_at + page.log_used) as *mut u8;
        let head = u64::from(level) | length << 32;
        // SAFETY: the buffer has that much room, and no slice of the guest's lies in it.
        unsafe {
            to.cast::<u64>().write_unaligned(head);
            ptr::copy_nonoverlapping(line.as_ptr(), to.add(HEAD_BYTES as usize), line.len());
        }
        page.log_used += length + HEAD_BYTES;
        return;
    }
    let args = [u64::from(level), line.as_ptr() as u64, length, 0, 0, 0];
    // SAFETY: the host only reads, and only the slice's own bytes.
    unsafe { ask(number::LOG_WRITE, args) };
}

/// Nanoseconds since 1970, when the call began; none before the first.
#[must_use]
pub fn now_ns() -> Option<u64> {
    page().map(|page| page.now_ns)
}

/// Bytes that nobody can guess; other ones in each call, also of the same image. None before the
/// first.
#[must_use]
pub fn random() -> Option<[u8; 32]> {
    page().map(|page| page.random)
}
