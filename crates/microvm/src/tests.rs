//! Machines with guests of a few instructions, on KVM where there is one.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use memory::{Access, ImageBuilder, REGION_UNIT_BYTES, Range, Region, Slab, SlabConfig};

use crate::fault::Fault;
use crate::kvm::fake::Fake;
use crate::kvm::{Exit, Hypervisor, Io, Kvm, kvm_regs};
use crate::layout::{FRAMES, PAGE, SYSCALL_STUB, USER_END, USER_START};
use crate::machine::{HostCall, Machine, Stop};
use crate::space::{Protection, Space};
use crate::system::GUEST_PORT;

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x50_0000;
const MEMORY_MAX: u64 = 64 << 20;

fn slab() -> &'static Slab {
    static SLAB: OnceLock<Slab> = OnceLock::new();
    SLAB.get_or_init(|| {
        Slab::new(SlabConfig {
            ranges_max: 64,
            reservation_bytes: 1 << 30,
            guard_bytes: 0,
            idle_max: 4,
        })
    })
}

/// KVM, or none where there is none and nobody insists.
fn kvm() -> Option<&'static Kvm> {
    static KVM: OnceLock<Option<Kvm>> = OnceLock::new();
    let open = || match Kvm::open() {
        Ok(kvm) => Some(kvm),
        Err(error) => {
            assert!(std::env::var_os("REQUIRE_KVM").is_none(), "{error}");
            eprintln!("left out, since there is no KVM: {error}");
            None
        }
    };
    KVM.get_or_init(open).as_ref()
}

fn range() -> Range {
    let image = Arc::new(ImageBuilder::new(0).freeze().unwrap());
    let range = slab().take(&image).unwrap();
    range.keep((FRAMES + (8 << 20)) as usize).unwrap();
    range
}

fn machine(hypervisor: &dyn Hypervisor) -> Machine {
    let range = range();
    let space = Space::new(MEMORY_MAX);
    space.write_system(&range).unwrap();
    Machine::new(hypervisor, range, FRAMES + (8 << 20), space).unwrap()
}

/// A machine with `code` at [`CODE`] and a page of data, about to begin.
fn machine_of(code: &[u8]) -> Option<Machine> {
    let mut machine = machine(kvm()?);
    machine.map(CODE, PAGE, Protection::READ_WRITE).unwrap();
    machine.view().write(CODE, code).unwrap();
    machine
        .protect(CODE, PAGE, Protection::READ_EXECUTE)
        .unwrap();
    machine.map(DATA, PAGE, Protection::READ_WRITE).unwrap();
    machine.cpu.begin(CODE, DATA + PAGE).unwrap();
    Some(machine)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn run(machine: &mut Machine) -> Stop {
    machine.cpu.run(soon()).unwrap()
}

fn fault(stop: Stop) -> Fault {
    match stop {
        Stop::Fault(fault) => fault,
        other => panic!("no fault: {other:?}"),
    }
}

/// `out GUEST_PORT, eax`.
const OUT: [u8; 2] = [0xe7, 0xd0];
/// `mov rax, [rdi]`, then the call.
const LOAD: [u8; 5] = [0x48, 0x8b, 0x07, 0xe7, 0xd0];
/// `mov [rdi], rsi`, then the call.
const STORE: [u8; 5] = [0x48, 0x89, 0x37, 0xe7, 0xd0];

#[test]
fn a_host_call_takes_arguments_and_gives_a_result() {
    let mut code = OUT.to_vec();
    code.extend([0x48, 0x89, 0xc7]); // mov rdi, rax
    code.extend(OUT);
    let Some(mut machine) = machine_of(&code) else {
        return;
    };
    let regs = machine.cpu.regs_mut();
    (regs.rax, regs.rdi, regs.rsi, regs.rdx) = (7, 1, 2, 3);
    (regs.r10, regs.r8, regs.r9) = (4, 5, 6);
    let expected = HostCall {
        number: 7,
        args: [1, 2, 3, 4, 5, 6],
    };
    assert_eq!(run(&mut machine), Stop::HostCall(expected));
    machine.cpu.finish(99);
    let Stop::HostCall(call) = run(&mut machine) else {
        panic!("no call")
    };
    assert_eq!(call.args[0], 99);
}

#[test]
fn a_system_call_comes_out_and_goes_on_where_it_was_made() {
    let mut code = vec![0x0f, 0x05, 0x48, 0x89, 0xc7]; // syscall; mov rdi, rax
    code.extend(OUT);
    let Some(mut machine) = machine_of(&code) else {
        return;
    };
    for _ in 0..2 {
        machine.cpu.begin(CODE, DATA + PAGE).unwrap();
        let regs = machine.cpu.regs_mut();
        (regs.rax, regs.rdi) = (39, 5);
        assert_eq!(run(&mut machine), Stop::Syscall);
        let regs = machine.cpu.regs();
        assert_eq!((regs.rax, regs.rdi, regs.rcx), (39, 5, CODE + 2));
        machine.cpu.finish_syscall(1234).unwrap();
        let Stop::HostCall(call) = run(&mut machine) else {
            panic!("no call")
        };
        assert_eq!(call.args[0], 1234);
    }
}

#[test]
fn vector_registers_are_those_of_the_state_that_was_restored() {
    // movq rdi, xmm0; out 0xd0, eax; movq xmm0, rsi; jmp to the start.
    const SWAPS: [u8; 14] = [
        0x66, 0x48, 0x0f, 0x7e, 0xc7, 0xe7, 0xd0, 0x66, 0x48, 0x0f, 0x6e, 0xc6, 0xeb, 0xf2,
    ];
    const XMM0: usize = 40;
    let Some(mut machine) = machine_of(&SWAPS) else {
        return;
    };
    let found = |machine: &mut Machine| match run(machine) {
        Stop::HostCall(call) => call.args[0],
        other => panic!("{other:?}"),
    };
    let set = |machine: &mut Machine, to| {
        machine.cpu.regs_mut().rsi = to;
        found(machine)
    };
    found(&mut machine);
    assert_eq!(set(&mut machine, 0x1111), 0x1111);
    let saved = machine.cpu.save().unwrap();
    for round in 0..3 {
        assert_eq!(set(&mut machine, 0x2222), 0x2222);
        machine.cpu.restore(&saved).unwrap();
        if round == 1 {
            assert_eq!(machine.cpu.vectors().unwrap()[XMM0], 0x1111);
        }
        machine.cpu.begin(CODE, DATA + PAGE).unwrap();
        machine.cpu.regs_mut().rax = 0x77;
        let Stop::HostCall(call) = run(&mut machine) else {
            panic!("no call")
        };
        assert_eq!((call.args[0], call.number), (0x1111, 0x77), "{round}");
    }
    machine.cpu.restore(&saved).unwrap();
    assert_eq!(machine.cpu.save().unwrap().xsave[XMM0], 0x1111);
}

#[test]
fn every_forbidden_access_is_a_fault_that_says_which() {
    let Some(mut machine) = machine_of(&LOAD) else {
        return;
    };
    machine.view().check(CODE, 5, Protection::READ).unwrap();
    let stub = SYSCALL_STUB;
    for address in [
        0,
        8,
        USER_START,
        DATA - 1,
        DATA + PAGE,
        USER_END,
        stub - PAGE,
        stub - 5 * PAGE,
        1 << 40,
        1 << 46,
    ] {
        machine.cpu.begin(CODE, DATA + PAGE).unwrap();
        machine.cpu.regs_mut().rdi = address;
        let fault = fault(run(&mut machine));
        assert!(
            fault.is_page() && !fault.is_write(),
            "{address:#x}: {fault}"
        );
        assert_eq!((fault.address, fault.rip), (address, CODE));
    }
}

#[test]
fn code_and_the_stub_cannot_be_written_and_data_not_executed() {
    let Some(mut machine) = machine_of(&STORE) else {
        return;
    };
    for address in [CODE, SYSCALL_STUB] {
        machine.cpu.begin(CODE, DATA + PAGE).unwrap();
        machine.cpu.regs_mut().rdi = address;
        let fault = fault(run(&mut machine));
        assert!(fault.is_write(), "{address:#x}: {fault}");
    }
    machine.cpu.begin(DATA, DATA + PAGE).unwrap();
    let fault = fault(run(&mut machine));
    assert!(fault.is_fetch() && fault.rip == DATA, "{fault}");
}

#[test]
fn what_is_privileged_is_a_fault() {
    let privileged: [&[u8]; 12] = [
        &[0xf4],             // hlt
        &[0xfa],             // cli
        &[0x0f, 0x30],       // wrmsr
        &[0x0f, 0x32],       // rdmsr
        &[0x0f, 0x20, 0xc0], // mov rax, cr0
        &[0x0f, 0x22, 0xd8], // mov cr3, rax
        &[0x0f, 0x01, 0x17], // lgdt [rdi]
        &[0x0f, 0x01, 0x1f], // lidt [rdi]
        &[0x0f, 0x00, 0xd8], // ltr ax
        &[0xe7, 0xd8],       // out 0xd8, eax: the port of fault stubs
        &[0xe7, 0x80],       // out 0x80, eax
        &[0x0f, 0x33],       // rdpmc
    ];
    for code in privileged {
        let Some(mut machine) = machine_of(code) else {
            return;
        };
        let fault = fault(run(&mut machine));
        assert!(matches!(fault.vector, 6 | 13), "{code:x?}: {fault}");
        assert_eq!(fault.rip, CODE, "{code:x?}");
    }
}

#[test]
fn a_port_is_used_as_it_is_offered_or_the_machine_ends() {
    let misused: [&[u8]; 4] = [
        &[0xe6, 0xd0],       // out 0xd0, al
        &[0x66, 0xe7, 0xd0], // out 0xd0, ax
        &[0xe5, 0xd0],       // in eax, 0xd0
        &[0xf3, 0x6f],       // rep outsd
    ];
    for code in misused {
        let Some(mut machine) = machine_of(code) else {
            return;
        };
        let regs = machine.cpu.regs_mut();
        (regs.rdx, regs.rcx, regs.rsi) = (u64::from(GUEST_PORT), u64::MAX, DATA);
        let stop = run(&mut machine);
        // A repeated write may come one by one, each then as good as a call.
        if code[0] == 0xf3 && matches!(stop, Stop::HostCall(_)) {
            continue;
        }
        assert!(matches!(stop, Stop::Broken(_)), "{code:x?}: {stop:?}");
        assert!(matches!(run(&mut machine), Stop::Broken(_)));
    }
}

#[test]
fn a_guest_that_loops_is_stopped_at_its_deadline_and_goes_on_if_asked() {
    let Some(mut machine) = machine_of(&[0xeb, 0xfe]) else {
        return;
    };
    for _ in 0..3 {
        let begun = Instant::now();
        let until = begun + Duration::from_millis(20);
        assert_eq!(machine.cpu.run(until).unwrap(), Stop::Deadline);
        assert!(begun.elapsed() >= Duration::from_millis(19));
    }
}

#[test]
fn changes_of_the_space_are_seen_at_once() {
    let Some(mut machine) = machine_of(&STORE) else {
        return;
    };
    let place = DATA + 16 * PAGE;
    let store = |machine: &mut Machine| {
        machine.cpu.begin(CODE, DATA + PAGE).unwrap();
        let regs = machine.cpu.regs_mut();
        (regs.rdi, regs.rsi) = (place, 0x5151);
        run(machine)
    };
    for _ in 0..3 {
        assert!(fault(store(&mut machine)).is_write());
        machine.map(place, PAGE, Protection::READ_WRITE).unwrap();
        assert_eq!(machine.view().read_u64(place), Ok(0));
        assert!(matches!(store(&mut machine), Stop::HostCall(_)));
        assert_eq!(machine.view().read_u64(place), Ok(0x5151));
        machine.protect(place, PAGE, Protection::READ).unwrap();
        assert!(fault(store(&mut machine)).is_write());
        assert!(machine.view().write(place, b"no").is_err());
        machine
            .protect(place, PAGE, Protection::READ_WRITE)
            .unwrap();
        assert!(matches!(store(&mut machine), Stop::HostCall(_)));
        machine.unmap(place, PAGE).unwrap();
    }
}

#[test]
fn a_reset_undoes_memory_registers_and_mappings() {
    let Some(mut machine) = machine_of(&STORE) else {
        return;
    };
    machine.space.settle();
    let cpu = machine.cpu.save().unwrap();
    // A machine over an image of itself, as a program makes them.
    let mut bytes = vec![0; machine.space.frames_end() as usize];
    machine.memory().read(0, &mut bytes).unwrap();
    let image = Arc::new(ImageBuilder::of_memory(&bytes).freeze().unwrap());
    let space = machine.space.clone();
    let range = slab().take(&image).unwrap();
    let kept = image.bytes() as u64 + (1 << 20);
    range.keep(kept as usize).unwrap();
    let mut machine = Machine::new(kvm().unwrap(), range, kept, space.clone()).unwrap();
    machine.reset(&space, &cpu).unwrap();
    let far = DATA + (32 << 20);
    for round in 0..3 {
        for (place, bytes) in [(DATA + PAGE, PAGE), (far, 4 << 20)] {
            machine.map(place, bytes, Protection::READ_WRITE).unwrap();
        }
        for place in [DATA, DATA + PAGE, far + (3 << 20)] {
            assert_eq!(machine.view().read_u64(place), Ok(0), "round {round}");
            machine.cpu.begin(CODE, DATA + PAGE).unwrap();
            let regs = machine.cpu.regs_mut();
            (regs.rdi, regs.rsi) = (place, u64::MAX);
            assert!(matches!(run(&mut machine), Stop::HostCall(_)), "{place:#x}");
        }
        machine.reset(&space, &cpu).unwrap();
        assert_eq!(machine.cpu.regs().rip, CODE);
        assert_eq!(machine.view().read_u64(DATA), Ok(0));
        for place in [DATA + PAGE, far + (3 << 20)] {
            machine.cpu.regs_mut().rdi = place;
            let fault = fault(run(&mut machine));
            assert_eq!(fault.address, place, "round {round}: {fault}");
            machine.reset(&space, &cpu).unwrap();
        }
    }
}

#[test]
fn two_machines_share_the_bytes_of_a_region() {
    let (Some(mut one), Some(mut two)) = (machine_of(&STORE), machine_of(&LOAD)) else {
        return;
    };
    let region = Arc::new(Region::new(REGION_UNIT_BYTES).unwrap());
    region.grow_to(REGION_UNIT_BYTES).unwrap();
    let place = DATA + (16 << 20);
    for machine in [&mut one, &mut two] {
        machine
            .map_region(place, &region, 0, REGION_UNIT_BYTES, Access::Write)
            .unwrap();
        machine.cpu.begin(CODE, DATA + PAGE).unwrap();
        machine.cpu.regs_mut().rdi = place + 40;
    }
    one.cpu.regs_mut().rsi = 4242;
    assert!(matches!(run(&mut one), Stop::HostCall(_)));
    assert!(matches!(run(&mut two), Stop::HostCall(_)));
    assert_eq!(two.cpu.regs().rax, 4242);
}

#[test]
fn exits_that_no_guest_should_cause_break_the_machine_for_good() {
    let odd = [
        Exit::Shutdown,
        Exit::Failed(7),
        Exit::Halt,
        Exit::Memory,
        Exit::Other(99),
    ];
    for exit in odd {
        let fake = Fake::default();
        let mut machine = machine(&fake);
        fake.leaves(exit, kvm_regs::default());
        assert!(matches!(run(&mut machine), Stop::Broken(_)), "{exit:?}");
        assert!(machine.cpu.is_broken());
    }
}

#[test]
fn a_fault_stub_that_was_not_entered_by_a_fault_breaks_the_machine() {
    let fake = Fake::default();
    let mut machine = machine(&fake);
    let io = Io {
        out: true,
        port: crate::system::FAULT_PORT,
        size: 4,
        count: 1,
    };
    for rsp in [
        0,
        8,
        DATA,
        u64::MAX,
        crate::layout::to_virtual(crate::layout::FAULT_STACK),
    ] {
        let rip = crate::layout::to_virtual(crate::layout::FAULT_STUBS) + 14 * 16 + 2;
        fake.leaves(
            Exit::Io(io),
            kvm_regs {
                rip,
                rsp,
                ..Default::default()
            },
        );
        assert!(matches!(run(&mut machine), Stop::Broken(_)), "{rsp:#x}");
        machine = self::machine(&fake_again(&fake));
    }
}

/// The same script for a new machine, whose slots begin anew.
fn fake_again(fake: &Fake) -> Fake {
    fake.forget_slots();
    fake.clone()
}

#[test]
fn a_system_call_that_left_the_level_of_its_guest_returns_by_itself() {
    let io = Io {
        out: true,
        port: GUEST_PORT,
        size: 4,
        count: 1,
    };
    for (level, rip) in [(0, SYSCALL_STUB), (3, CODE + 2)] {
        let fake = Fake::default();
        let mut machine = machine(&fake);
        let regs = kvm_regs {
            rip: SYSCALL_STUB,
            rcx: CODE + 2,
            ..Default::default()
        };
        fake.leaves(Exit::Io(io), regs);
        assert_eq!(run(&mut machine), Stop::Syscall);
        fake.set_level(level);
        machine.cpu.finish_syscall(5).unwrap();
        assert_eq!((machine.cpu.regs().rip, machine.cpu.regs().rax), (rip, 5));
    }
}

#[test]
fn memory_that_grows_past_its_slot_gets_another() {
    let fake = Fake::default();
    let mut machine = machine(&fake);
    machine.map(DATA, 32 << 20, Protection::READ_WRITE).unwrap();
    let slots = fake.slots();
    assert_eq!(slots.len(), 2);
    assert_eq!(slots[0].0 + slots[0].1, slots[1].0);
    assert!(
        machine
            .map(DATA, MEMORY_MAX + PAGE, Protection::READ_WRITE)
            .is_err()
    );
}
