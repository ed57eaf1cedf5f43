//! A processor of a machine, and why its guest stopped.

use std::sync::Arc;
use std::time::Instant;

use memory::Range;

use crate::asks::Told;
use crate::fault::Fault;
use crate::faults;
use crate::kvm::{CpuState, Exit, Io, KvmError, Vcpu, XSAVE_WORDS, kvm_regs};
use crate::layout::{FAULT_STUBS, PAGE, SYSCALL_STUB, to_virtual};
use crate::stub;
use crate::system::{self, FAULT_PORT, GUEST_PORT};
use crate::watchdog;

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
    /// Its own among those of its machine.
    number: u32,
    /// Kept for as long as the processor, whose machine's slots lie in it.
    memory: Arc<Range>,
    /// Whether `syscall` stays at CPL 3; known from the first on.
    syscall_keeps_level: Option<bool>,
    /// Vector registers that the guest has yet to load.
    to_load: Option<Arc<[u32; XSAVE_WORDS]>>,
    /// What it was when it was made, if it has been renewed since.
    first: Option<Box<CpuState>>,
    broken: bool,
}

impl Cpu {
    pub(crate) fn new(vcpu: Box<dyn Vcpu>, number: u32, memory: Arc<Range>) -> Self {
        Self {
            vcpu,
            number,
            memory,
            first: None,
            syscall_keeps_level: None,
            to_load: None,
            broken: false,
        }
    }

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
            if faults::any_since_last() {
                self.memory.may_own_more();
            }
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
                let fault = Fault::read(&self.memory, &regs, address, self.number);
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
        let found = self.vcpu.sregs()?;
        let mut sregs = found;
        system::leave_fault(&mut sregs);
        if sregs != found {
            self.vcpu.set_sregs(&sregs)?;
        }
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
        if sregs.fs.base == base {
            return Ok(());
        }
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

    /// Makes a processor that is not its machine's first as it was when it was made: whoever ran on
    /// it leaves nothing in it.
    pub(crate) fn renew(&mut self) -> Result<(), KvmError> {
        let first = match self.first.take() {
            Some(first) => first,
            None => Box::new(self.save()?),
        };
        self.vcpu.restore(&first)?;
        self.set_vectors(&first.xsave)?;
        self.first = Some(first);
        Ok(())
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
