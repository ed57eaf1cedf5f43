//! Shells on KVM, where there is one, under the images of programs of a few instructions.

use std::time::Instant;

use memory::SlabConfig;

use super::*;
use crate::abi;
use crate::deploy::capture;
use crate::elf::{Elf, tests::file};
use crate::fault::Fault;
use crate::freestanding;
use crate::kvm::{CpuState, Kvm};
use crate::layout::PAGE;
use crate::linux::command;
use crate::machine::Stop;

const CODE: u64 = 0x40_1000;
const DATA: u64 = 0x40_2000;
/// `mov [rdi], rsi`, then a call.
const STORE: [u8; 5] = [0x48, 0x89, 0x37, 0xe7, 0xd0];
/// `mov rax, [rdi]`, then a call.
const LOAD: [u8; 5] = [0x48, 0x8b, 0x07, 0xe7, 0xd0];

fn shells() -> Option<Shells> {
    let slab = Slab::new(SlabConfig {
        ranges_max: 16,
        reservation_bytes: 1 << 30,
        guard_bytes: 0,
        idle_max: 0,
    });
    match Kvm::open() {
        Ok(kvm) => Some(Shells::new(Arc::new(kvm), slab, 0).unwrap()),
        Err(error) => {
            assert!(std::env::var_os("REQUIRE_KVM").is_none(), "{error}");
            eprintln!("left out, since there is no KVM: {error}");
            None
        }
    }
}

/// A program as it stands before its first instruction.
struct Frozen {
    image: Arc<Image>,
    space: Space,
    cpu: CpuState,
}

impl Frozen {
    fn new(shells: &Shells, code: &[u8], linux: bool) -> Self {
        let file = file(|file| file[0x1000..0x1000 + code.len()].copy_from_slice(code));
        let elf = Elf::parse(&file).unwrap();
        let mut machine = shells.make().unwrap();
        machine.grow_to(machine.covered()).unwrap();
        machine.space = Space::new(16 << 20);
        let memory = machine.memory().clone();
        machine.space.write_system(&memory).unwrap();
        let space = &mut machine.space;
        if linux {
            command::prepare(&memory, space, &elf, &file).unwrap();
        } else {
            freestanding::prepare(&memory, space, &elf, &file, abi::STACK_BYTES).unwrap();
        }
        machine.cpu.begin(CODE, abi::STACK_END).unwrap();
        machine.space.settle();
        Self {
            cpu: machine.cpu.save().unwrap(),
            image: Arc::new(capture(&machine).unwrap().freeze().unwrap()),
            space: machine.space.clone(),
        }
    }

    /// Over a shell, by copying if that is how it is done for this one.
    fn over(&self, shells: &Shells, shell: Machine) -> Machine {
        shells.0.ready.lock().push_back(shell);
        let overlay = shells.overlay(&self.image);
        let end = self.space.frames_end();
        let taken = shells.take(&self.image, overlay.as_ref(), end);
        let mut machine = taken.unwrap();
        assert_eq!(shells.ready(), 0);
        machine.become_image(&self.space, &self.cpu).unwrap();
        machine
    }

    /// Whether all memory is as in the image.
    fn is_in(&self, machine: &Machine) -> bool {
        let mut bytes = vec![0; machine.covered() as usize];
        machine.memory().read(0, &mut bytes).unwrap();
        let (head, rest) = bytes.split_at(self.image.bytes());
        head == self.image.contents() && rest.iter().all(|byte| *byte == 0)
    }
}

fn run(machine: &mut Machine, rdi: u64, rsi: u64) -> Stop {
    machine.cpu.begin(CODE, abi::STACK_END).unwrap();
    let regs = machine.cpu.regs_mut();
    (regs.rdi, regs.rsi) = (rdi, rsi);
    let until = Instant::now() + Duration::from_secs(20);
    machine.cpu.run(until).unwrap()
}

fn fault_of(stop: Stop) -> Fault {
    match stop {
        Stop::Fault(fault) => fault,
        other => panic!("no fault: {other:?}"),
    }
}

/// Data, zeros of the program, the stack's ends, the call page, and its buffers.
const WRITABLE: [u64; 7] = [
    DATA,
    DATA + PAGE,
    abi::STACK_END - 8,
    abi::STACK_END - abi::STACK_BYTES,
    abi::CALL_PAGE,
    abi::OUTPUT,
    abi::LOG,
];

#[test]
fn a_shell_becomes_one_guest_after_the_other_and_nothing_is_left_of_any() {
    let Some(shells) = shells() else { return };
    let programs = [&STORE, &LOAD].map(|code| Frozen::new(&shells, code, false));
    let [store, load] = &programs;
    for program in &programs {
        assert!(shells.overlay(&program.image).is_some());
    }
    let mut shell = shells.0.make_shell().unwrap().unwrap();
    for _ in 0..2 {
        let mut machine = store.over(&shells, shell);
        assert!(store.is_in(&machine));
        for round in 0..2 {
            for place in WRITABLE {
                assert!(matches!(
                    run(&mut machine, place, u64::MAX),
                    Stop::HostCall(_)
                ));
                assert_eq!(machine.view().read_u64(place), Ok(u64::MAX));
            }
            for place in [CODE, crate::layout::SYSCALL_STUB] {
                let fault = fault_of(run(&mut machine, place, u64::MAX));
                assert_eq!(fault.address, place, "round {round}: {fault}");
            }
            machine.reset(&store.space, &store.cpu).unwrap();
            assert!(store.is_in(&machine), "round {round}");
        }
        run(&mut machine, DATA, u64::MAX);
        let mut machine = shells.0.empty(machine).unwrap().unwrap();
        machine = load.over(&shells, machine);
        assert!(load.is_in(&machine));
        for place in WRITABLE {
            let Stop::HostCall(call) = run(&mut machine, place, 0) else {
                panic!("{place:#x} cannot be read");
            };
            assert_eq!(call.number, 0, "{place:#x}");
        }
        shell = shells.0.empty(machine).unwrap().unwrap();
    }
}

#[test]
fn what_a_shell_has_touched_is_not_there_for_a_guest_that_does_not_map_it() {
    let Some(shells) = shells() else { return };
    let program = Frozen::new(&shells, &LOAD, true);
    assert!(shells.overlay(&program.image).is_none());
    let shell = shells.0.make_shell().unwrap().unwrap();
    let mut machine = program.over(&shells, shell);
    assert!(program.is_in(&machine));
    assert!(matches!(run(&mut machine, DATA, 0), Stop::HostCall(_)));
    for place in [abi::STACK_END - 8, abi::CALL_PAGE] {
        let fault = fault_of(run(&mut machine, place, 0));
        assert_eq!(fault.address, place, "{fault}");
    }
}

#[test]
fn a_program_that_ends_where_its_stack_is_is_refused() {
    let Some(shells) = shells() else { return };
    let file = file(|file| {
        // The size in memory of the second segment.
        let at = 64 + 56 + 40;
        file[at..at + 8].copy_from_slice(&abi::STACK_END.to_le_bytes());
    });
    let elf = Elf::parse(&file).unwrap();
    let machine = shells.make().unwrap();
    let mut space = Space::new(u64::MAX);
    let prepared =
        freestanding::prepare(machine.memory(), &mut space, &elf, &file, abi::STACK_BYTES);
    assert!(prepared.unwrap_err().to_string().contains("its stack"));
}
