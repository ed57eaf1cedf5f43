//! What this crate asks of a hypervisor, so that its logic can be tested without one.
//!
//! ```text
//!  Hypervisor ──vm──▶ Vm ──vcpu──▶ Vcpu: run ─▶ Exit, registers in between
//! ```
//!
//! The real one is [`Kvm`]. Registers are KVM's own structures: they are what an image holds.

mod exit;
mod real;

#[cfg(test)]
pub(crate) mod fake;

use std::sync::Arc;
use std::sync::atomic::AtomicU8;

pub use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xcrs};

pub use exit::{Exit, Io};
pub use real::{Kvm, Unavailable};

/// A failure of the hypervisor's.
#[derive(Debug, thiserror::Error)]
#[error("the hypervisor could not {doing}")]
pub struct KvmError {
    /// What was being done.
    pub doing: &'static str,
    /// The kernel's answer.
    #[source]
    pub source: std::io::Error,
}

/// Makes virtual machines.
pub trait Hypervisor: Send + Sync + 'static {
    /// A machine without memory or processors.
    fn vm(&self) -> Result<Box<dyn Vm>, KvmError>;

    /// What its processors can do, as bytes that are equal where an image may be restored.
    fn features(&self) -> &[u8];
}

/// A virtual machine.
pub trait Vm: Send + Sync {
    /// Makes `bytes` bytes at `host` the memory at the guest-physical address `guest`, as slot
    /// number `slot`, which was not used before.
    ///
    /// # Safety
    /// The host addresses are whole pages that stay reserved, for this machine alone, for as long
    /// as the machine and its processors live.
    unsafe fn map(&self, slot: u32, guest: u64, host: *mut u8, bytes: u64) -> Result<(), KvmError>;

    /// A processor; `number` is its own among those of this machine, below
    /// [`crate::layout::PROCESSORS_MAX`].
    fn vcpu(&self, number: u32) -> Result<Box<dyn Vcpu>, KvmError>;
}

/// Words of the vector state that is kept: all but AMX, which guests do not have.
pub const XSAVE_WORDS: usize = 1024;

/// All registers of a processor that a guest can see or change.
#[derive(Clone, Debug)]
pub struct CpuState {
    /// General registers.
    pub regs: kvm_regs,
    /// Segments, tables and control registers.
    pub sregs: kvm_sregs,
    /// Vector registers.
    pub xsave: Arc<[u32; XSAVE_WORDS]>,
    /// Which of them the guest may use.
    pub xcrs: kvm_xcrs,
    /// What was about to be delivered.
    pub events: kvm_vcpu_events,
}

/// What stops a processor from another thread: set to 1, it leaves at once and again until it is
/// set to 0. A processor that runs already has to be interrupted by a signal besides.
#[derive(Clone, Debug)]
pub struct Kick(Arc<KickCell>);

#[derive(Debug)]
struct KickCell {
    /// `immediate_exit` in the page that the processor shares with the kernel.
    flag: *const AtomicU8,
    /// Keeps that page mapped.
    _page: Option<real::RunPage>,
    /// The flag of a processor that has no such page.
    _own: Option<Box<AtomicU8>>,
}

// SAFETY: the flag is only accessed atomically, and what it lies in lives as long as the cell.
unsafe impl Send for KickCell {}
// SAFETY: as above.
unsafe impl Sync for KickCell {}

impl Kick {
    fn of_page(page: real::RunPage) -> Self {
        Self(Arc::new(KickCell {
            flag: page.immediate_exit(),
            _page: Some(page),
            _own: None,
        }))
    }

    #[cfg(test)]
    pub(crate) fn own() -> Self {
        let own = Box::new(AtomicU8::new(0));
        Self(Arc::new(KickCell {
            flag: &raw const *own,
            _page: None,
            _own: Some(own),
        }))
    }

    /// The flag.
    pub fn flag(&self) -> &AtomicU8 {
        // SAFETY: see `KickCell`: the pointer is valid for as long as `self`.
        unsafe { &*self.0.flag }
    }
}

/// The vector registers of a processor, by themselves: what a switch of threads needs beyond the
/// general ones.
pub trait Vectors {
    /// As XSAVE stores them.
    fn vectors(&mut self) -> Result<Box<[u32; XSAVE_WORDS]>, KvmError>;

    /// Sets them. What a processor would not take is an error.
    fn set_vectors(&mut self, vectors: &[u32; XSAVE_WORDS]) -> Result<(), KvmError>;

    /// Which components of them the guest may use, as in XCR0.
    fn vector_mask(&self) -> u64;
}

/// A processor.
pub trait Vcpu: Vectors + Send {
    /// Runs the guest until it leaves. The registers are those at that moment.
    fn run(&mut self) -> Result<Exit, KvmError>;

    /// The general registers as of the last exit, or as they were set since.
    fn regs(&self) -> &kvm_regs;

    /// The same, to be changed before the next run.
    fn regs_mut(&mut self) -> &mut kvm_regs;

    /// Segments, tables and control registers.
    fn sregs(&mut self) -> Result<kvm_sregs, KvmError>;

    /// Sets them before the next run.
    fn set_sregs(&mut self, sregs: &kvm_sregs) -> Result<(), KvmError>;

    /// All registers.
    fn save(&mut self) -> Result<CpuState, KvmError>;

    /// Sets all registers but the vector ones before the next run. Pending events are gone.
    fn restore(&mut self, state: &CpuState) -> Result<(), KvmError>;

    /// What stops it.
    fn kick(&self) -> &Kick;
}
