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

mod code;

use memory::{MemoryError, Range};

use crate::kvm::{XSAVE_WORDS, kvm_regs};
use crate::layout::{STUB_DATA, SYSCALL_STUB, VECTORS_DATA};
use crate::system::PLAIN_STUB;
pub use code::{DATA_BYTES, code};
use code::{
    DONE, DONE_GOES, DONE_STACK, FIRST_RAX, FLAGS, HELD, OFFER_END, OFFER_REPLY, OFFER_STACK,
    PARTS, PLAIN_STUB_LEFT, REPLY, REPLY_BYTES, RESULT, RETURN, SOURCE, STACK, WRITEV, places,
};

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
        match regs.rip.wrapping_sub(SYSCALL_STUB) {
            PLAIN_STUB => return Ok(Self::Calling),
            PLAIN_STUB_LEFT => return Ok(Self::Returning),
            _ => {}
        }
        let at = match regs.rip.checked_sub(SYSCALL_STUB) {
            Some(at) if at < u64::from(places.end) => at as u32,
            _ => return Ok(Self::Outside),
        };
        if at == places.left {
            return Ok(Self::Returning);
        }
        let returns = (places.wrote..places.wrote_end).contains(&at)
            || (places.gathered..places.gathered_end).contains(&at)
            || (places.told..places.told_end).contains(&at)
            || (places.ended..places.ended_end).contains(&at)
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
        if (places.gathers..places.gathered).contains(&at) {
            (regs.rax, regs.rdi) = (WRITEV, 1);
            (regs.rsi, regs.rdx) = (word(memory, SOURCE)?, word(memory, PARTS)?);
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
        let words = [bits.into(), goes, goes_bytes].map(u64::to_le_bytes);
        memory.write(STUB_DATA as usize, words.as_flattened())
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

/// Puts the vector registers that a guest begins with in their place: an image that has them there
/// spares each [`load`] that.
pub fn hold(memory: &Range, vectors: &[u32; XSAVE_WORDS]) -> Result<(), MemoryError> {
    put_vectors(memory, vectors)?;
    memory.write((STUB_DATA + HELD) as usize, &1_u64.to_le_bytes())
}

fn put_vectors(memory: &Range, vectors: &[u32; XSAVE_WORDS]) -> Result<(), MemoryError> {
    let bytes = vectors.map(u32::to_le_bytes);
    memory.write(VECTORS_DATA as usize, bytes.as_flattened())
}

/// Has a guest at CPL 3 load its vector registers, those of `mask`, before it goes on with `regs`.
/// Its memory has just become that of its image, or nobody has called [`hold`] for that.
pub fn load(
    memory: &Range,
    vectors: &[u32; XSAVE_WORDS],
    mask: u64,
    regs: &mut kvm_regs,
) -> Result<(), MemoryError> {
    if word(memory, HELD)? == 0 {
        put_vectors(memory, vectors)?;
    }
    let first = [regs.rax, regs.rdx, regs.rip].map(u64::to_le_bytes);
    memory.write((STUB_DATA + FIRST_RAX) as usize, first.as_flattened())?;
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
    regs.rdx = word(memory, code::FIRST_RDX)?;
    regs.rip = word(memory, code::FIRST_RIP)?;
    Ok(true)
}

#[cfg(test)]
#[path = "stub_tests.rs"]
mod tests;
