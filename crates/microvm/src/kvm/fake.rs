//! A hypervisor without guests: it leaves as it is told to, for tests of what follows from that.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    CpuState, Exit, Hypervisor, Kick, KvmError, Vcpu, Vectors, Vm, XSAVE_WORDS, kvm_regs, kvm_sregs,
};

/// What its processors do, in turn: the exit, and the registers at it.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    exits: VecDeque<(Exit, kvm_regs)>,
    /// Slots that were mapped: guest-physical address and bytes.
    slots: Vec<(u64, u64)>,
    /// Segments as they are.
    sregs: kvm_sregs,
}

impl Fake {
    pub fn leaves(&self, exit: Exit, regs: kvm_regs) {
        self.0.lock().exits.push_back((exit, regs));
    }

    pub fn slots(&self) -> Vec<(u64, u64)> {
        self.0.lock().slots.clone()
    }

    pub fn forget_slots(&self) {
        self.0.lock().slots.clear();
    }

    pub fn set_level(&self, level: u8) {
        self.0.lock().sregs.cs.dpl = level;
    }
}

impl Hypervisor for Fake {
    fn vm(&self) -> Result<Box<dyn Vm>, KvmError> {
        Ok(Box::new(self.clone()))
    }

    fn features(&self) -> &[u8] {
        b"fake"
    }
}

impl Vm for Fake {
    unsafe fn map(&self, slot: u32, guest: u64, _: *mut u8, bytes: u64) -> Result<(), KvmError> {
        let mut script = self.0.lock();
        assert_eq!(slot as usize, script.slots.len());
        script.slots.push((guest, bytes));
        Ok(())
    }

    fn vcpu(&self, _: u32) -> Result<Box<dyn Vcpu>, KvmError> {
        Ok(Box::new(FakeVcpu {
            script: self.clone(),
            regs: kvm_regs::default(),
            kick: Kick::own(),
        }))
    }
}

struct FakeVcpu {
    script: Fake,
    regs: kvm_regs,
    kick: Kick,
}

impl Vectors for FakeVcpu {
    fn vectors(&mut self) -> Result<Box<[u32; XSAVE_WORDS]>, KvmError> {
        Ok(Box::new([0; XSAVE_WORDS]))
    }

    fn set_vectors(&mut self, _: &[u32; XSAVE_WORDS]) -> Result<(), KvmError> {
        Ok(())
    }

    fn vector_mask(&self) -> u64 {
        3
    }
}

impl Vcpu for FakeVcpu {
    fn run(&mut self) -> Result<Exit, KvmError> {
        match self.script.0.lock().exits.pop_front() {
            Some((exit, regs)) => {
                self.regs = regs;
                Ok(exit)
            }
            None => Ok(Exit::Interrupted),
        }
    }

    fn regs(&self) -> &kvm_regs {
        &self.regs
    }

    fn regs_mut(&mut self) -> &mut kvm_regs {
        &mut self.regs
    }

    fn sregs(&mut self) -> Result<kvm_sregs, KvmError> {
        Ok(self.script.0.lock().sregs)
    }

    fn set_sregs(&mut self, sregs: &kvm_sregs) -> Result<(), KvmError> {
        self.script.0.lock().sregs = *sregs;
        Ok(())
    }

    fn save(&mut self) -> Result<CpuState, KvmError> {
        Ok(CpuState {
            regs: self.regs,
            sregs: self.sregs()?,
            xsave: Arc::new([0; XSAVE_WORDS]),
            xcrs: Default::default(),
            events: Default::default(),
        })
    }

    fn restore(&mut self, state: &CpuState) -> Result<(), KvmError> {
        self.regs = state.regs;
        self.set_sregs(&state.sregs)
    }

    fn kick(&self) -> &Kick {
        &self.kick
    }
}
