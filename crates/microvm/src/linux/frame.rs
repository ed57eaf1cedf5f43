//! What a signal handler finds on its stack, and what is taken back from there when it returns
//! (`struct rt_sigframe` of Linux on x86-64).
//!
//! ```text
//!  rsp ▶ return address │ ucontext: flags, link, stack, registers, mask │ siginfo │ … │ vectors
//! ```

use super::errno::Errno;
use super::process::{Call, Guest, Halt, Process};
use super::signal::{Action, Info, SA_ONSTACK, SIGSEGV, SS_DISABLE};
use super::thread::Tid;
use crate::kvm::{XSAVE_WORDS, kvm_regs};
use crate::system::RFLAGS_USER;

/// Bytes that a function may use below its stack pointer.
const RED_ZONE: u64 = 128;
const CONTEXT: usize = 8;
const REGISTERS: usize = CONTEXT + 40;
const MASK: usize = REGISTERS + 256;
const INFO: usize = MASK + 8;
const FRAME_BYTES: usize = INFO + 128;
/// Where the address of the vector registers lies.
const VECTORS: usize = REGISTERS + 184;
const CR2: usize = REGISTERS + 176;

/// Bytes of vector registers up to AVX, and up to AVX-512.
const VECTOR_BYTES: usize = 832;
const VECTOR_BYTES_MOST: usize = 2696;
/// The legacy part.
const LEGACY_BYTES: usize = 512;
/// Where the part's header lies: which components it holds.
const HEADER: usize = 512;
/// Marks that vector registers past the legacy part follow, and their end.
const MAGIC: (u32, u32) = (0x4650_5853, 0x4650_5845);
const MAGIC_AT: usize = 464;
const MXCSR: usize = 24;
const MXCSR_VALID: u32 = 0xffbf;
/// x87, SSE and AVX.
const SMALL: u64 = 7;
/// The context has vector registers in the extended form.
const UC_FP_XSTATE: u64 = 1;

/// The most bytes of a stack that a signal takes.
pub const BYTES_MAX: u64 = (FRAME_BYTES + VECTOR_BYTES_MOST + 4 + 64 + 16) as u64 + RED_ZONE;

/// The registers in the order that the frame has them; rip and flags follow.
fn registers(regs: &mut kvm_regs) -> [&mut u64; 16] {
    [
        &mut regs.r8,
        &mut regs.r9,
        &mut regs.r10,
        &mut regs.r11,
        &mut regs.r12,
        &mut regs.r13,
        &mut regs.r14,
        &mut regs.r15,
        &mut regs.rdi,
        &mut regs.rsi,
        &mut regs.rbp,
        &mut regs.rbx,
        &mut regs.rdx,
        &mut regs.rax,
        &mut regs.rcx,
        &mut regs.rsp,
    ]
}

fn put(bytes: &mut [u8], at: usize, word: u64) {
    bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Puts a frame on the thread's stack, and has it begin the handler.
pub fn push(
    process: &mut Process,
    guest: &mut dyn Guest,
    tid: Tid,
    info: Info,
    action: Action,
) -> Result<(), Errno> {
    const SA_RESTORER: u64 = 0x0400_0000;
    if action.flags & SA_RESTORER == 0 {
        return Err(Errno::EFAULT);
    }
    let vectors = vector_bytes(guest)?;
    let thread = process.threads.find_mut(tid).ok_or(Errno::ESRCH)?;
    let mut regs = thread.regs;
    let other = thread.signals.other_stack;
    let on_other = other.holds(regs.rsp);
    let top = match action.flags & SA_ONSTACK != 0 && other.flags & SS_DISABLE == 0 && !on_other {
        true => other.start.saturating_add(other.bytes),
        false => regs.rsp.wrapping_sub(RED_ZONE),
    };
    let vectors_at = top.wrapping_sub(vectors.len() as u64) & !63;
    let frame_at = (vectors_at.wrapping_sub(FRAME_BYTES as u64) & !15).wrapping_sub(8);

    let mut frame = vec![0; FRAME_BYTES];
    put(&mut frame, 0, action.restorer);
    put(&mut frame, CONTEXT, UC_FP_XSTATE);
    put(&mut frame, CONTEXT + 16, other.start);
    put(&mut frame, CONTEXT + 24, u64::from(other.flags));
    put(&mut frame, CONTEXT + 32, other.bytes);
    let (rip, rflags) = (regs.rip, regs.rflags);
    for (index, register) in registers(&mut regs).into_iter().enumerate() {
        put(&mut frame, REGISTERS + index * 8, *register);
    }
    put(&mut frame, REGISTERS + 128, rip);
    put(&mut frame, REGISTERS + 136, rflags);
    // Selectors of code and stack at CPL 3.
    put(&mut frame, REGISTERS + 144, 0x23 | 0x1b << 48);
    put(&mut frame, REGISTERS + 152, info.trap.1);
    put(&mut frame, REGISTERS + 160, info.trap.0);
    let mask = thread.signals.mask_after.unwrap_or(thread.signals.mask);
    put(&mut frame, REGISTERS + 168, mask);
    put(&mut frame, CR2, info.address.unwrap_or(0));
    put(&mut frame, VECTORS, vectors_at);
    put(&mut frame, MASK, mask);
    frame[INFO..].copy_from_slice(&info.bytes());

    thread.regs.rsp = frame_at;
    thread.regs.rip = action.handler;
    thread.regs.rflags = 0;
    thread.regs.rax = 0;
    thread.regs.rdi = info.signal.into();
    thread.regs.rsi = frame_at + INFO as u64;
    thread.regs.rdx = frame_at + CONTEXT as u64;
    process.write(guest, vectors_at, &vectors)?;
    process.write(guest, frame_at, &frame)
}

/// The vector registers as a frame holds them.
fn vector_bytes(guest: &mut dyn Guest) -> Result<Vec<u8>, Errno> {
    let words = guest.vectors().map_err(|_| Errno::EIO)?;
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let held = word(&bytes, HEADER);
    let length = if held & !SMALL == 0 {
        VECTOR_BYTES
    } else {
        VECTOR_BYTES_MOST
    };
    bytes.truncate(length);
    let extended = length as u32 + 4;
    bytes[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(&MAGIC.0.to_le_bytes());
    bytes[MAGIC_AT + 4..MAGIC_AT + 8].copy_from_slice(&extended.to_le_bytes());
    put(&mut bytes, MAGIC_AT + 8, guest.vector_mask());
    bytes[MAGIC_AT + 16..MAGIC_AT + 20].copy_from_slice(&(length as u32).to_le_bytes());
    bytes.extend_from_slice(&MAGIC.1.to_le_bytes());
    Ok(bytes)
}

/// `rt_sigreturn`: takes a frame back, whatever the guest made of it.
pub fn pop(call: &mut Call<'_>) -> Result<(), Halt> {
    if take_back(call).is_ok() {
        return Err(Halt::Resume);
    }
    let exit = super::process::Exit::Signal(SIGSEGV);
    call.process.exit.get_or_insert(exit);
    Err(Halt::Over)
}

fn take_back(call: &mut Call<'_>) -> Result<(), Errno> {
    let at = call.thread()?.regs.rsp.wrapping_sub(8);
    let mut frame = [0; FRAME_BYTES];
    call.read(at, &mut frame)?;
    let vectors_at = word(&frame, VECTORS);
    if vectors_at != 0 {
        let vectors = vectors_of(call, vectors_at)?;
        call.guest
            .set_vectors(&vectors)
            .map_err(|_| Errno::EFAULT)?;
    }
    let thread = call.thread()?;
    for (index, register) in registers(&mut thread.regs).into_iter().enumerate() {
        *register = word(&frame, REGISTERS + index * 8);
    }
    thread.regs.rip = word(&frame, REGISTERS + 128);
    thread.regs.rflags = word(&frame, REGISTERS + 136) & RFLAGS_USER;
    thread.signals.block(word(&frame, MASK));
    Ok(())
}

/// Vector registers that a guest gives, made such that a processor takes them.
fn vectors_of(call: &mut Call<'_>, at: u64) -> Result<Box<[u32; XSAVE_WORDS]>, Errno> {
    let mut bytes = call.copy(at, LEGACY_BYTES as u64)?;
    let mark = |bytes: &[u8], at: usize| word(bytes, at) as u32;
    let length = mark(&bytes, MAGIC_AT + 16) as usize;
    if mark(&bytes, MAGIC_AT) == MAGIC.0 && (HEADER + 64..=VECTOR_BYTES_MOST).contains(&length) {
        bytes = call.copy(at, length as u64)?;
        let held = word(&bytes, HEADER) & call.guest.vector_mask();
        put(&mut bytes, HEADER, held);
    } else {
        bytes.resize(HEADER + 64, 0);
        put(&mut bytes, HEADER, 3);
    }
    bytes[HEADER + 8..HEADER + 64].fill(0);
    let mxcsr = mark(&bytes, MXCSR) & MXCSR_VALID;
    bytes[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
    let mut words = Box::new([0; XSAVE_WORDS]);
    let (chunks, _) = bytes.as_chunks::<4>();
    for (to, from) in words.iter_mut().zip(chunks) {
        *to = u32::from_le_bytes(*from);
    }
    Ok(words)
}
