//! Micro-VMs: functions behind a hardware wall, on KVM, without a kernel of their own.
//!
//! ```text
//!  ELF ──load──▶ Machine: memory::Range ◀── Space (page tables in the guest's memory)
//!                   │  Cpu at CPL 3, run ──▶ Stop: host call, system call, fault, deadline
//!                   └─ reset: the range equals its image, Space::rewind, registers
//! ```
//!
//! Invariants:
//! - A guest runs at CPL 3 from its first instruction. CPL 0 runs our stubs only.
//! - The tables of a guest's address space are in its own memory, where only the host writes.
//! - Of what leaves a machine, one 32-bit write to one port passes; all else ends the machine.
//! - The host copies bytes through the guest's own permissions, and holds no reference into them.
//! - What a guest did to its memory or registers, the next invocation does not find.
//!
//! # How to use it
//!
//! 1. [`kvm::Kvm::open`] gives a [`kvm::Hypervisor`], or says why there is none.
//! 2. Take a [`memory::Range`], make a [`space::Space`], [`space::Space::write_system`] into the
//!    range, and give both to [`machine::Machine::new`].
//! 3. [`load::load`] maps an [`elf::Elf`]; [`machine::Machine::map`], `protect`, `unmap` and
//!    [`space::Space::gap`] are what mmap, mprotect, munmap and brk are made of. A guest that is
//!    stopped sees each change at once.
//! 4. [`machine::Cpu::begin`], then [`machine::Cpu::run`] in a loop. A [`machine::Stop::Syscall`]
//!    has its number in `regs().rax` and its arguments in rdi, rsi, rdx, r10, r8, r9; answer it
//!    through [`machine::Machine::view`] and [`machine::Cpu::finish_syscall`]. After a
//!    [`machine::Stop::Fault`] a guest can go on by [`machine::Cpu::resume`], as for a signal.
//! 5. [`machine::Cpu::save`] with a copy of the space (after [`space::Space::settle`]) and of the
//!    memory is an image; [`machine::Machine::reset`] brings a machine back to it.
//! 6. [`machine::Machine::add_cpu`] makes one more processor, for a thread. Each may run on a
//!    thread of the host's own; changes of the space need all of them stopped.

pub mod abi;
mod asks;
mod backend;
mod blank;
mod config;
pub mod confine;
mod cpu;
mod deploy;
pub mod elf;
mod entropy;
pub mod fault;
mod faults;
mod frames;
mod freestanding;
mod frozen;
pub mod inside;
pub mod kvm;
pub mod layout;
pub mod linux;
pub mod load;
pub mod machine;
mod microvm;
mod program;
mod shells;
pub mod space;
mod standing;
mod stored;
mod stub;
mod system;
pub mod turns;
mod view;
mod watchdog;

pub use backend::{MicroVms, MicroVmsError};
pub use config::Config;

#[cfg(test)]
mod tests;
