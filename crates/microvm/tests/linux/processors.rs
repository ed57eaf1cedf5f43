//! Processors of one machine, without a program: what each has of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use memory::ImageBuilder;
use microvm::machine::{Cpu, Machine, MachineError, Stop};
use microvm::space::{Protection, Space};

use crate::support::{kvm, slab};

const CODE: u64 = 0x40_0000;
const STACKS: u64 = 0x50_0000;
const PAGE: u64 = 4096;
const BYTES: u64 = 32 << 20;
/// Processors beside the first.
const OTHERS: u64 = 3;

/// A machine whose guest is `code`, with as many processors more.
fn machine_of(code: &[u8]) -> Option<(Machine, Vec<Cpu>)> {
    let image = Arc::new(ImageBuilder::new(0).freeze().unwrap());
    let range = slab().take(&image).unwrap();
    range.keep(BYTES as usize).unwrap();
    let space = Space::new(1 << 20);
    space.write_system(&range).unwrap();
    let mut machine = Machine::new(kvm()?, range, BYTES, space).unwrap();
    machine.map(CODE, PAGE, Protection::READ_WRITE).unwrap();
    machine.view().write(CODE, code).unwrap();
    machine
        .protect(CODE, PAGE, Protection::READ_EXECUTE)
        .unwrap();
    machine
        .map(STACKS, OTHERS * PAGE, Protection::READ_WRITE)
        .unwrap();
    let others = (0..OTHERS).map(|_| machine.add_cpu().unwrap()).collect();
    Some((machine, others))
}

fn run(cpu: &mut Cpu) -> Stop {
    cpu.run(Instant::now() + Duration::from_secs(60)).unwrap()
}

/// Does `what` on all processors but the first at once.
fn on_all(cpus: &mut [Cpu], what: impl Fn(u64, &mut Cpu) + Sync) {
    std::thread::scope(|scope| {
        for (number, cpu) in cpus.iter_mut().enumerate() {
            let what = &what;
            scope.spawn(move || what(number as u64, cpu));
        }
    });
}

#[test]
fn each_tells_its_own_faults() {
    // mov [rdi], rsi
    let Some((_machine, mut cpus)) = machine_of(&[0x48, 0x89, 0x37]) else {
        return;
    };
    on_all(&mut cpus, |number, cpu| {
        for round in 0..500 {
            let (address, rsp) = ((number << 12) + round, STACKS + (number + 1) * PAGE);
            cpu.begin(CODE, rsp).unwrap();
            cpu.regs_mut().rdi = address;
            let Stop::Fault(fault) = run(cpu) else {
                panic!("no fault")
            };
            assert_eq!((fault.address, fault.rip, fault.rsp), (address, CODE, rsp));
        }
    });
}

#[test]
fn each_makes_its_own_system_calls() {
    // syscall; jmp back to it.
    let Some((_machine, mut cpus)) = machine_of(&[0x0f, 0x05, 0xeb, 0xfc]) else {
        return;
    };
    on_all(&mut cpus, |number, cpu| {
        cpu.begin(CODE, STACKS + PAGE).unwrap();
        // A `write` to descriptor 1, which the first processor may be answered where it is.
        (cpu.regs_mut().rax, cpu.regs_mut().rdi) = (1, 1);
        for round in 0..500 {
            assert_eq!(run(cpu), Stop::Syscall);
            let expected = if round == 0 { 1 } else { number + round };
            assert_eq!(cpu.regs().rax, expected);
            assert_eq!((cpu.regs().rcx, cpu.regs().rdi), (CODE + 2, 1));
            cpu.finish_syscall(number + round + 1).unwrap();
        }
    });
}

#[test]
fn none_reaches_another_port() {
    // out 0xd4, eax
    let Some((_machine, mut cpus)) = machine_of(&[0xe7, 0xd4]) else {
        return;
    };
    on_all(&mut cpus, |_, cpu| {
        cpu.begin(CODE, STACKS + PAGE).unwrap();
        let Stop::Fault(fault) = run(cpu) else {
            panic!("no fault")
        };
        assert_eq!(fault.vector, 13);
    });
}

#[test]
fn there_are_no_more_than_there_may_be() {
    let Some((mut machine, mut cpus)) = machine_of(&[0xf4]) else {
        return;
    };
    let refused = loop {
        match machine.add_cpu() {
            Ok(cpu) => cpus.push(cpu),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, MachineError::Processors), "{refused}");
    assert_eq!(cpus.len(), 15);
}
