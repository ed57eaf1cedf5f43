//! A machine with one guest: its memory, its address space, and its processors.
//!
//! ```text
//!   Machine ── cpu ──▶ run(until) ─▶ Stop::HostCall  finish(result), run again
//!      │                            Stop::Syscall   finish_syscall(result), run again
//!      ├─ space: map, protect,      Stop::Fault     resume(…), or the end of the call
//!      │  unmap                     Stop::Deadline  the end of the call
//!      └─ view: checked copies      Stop::Broken    the end of the machine
//! ```

use std::sync::Arc;

use memory::{Access, MemoryError, Range, Region};

pub use crate::cpu::{Cpu, HostCall, Stop};
use crate::kvm::{CpuState, Hypervisor, KvmError, Vm};
use crate::layout::{self, PAGE};
use crate::space::{Protection, Space, SpaceError};
use crate::view::View;

/// The least that an added slot holds.
const SLOT_BYTES_LEAST: u64 = 16 << 20;
/// Growth from which huge pages are asked for.
const HUGE_BYTES: usize = 4 << 20;

/// What went wrong with a machine, through no fault of its guest's.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The hypervisor failed.
    #[error(transparent)]
    Hypervisor(#[from] KvmError),
    /// The memory layer failed.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The machine could not be given the memory of its image.
    #[error("the image does not fit")]
    Space(#[source] Box<SpaceError>),
    /// It has as many processors as it may have.
    #[error("a machine has at most {} processors", layout::PROCESSORS_MAX)]
    Processors,
}

/// A machine with one guest. Fields are dropped in their order: the memory last.
pub struct Machine {
    /// The first processor.
    pub cpu: Cpu,
    /// The others, while nobody has them.
    others: Vec<Cpu>,
    cpus: u32,
    vm: Box<dyn Vm>,
    /// What the guest may touch.
    pub space: Space,
    slots: u32,
    /// Bytes of guest-physical memory that slots cover.
    covered: u64,
    /// Regions that are mapped.
    regions: usize,
    /// Whether one of them is to be read only.
    reads_only: bool,
    memory: Arc<Range>,
}

impl Machine {
    /// A machine over `memory`, of which at first `bytes` can be touched; it grows with its guest.
    pub fn new(
        hypervisor: &dyn Hypervisor,
        memory: Range,
        bytes: u64,
        space: Space,
    ) -> Result<Self, MachineError> {
        let memory = Arc::new(memory);
        let vm = hypervisor.vm()?;
        let covered = bytes.next_multiple_of(PAGE);
        // SAFETY: the addresses are the range's own. It outlives the machine's processors, each of
        // which holds it, and without a processor nothing touches a machine's memory.
        unsafe { vm.map(0, 0, memory.base(), covered)? };
        let vcpu = vm.vcpu(0)?;
        Ok(Self {
            cpu: Cpu::new(vcpu, 0, memory.clone()),
            others: Vec::new(),
            cpus: 1,
            vm,
            space,
            slots: 1,
            covered,
            regions: 0,
            reads_only: false,
            memory,
        })
    }

    /// Its memory.
    pub fn memory(&self) -> &Arc<Range> {
        &self.memory
    }

    /// The guest's memory, through its own addresses.
    pub fn view(&self) -> View<'_> {
        View::new(&self.memory, &self.space)
    }

    /// One more processor, as a thread of the guest needs. A machine has at most
    /// [`layout::PROCESSORS_MAX`].
    pub fn add_cpu(&mut self) -> Result<Cpu, MachineError> {
        if self.cpus >= layout::PROCESSORS_MAX {
            return Err(MachineError::Processors);
        }
        let vcpu = self.vm.vcpu(self.cpus)?;
        self.cpus += 1;
        Ok(Cpu::new(vcpu, self.cpus - 1, self.memory.clone()))
    }

    /// Takes `count` processors beside the first, as new, to run threads of the guest at once. They
    /// are to be given back.
    pub(crate) fn lend_cpus(&mut self, count: usize) -> Result<Vec<Cpu>, MachineError> {
        while self.others.len() < count {
            let cpu = self.add_cpu()?;
            self.others.push(cpu);
        }
        for cpu in &mut self.others[..count] {
            cpu.renew()?;
        }
        Ok(self.others.drain(..count).collect())
    }

    /// Takes processors back.
    pub(crate) fn take_cpus_back(&mut self, cpus: Vec<Cpu>) {
        self.others.extend(cpus);
    }

    /// Whether one of its processors is never to run again.
    pub fn is_broken(&self) -> bool {
        self.cpu.is_broken() || self.others.iter().any(Cpu::is_broken)
    }

    /// Maps `bytes` bytes of zeros at `start`, in place of what was there.
    pub fn map(
        &mut self,
        start: u64,
        bytes: u64,
        protection: Protection,
    ) -> Result<(), SpaceError> {
        self.reach(self.space.frames.end_after(bytes))?;
        self.space.map(&self.memory, start, bytes, protection)
    }

    /// Changes what the guest may do with `bytes` bytes at `start`.
    pub fn protect(
        &mut self,
        start: u64,
        bytes: u64,
        protection: Protection,
    ) -> Result<(), SpaceError> {
        self.space.protect(&self.memory, start, bytes, protection)
    }

    /// Unmaps `bytes` bytes at `start`.
    pub fn unmap(&mut self, start: u64, bytes: u64) -> Result<(), SpaceError> {
        self.space.unmap(&self.memory, start, bytes)
    }

    /// Maps `bytes` of `region` from `offset` at `start`, until the next reset.
    pub fn map_region(
        &mut self,
        start: u64,
        region: &Arc<Region>,
        offset: usize,
        bytes: usize,
        access: Access,
    ) -> Result<(), SpaceError> {
        let length = bytes as u64;
        let kept = self.memory.kept_bytes() as u64;
        let frame = self.space.frames.reserve(length, kept);
        self.reach(frame + length)?;
        self.memory
            .map(frame as usize, region, offset, bytes, access)?;
        self.regions += 1;
        self.reads_only |= access == Access::Read;
        let space = &mut self.space;
        // To read is a mapping of its own for what the guest writes, which the host looks at later.
        space.map_frames(&self.memory, start, frame, length, Protection::READ_WRITE)
    }

    /// Makes guest-physical memory up to `end` there.
    fn reach(&mut self, end: u64) -> Result<(), SpaceError> {
        let (old, new) = (self.memory.bytes(), end as usize);
        if new > old {
            self.memory.grow_to(new)?;
            if new - old >= HUGE_BYTES {
                // It goes as a whole at the reset, so that nothing is copied page by page.
                self.memory.prefer_huge_pages(old, new - old)?;
            }
        }
        if end <= self.covered {
            return Ok(());
        }
        let most = self.memory.bytes_max() as u64;
        let bytes = (end - self.covered).max(self.covered).max(SLOT_BYTES_LEAST);
        let bytes = bytes.min(most.saturating_sub(self.covered));
        let host = self.memory.base().wrapping_add(self.covered as usize);
        // SAFETY: as in `new`: the addresses are the range's own, past those of other slots.
        let added = unsafe { self.vm.map(self.slots, self.covered, host, bytes) };
        added.map_err(|error| {
            tracing::warn!(%error, "a machine's memory could not grow");
            SpaceError::Full {
                asked: bytes,
                most: self.covered,
            }
        })?;
        self.slots += 1;
        self.covered += bytes;
        Ok(())
    }

    /// Makes it what it was when `space` and `cpu` were taken. An error leaves it unusable.
    pub fn reset(&mut self, space: &Space, cpu: &CpuState) -> Result<(), MachineError> {
        self.memory.reset_told()?;
        self.space.rewind(&self.memory, space)?;
        (self.regions, self.reads_only) = (0, false);
        self.cpu.restore(cpu)?;
        Ok(())
    }

    /// The same, for a machine whose memory has just become that of the image.
    pub fn become_image(&mut self, space: &Space, cpu: &CpuState) -> Result<(), MachineError> {
        self.space.clone_from(space);
        (self.regions, self.reads_only) = (0, false);
        self.grow_to(self.space.frames_end())?;
        self.cpu.restore(cpu)?;
        Ok(())
    }

    /// Makes guest-physical memory up to `end` there.
    pub fn grow_to(&mut self, end: u64) -> Result<(), MachineError> {
        self.reach(end).map_err(|error| match error {
            SpaceError::Memory(error) => error.into(),
            other => MachineError::Space(Box::new(other)),
        })
    }

    /// Processors that were ever made of it.
    pub fn cpu_count(&self) -> u32 {
        self.cpus
    }

    /// Regions that are mapped.
    pub fn regions(&self) -> usize {
        self.regions
    }

    /// Whether the guest wrote to a region that it maps to read.
    pub fn wrote_read_only(&self) -> bool {
        self.reads_only && self.memory.wrote_read_only().unwrap_or(true)
    }

    /// Guest-physical memory that can be touched without growing the machine.
    pub fn covered(&self) -> u64 {
        self.covered
    }
}

/// The bytes of a machine's memory before its guest's frames: system pages and page tables.
pub const OVERHEAD: u64 = layout::FRAMES;
