//! The code that `syscall` enters, which answers some calls of a Linux program by itself.
//!
//! ```text
//!  syscall ─▶ at CPL 3, and the call is one that the host has offered? ─▶ answered, noted, back
//!              └─ no ─▶ out: the host answers
//! ```
//!
//! Leaving a machine is the dearest thing that a short program does. What needs no host until the
//! program leaves anyway is noted on pages next to this code, which the host looks at whenever the
//! program has left. All of it can be written by the guest: a guest that does so tells the host
//! something untrue about itself, which the host checks as it does a call.
//!
//! Only where `syscall` stays at CPL 3, as on paravirtual hosts, is anything answered: elsewhere
//! leaving costs little, and code at CPL 0 should touch no memory of the guest's.
//!
//! Up to the instruction that notes a call nothing has happened: whoever is stopped before it has
//! yet to make its call. Whoever is stopped after it returns from it. [`Halted::at`] knows which.

use std::arch::global_asm;

use memory::{MemoryError, Range};

use crate::kvm::{XSAVE_WORDS, kvm_regs};
use crate::layout::{PAGE, STUB_DATA, SYSCALL_STUB, SYSCALL_STUB_FRAME, VECTORS_DATA};
use crate::system::GUEST_PORT;

/// Bytes of the pages that calls are noted on.
pub const DATA_BYTES: u64 = 4 * PAGE;

// Words of the first page of notes. What the host says:
/// Which calls are offered: bits of [`Offers`].
const OFFERS: u64 = 0;
/// The mapping that may go: its start, its bytes.
const GOES: u64 = 8;
const GOES_BYTES: u64 = 16;
// What the code notes:
/// Bits of what was done.
const DONE: u64 = 24;
/// Bytes of the reply.
const USED: u64 = 28;
// What it keeps while it works: flags, where it returns to, two registers, a result, the stack.
const FLAGS: u64 = 32;
const RETURN: u64 = 40;
const SOURCE: u64 = 48;
const RESULT: u64 = 56;
const STACK: u64 = 64;
// Registers that a guest begins with behind its vector registers.
const FIRST_RAX: u64 = 72;
const FIRST_RDX: u64 = 80;
const FIRST_RIP: u64 = 88;
/// The reply's bytes.
const REPLY: u64 = 128;
/// How many there is room for.
const REPLY_BYTES: u64 = DATA_BYTES - REPLY;

const OFFER_END: u32 = 1;
const OFFER_REPLY: u32 = 2;
const OFFER_STACK: u32 = 4;
const DONE_STACK: u32 = 1;
const DONE_GOES: u32 = 2;

// rcx is where a call returns to and r11 its flags, as `syscall` leaves them; all other registers
// are the program's. `popfq` takes the flags from where they are kept, so that nothing is written
// below the program's stack pointer.
global_asm!(
    ".pushsection .rodata.dunlin_stub, \"a\"",
    ".balign 64",
    ".hidden dunlin_stub",
    ".hidden dunlin_stub_places",
    ".globl dunlin_stub",
    ".globl dunlin_stub_places",
    "dunlin_stub:",
    "    test r11d, 0x100",
    "    jnz 8f",
    "    mov qword ptr [rip + dunlin_stub + {data} + {flags}], r11",
    "dunlin_stub_kept:",
    "    mov r11d, cs",
    "    test r11b, 3",
    "    jz 7f",
    "    cmp rax, 1",
    "    je 2f",
    "    test rax, rax",
    "    jz 3f",
    "    cmp rax, 131",
    "    je 4f",
    "    cmp rax, 11",
    "    je 5f",
    "7:  mov r11, qword ptr [rip + dunlin_stub + {data} + {flags}]",
    "dunlin_stub_leaves:",
    "8:  out {port}, eax",
    "dunlin_stub_left:",
    "    sysretq",
    // write(1, …): the bytes are taken.
    "2:  cmp rdi, 1",
    "    jne 7b",
    "    test byte ptr [rip + dunlin_stub + {data} + {offers}], {offer_reply}",
    "    jz 7b",
    "    cmp rdx, {room}",
    "    ja 7b",
    "    mov r11d, dword ptr [rip + dunlin_stub + {data} + {used}]",
    "    add r11, rdx",
    "    cmp r11, {room}",
    "    ja 7b",
    "    mov qword ptr [rip + dunlin_stub + {data} + {return_to}], rcx",
    "    mov qword ptr [rip + dunlin_stub + {data} + {source}], rsi",
    "dunlin_stub_copies:",
    "    lea rdi, [rip + dunlin_stub + {data} + {reply}]",
    "    mov ecx, dword ptr [rip + dunlin_stub + {data} + {used}]",
    "    add rdi, rcx",
    "    mov ecx, edx",
    "    cld",
    "    rep movsb",
    "    mov edi, 1",
    "    mov rsi, qword ptr [rip + dunlin_stub + {data} + {source}]",
    "    mov rcx, qword ptr [rip + dunlin_stub + {data} + {return_to}]",
    "dunlin_stub_copied:",
    "    mov qword ptr [rip + dunlin_stub + {data} + {result}], rdx",
    "    mov dword ptr [rip + dunlin_stub + {data} + {used}], r11d",
    "dunlin_stub_wrote:",
    "    mov rax, rdx",
    "    jmp 9f",
    "dunlin_stub_wrote_end:",
    // read(0, …): the input is over.
    "3:  test rdi, rdi",
    "    jnz 7b",
    "    test byte ptr [rip + dunlin_stub + {data} + {offers}], {offer_end}",
    "    jz 7b",
    "    mov qword ptr [rip + dunlin_stub + {data} + {result}], rax",
    "    jmp 9f",
    // sigaltstack(one that is disabled, nothing).
    "4:  test byte ptr [rip + dunlin_stub + {data} + {offers}], {offer_stack}",
    "    jz 7b",
    "    test rsi, rsi",
    "    jnz 7b",
    "    test rdi, rdi",
    "    jz 7b",
    "    cmp dword ptr [rdi + 8], 2",
    "    jne 7b",
    "    mov qword ptr [rip + dunlin_stub + {data} + {result}], 0",
    "    or byte ptr [rip + dunlin_stub + {data} + {done}], {done_stack}",
    "dunlin_stub_disabled:",
    "    xor eax, eax",
    "    jmp 9f",
    "dunlin_stub_disabled_end:",
    // munmap(of that stack).
    "5:  test byte ptr [rip + dunlin_stub + {data} + {done}], {done_stack}",
    "    jz 7b",
    "    cmp rdi, qword ptr [rip + dunlin_stub + {data} + {goes}]",
    "    jne 7b",
    "    cmp rsi, qword ptr [rip + dunlin_stub + {data} + {goes_bytes}]",
    "    jne 7b",
    "    mov qword ptr [rip + dunlin_stub + {data} + {result}], 0",
    "    or byte ptr [rip + dunlin_stub + {data} + {done}], {done_goes}",
    "dunlin_stub_went:",
    "    xor eax, eax",
    "9:  mov qword ptr [rip + dunlin_stub + {data} + {stack}], rsp",
    "dunlin_stub_on_flags:",
    "    lea rsp, [rip + dunlin_stub + {data} + {flags}]",
    "    popfq",
    "    mov rsp, qword ptr [rip + dunlin_stub + {data} + {stack}]",
    "dunlin_stub_off_flags:",
    "    mov r11, qword ptr [rip + dunlin_stub + {data} + {flags}]",
    "    jmp rcx",
    "dunlin_stub_end:",
    ".balign 16",
    "dunlin_stub_load:",
    "    xrstor64 [rip + dunlin_stub + {vectors}]",
    "    mov rax, qword ptr [rip + dunlin_stub + {data} + {first_rax}]",
    "    mov rdx, qword ptr [rip + dunlin_stub + {data} + {first_rdx}]",
    "    jmp qword ptr [rip + dunlin_stub + {data} + {first_rip}]",
    "dunlin_stub_loaded:",
    ".balign 4",
    "dunlin_stub_places:",
    "    .long dunlin_stub_kept - dunlin_stub",
    "    .long dunlin_stub_leaves - dunlin_stub",
    "    .long dunlin_stub_left - dunlin_stub",
    "    .long dunlin_stub_copies - dunlin_stub",
    "    .long dunlin_stub_copied - dunlin_stub",
    "    .long dunlin_stub_wrote - dunlin_stub",
    "    .long dunlin_stub_wrote_end - dunlin_stub",
    "    .long dunlin_stub_disabled - dunlin_stub",
    "    .long dunlin_stub_disabled_end - dunlin_stub",
    "    .long dunlin_stub_went - dunlin_stub",
    "    .long dunlin_stub_on_flags - dunlin_stub",
    "    .long dunlin_stub_off_flags - dunlin_stub",
    "    .long dunlin_stub_end - dunlin_stub",
    "    .long dunlin_stub_load - dunlin_stub",
    "    .long dunlin_stub_loaded - dunlin_stub",
    ".popsection",
    data = const STUB_DATA - SYSCALL_STUB_FRAME,
    vectors = const VECTORS_DATA - SYSCALL_STUB_FRAME,
    port = const GUEST_PORT,
    room = const REPLY_BYTES,
    offers = const OFFERS,
    offer_end = const OFFER_END,
    offer_reply = const OFFER_REPLY,
    offer_stack = const OFFER_STACK,
    goes = const GOES,
    goes_bytes = const GOES_BYTES,
    done = const DONE,
    done_stack = const DONE_STACK,
    done_goes = const DONE_GOES,
    used = const USED,
    flags = const FLAGS,
    return_to = const RETURN,
    source = const SOURCE,
    result = const RESULT,
    stack = const STACK,
    first_rax = const FIRST_RAX,
    first_rdx = const FIRST_RDX,
    first_rip = const FIRST_RIP,
    reply = const REPLY,
);

/// Places in the code, from its start.
#[repr(C)]
#[derive(Debug)]
struct Places {
    kept: u32,
    leaves: u32,
    left: u32,
    copies: u32,
    copied: u32,
    wrote: u32,
    wrote_end: u32,
    disabled: u32,
    disabled_end: u32,
    went: u32,
    on_flags: u32,
    off_flags: u32,
    end: u32,
    load: u32,
    loaded: u32,
}

unsafe extern "C" {
    static dunlin_stub: u8;
    static dunlin_stub_places: Places;
}

fn places() -> &'static Places {
    // SAFETY: the assembler writes as many words as the structure has, aligned to 4 bytes, and
    // nobody writes to them.
    unsafe { &dunlin_stub_places }
}

/// The code, from the start of its page on.
pub fn code() -> &'static [u8] {
    // SAFETY: the code goes from its label to the end that its places tell, and is never written.
    unsafe { std::slice::from_raw_parts(&raw const dunlin_stub, places().loaded as usize) }
}

/// Where in the code a guest was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halted {
    /// Not in it.
    Outside,
    /// It has yet to make its call.
    Calling,
    /// It returns from its call.
    Returning,
}

impl Halted {
    /// Where that is, and `regs` as the guest had them at its call, or has them after it: it goes
    /// on where rcx says, with the flags in r11.
    pub fn at(memory: &Range, regs: &mut kvm_regs) -> Result<Self, MemoryError> {
        let places = places();
        let at = match regs.rip.checked_sub(SYSCALL_STUB) {
            Some(at) if at < u64::from(places.end) => at as u32,
            _ => return Ok(Self::Outside),
        };
        if at == places.left {
            return Ok(Self::Returning);
        }
        let returns = (places.wrote..places.wrote_end).contains(&at)
            || (places.disabled..places.disabled_end).contains(&at)
            || (places.went..places.end).contains(&at);
        let intact = at < places.kept || (places.leaves..places.left).contains(&at);
        if !intact {
            regs.r11 = word(memory, FLAGS)?;
        }
        if (places.copies..places.copied).contains(&at) {
            (regs.rdi, regs.rsi) = (1, word(memory, SOURCE)?);
            regs.rcx = word(memory, RETURN)?;
        }
        if returns {
            regs.rax = word(memory, RESULT)?;
        }
        if (places.on_flags..places.off_flags).contains(&at) {
            regs.rsp = word(memory, STACK)?;
        }
        Ok(if returns {
            Self::Returning
        } else {
            Self::Calling
        })
    }
}

fn word(memory: &Range, at: u64) -> Result<u64, MemoryError> {
    let mut word = [0; 8];
    memory.read((STUB_DATA + at) as usize, &mut word)?;
    Ok(u64::from_le_bytes(word))
}

fn words<const N: usize>(words: [u64; N]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// What a program may be answered without leaving its machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// Descriptor 0 is at the end of the input.
    pub end: bool,
    /// What is written to descriptor 1 is the reply.
    pub reply: bool,
    /// The thread may give its other stack up, and unmap that mapping then: its start and bytes.
    pub stack: Option<(u64, u64)>,
}

impl Offers {
    /// Tells them to the guest.
    pub fn write(&self, memory: &Range) -> Result<(), MemoryError> {
        let bit = |offered, bit| if offered { bit } else { 0 };
        let bits = bit(self.end, OFFER_END)
            | bit(self.reply, OFFER_REPLY)
            | bit(self.stack.is_some(), OFFER_STACK);
        let (goes, goes_bytes) = self.stack.unwrap_or_default();
        let words = words([bits.into(), goes, goes_bytes]);
        memory.write(STUB_DATA as usize, &words)
    }
}

/// What a program was answered since it left its machine last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// It wrote that to its reply.
    pub reply: Vec<u8>,
    /// It gave its other stack up.
    pub stack: bool,
    /// It unmapped that.
    pub unmapped: bool,
}

impl Noted {
    /// Takes what is noted; none if that is nothing.
    pub fn take(memory: &Range) -> Result<Option<Self>, MemoryError> {
        let at = (STUB_DATA + DONE) as usize;
        let mut counts = [0; 8];
        memory.read(at, &mut counts)?;
        let counts = u64::from_le_bytes(counts);
        if counts == 0 {
            return Ok(None);
        }
        memory.write(at, &[0; 8])?;
        let (done, used) = (counts as u32, counts >> 32);
        let mut reply = vec![0; used.min(REPLY_BYTES) as usize];
        memory.read((STUB_DATA + REPLY) as usize, &mut reply)?;
        Ok(Some(Self {
            reply,
            stack: done & DONE_STACK != 0,
            unmapped: done & DONE_GOES != 0,
        }))
    }
}

/// Has a guest at CPL 3 load its vector registers, those of `mask`, before it goes on with `regs`.
pub fn load(
    memory: &Range,
    vectors: &[u32; XSAVE_WORDS],
    mask: u64,
    regs: &mut kvm_regs,
) -> Result<(), MemoryError> {
    let bytes: &[[u8; 4]; XSAVE_WORDS] = &vectors.map(u32::to_le_bytes);
    memory.write(VECTORS_DATA as usize, bytes.as_flattened())?;
    let first = words([regs.rax, regs.rdx, regs.rip]);
    memory.write((STUB_DATA + FIRST_RAX) as usize, &first)?;
    (regs.rax, regs.rdx) = (mask & 0xffff_ffff, mask >> 32);
    regs.rip = SYSCALL_STUB + u64::from(places().load);
    Ok(())
}

/// Whether a guest stopped before it was done with [`load`]; `regs` are then those given to it.
pub fn unload(memory: &Range, regs: &mut kvm_regs) -> Result<bool, MemoryError> {
    let places = places();
    let within = u64::from(places.load)..u64::from(places.loaded);
    if !within.contains(&regs.rip.wrapping_sub(SYSCALL_STUB)) {
        return Ok(false);
    }
    regs.rax = word(memory, FIRST_RAX)?;
    regs.rdx = word(memory, FIRST_RDX)?;
    regs.rip = word(memory, FIRST_RIP)?;
    Ok(true)
}

#[cfg(test)]
#[path = "stub_tests.rs"]
mod tests;
