//! The instructions of the code that `syscall` enters, and the words that it shares with its host.

use std::arch::global_asm;

use crate::layout::{PAGE, STUB_DATA, SYSCALL_STUB_FRAME, VECTORS_DATA};
use crate::system::{GUEST_PORT, PLAIN_STUB};

/// Bytes of the pages that calls are noted on.
pub const DATA_BYTES: u64 = 4 * PAGE;

// Words of the first page of notes. What the host says:
/// Which calls are offered: bits of [`Offers`].
pub(super) const OFFERS: u64 = 0;
/// The mapping that may go: its start, its bytes.
pub(super) const GOES: u64 = 8;
pub(super) const GOES_BYTES: u64 = 16;
// What the code notes:
/// Bits of what was done.
pub(super) const DONE: u64 = 24;
/// Bytes of the reply.
pub(super) const USED: u64 = 28;
// What it keeps while it works: flags, where it returns to, two registers, a result, the stack.
pub(super) const FLAGS: u64 = 32;
pub(super) const RETURN: u64 = 40;
pub(super) const SOURCE: u64 = 48;
pub(super) const RESULT: u64 = 56;
pub(super) const STACK: u64 = 64;
// Registers that a guest begins with behind its vector registers.
pub(super) const FIRST_RAX: u64 = 72;
pub(super) const FIRST_RDX: u64 = 80;
pub(super) const FIRST_RIP: u64 = 88;
/// How many parts a call has, while they are taken.
pub(super) const PARTS: u64 = 96;
/// Whether the page of vector registers holds those that a guest begins with.
pub(super) const HELD: u64 = 104;
/// The reply's bytes.
pub(super) const REPLY: u64 = 128;
/// How many there is room for.
pub(super) const REPLY_BYTES: u64 = DATA_BYTES - REPLY;

/// Past the `out` of the code that answers nothing.
pub(super) const PLAIN_STUB_LEFT: u64 = PLAIN_STUB + 2;

pub(super) const OFFER_END: u32 = 1;
pub(super) const OFFER_REPLY: u32 = 2;
pub(super) const OFFER_STACK: u32 = 4;
/// Parts that are taken, or looked at, by one call.
pub(super) const PARTS_MAX: u32 = 8;
/// `ioctl`s that terminals answer: their settings, their size.
pub(super) const TCGETS: u32 = 0x5401;
pub(super) const TIOCGWINSZ: u32 = 0x5413;
pub(super) const WRITEV: u64 = 20;
pub(super) const ENOTTY: i32 = 25;

pub(super) const DONE_STACK: u32 = 1;
pub(super) const DONE_GOES: u32 = 2;

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
    "    cmp rax, {writev}",
    "    je 6f",
    "    cmp rax, 19",
    "    je 22f",
    "    cmp rax, 16",
    "    je 23f",
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
    // writev(1, …): the bytes of all parts are taken, or none.
    "6:  cmp rdi, 1",
    "    jne 7b",
    "    test byte ptr [rip + dunlin_stub + {data} + {offers}], {offer_reply}",
    "    jz 7b",
    "    cmp rdx, {parts_max}",
    "    ja 7b",
    "    mov qword ptr [rip + dunlin_stub + {data} + {return_to}], rcx",
    "    mov qword ptr [rip + dunlin_stub + {data} + {source}], rsi",
    "    mov qword ptr [rip + dunlin_stub + {data} + {parts}], rdx",
    "dunlin_stub_gathers:",
    "    lea rdi, [rip + dunlin_stub + {data} + {reply}]",
    "    lea rax, [rdi + {room}]",
    "    mov ecx, dword ptr [rip + dunlin_stub + {data} + {used}]",
    "    add rdi, rcx",
    "    cld",
    "20: test rdx, rdx",
    "    jz 21f",
    "    mov rcx, qword ptr [rsi + 8]",
    "    mov r11, rax",
    "    sub r11, rdi",
    "    cmp rcx, r11",
    "    ja 24f",
    "    lea r11, [rsi + 16]",
    "    mov rsi, qword ptr [rsi]",
    "    rep movsb",
    "    mov rsi, r11",
    "    dec rdx",
    "    jmp 20b",
    "24: mov edi, 1",
    "    mov rsi, qword ptr [rip + dunlin_stub + {data} + {source}]",
    "    mov rdx, qword ptr [rip + dunlin_stub + {data} + {parts}]",
    "    mov rcx, qword ptr [rip + dunlin_stub + {data} + {return_to}]",
    "    mov eax, {writev}",
    "    jmp 7b",
    "21: lea rcx, [rip + dunlin_stub + {data} + {reply}]",
    "    sub rdi, rcx",
    "    mov r11d, edi",
    "    mov ecx, dword ptr [rip + dunlin_stub + {data} + {used}]",
    "    sub edi, ecx",
    "    mov eax, edi",
    "    mov edi, 1",
    "    mov rsi, qword ptr [rip + dunlin_stub + {data} + {source}]",
    "    mov rdx, qword ptr [rip + dunlin_stub + {data} + {parts}]",
    "    mov rcx, qword ptr [rip + dunlin_stub + {data} + {return_to}]",
    "    mov qword ptr [rip + dunlin_stub + {data} + {result}], rax",
    "    mov dword ptr [rip + dunlin_stub + {data} + {used}], r11d",
    "dunlin_stub_gathered:",
    "    jmp 9f",
    "dunlin_stub_gathered_end:",
    // readv(0, …): the same, for parts that are there.
    "22: cmp rdx, {parts_max}",
    "    ja 7b",
    "    test rdx, rdx",
    "    jz 7b",
    "    mov r11, rdx",
    "    shl r11, 4",
    "    mov r11, qword ptr [rsi + r11 - 8]",
    "    mov r11, qword ptr [rsi]",
    "    jmp 3f",
    // ioctl(1, …): the reply is no terminal.
    "23: cmp rdi, 1",
    "    jne 7b",
    "    test byte ptr [rip + dunlin_stub + {data} + {offers}], {offer_reply}",
    "    jz 7b",
    "    cmp esi, {tcgets}",
    "    je 25f",
    "    cmp esi, {tiocgwinsz}",
    "    jne 7b",
    "25: mov qword ptr [rip + dunlin_stub + {data} + {result}], -{enotty}",
    "dunlin_stub_told:",
    "    mov rax, -{enotty}",
    "    jmp 9f",
    "dunlin_stub_told_end:",
    // read(0, …): the input is over.
    "3:  test rdi, rdi",
    "    jnz 7b",
    "    test byte ptr [rip + dunlin_stub + {data} + {offers}], {offer_end}",
    "    jz 7b",
    "    mov qword ptr [rip + dunlin_stub + {data} + {result}], 0",
    "dunlin_stub_ended:",
    "    xor eax, eax",
    "    jmp 9f",
    "dunlin_stub_ended_end:",
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
    "    .long dunlin_stub_gathers - dunlin_stub",
    "    .long dunlin_stub_gathered - dunlin_stub",
    "    .long dunlin_stub_gathered_end - dunlin_stub",
    "    .long dunlin_stub_told - dunlin_stub",
    "    .long dunlin_stub_told_end - dunlin_stub",
    "    .long dunlin_stub_ended - dunlin_stub",
    "    .long dunlin_stub_ended_end - dunlin_stub",
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
    writev = const WRITEV,
    parts = const PARTS,
    parts_max = const PARTS_MAX,
    tcgets = const TCGETS,
    tiocgwinsz = const TIOCGWINSZ,
    enotty = const ENOTTY,
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
pub(super) struct Places {
    pub kept: u32,
    pub leaves: u32,
    pub left: u32,
    pub copies: u32,
    pub copied: u32,
    pub wrote: u32,
    pub wrote_end: u32,
    pub gathers: u32,
    pub gathered: u32,
    pub gathered_end: u32,
    pub told: u32,
    pub told_end: u32,
    pub ended: u32,
    pub ended_end: u32,
    pub disabled: u32,
    pub disabled_end: u32,
    pub went: u32,
    pub on_flags: u32,
    pub off_flags: u32,
    pub end: u32,
    pub load: u32,
    pub loaded: u32,
}

unsafe extern "C" {
    static dunlin_stub: u8;
    static dunlin_stub_places: Places;
}

pub(super) fn places() -> &'static Places {
    // SAFETY: the assembler writes as many words as the structure has, aligned to 4 bytes, and
    // nobody writes to them.
    unsafe { &dunlin_stub_places }
}

/// The code, from the start of its page on.
pub fn code() -> &'static [u8] {
    // SAFETY: the code goes from its label to the end that its places tell, and is never written.
    unsafe { std::slice::from_raw_parts(&raw const dunlin_stub, places().loaded as usize) }
}
