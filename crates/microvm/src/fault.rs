//! What a guest did that it may not, as its processor tells it.

use std::fmt;

use memory::Range;
use model::TrapKind;

use crate::kvm::kvm_regs;
use crate::layout::{FAULT_STUBS, USER_START, to_virtual};
use crate::system::{FAULT_STUB_BYTES, VECTORS, fault_stack_end};

/// Vectors that push an error code.
const WITH_CODE: u32 = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21;
const PAGE_FAULT: u8 = 14;
/// Bits of a page fault's code: the page was there, it was written, it was executed.
const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 4;

/// A fault of a guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The processor's number for it.
    pub vector: u8,
    /// Its error code; 0 where it has none.
    pub code: u64,
    /// The address that was touched, for a page fault.
    pub address: u64,
    /// The instruction.
    pub rip: u64,
    /// The guest's stack pointer.
    pub rsp: u64,
    /// Its flags.
    pub rflags: u64,
}

impl Fault {
    /// Reads what a fault has left on the stack of processor `number`; None if it is not what a
    /// fault of a guest leaves.
    pub(crate) fn read(memory: &Range, regs: &kvm_regs, address: u64, number: u32) -> Option<Self> {
        let stub = (regs.rip - to_virtual(FAULT_STUBS)) / FAULT_STUB_BYTES;
        if stub >= VECTORS {
            return None;
        }
        let at = regs.rsp.checked_sub(to_virtual(0))?;
        let words: usize = if WITH_CODE >> stub & 1 != 0 { 6 } else { 5 };
        if at.checked_add(words as u64 * 8) != Some(fault_stack_end(number)) {
            return None;
        }
        let mut frame = [0; 48];
        memory
            .read(at as usize, &mut frame[48 - words * 8..])
            .ok()?;
        let word = |index: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&frame[index * 8..index * 8 + 8]);
            u64::from_le_bytes(word)
        };
        Some(Self {
            vector: stub as u8,
            code: word(0),
            address: if stub as u8 == PAGE_FAULT { address } else { 0 },
            rip: word(1),
            rflags: word(3),
            rsp: word(4),
        })
    }

    /// Whether it touched a page in a way that it may not.
    pub fn is_page(&self) -> bool {
        self.vector == PAGE_FAULT
    }

    /// Whether it wrote.
    pub fn is_write(&self) -> bool {
        self.is_page() && self.code & WRITE != 0
    }

    /// Whether it executed.
    pub fn is_fetch(&self) -> bool {
        self.is_page() && self.code & FETCH != 0
    }

    /// The kind of trap that it is. `guard` is the hole below the guest's stack.
    pub fn kind(&self, guard: &std::ops::Range<u64>) -> TrapKind {
        match self.vector {
            0 | 4 | 16 | 19 => TrapKind::Arithmetic,
            6 => TrapKind::Unreachable,
            PAGE_FAULT if guard.contains(&self.address) => TrapKind::StackOverflow,
            PAGE_FAULT if self.is_fetch() => TrapKind::BadCall,
            PAGE_FAULT => TrapKind::OutOfBounds,
            _ => TrapKind::Other,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_page() {
            let name = name(self.vector);
            return write!(f, "{name} at instruction {:#x}", self.rip);
        }
        let verb = match (self.is_fetch(), self.is_write()) {
            (true, _) => "execute",
            (_, true) => "write",
            _ => "read",
        };
        let what = match (self.code & PRESENT != 0, self.address < USER_START) {
            (true, _) => "is protected",
            (_, true) => "is a null pointer's",
            _ => "is not mapped",
        };
        let Self { address, rip, .. } = self;
        write!(
            f,
            "{verb} of {address:#x}, which {what}, at instruction {rip:#x}"
        )
    }
}

fn name(vector: u8) -> &'static str {
    match vector {
        0 => "division by zero or overflow",
        1 => "debug trap",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound exceeded",
        6 => "undefined instruction",
        7 => "no floating-point unit",
        8 => "double fault",
        11 => "segment not present",
        12 => "stack segment fault",
        13 => "general protection: a privileged instruction, port or address",
        16 => "floating-point error",
        17 => "unaligned access",
        19 => "vector floating-point error",
        21 => "control protection",
        _ => "fault",
    }
}
