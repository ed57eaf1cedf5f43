//! What a freestanding guest and its host agree on. `sdk/c/dunlin_vm.h` says the same in C; the
//! guests of the tests are built with it.
//!
//! A call to the host is `out 0xd0, eax` with the call's number in eax, the arguments in rdi, rsi,
//! rdx, r10, r8 and r9, and the result in rax. Text, bytes and buffers are an address and a length.
//! A call of more than six words has rdi point to all of them. What maps memory gives besides, in
//! rdx, how many bytes.
//!
//! The guest begins at its entry with an aligned stack. Its first `vm_next` ends its
//! initialisation: the image is taken there. Each `vm_next` ends a call with a code and waits for
//! the next; it gives the address of the call page. What is small goes through that page and the
//! buffers that it names, without leaving the machine.
//!
//! A guest may have memory at addresses of its own choice, by `vm_map`, and make of it what it can
//! execute, but not write at once. It may have faults of such code told to itself, by `vm_catch`:
//! it goes on at its handler on the same stack, with the instruction in rdi, whether a page was
//! touched in rsi, and the address in rdx. So a runtime that has code of others in it can tell its
//! traps.

use model::TrapKind;
use sandbox::host::number_of;

/// Ends a call with the code in rdi; gives the next call's page.
pub const NEXT: u32 = number_of("vm_next");
/// Ends the call with the code in rdi, for good.
pub const EXIT: u32 = number_of("vm_exit");
/// Adds rdi bytes, rounded up to pages, to the guest's heap, which lies together; gives the end of
/// it, or a negative error.
pub const GROW: u32 = number_of("vm_grow");
/// Gives pages rights: address, bytes, and 0 for nothing, 1 to read, 3 to write, 5 to execute. What
/// was not there becomes zeros.
pub const MAP: u32 = number_of("vm_map");
/// Has faults caught: the handler, and the addresses of the instructions from and to.
pub const CATCH: u32 = number_of("vm_catch");
/// Ends the call as a trap: one of [`TRAPS`], and text.
pub const TRAP: u32 = number_of("vm_trap");
/// The request's size.
pub const INPUT_SIZE: u32 = number_of("input_size");
/// Copies from the request: offset, buffer, length.
pub const INPUT_READ: u32 = number_of("input_read");
/// Adds to the reply: bytes, length.
pub const OUTPUT_WRITE: u32 = number_of("output_write");
/// Writes a log line: level, bytes, length.
pub const LOG_WRITE: u32 = number_of("log_write");

/// Kinds of traps, by the numbers that guests have for them.
pub const TRAPS: [TrapKind; 6] = [
    TrapKind::Unreachable,
    TrapKind::OutOfBounds,
    TrapKind::StackOverflow,
    TrapKind::Arithmetic,
    TrapKind::BadCall,
    TrapKind::Other,
];
/// Bytes of a trap's text that are told.
pub const TRAP_TEXT_BYTES: u64 = 4 << 10;

/// The version of all this, in the page's first word.
pub const VERSION: u64 = 1;
/// Where the call page lies, with the buffers after it.
pub const CALL_PAGE: u64 = 0x1_f000_0000;
/// Bytes of the page.
pub const CALL_PAGE_BYTES: u64 = 4096;
/// Bytes of the request that lie in a buffer when a call begins.
pub const INPUT_BYTES: u64 = 64 << 10;
/// Bytes of reply that a guest may leave in a buffer.
pub const OUTPUT_BYTES: u64 = 64 << 10;
/// Bytes of log lines that a guest may leave in a buffer.
pub const LOG_BYTES: u64 = 16 << 10;
/// All of them.
pub const CALL_AREA_BYTES: u64 = CALL_PAGE_BYTES + INPUT_BYTES + OUTPUT_BYTES + LOG_BYTES;
/// The buffers' addresses.
pub const INPUT: u64 = CALL_PAGE + CALL_PAGE_BYTES;
/// See [`INPUT`].
pub const OUTPUT: u64 = INPUT + INPUT_BYTES;
/// See [`INPUT`].
pub const LOG: u64 = OUTPUT + OUTPUT_BYTES;

/// The first address past the stack.
pub const STACK_END: u64 = 0x1_eff0_0000;
/// Bytes of the stack.
pub const STACK_BYTES: u64 = 1 << 20;
/// Bytes below the stack that are never mapped.
pub const STACK_GUARD_BYTES: u64 = 16 << 20;

/// Bytes of the call page that are written for each call.
pub const HEAD_BYTES: usize = 128;
/// Where the guest counts bytes of its reply in the buffer.
pub const OUTPUT_USED: u64 = CALL_PAGE + 48;
/// Where it counts bytes of its log.
pub const LOG_USED: u64 = CALL_PAGE + 72;
/// Bytes before each log line: its level and its length, 4 bytes each.
pub const LOG_HEAD_BYTES: usize = 8;

/// What a call page says at the start of a call.
#[derive(Clone, Copy, Debug)]
pub struct CallPage {
    /// Bytes of the request.
    pub input_size: u64,
    /// How many of them lie in the buffer.
    pub input_here: u64,
    /// How many bytes of reply fit the buffer.
    pub output_max: u64,
    /// Nanoseconds since 1970.
    pub now_ns: u64,
    /// Bytes that nobody can guess, new for each call.
    pub random: [u8; 32],
}

impl CallPage {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let words = [
            VERSION,
            self.input_size,
            self.input_here,
            INPUT,
            OUTPUT,
            self.output_max,
            0,
            LOG,
            LOG_BYTES,
            0,
            self.now_ns,
            0,
        ];
        let mut bytes = [0; HEAD_BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes[96..].copy_from_slice(&self.random);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_guests_were_built_with() {
        let numbers = [
            NEXT,
            EXIT,
            GROW,
            MAP,
            CATCH,
            TRAP,
            INPUT_SIZE,
            INPUT_READ,
            OUTPUT_WRITE,
            LOG_WRITE,
        ];
        assert_eq!(
            numbers,
            [
                0xcea2_9254,
                0xf7c7_87e9,
                0xeef6_cf96,
                0x9899_d505,
                0xbd1d_4a00,
                0xa906_498e,
                0x688e_3e45,
                0xf17c_39e0,
                0x34c0_3aa8,
                0xa64f_68b5,
            ]
        );
    }

    #[test]
    fn counters_lie_where_the_page_has_zeros() {
        let page = CallPage {
            input_size: 1,
            input_here: 1,
            output_max: 1,
            now_ns: 1,
            random: [1; 32],
        };
        let bytes = page.encode();
        for counter in [OUTPUT_USED, LOG_USED] {
            let at = (counter - CALL_PAGE) as usize;
            assert_eq!(bytes[at..at + 8], [0; 8]);
        }
        assert_eq!(bytes[..8], VERSION.to_le_bytes());
    }
}
