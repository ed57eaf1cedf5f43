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
use std::time::Instant;

use memory::{Access, MemoryError, Range, Region};

use crate::asks::Told;
use crate::fault::Fault;
use crate::kvm::{CpuState, Exit, Hypervisor, Io, KvmError, Vcpu, Vm, XSAVE_WORDS, kvm_regs};
use crate::layout::{self, FAULT_STUBS, PAGE, SYSCALL_STUB, to_virtual};
use crate::space::{Protection, Space, SpaceError};
use crate::stub;
use crate::system::{self, FAULT_PORT, GUEST_PORT};
use crate::view::View;
use crate::watchdog;

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
}

/// A call of the guest's to its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostCall {
    /// Which.
    pub number: u32,
    /// What is passed: rdi, rsi, rdx, r10, r8, r9.
    pub args: [u64; 6],
}

/// Why a guest stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It calls its host; [`Cpu::finish`] gives the result.
    HostCall(HostCall),
    /// It executed `syscall`; the registers hold which. [`Cpu::finish_syscall`] gives the result.
    Syscall,
    /// It did what it may not.
    Fault(Fault),
    /// It ran up to the time that it was given.
    Deadline,
    /// It did what only a guest that tries to break out does, or the hypervisor gave up on it. The
    /// machine is not to be used again.
    Broken(String),
}

/// A processor of a machine.
pub struct Cpu {
    vcpu: Box<dyn Vcpu>,
    /// Kept for as long as the processor, whose machine's slots lie in it.
    memory: Arc<Range>,
    /// Whether `syscall` stays at CPL 3; known from the first on.
    syscall_keeps_level: Option<bool>,
    /// Vector registers that the guest has yet to load.
    to_load: Option<Arc<[u32; XSAVE_WORDS]>>,
    broken: bool,
}

impl Cpu {
    /// The general registers, as the guest left them.
    pub fn regs(&self) -> &kvm_regs {
        self.vcpu.regs()
    }

    /// The same, to be changed before the next run.
    pub fn regs_mut(&mut self) -> &mut kvm_regs {
        self.vcpu.regs_mut()
    }

    /// Whether it is never to run again.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Runs the guest until it stops, or until `until`. Blocks its thread.
    pub fn run(&mut self, until: Instant) -> Result<Stop, KvmError> {
        if self.broken {
            return Ok(Stop::Broken("the processor is broken".into()));
        }
        loop {
            let loads = self.begin_to_load()?;
            let entered = watchdog::enter(self.vcpu.kick(), until);
            let exit = self.vcpu.run();
            let stopped = entered.leave();
            let exit = exit.inspect_err(|_| self.broken = true)?;
            if let Some(vectors) = loads {
                self.end_to_load(vectors);
            }
            if exit == Exit::Interrupted {
                if stopped || Instant::now() >= until {
                    return Ok(Stop::Deadline);
                }
                continue;
            }
            let stop = self.stop_of(exit)?;
            self.broken = matches!(stop, Stop::Broken(_));
            return Ok(stop);
        }
    }

    /// Has the guest load the vector registers that it has yet to: a request to the hypervisor
    /// takes a hundred times as long as the instruction. Which ones these are.
    fn begin_to_load(&mut self) -> Result<Option<Arc<[u32; XSAVE_WORDS]>>, KvmError> {
        let Some(vectors) = self.to_load.take() else {
            return Ok(None);
        };
        let mask = self.vcpu.vector_mask();
        match stub::load(&self.memory, &vectors, mask, self.vcpu.regs_mut()) {
            Ok(()) => Ok(Some(vectors)),
            // A machine whose memory ends before has no place for them.
            Err(_) => self.vcpu.set_vectors(&vectors).map(|()| None),
        }
    }

    /// Looks whether it has, or was stopped before.
    fn end_to_load(&mut self, vectors: Arc<[u32; XSAVE_WORDS]>) {
        let mut regs = *self.vcpu.regs();
        if stub::unload(&self.memory, &mut regs).unwrap_or(false) {
            *self.vcpu.regs_mut() = regs;
            self.to_load = Some(vectors);
        }
    }

    /// Sets the vector registers that the guest has yet to load.
    fn load_now(&mut self) -> Result<(), KvmError> {
        match self.to_load.take() {
            Some(vectors) => self.vcpu.set_vectors(&vectors),
            None => Ok(()),
        }
    }

    fn stop_of(&mut self, exit: Exit) -> Result<Stop, KvmError> {
        let broken = |why: &str| Ok(Stop::Broken(why.to_owned()));
        match exit {
            Exit::Io(io) => self.stop_of_io(io),
            Exit::Memory => broken("it touched memory that its host does not have"),
            Exit::Halt => broken("it halted"),
            Exit::Shutdown => broken("a fault could not be delivered"),
            Exit::Failed(reason) => Ok(Stop::Broken(format!(
                "the hypervisor gave up on it ({reason:#x})"
            ))),
            Exit::Other(reason) => Ok(Stop::Broken(format!("it left by exit {reason}"))),
            Exit::Interrupted => Ok(Stop::Deadline),
        }
    }

    /// Only writes of one 32-bit number pass, to the guest's port from anywhere and to the fault
    /// stubs' from them.
    fn stop_of_io(&mut self, io: Io) -> Result<Stop, KvmError> {
        let regs = *self.vcpu.regs();
        let within = |start: u64, bytes: u64| (start..start + bytes).contains(&regs.rip);
        let one_word = io.out && io.size == 4 && io.count == 1;
        match io.port {
            GUEST_PORT if one_word && within(SYSCALL_STUB, PAGE) => Ok(Stop::Syscall),
            GUEST_PORT if one_word => Ok(Stop::HostCall(HostCall {
                number: regs.rax as u32,
                args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
            })),
            FAULT_PORT if one_word && within(to_virtual(FAULT_STUBS), PAGE) => {
                let address = self.vcpu.sregs()?.cr2;
                let fault = Fault::read(&self.memory, &regs, address);
                Ok(fault.map_or_else(
                    || Stop::Broken("its fault stack is not as it should be".into()),
                    Stop::Fault,
                ))
            }
            port => Ok(Stop::Broken(format!(
                "it used port {port:#x} in a way that is not offered: {} of {} bytes, {} times",
                if io.out { "a write" } else { "a read" },
                io.size,
                io.count
            ))),
        }
    }

    /// Ends a host call with `result`.
    pub fn finish(&mut self, result: u64) {
        self.vcpu.regs_mut().rax = result;
    }

    /// Ends a call of the platform's.
    pub(crate) fn finish_told(&mut self, told: Told) {
        let regs = self.vcpu.regs_mut();
        regs.rax = told.result as u64;
        if let Some(bytes) = told.mapped {
            regs.rdx = bytes;
        }
    }

    /// Has the guest go on at `handler` in place of what faulted, and tells it of the fault: the
    /// instruction in rdi, whether a page was touched in rsi, its address in rdx.
    pub fn deliver(&mut self, fault: &Fault, handler: u64) -> Result<(), KvmError> {
        let regs = self.vcpu.regs_mut();
        (regs.rdi, regs.rsi, regs.rdx) = (fault.rip, fault.is_page().into(), fault.address);
        self.resume(handler, fault.rsp, 0)
    }

    /// Ends a system call with `result`.
    pub fn finish_syscall(&mut self, result: u64) -> Result<(), KvmError> {
        let keeps_level = match self.syscall_keeps_level {
            Some(known) => known,
            None => self.vcpu.sregs()?.cs.dpl == 3,
        };
        self.syscall_keeps_level = Some(keeps_level);
        let regs = self.vcpu.regs_mut();
        regs.rax = result;
        if keeps_level {
            // The stub cannot return from here: it never left.
            regs.rip = regs.rcx;
            regs.rflags = regs.r11 & system::RFLAGS_USER | system::RFLAGS;
        }
        Ok(())
    }

    /// Lets the guest go on at `rip` at CPL 3, wherever it stopped; other registers are its own.
    pub fn resume(&mut self, rip: u64, rsp: u64, rflags: u64) -> Result<(), KvmError> {
        let mut sregs = self.vcpu.sregs()?;
        system::leave_fault(&mut sregs);
        self.vcpu.set_sregs(&sregs)?;
        let regs = self.vcpu.regs_mut();
        (regs.rip, regs.rsp) = (rip, rsp);
        regs.rflags = rflags & system::RFLAGS_USER | system::RFLAGS;
        Ok(())
    }

    /// Lets a guest begin at `rip`, with nothing in its registers.
    pub fn begin(&mut self, rip: u64, rsp: u64) -> Result<(), KvmError> {
        *self.vcpu.regs_mut() = kvm_regs::default();
        self.resume(rip, rsp, 0)
    }

    /// The base of a thread's own data: `fs`.
    pub fn thread_base(&mut self) -> Result<u64, KvmError> {
        Ok(self.vcpu.sregs()?.fs.base)
    }

    /// Sets it.
    pub fn set_thread_base(&mut self, base: u64) -> Result<(), KvmError> {
        let mut sregs = self.vcpu.sregs()?;
        sregs.fs.base = base;
        self.vcpu.set_sregs(&sregs)
    }

    /// The vector registers, as XSAVE stores them.
    pub fn vectors(&mut self) -> Result<Box<[u32; XSAVE_WORDS]>, KvmError> {
        self.load_now()?;
        self.vcpu.vectors()
    }

    /// Sets them. What a processor would not take is an error.
    pub fn set_vectors(&mut self, vectors: &[u32; XSAVE_WORDS]) -> Result<(), KvmError> {
        self.to_load = None;
        self.vcpu.set_vectors(vectors)
    }

    /// The components of them that the guest may use, as in XCR0.
    pub fn vector_mask(&self) -> u64 {
        self.vcpu.vector_mask()
    }

    /// All its registers, with what was begun finished.
    pub fn save(&mut self) -> Result<CpuState, KvmError> {
        self.load_now()?;
        let flag = self.vcpu.kick().flag();
        flag.store(1, std::sync::atomic::Ordering::SeqCst);
        let retired = self.vcpu.run();
        self.vcpu
            .kick()
            .flag()
            .store(0, std::sync::atomic::Ordering::SeqCst);
        retired?;
        self.vcpu.save()
    }

    /// Sets all its registers.
    pub fn restore(&mut self, state: &CpuState) -> Result<(), KvmError> {
        self.vcpu.restore(state)?;
        self.to_load = None;
        if state.sregs.cs.dpl != 3 {
            return self.vcpu.set_vectors(&state.xsave);
        }
        self.to_load = Some(state.xsave.clone());
        Ok(())
    }
}

/// A machine with one guest. Fields are dropped in their order: the memory last.
pub struct Machine {
    /// The first processor.
    pub cpu: Cpu,
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
            cpu: Cpu::new(vcpu, memory.clone()),
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

    /// One more processor, as a thread of the guest needs.
    pub fn add_cpu(&mut self) -> Result<Cpu, MachineError> {
        let vcpu = self.vm.vcpu(self.cpus)?;
        self.cpus += 1;
        Ok(Cpu::new(vcpu, self.memory.clone()))
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
        self.memory.reset()?;
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

impl Cpu {
    fn new(vcpu: Box<dyn Vcpu>, memory: Arc<Range>) -> Self {
        Self {
            vcpu,
            memory,
            syscall_keeps_level: None,
            to_load: None,
            broken: false,
        }
    }
}

/// The bytes of a machine's memory before its guest's frames: system pages and page tables.
pub const OVERHEAD: u64 = layout::FRAMES;
