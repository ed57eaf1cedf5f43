//! Linux's KVM.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU8;

use kvm_bindings::{
    CpuId, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO,
    KVM_EXIT_IO_OUT, KVM_EXIT_MEMORY_FAULT, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN,
    KVM_MAX_CPUID_ENTRIES, KVM_SYNC_X86_EVENTS, KVM_SYNC_X86_SREGS, Msrs, kvm_msr_entry, kvm_regs,
    kvm_sregs, kvm_userspace_memory_region,
};
use kvm_ioctls::{
    Cap, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, SyncReg, VcpuExit, VcpuFd,
    VmFd,
};

use super::exit::{Exit, Io};
use super::{CpuState, Hypervisor, Kick, KvmError, Vcpu, Vectors, Vm, XSAVE_WORDS};
use crate::layout;
use crate::system;

/// The version of KVM's interface; there is no other.
const API_VERSION: i32 = 12;
/// What every machine here needs.
const NEEDED: [(Cap, &str); 5] = [
    (Cap::SyncRegs, "KVM_CAP_SYNC_REGS"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::Xsave, "KVM_CAP_XSAVE"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SyncMmu, "KVM_CAP_SYNC_MMU"),
];

/// CPUID: performance counters (Intel).
const LEAF_PMU: u32 = 0xa;
/// CPUID: sizes of vector state.
const LEAF_XSTATE: u32 = 0xd;
/// Features, and in ecx that there is `rdrand`.
const LEAF_FEATURES: u32 = 1;
const ECX_RDRAND: u32 = 1 << 30;
/// More of them, and in ebx that there is `rdseed`.
const LEAF_MORE_FEATURES: u32 = 7;
const EBX_RDSEED: u32 = 1 << 18;
/// CPUID: the first of the hypervisor's own.
const LEAF_HYPERVISOR: u32 = 0x4000_0000;
const LEAF_HYPERVISOR_LAST: u32 = 0x4000_ffff;
/// CPUID: performance counters (AMD, version 2).
const LEAF_AMD_PMU: u32 = 0x8000_0022;
/// CPUID: features of the processor (AMD's leaf), with its counters in ecx.
const LEAF_AMD_FEATURES: u32 = 0x8000_0001;
const ECX_AMD_COUNTERS: u32 = 1 << 23 | 1 << 24 | 1 << 28;
/// x87, SSE, AVX and AVX-512: what fits the 4096 bytes of `kvm_xsave`.
const XCR0_USABLE: u64 = 0xe7;
const XCR0_AVX512: u64 = 0xe0;
const XCR0_AVX: u64 = 0x4;

const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_FMASK: u32 = 0xc000_0084;

/// Why there are no micro-VMs here.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The device cannot be opened.
    #[error("/dev/kvm cannot be opened: {source}")]
    Device {
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel's KVM lacks something.
    #[error("this kernel's KVM does not offer {missing}")]
    Lacks {
        /// What it lacks.
        missing: &'static str,
    },
    /// A call failed.
    #[error(transparent)]
    Failed(#[from] KvmError),
}

fn failed(doing: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError {
        doing,
        source: io::Error::from_raw_os_error(error.errno()),
    }
}

/// KVM.
pub struct Kvm {
    kvm: kvm_ioctls::Kvm,
    cpuid: CpuId,
    xcr0: u64,
    features: Vec<u8>,
}

impl Kvm {
    /// Opens `/dev/kvm` and looks whether it can do what is needed.
    pub fn open() -> Result<Self, Unavailable> {
        let kvm = kvm_ioctls::Kvm::new().map_err(|error| Unavailable::Device {
            source: io::Error::from_raw_os_error(error.errno()),
        })?;
        if kvm.get_api_version() != API_VERSION {
            let missing = "the stable interface";
            return Err(Unavailable::Lacks { missing });
        }
        for (cap, missing) in NEEDED {
            if !kvm.check_extension(cap) {
                return Err(Unavailable::Lacks { missing });
            }
        }
        let mut cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("tell what processors can do"))?;
        let xcr0 = restrict(&mut cpuid);
        let features = features(&cpuid, xcr0);
        Ok(Self {
            kvm,
            cpuid,
            xcr0,
            features,
        })
    }
}

/// Takes away what guests are not to have: counters, what a hypervisor offers its kernels, and
/// random numbers of the processor's: who draws some of those before it is frozen does so unseen.
/// Returns the vector state that guests may use.
fn restrict(cpuid: &mut CpuId) -> u64 {
    let mut xcr0 = 0;
    cpuid.retain(|entry| {
        let hypervisor = (LEAF_HYPERVISOR..=LEAF_HYPERVISOR_LAST).contains(&entry.function);
        !hypervisor && entry.function != LEAF_PMU && entry.function != LEAF_AMD_PMU
    });
    for entry in cpuid.as_mut_slice() {
        match (entry.function, entry.index) {
            (LEAF_FEATURES, _) => entry.ecx &= !ECX_RDRAND,
            (LEAF_MORE_FEATURES, 0) => entry.ebx &= !EBX_RDSEED,
            (LEAF_AMD_FEATURES, _) => entry.ecx &= !ECX_AMD_COUNTERS,
            (LEAF_XSTATE, 0) => xcr0 = u64::from(entry.edx) << 32 | u64::from(entry.eax),
            _ => {}
        }
    }
    usable_xcr0(xcr0)
}

fn usable_xcr0(offered: u64) -> u64 {
    let mut usable = offered & XCR0_USABLE;
    if usable & XCR0_AVX512 != XCR0_AVX512 || usable & XCR0_AVX == 0 {
        usable &= !XCR0_AVX512;
    }
    usable | 1
}

/// What an image depends on: every leaf but those that name the processor they were read on.
fn features(cpuid: &CpuId, xcr0: u64) -> Vec<u8> {
    // Ids of the processor in its package, in ebx of its features; of its topology, all over.
    const TOPOLOGY: [u32; 4] = [0xb, 0x1f, 0x8000_001e, 0x8000_0026];
    let mut bytes = xcr0.to_le_bytes().to_vec();
    for entry in cpuid.as_slice() {
        if TOPOLOGY.contains(&entry.function) {
            continue;
        }
        let ebx = if entry.function == LEAF_FEATURES {
            entry.ebx & 0xffff
        } else {
            entry.ebx
        };
        let words = [
            entry.function,
            entry.index,
            entry.eax,
            ebx,
            entry.ecx,
            entry.edx,
        ];
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
    bytes
}

impl Hypervisor for Kvm {
    fn vm(&self) -> Result<Box<dyn Vm>, KvmError> {
        let vm = self.kvm.create_vm().map_err(failed("make a machine"))?;
        deny_msrs(&vm)?;
        Ok(Box::new(KvmVm {
            vm,
            cpuid: self.cpuid.clone(),
            xcr0: self.xcr0,
        }))
    }

    fn features(&self) -> &[u8] {
        &self.features
    }
}

/// Guests run where no MSR can be touched; that their hypervisor would not let them either is a
/// second bolt. Kernels before 5.10 do not have it.
fn deny_msrs(vm: &VmFd) -> Result<(), KvmError> {
    if !vm.check_extension(Cap::X86MsrFilter) {
        return Ok(());
    }
    // The kernel takes no filter without ranges, so one register is denied by name.
    let denied = MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base: MSR_STAR,
        msr_count: 1,
        bitmap: &[0],
    };
    vm.set_msr_filter(MsrFilterDefaultAction::DENY, &[denied])
        .map_err(failed("close a machine's MSRs"))
}

struct KvmVm {
    vm: VmFd,
    cpuid: CpuId,
    xcr0: u64,
}

impl Vm for KvmVm {
    unsafe fn map(&self, slot: u32, guest: u64, host: *mut u8, bytes: u64) -> Result<(), KvmError> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: guest,
            memory_size: bytes,
            userspace_addr: host as u64,
        };
        // SAFETY: the caller vouches for the addresses, and no other slot has this number.
        unsafe { self.vm.set_user_memory_region(region) }
            .map_err(failed("give a machine its memory"))
    }

    fn vcpu(&self, number: u32) -> Result<Box<dyn Vcpu>, KvmError> {
        let mut fd = self
            .vm
            .create_vcpu(number.into())
            .map_err(failed("make a processor"))?;
        fd.set_cpuid2(&self.cpuid)
            .map_err(failed("tell a processor what it can do"))?;
        for registers in [
            SyncReg::Register,
            SyncReg::SystemRegister,
            SyncReg::VcpuEvents,
        ] {
            fd.set_sync_valid_reg(registers);
        }
        let page = RunPage::map(&fd, self.vm.run_size())?;
        let mut vcpu = KvmVcpu {
            fd,
            kick: Kick::of_page(page),
            regs: kvm_regs::default(),
            regs_set: true,
            has_run: false,
            xcr0: self.xcr0,
        };
        vcpu.begin(self.xcr0, number)?;
        Ok(Box::new(vcpu))
    }
}

/// The page that a processor shares with the kernel, mapped once more: the mapping that other
/// threads may touch.
#[derive(Debug)]
pub(super) struct RunPage {
    start: NonNull<u8>,
    bytes: usize,
}

impl RunPage {
    fn map(fd: &VcpuFd, bytes: usize) -> Result<Self, KvmError> {
        let doing = "map a processor's page";
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        let mapped = (start != libc::MAP_FAILED).then(|| NonNull::new(start.cast()));
        let start = mapped.flatten().ok_or_else(|| KvmError {
            doing,
            source: io::Error::last_os_error(),
        })?;
        Ok(Self { start, bytes })
    }

    pub fn immediate_exit(&self) -> *const AtomicU8 {
        let offset = std::mem::offset_of!(kvm_bindings::kvm_run, immediate_exit);
        self.start.as_ptr().wrapping_add(offset).cast_const().cast()
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` mapped; whoever holds the flag holds this.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

struct KvmVcpu {
    fd: VcpuFd,
    kick: Kick,
    /// As of the last exit, or as set since.
    regs: kvm_regs,
    /// Whether they were set since.
    regs_set: bool,
    /// Whether the page that it shares with the kernel holds its other registers.
    has_run: bool,
    xcr0: u64,
}

impl KvmVcpu {
    /// Sets what never changes again, and a state in which a guest may begin.
    fn begin(&mut self, xcr0: u64, number: u32) -> Result<(), KvmError> {
        let entry = |index, data| kvm_msr_entry {
            index,
            data,
            ..Default::default()
        };
        // The pages that calls are noted on belong to the first.
        let stub = if number == 0 { 0 } else { system::PLAIN_STUB };
        let entries = [
            entry(MSR_STAR, system::STAR),
            entry(MSR_LSTAR, layout::SYSCALL_STUB + stub),
            entry(MSR_FMASK, system::FMASK),
        ];
        let doing = "set up system calls";
        let msrs = Msrs::from_entries(&entries).map_err(|_| KvmError {
            doing,
            source: io::Error::from_raw_os_error(libc::ENOMEM),
        })?;
        let set = self.fd.set_msrs(&msrs).map_err(failed(doing))?;
        if set != entries.len() {
            return Err(KvmError {
                doing,
                source: io::Error::from_raw_os_error(libc::EINVAL),
            });
        }
        let mut xcrs = kvm_bindings::kvm_xcrs {
            nr_xcrs: 1,
            ..Default::default()
        };
        xcrs.xcrs[0].value = xcr0;
        self.fd
            .set_xcrs(&xcrs)
            .map_err(failed("set vector state"))?;
        let mut sregs = self.sregs()?;
        system::enter_user_mode(&mut sregs, number);
        self.set_sregs(&sregs)
    }

    fn io(&mut self) -> Exit {
        // SAFETY: the exit's reason says that this is the member that the kernel filled in.
        let io = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.io };
        Exit::Io(Io {
            out: u32::from(io.direction) == KVM_EXIT_IO_OUT,
            port: io.port,
            size: io.size,
            count: io.count,
        })
    }
}

impl Vectors for KvmVcpu {
    fn vectors(&mut self) -> Result<Box<[u32; XSAVE_WORDS]>, KvmError> {
        let xsave = self.fd.get_xsave();
        let xsave = xsave.map_err(failed("read vector registers"))?;
        Ok(Box::new(xsave.region))
    }

    fn set_vectors(&mut self, vectors: &[u32; XSAVE_WORDS]) -> Result<(), KvmError> {
        let xsave = kvm_bindings::kvm_xsave {
            region: *vectors,
            ..Default::default()
        };
        // SAFETY: without AMX, which `XCR0_USABLE` leaves out, the kernel reads no more than the
        // 4096 bytes that the structure has.
        unsafe { self.fd.set_xsave(&xsave) }.map_err(failed("set vector registers"))
    }

    fn vector_mask(&self) -> u64 {
        self.xcr0
    }
}

impl Vcpu for KvmVcpu {
    fn run(&mut self) -> Result<Exit, KvmError> {
        if self.regs_set {
            self.fd.sync_regs_mut().regs = self.regs;
            self.fd.set_sync_dirty_reg(SyncReg::Register);
            self.regs_set = false;
        }
        let failure = match self.fd.run() {
            Ok(VcpuExit::FailEntry(reason, _)) => Some(Exit::Failed(reason)),
            Ok(_) => None,
            Err(error) => match error.errno() {
                libc::EINTR | libc::EAGAIN => Some(Exit::Interrupted),
                libc::EFAULT => Some(Exit::Memory),
                _ => return Err(failed("run a guest")(error)),
            },
        };
        // Taken in by the run, whatever came of it.
        self.fd.get_kvm_run().kvm_dirty_regs = 0;
        self.regs = self.fd.sync_regs_mut().regs;
        self.has_run = true;
        if let Some(exit) = failure {
            return Ok(exit);
        }
        Ok(match self.fd.get_kvm_run().exit_reason {
            KVM_EXIT_IO => self.io(),
            KVM_EXIT_INTR => Exit::Interrupted,
            KVM_EXIT_HLT => Exit::Halt,
            KVM_EXIT_SHUTDOWN => Exit::Shutdown,
            KVM_EXIT_MMIO | KVM_EXIT_MEMORY_FAULT => Exit::Memory,
            KVM_EXIT_FAIL_ENTRY | KVM_EXIT_INTERNAL_ERROR => Exit::Failed(0),
            other => Exit::Other(other),
        })
    }

    fn regs(&self) -> &kvm_regs {
        &self.regs
    }

    fn regs_mut(&mut self) -> &mut kvm_regs {
        self.regs_set = true;
        &mut self.regs
    }

    fn sregs(&mut self) -> Result<kvm_sregs, KvmError> {
        let set = self.fd.get_kvm_run().kvm_dirty_regs & u64::from(KVM_SYNC_X86_SREGS) != 0;
        if set || self.has_run {
            return Ok(self.fd.sync_regs().sregs);
        }
        self.fd.get_sregs().map_err(failed("read segments"))
    }

    fn set_sregs(&mut self, sregs: &kvm_sregs) -> Result<(), KvmError> {
        self.fd.sync_regs_mut().sregs = *sregs;
        self.fd.set_sync_dirty_reg(SyncReg::SystemRegister);
        Ok(())
    }

    fn save(&mut self) -> Result<CpuState, KvmError> {
        let doing = "read a processor's state";
        Ok(CpuState {
            regs: self.regs,
            sregs: self.sregs()?,
            xsave: self.vectors()?.into(),
            xcrs: self.fd.get_xcrs().map_err(failed(doing))?,
            events: self.fd.get_vcpu_events().map_err(failed(doing))?,
        })
    }

    fn restore(&mut self, state: &CpuState) -> Result<(), KvmError> {
        let synced = self.fd.sync_regs_mut();
        let mut set = 0;
        // Setting what is so already costs the hypervisor as much as a change.
        if !self.has_run || synced.sregs != state.sregs {
            synced.sregs = state.sregs;
            set |= KVM_SYNC_X86_SREGS;
        }
        if !self.has_run || synced.events != state.events {
            synced.events = state.events;
            set |= KVM_SYNC_X86_EVENTS;
        }
        self.fd.get_kvm_run().kvm_dirty_regs |= u64::from(set);
        *self.regs_mut() = state.regs;
        Ok(())
    }

    fn kick(&self) -> &Kick {
        &self.kick
    }
}

#[cfg(test)]
mod tests {
    use kvm_bindings::kvm_cpuid_entry2;

    use super::*;

    #[test]
    fn guests_are_not_told_of_random_numbers_that_nobody_sees_them_draw() {
        let entry = |function, index| kvm_cpuid_entry2 {
            function,
            index,
            ebx: u32::MAX,
            ecx: u32::MAX,
            ..Default::default()
        };
        let entries = [entry(1, 0), entry(7, 0), entry(7, 1)];
        let mut cpuid = CpuId::from_entries(&entries).unwrap();
        restrict(&mut cpuid);
        let [one, seven, more] = cpuid.as_slice() else {
            panic!("{cpuid:?}")
        };
        assert_eq!((one.ecx, one.ebx), (!(1 << 30), u32::MAX));
        assert_eq!((seven.ebx, seven.ecx), (!(1 << 18), u32::MAX));
        assert_eq!(more.ebx, u32::MAX);
    }
}
